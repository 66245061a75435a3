"""TF policy: what frames are called, who hangs from whom, and in which frame poses are told.

A frame has one parent: what would give it a second one is not sent, and said to be wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped, Vector3
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import inverse

from . import messages
from .names import frame_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pose_node.runtime.results import ObjectPose

    from .parameters import Parameters

_LOOP_NS = 1_000_000_000  # a picture so much older than the last is of another run
_LOOKUP_S = 0.1  # that a transform may come later than its picture


class Frames:
    """Makes the transforms of one camera's objects and remembers what was sent."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._sent: dict[str, TransformStamped] = {}
        self._stamp_ns = 0

    def transforms(
        self, header: Any, poses: Sequence[ObjectPose], parameters: Parameters
    ) -> tuple[TFMessage, str]:
        """What to send of a picture, and what is wrong with what is not; '' when nothing is."""
        message, wrong = TFMessage(), ''
        stamp_ns = messages.stamp_ns(header.stamp)
        if stamp_ns < self._stamp_ns - _LOOP_NS:  # time begins anew
            self._parents.clear()
            self._sent.clear()
        self._stamp_ns = stamp_ns
        if not parameters.publish_tf or not header.frame_id:
            return message, wrong
        for pose in poses:
            name = frame_name(pose, parameters.child_frame)
            made = _transform(header, name, pose.T_cam_obj, inverted=parameters.invert_tf)
            parent = self._parents.setdefault(made.child_frame_id, made.header.frame_id)
            if parent != made.header.frame_id:
                wrong = (
                    f'Frame {made.child_frame_id} hangs from {parent} already, so its transform '
                    f'from {made.header.frame_id} is not sent; give every camera its own node '
                    'and child_frame, and set invert_tf for one object only.'
                )
                continue
            self._sent[name] = made
            message.transforms.append(made)
        if parameters.hold_tf:
            now = {each.child_frame_id for each in message.transforms}
            for made in self._sent.values():
                if made.child_frame_id not in now:
                    made.header.stamp = header.stamp
                    message.transforms.append(made)
        return message, wrong


def _transform(
    header: Any, name: str, T_cam_obj: np.ndarray, *, inverted: bool
) -> TransformStamped:
    T = inverse(T_cam_obj) if inverted else T_cam_obj
    parent, child = (name, header.frame_id) if inverted else (header.frame_id, name)
    x, y, z = (float(value) for value in T[:3, 3])
    return TransformStamped(
        header=Header(stamp=header.stamp, frame_id=parent),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=x, y=y, z=z), rotation=messages.quaternion_message(T[:3, :3])
        ),
    )


class TargetFrame:
    """The frame in which things are tracked and told, looked up at the picture's stamp; '' is the
    camera's.

    Raises PoseNodeError where tf2_ros is not installed.
    """

    def __init__(self, node: Any, frame: str) -> None:
        self.frame = frame
        if not frame:
            return
        try:
            import tf2_ros
        except ImportError:
            raise PoseNodeError(
                f'target_frame is {frame}, and tf2_ros is not installed; install it '
                '(ros-<distro>-tf2-ros-py), or leave target_frame empty.'
            ) from None
        self._failures = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def T_told_cam(self, header: Any) -> np.ndarray:
        """(4, 4) from the camera of a picture to the frame in which its poses are told. Raises
        PoseNodeError when tf knows no way.
        """
        if not self.frame or self.frame == header.frame_id:
            return np.eye(4)
        from rclpy.duration import Duration
        from rclpy.time import Time

        try:
            found = self._buffer.lookup_transform(
                self.frame,
                header.frame_id,
                Time.from_msg(header.stamp),
                timeout=Duration(seconds=_LOOKUP_S),
            )
        except self._failures as error:
            raise PoseNodeError(
                f'tf knows no way from {header.frame_id or "a frame without name"} to '
                f'target_frame {self.frame} at the stamp of the picture ({error}); see '
                '`ros2 run tf2_ros tf2_echo`.'
            ) from None
        return messages.matrix_of(found.transform)

    def header(self, header: Any) -> Any:
        """That of a picture's poses."""
        return Header(stamp=header.stamp, frame_id=self.frame) if self.frame else header

    def close(self) -> None:
        """Stop listening to tf."""
        if self.frame:
            self._listener.unregister()


def moved(poses: Sequence[ObjectPose], T_to_from: np.ndarray) -> tuple[ObjectPose, ...]:
    """The same poses in another frame, covariances and distributions with them."""
    if np.array_equal(T_to_from, np.eye(4)):
        return tuple(poses)
    turned = np.kron(np.eye(2), T_to_from[:3, :3])
    return tuple(
        replace(
            pose,
            T_cam_obj=T_to_from @ pose.T_cam_obj,
            covariance=turned @ pose.covariance @ turned.T,
            distribution=pose.distribution and pose.distribution.moved(T_to_from),
        )
        for pose in poses
    )


__all__ = ['Frames', 'TargetFrame', 'moved']
