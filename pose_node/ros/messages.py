"""Messages to arrays, and poses to messages: the only place with quaternions.

ROS writes a quaternion xyzw and transforms3d wxyz. Covariances go out as they are: row by row,
(x, y, z, rot x, rot y, rot z), fixed axes of the header's frame (REP-103).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseArray,
    PoseStamped,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    TwistWithCovarianceStamped,
    Vector3,
)
from transforms3d.quaternions import quat2mat
from vision_msgs.msg import (
    BoundingBox3D,
    Detection3D,
    Detection3DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)

from pose_node.core.camera import Camera
from pose_node.core.geometry import apply, make_pose, quaternion_of
from pose_node.runtime.distribution import answers
from pose_node.runtime.preprocess import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pose_node.core.bundle import Bundle
    from pose_node.runtime.results import Distribution, ObjectPose
    from pose_node.runtime.track import Track


def stamp_ns(stamp: Any) -> int:
    """A builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def quaternion_message(R: np.ndarray) -> Quaternion:
    """A rotation matrix (3, 3) as geometry_msgs/Quaternion."""
    x, y, z, w = quaternion_of(R)
    return Quaternion(x=x, y=y, z=z, w=w)


def pose_message(T: np.ndarray) -> Pose:
    """T (4, 4) as geometry_msgs/Pose."""
    x, y, z = T[:3, 3].tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=quaternion_message(T[:3, :3]))


def matrix_of(pose: Any) -> np.ndarray:
    """T (4, 4) of a geometry_msgs/Pose or geometry_msgs/Transform."""
    place = pose.position if hasattr(pose, 'position') else pose.translation
    turn = pose.orientation if hasattr(pose, 'orientation') else pose.rotation
    R = quat2mat([turn.w, turn.x, turn.y, turn.z])
    return make_pose(R, np.array([place.x, place.y, place.z]))


def pose_with_covariance(pose: ObjectPose) -> PoseWithCovariance:
    """Pose and 6x6 covariance."""
    return _with_covariance(pose.T_cam_obj, pose.covariance)


def pose_stamped(header: Any, pose: ObjectPose) -> PoseStamped:
    """The pose alone."""
    return PoseStamped(header=header, pose=pose_message(pose.T_cam_obj))


def pose_with_covariance_stamped(header: Any, pose: ObjectPose) -> PoseWithCovarianceStamped:
    """The pose with its uncertainty."""
    return PoseWithCovarianceStamped(header=header, pose=pose_with_covariance(pose))


def pose_cloud(header: Any, distribution: Distribution) -> PoseArray:
    """Samples of a pose, each as likely as the others."""
    return PoseArray(header=header, poses=[pose_message(T) for T in distribution.T_cam_obj])


def twist_stamped(header: Any, track: Track) -> TwistWithCovarianceStamped:
    """How a tracked thing moves in the header's frame, in its axes; the linear part is that of the
    object's origin.
    """
    message = TwistWithCovarianceStamped(header=header)
    vx, vy, vz, wx, wy, wz = track.motion.twist.tolist()
    message.twist.twist.linear = Vector3(x=vx, y=vy, z=vz)
    message.twist.twist.angular = Vector3(x=wx, y=wy, z=wz)
    message.twist.covariance = track.motion.twist_covariance.astype(np.float64).ravel()
    return message


def detections(
    header: Any, poses: Sequence[ObjectPose], bundle: Bundle, ids: Sequence[str] = ()
) -> Detection3DArray:
    """One Detection3D per pose, with a result for every answer, the pose's own first. Their `pose`
    is that of the object frame, `bbox` that of the box.

    ids: of things that are tracked; else `id` stays empty, because it would promise that an object
    keeps it from picture to picture.
    """
    message = Detection3DArray(header=header)
    for i, pose in enumerate(poses):
        low, high = bundle.object(pose.object).bounds_obj_m
        x, y, z = apply(pose.T_cam_obj, 0.5 * (low + high)[None])[0].tolist()
        results = [_result(pose.object, *each) for each in answers(pose)]
        orientation = results[0].pose.pose.orientation
        center = Pose(position=Point(x=x, y=y, z=z), orientation=orientation)
        width, depth, height = (high - low).tolist()
        message.detections.append(
            Detection3D(
                header=header,
                id=ids[i] if ids else '',
                results=results,
                bbox=BoundingBox3D(center=center, size=Vector3(x=width, y=depth, z=height)),
            )
        )
    return message


def _result(
    name: str, T_cam_obj: np.ndarray, covariance: np.ndarray, score: float
) -> ObjectHypothesisWithPose:
    return ObjectHypothesisWithPose(
        hypothesis=ObjectHypothesis(class_id=name, score=float(score)),
        pose=_with_covariance(T_cam_obj, covariance),
    )


def _with_covariance(T_cam_obj: np.ndarray, covariance: np.ndarray) -> PoseWithCovariance:
    message = PoseWithCovariance(pose=pose_message(T_cam_obj))
    message.covariance = np.ascontiguousarray(covariance, np.float64).ravel()
    return message


def camera_of(info: Any, picture_size: tuple[int, int], *, rectified: bool) -> Camera:
    """The camera of a picture (width, height) from its CameraInfo; raises PoseNodeError."""
    roi = info.roi
    return Camera.from_calibration(
        calibration_size=(info.width, info.height),
        K=np.array(info.k, np.float64).reshape(3, 3),
        D=tuple(float(value) for value in info.d),
        model=info.distortion_model,
        P=np.array(info.p, np.float64).reshape(3, 4),
        R=np.array(info.r, np.float64).reshape(3, 3),
        rectified=rectified,
        binning=(info.binning_x, info.binning_y),
        roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
        picture_size=picture_size,
    )


def regions_of(message: Any, bundle: Bundle) -> tuple[list[Region], int]:
    """Regions out of a vision_msgs/Detection2DArray, and how many boxes could not be used.

    A box without a class is taken for the bundle's object, if it has but one; boxes of things it
    does not know are passed over; boxes with NaN or without size are unusable.
    """
    names = bundle.pose_network.objects
    only = names[0] if len(names) == 1 else ''
    regions, unusable = [], 0
    for detection in message.detections:
        best = max(
            (each.hypothesis for each in detection.results),
            key=lambda hypothesis: hypothesis.score,
            default=None,
        )
        name = (best.class_id if best is not None else '') or only
        if name not in names:
            continue
        center = detection.bbox.center
        width, height = _upright_size(detection.bbox.size_x, detection.bbox.size_y, center.theta)
        score = best.score if best is not None else 1.0
        numbers = (center.position.x, center.position.y, width, height, score)
        if not all(map(math.isfinite, numbers)) or min(width, height) <= 0.0:
            unusable += 1
            continue
        place = (center.position.x, center.position.y)
        regions.append(Region(name, place, (width, height), score))
    return regions, unusable


def _upright_size(width: float, height: float, theta: float) -> tuple[float, float]:
    """Width and height of the upright box round one that is turned by theta."""
    if not math.isfinite(theta):
        return math.nan, math.nan
    c, s = abs(math.cos(theta)), abs(math.sin(theta))
    return width * c + height * s, width * s + height * c


__all__ = [
    'camera_of',
    'detections',
    'matrix_of',
    'pose_cloud',
    'pose_message',
    'pose_stamped',
    'pose_with_covariance',
    'pose_with_covariance_stamped',
    'quaternion_message',
    'regions_of',
    'stamp_ns',
    'twist_stamped',
]
