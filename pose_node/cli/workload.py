"""What `pose benchmark` gives an estimator to do: the demo's pictures where they show the bundle's
object, pictures of noise elsewhere, and work that grows along one axis at a time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pose_node.core import heatmap
from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import apply, exp_so3, make_pose
from pose_node.core.pnp import solve_pnp
from pose_node.ros.parameters import Parameters
from pose_node.ros.pictures import decode_compressed
from pose_node.ros.tracking import Tracks
from pose_node.runtime.backends import EngineOptions
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Region

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pose_node.core.bundle import Bundle

_SIZE = (640, 480)
_SIGMA_PX = 1.0  # of heatmaps, px
_PERIOD_NS = 33_000_000  # between pictures of noise
STAGES = ('read', 'track', 'locate', 'preprocess', 'network', 'heatmaps', 'pnp', 'align', 'all')


@dataclass(frozen=True)
class Film:
    """Compressed pictures of one camera."""

    files: list[bytes]
    stamps_ns: list[int]
    camera: Camera
    source: str  # in words


def film_for(bundle: Bundle, bag: Path | None, rng: np.random.Generator, most: int) -> Film:
    """Pictures of the bundle's object from a bag, or noise where there is no bag of it."""
    if bag is not None and bag.is_dir():
        from pose_node.ros.bagfile import BagReader

        from .truth import DETECTIONS_TOPIC

        with BagReader(bag) as reader:
            shown = {
                each.results[0].hypothesis.class_id
                for _, message in reader.messages([DETECTIONS_TOPIC])
                for each in message.detections
            }
            if shown & {each.name for each in bundle.objects}:
                topics = ['/camera/image_raw/compressed', '/camera/camera_info']
                messages = [message for _, message in reader.messages(topics)]
                shots = [each for each in messages if hasattr(each, 'format')][:most]
                stamps = [each.header.stamp for each in shots]
                info = next(each for each in messages if hasattr(each, 'k'))
                K, size = np.array(info.k).reshape(3, 3), (info.width, info.height)
                camera = Camera(K, size, info.distortion_model, tuple(info.d))
                return Film(
                    [bytes(each.data) for each in shots],
                    [stamp.sec * 1_000_000_000 + stamp.nanosec for stamp in stamps],
                    camera,
                    f'{len(shots)} pictures of {bag.name}',
                )
    K = np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
    files = [_jpeg(noise_picture(rng, _SIZE)) for _ in range(min(most, 30))]
    stamps = [number * _PERIOD_NS for number in range(len(files))]
    return Film(files, stamps, Camera(K, _SIZE), f'{len(files)} pictures of noise')


