"""What a user would take instead, on the same pictures and cores: the usual pipeline, and a
network of DOPE's size.

python test/versus.py [BUNDLE] [--threads N]

The usual pipeline: a cv_bridge-like conversion, the same network with the same weights in eager
torch, the highest pixel of every map, OpenCV's solvePnPRansac. Both sides get the true box with
the same error, one look a picture, and no locator. DOPE (Tremblay et al., CoRL 2018): VGG-19 up to
the tenth convolution, six stages of 9 belief and 16 affinity maps, 400 x 400, random weights: its
time does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import onnxruntime as ort
import torch
from demo_film import CHECKOUT, demo_film
from torch import Tensor, nn

from pose_node.cli.truth import Frame
from pose_node.core import metrics
from pose_node.core.camera import Camera
from pose_node.core.geometry import make_pose
from pose_node.core.mesh import read_ply
from pose_node.ros.pictures import decode_compressed
from pose_node.runtime.backends import EngineOptions
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Region, crop, map_to_picture
from training.nets.unet import HeatmapUNet
from training.steps.start import bundle_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pose_node.core.bundle import Bundle

_HALF_SEEN = 0.5
_BOX_ERROR = 0.05  # of the box, standard deviation of its centre and size


class Usual:
    """The pipeline that most projects have."""

    def __init__(self, bundle: Bundle, camera: Camera) -> None:
        self.spec, self.camera = bundle.pose_network, camera
        self.points_obj = bundle.objects[0].keypoints_obj_m
        self.network = HeatmapUNet(len(self.points_obj))
        self.network.load_state_dict(bundle_weights(bundle, 'pose'), strict=False)
        self.network.eval()
        self.mean = torch.tensor(self.spec.mean)[:, None, None]
        self.std = torch.tensor(self.spec.std)[:, None, None]

    def __call__(self, message: Any, region: Region) -> np.ndarray | None:
        bgr = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        picture = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        part, A = crop(picture, region, self.spec.input_size, self.spec.region_scale)
        x = torch.from_numpy(part).permute(2, 0, 1).float()
        with torch.inference_mode():
            maps = self.network.maps(((x - self.mean) / self.std)[None])[0].numpy()
        at = maps.reshape(len(maps), -1).argmax(axis=1)
        confident = maps.max(axis=(1, 2)) >= self.spec.threshold * maps.max()
        B = map_to_picture(A, self.spec.stride)
        points_px = np.stack((at % maps.shape[2], at // maps.shape[2]), axis=1) @ B[:, :2].T
        points_px += B[:, 2]
        if confident.sum() < 4:
            return None
        ok, rotvec, t, _ = cv2.solvePnPRansac(
            self.points_obj[confident], points_px[confident], self.camera.K,
            np.array(self.camera.D), reprojectionError=8.0,
        )  # fmt: skip
        return make_pose(cv2.Rodrigues(rotvec)[0], t[:, 0]) if ok else None


class Ours:
    """The estimator, with one look, and as the keypoints have it."""

    def __init__(self, bundle: Bundle, camera: Camera, threads: int, *, int8: bool) -> None:
        self.camera = camera
        engines = EngineOptions(precision='int8' if int8 else 'fp32')
        options = EstimatorOptions(
            second_look=2.0, threads=threads, contour=False, engines=engines
        )
        self.estimator = PoseEstimator(bundle, 'openvino' if int8 else 'onnx', options)

    def __call__(self, message: Any, region: Region) -> np.ndarray | None:
        result = self.estimator(decode_compressed(message), self.camera, regions=[region])
        found = [pose for pose in (*result.poses, *result.rejected) if pose.stands]
        return found[0].T_cam_obj if found else None


def on_the_bag(bundle: Bundle, threads: int) -> None:
    """Both pipelines in turn on every picture that shows half of the object or more."""
    frames, files, camera = demo_film()
    thing, rng = bundle.objects[0], np.random.default_rng(0)
    assert thing.mesh is not None
    vertices_m = read_ply(bundle.read(thing.mesh)).vertices
    torch.set_num_threads(threads)
    pipelines: dict[str, Callable[[Any, Region], np.ndarray | None]] = {
        'usual': Usual(bundle, camera),
        'ours': Ours(bundle, camera, threads, int8=False),
        'ours, int8 by OpenVINO': Ours(bundle, camera, threads, int8=True),
    }  # fmt: skip
    ms: dict[str, list[float]] = {name: [] for name in pipelines}
    add: dict[str, list[float]] = {name: [] for name in pipelines}
    for frame, file in zip(frames, files, strict=True):
        if frame.visible < _HALF_SEEN or frame.T_cam_obj is None:
            continue
        region = _box(frame, thing.keypoints_obj_m, camera, thing.name, rng)
        for name, pipeline in pipelines.items():
            start = time.perf_counter()
            T = pipeline(file, region)
            ms[name].append(1e3 * (time.perf_counter() - start))
            found = np.inf if T is None else metrics.add(T, frame.T_cam_obj, vertices_m)
            add[name].append(found / thing.diameter_m)
    print(f'{len(ms["ours"])} pictures, {threads} threads | p50 ms | p90 | ADD 0.1d | 0.05d')
    for name in pipelines:
        p50, p90 = np.percentile(ms[name][5:], (50, 90))
        shares = [100.0 * np.mean(np.array(add[name]) < limit) for limit in (0.1, 0.05)]
        print(f'{name} | {p50:.1f} | {p90:.1f} | {shares[0]:.1f} % | {shares[1]:.1f} %')
    for name in list(pipelines)[1:]:
        ratio = np.median(np.array(ms['usual'][5:]) / np.array(ms[name][5:]))
        print(f'usual / {name}, median of the pictures: {ratio:.2f}')


def _box(
    frame: Frame, points_obj: np.ndarray, camera: Camera, name: str, rng: np.random.Generator
) -> Region:
    """The box round the keypoints, as a detector that is a little wrong would have it."""
    assert frame.T_cam_obj is not None
    points_px = camera.project(points_obj @ frame.T_cam_obj[:3, :3].T + frame.T_cam_obj[:3, 3])
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    size = high - low
    center = (low + high) / 2.0 + _BOX_ERROR * size * rng.standard_normal(2)
    width, height = (size * np.exp(_BOX_ERROR * rng.standard_normal(2))).tolist()
    return Region(name, (float(center[0]), float(center[1])), (width, height))


class Dope(nn.Module):
    """The shapes of DOPE's network."""

    def __init__(self, beliefs: int = 9, affinities: int = 16) -> None:
        super().__init__()
        channels = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512)  # 0: halve
        self.features = nn.Sequential(*_plain(3, channels), *_plain(512, (256, 128)))
        first, later = 128, 128 + beliefs + affinities
        self.stages = nn.ModuleList(
            nn.ModuleList(_stage(inputs, maps, wide=i > 0) for maps in (beliefs, affinities))
            for i, inputs in enumerate((first, *(later,) * 5))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        x = features
        for belief, affinity in self.stages:  # type: ignore[misc]
            beliefs, affinities = belief(x), affinity(x)
            x = torch.cat((beliefs, affinities, features), dim=1)
        return beliefs, affinities


def _plain(inputs: int, channels: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for outputs in channels:
        if outputs == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        inputs = outputs
    return layers


def _stage(inputs: int, outputs: int, *, wide: bool) -> nn.Sequential:
    """Three convolutions of 3 x 3, or five of 7 x 7; then two of 1 x 1."""
    count, kernel, last = (5, 7, 128) if wide else (3, 3, 512)
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(inputs, 128, kernel, padding=kernel // 2), nn.ReLU()]
        inputs = 128
    return nn.Sequential(*layers, nn.Conv2d(128, last, 1), nn.ReLU(), nn.Conv2d(last, outputs, 1))


def dopes_size(threads: int, repeats: int) -> None:
    """Frames a second of a network of DOPE's size, by torch and by ONNX Runtime."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    network, picture = Dope().eval(), torch.randn(1, 3, 400, 400)
    weights = sum(each.numel() for each in network.parameters())
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        beliefs, affinities = network(picture)
        assert beliefs.shape == (1, 9, 50, 50) and affinities.shape == (1, 16, 50, 50)
        file = Path(folder) / 'dope.onnx'
        torch.onnx.export(network, (picture,), file, opset_version=17, dynamo=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(file, options, providers=['CPUExecutionProvider'])
        inputs = {session.get_inputs()[0].name: picture.numpy()}
        by_torch = _seconds(lambda: network(picture), repeats)
        by_onnx = _seconds(lambda: session.run(None, inputs), repeats)
    print(f"network of DOPE's size ({weights / 1e6:.0f} million weights), {threads} threads: "
          f'torch {by_torch:.2f} s, ONNX Runtime {by_onnx:.2f} s a picture')  # fmt: skip


def _seconds(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundle', nargs='?', type=Path, default=CHECKOUT / 'bundles' / 'drill')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=5, help='of the large network')
    options = parser.parse_args()
    from pose_node.core.bundle import Bundle

    on_the_bag(Bundle.load(options.bundle), options.threads)
    dopes_size(options.threads, options.repeats)


if __name__ == '__main__':
    main()
