"""The same pictures and boxes as a bag, through player, node and recorder on DDS."""

from __future__ import annotations

import argparse
import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pose_node.core.errors import PoseNodeError
from pose_node.ros.bagfile import BagReader, BagWriter
from pose_node.ros.messages import matrix_of

from .figures import Estimate, Estimates, Regions
from .graph import DETECTIONS, GraphOptions, run_graph

if TYPE_CHECKING:
    from pathlib import Path

    from pose_node.core.camera import Camera
    from pose_node.runtime.bop import BopDataset
    from pose_node.runtime.preprocess import Region

_FRAME = 'camera_optical_frame'
_IMAGE, _CAMERA_INFO, _BOXES = '/camera/image_raw', '/camera/camera_info', '/boxes'
_PERIOD_NS = 100_000_000
_FIRST_NS = 1_000_000_000


def through_ros(
    options: argparse.Namespace,
    dataset: BopDataset,
    regions: Regions,
    names: dict[int, str],
    most: int,
) -> Estimates:
    """Write the bag, play it through the node, read the poses back from the recording; `most` is
    how many regions of a picture the node looks at.
    """
    from rich.progress import Progress

    folder = options.out
    for name in ('input', 'recorded'):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    stamps = write_bag(folder / 'input', dataset, regions)
    given = any(boxes is not None for boxes in regions.values())
    graph = GraphOptions(
        bag=folder / 'input',
        bundle=options.bundle.resolve(),
        out=folder / 'recorded',
        logs=folder / 'logs',
        image=_IMAGE,
        camera_info=_CAMERA_INFO,
        boxes=_BOXES if given else '',
        lossless=True,
        parameters={
            'min_score': '0.0',
            'track': 'false',  # pictures of a data set are no film
            'backend': options.backend,
            'precision': options.precision,
            'threads': str(options.threads),
            'max_objects': str(most),
            'contour': 'false' if options.no_contour else 'true',
        },
    )
    with Progress(transient=True) as progress:
        bar = progress.add_task('through the ROS graph', total=len(stamps))
        for heard in run_graph(graph, len(stamps)):
            if heard.topic == DETECTIONS:
                progress.advance(bar)
    return read_poses(folder / 'recorded', stamps, names)


def write_bag(folder: Path, dataset: BopDataset, regions: Regions) -> dict[int, tuple[int, int]]:
    """Pictures (PNG: nothing is lost), cameras and boxes; gives picture by stamp."""
    stamps = {}
    with BagWriter(folder) as bag:
        types = bag.store.types
        for i, (key, boxes) in enumerate(regions.items()):
            stamp_ns = _FIRST_NS + i * _PERIOD_NS
            stamps[stamp_ns] = key
            picture = dataset.picture(*key)
            camera = dataset.camera(*key, (picture.shape[1], picture.shape[0]))
            header = _header(types, stamp_ns)
            messages = {
                _CAMERA_INFO: _camera_info(types, header, camera),
                **({} if boxes is None else {_BOXES: _boxes(types, header, boxes)}),
                f'{_IMAGE}/compressed': _compressed(types, header, picture),
            }
            for topic, message in messages.items():
                bag.write(topic, message.__msgtype__, stamp_ns, message)
    return stamps


def read_poses(
    folder: Path, stamps: dict[int, tuple[int, int]], names: dict[int, str]
) -> Estimates:
    """The recorded detections as estimates; a picture without an answer is an error."""
    numbers = {name: number for number, name in names.items()}
    estimates: Estimates = {}
    with BagReader(folder) as bag:
        for _, message in bag.messages([DETECTIONS]):
            stamp = message.header.stamp
            key = stamps[stamp.sec * 1_000_000_000 + stamp.nanosec]
            results = [each.results[0] for each in message.detections]
            estimates[key] = [
                _estimate(r, numbers) for r in results if r.hypothesis.class_id in numbers
            ]
    missing = len(stamps) - len(estimates)
    if missing:
        raise PoseNodeError(f'{missing} of {len(stamps)} pictures got no answer; see {folder}.')
    return estimates


def compare(one: Estimates, other: Estimates) -> tuple[float, str]:
    """Largest difference of any number of any pose, m or 1, and the sentence that says so."""
    worst, different = 0.0, 0
    for key, estimates in one.items():
        others = other.get(key, [])
        if len(others) != len(estimates):
            worst, different = np.inf, different + 1
            continue
        for a, b in zip(estimates, others):
            worst = max(worst, float(np.abs(a.T_cam_obj - b.T_cam_obj).max()))
    same = len(one) - different
    return worst, (
        f'the two ways: {same} of {len(one)} pictures with the same number of poses, '
        f'largest difference of a pose {worst:.1e}'
    )


def _header(types: dict[str, Any], stamp_ns: int) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
    return types['std_msgs/msg/Header'](stamp=stamp, frame_id=_FRAME)


def _compressed(types: dict[str, Any], header: Any, picture: np.ndarray) -> Any:
    ok, data = cv2.imencode('.png', picture[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1))
    assert ok
    return types['sensor_msgs/msg/CompressedImage'](
        header=header, format='bgr8; png compressed bgr8', data=data.ravel()
    )


def _camera_info(types: dict[str, Any], header: Any, camera: Camera) -> Any:
    roi = types['sensor_msgs/msg/RegionOfInterest'](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return types['sensor_msgs/msg/CameraInfo'](
        header=header,
        height=camera.size[1],
        width=camera.size[0],
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack((camera.K, np.zeros(3))).ravel(),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def _boxes(types: dict[str, Any], header: Any, regions: list[Region]) -> Any:
    return types['vision_msgs/msg/Detection2DArray'](
        header=header, detections=[_box(types, header, region) for region in regions]
    )


def _box(types: dict[str, Any], header: Any, region: Region) -> Any:
    point = types['geometry_msgs/msg/Point'](x=0.0, y=0.0, z=0.0)
    turn = types['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0)
    pose = types['geometry_msgs/msg/PoseWithCovariance'](
        pose=types['geometry_msgs/msg/Pose'](position=point, orientation=turn),
        covariance=np.zeros(36),
    )
    hypothesis = types['vision_msgs/msg/ObjectHypothesis'](
        class_id=region.object, score=region.score
    )
    result = types['vision_msgs/msg/ObjectHypothesisWithPose'](hypothesis=hypothesis, pose=pose)
    center = types['vision_msgs/msg/Pose2D'](
        position=types['vision_msgs/msg/Point2D'](x=region.center_px[0], y=region.center_px[1]),
        theta=0.0,
    )
    box = types['vision_msgs/msg/BoundingBox2D'](
        center=center, size_x=region.size_px[0], size_y=region.size_px[1]
    )
    return types['vision_msgs/msg/Detection2D'](header=header, results=[result], bbox=box, id='')


def _estimate(result: Any, numbers: dict[str, int]) -> Estimate:
    said = result.hypothesis
    return Estimate(numbers[said.class_id], said.score, matrix_of(result.pose.pose), float('nan'))