def noise_picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Soft noise (H, W, 3) of all scales, about as hard to decompress as a photograph."""
    picture = np.zeros((size[1], size[0], 3))
    for scale in (1, 8, 64):
        small = rng.random((size[1] // scale + 1, size[0] // scale + 1, 3))
        picture += cv2.resize(small, size, interpolation=cv2.INTER_LINEAR) * (
            0.1 if scale == 1 else 0.45
        )
    return (255.0 * picture).astype(np.uint8)


def stages(estimator: PoseEstimator, film: Film, *, track: bool) -> list[dict[str, float]]:
    """Milliseconds of every stage of every picture; tracked as the node does, or each picture for
    itself.
    """
    tracks = Tracks({each.name: each.symmetries for each in estimator.bundle.objects})
    parameters = Parameters(track=track)
    alone = None if estimator.locator else _middle(estimator, film.camera)
    rows = []
    for stamp_ns, file in zip(film.stamps_ns, film.files):
        start = time.perf_counter()
        picture = read(file)
        decoded = time.perf_counter()
        regions, boxes = alone, []
        if track:
            expected, locate = tracks.expect('', stamp_ns, parameters)
            places = [(each.object, each.motion.T_ref_obj) for each in expected]
            found = [estimator.region_at(*place, film.camera) for place in places]
            boxes = [box for box in found if box is not None]
            regions = alone if locate or not boxes else []
        predicted = time.perf_counter()
        result = estimator(picture, film.camera, stamp_ns, regions, boxes)
        estimated = time.perf_counter()
        if track:
            tracks.update('', result.poses)
        end = time.perf_counter()
        times = {'heatmaps' if k == 'decode' else k: v for k, v in result.stage_ms.items()}
        rows.append({
            'read': 1e3 * (decoded - start),
            'track': 1e3 * (predicted - decoded + end - estimated),
            **times,
            'all': 1e3 * (end - start),
        })  # fmt: skip
    return rows


def read(file: bytes) -> np.ndarray:
    """A compressed picture as the node reads it."""
    return decode_compressed(SimpleNamespace(format='jpeg', data=file))


def by_regions(
    bundle: Bundle,
    film: Film,
    backend: str,
    how: EstimatorOptions,
    counts: Sequence[int],
    repeats: int,
) -> list[dict[str, float]]:
    """Medians with so many regions in one picture, of all objects in turn, each looked at once."""
    options = replace(how, max_objects=max(counts), second_look=2.0)
    picture = read(film.files[len(film.files) // 2])
    rows = []
    with PoseEstimator(bundle, backend, options) as estimator:
        names = estimator.spec.objects
        (width, height), side = film.camera.size, 0.4 * min(film.camera.size)
        for count in counts:
            places = np.random.default_rng(0).uniform(0.25, 0.75, (count, 2)) * (width, height)
            regions = [
                Region(names[i % len(names)], (float(x), float(y)), (side, side))
                for i, (x, y) in enumerate(places)
            ]
            times = [_timed(estimator, picture, film.camera, regions) for _ in range(repeats)]
            rows.append({'regions': count, **_medians(times)})
    return rows


def by_size(
    estimator: PoseEstimator, film: Film, sizes: Sequence[tuple[int, int]], repeats: int
) -> list[dict[str, float]]:
    """Medians with the same picture at other sizes, from the compressed file on."""
    picture = read(film.files[len(film.files) // 2])
    rows = []
    for size in sizes:
        file = _jpeg(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
        K = film.camera.K * np.array(
            [[size[0] / film.camera.size[0]] * 3, [size[1] / film.camera.size[1]] * 3, [1.0] * 3]
        )
        camera = Camera(K, size, film.camera.model, film.camera.D)
        regions = None if estimator.locator else _middle(estimator, camera)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            large = read(file)
            read_ms = 1e3 * (time.perf_counter() - start)
            row = _timed(estimator, large, camera, regions)
            times.append({**row, 'read': read_ms, 'all': row['all'] + read_ms})
        rows.append({'megapixels': size[0] * size[1] / 1e6, **_medians(times)})
    return rows


def by_keypoints(
    estimator: PoseEstimator, film: Film, counts: Sequence[int], repeats: int
) -> list[dict[str, float]]:
    """Medians of decoding and PnP alone, on maps made of Gaussians: no network has so many."""
    spec, rng = estimator.spec, np.random.default_rng(0)
    size_m = estimator.objects[spec.objects[0]].diameter_m
    focal_px = film.camera.K[0, 0]
    T = make_pose(exp_so3(np.array([0.5, -0.8, 0.3])), np.array([0.0, 0.0, 4.0 * size_m]))
    width, height = spec.map_size
    scale = (
        0.25 * focal_px / (0.8 * width)
    )  # map pixels to those of the picture: the object fills it
    rows = []
    for count in counts:
        points_obj = rng.uniform(-0.35, 0.35, (count, 3)) * size_m
        seen_px = film.camera.project(apply(T, points_obj))
        middle_px = film.camera.project(T[None, :3, 3])
        in_map = (seen_px - middle_px) / scale + (0.5 * (width - 1), 0.5 * (height - 1))
        noisy = in_map + rng.normal(0.0, 0.3, in_map.shape)
        maps = heatmap.encode(noisy, (width, height), 1.2 * _SIGMA_PX)[None]
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            found = heatmap.decode(maps, _SIGMA_PX)
            decoded = time.perf_counter()
            points_px = (found.points_px[0] - (0.5 * (width - 1), 0.5 * (height - 1))) * scale
            covariances = found.covariances_px[0] * scale**2
            pose = solve_pnp(points_obj, points_px + middle_px, covariances, film.camera)
            end = time.perf_counter()
            if not pose.ok:
                raise PoseNodeError(
                    f'Known keypoints gave no pose ({pose.status.value}); report it.'
                )
            times.append({'heatmaps': 1e3 * (decoded - start), 'pnp': 1e3 * (end - decoded)})
        rows.append({'keypoints': count, **_medians(times)})
    return rows


def _timed(
    estimator: PoseEstimator, picture: Any, camera: Camera, regions: Any
) -> dict[str, float]:
    start = time.perf_counter()
    result = estimator(picture, camera, regions=regions)
    times = {'heatmaps' if k == 'decode' else k: v for k, v in result.stage_ms.items()}
    return {**times, 'all': 1e3 * (time.perf_counter() - start)}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of all but the first, which warms up, where there are more."""
    rows = rows[1:] or rows
    return {key: float(np.median([row[key] for row in rows])) for key in rows[0]}


def _middle(estimator: PoseEstimator, camera: Camera) -> list[Region]:
    """Where to look where nothing locates: the middle of the picture."""
    side = 0.4 * min(camera.size)
    middle = ((camera.size[0] - 1) / 2.0, (camera.size[1] - 1) / 2.0)
    return [Region(estimator.spec.objects[0], middle, (side, side))]


def _jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def first_pose(folder: Path, picture: Path, backend: str, threads: int, precision: str) -> None:
    """All that stands between the start of a process and its first pose."""
    how = EstimatorOptions(threads=threads, engines=EngineOptions(precision=precision))
    with PoseEstimator(folder, backend, how) as estimator:
        shown = read(picture.read_bytes())
        size = (shown.shape[1], shown.shape[0])
        K = np.array([[size[0], 0, size[0] / 2], [0, size[0], size[1] / 2], [0, 0, 1.0]])
        camera = Camera(K, size)
        estimator(shown, camera, regions=None if estimator.locator else _middle(estimator, camera))
