"""Writes pictures with their ground truth as a ROS 2 bag (MCAP)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError

_VISION_MSGS = Path(__file__).parents[2] / 'interfaces' / 'vision_msgs' / 'msg'
FRAME_ID = 'camera_optical_frame'
TOPICS = {
    'picture': ('/camera/image_raw/compressed', 'sensor_msgs/msg/CompressedImage'),
    'camera': ('/camera/camera_info', 'sensor_msgs/msg/CameraInfo'),
    'detections': ('/ground_truth/detections', 'vision_msgs/msg/Detection3DArray'),
    'pose': ('/ground_truth/pose', 'geometry_msgs/msg/PoseStamped'),
}


@dataclass(frozen=True)
class BagFrame:
    """picture (H, W, 3) uint8 RGB, T_cam_obj (4, 4), visible share of the object (0: none)."""

    picture: np.ndarray
    T_cam_obj: np.ndarray
    visible: float


def typestore() -> Any:
    """Types of ROS 2 Kilted and our vision_msgs."""
    store = get_typestore(Stores.ROS2_KILTED)
    types: dict[str, Any] = {}
    for path in sorted(_VISION_MSGS.glob('*.msg')):
        types.update(get_types_from_msg(path.read_text(), f'vision_msgs/msg/{path.stem}'))
    store.register(types)
    return store


@dataclass
class _Messages:
    """Builds the messages of one frame."""

    types: dict[str, Any]
    camera: Camera
    name: str
    bounds_m: np.ndarray
    jpeg_quality: int

    def header(self, stamp_ns: int) -> Any:
        stamp = self.types['builtin_interfaces/msg/Time'](stamp_ns // 10**9, stamp_ns % 10**9)
        return self.types['std_msgs/msg/Header'](stamp, FRAME_ID)

    def picture(self, header: Any, picture: np.ndarray) -> Any:
        options = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        done, data = cv2.imencode('.jpg', picture[..., ::-1], options)
        if not done:
            raise PoseNodeError('OpenCV could not compress a picture as JPEG: check its build')
        return self.types['sensor_msgs/msg/CompressedImage'](
            header, 'rgb8; jpeg compressed bgr8', data.ravel()
        )

    def camera_info(self, header: Any) -> Any:
        camera, types = self.camera, self.types
        P = np.hstack((camera.K, np.zeros((3, 1))))
        return types['sensor_msgs/msg/CameraInfo'](
            header=header, height=camera.size[1], width=camera.size[0],
            distortion_model=camera.model, d=np.array(camera.D), k=camera.K.ravel(),
            r=np.eye(3).ravel(), p=P.ravel(), binning_x=0, binning_y=0,
            roi=types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
        )  # fmt: skip

    def pose(self, T_cam_obj: np.ndarray) -> Any:
        types = self.types
        point = types['geometry_msgs/msg/Point'](*map(float, T_cam_obj[:3, 3]))
        xyzw = Rotation.from_matrix(T_cam_obj[:3, :3]).as_quat()
        turn = types['geometry_msgs/msg/Quaternion'](*map(float, xyzw))
        return types['geometry_msgs/msg/Pose'](point, turn)

    def detections(self, header: Any, frame: BagFrame) -> Any:
        types = self.types
        found = []
        if frame.visible > 0.0:
            hypothesis = types['vision_msgs/msg/ObjectHypothesis'](self.name, frame.visible)
            pose = types['geometry_msgs/msg/PoseWithCovariance'](
                self.pose(frame.T_cam_obj), np.zeros(36)
            )
            middle = np.eye(4)
            middle[:3, 3] = self.bounds_m.mean(axis=0)
            size = types['geometry_msgs/msg/Vector3'](*map(float, np.ptp(self.bounds_m, axis=0)))
            found.append(types['vision_msgs/msg/Detection3D'](
                header, [types['vision_msgs/msg/ObjectHypothesisWithPose'](hypothesis, pose)],
                types['vision_msgs/msg/BoundingBox3D'](self.pose(frame.T_cam_obj @ middle), size),
                '',
            ))  # fmt: skip
        return types['vision_msgs/msg/Detection3DArray'](header, found)


def write_bag(
    folder: Path, frames: Sequence[BagFrame], camera: Camera, bounds_m: np.ndarray, *,
    rate_hz: float, name: str = 'drill', start_ns: int = 1_700_000_000 * 10**9,
    jpeg_quality: int = 81,
) -> None:  # fmt: skip
    """A new folder with metadata.yaml and one MCAP file; the stamps are start_ns + k / rate_hz.

    Every frame has a picture, a CameraInfo and a Detection3DArray (empty without the object; the
    score is the visible share); the pose comes only with frames that show the object.
    """
    if folder.exists():
        raise PoseNodeError(f'{folder} exists: remove it or name another folder')
    folder.parent.mkdir(parents=True, exist_ok=True)
    store = typestore()
    build = _Messages(store.types, camera, name, bounds_m, jpeg_quality)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        to = {
            key: writer.add_connection(topic, kind, typestore=store)
            for key, (topic, kind) in TOPICS.items()
        }
        for index, frame in zip(itertools.count(), frames):
            stamp_ns = start_ns + round(index * 1e9 / rate_hz)
            header = build.header(stamp_ns)
            messages = {
                'camera': build.camera_info(header),
                'picture': build.picture(header, frame.picture),
                'detections': build.detections(header, frame),
            }
            if frame.visible > 0.0:
                messages['pose'] = store.types['geometry_msgs/msg/PoseStamped'](
                    header, build.pose(frame.T_cam_obj)
                )
            for key, message in messages.items():
                raw = store.serialize_cdr(message, TOPICS[key][1])
                writer.write(to[key], stamp_ns, raw)
