"""Everything the node publishes about a picture, under the picture's own header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import (
    PoseArray,
    PoseStamped,
    PoseWithCovarianceStamped,
    TwistWithCovarianceStamped,
)
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from pose_node.runtime.draw import draw

from . import messages
from .diagnostics import frame_stats
from .frames import Frames
from .markers import Markers
from .names import frame_name
from .pictures import encode_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pose_node.core.bundle import Bundle
    from pose_node.core.camera import Camera
    from pose_node.runtime.results import FrameResult, ObjectPose
    from pose_node.runtime.track import Track

    from .parameters import Parameters


class Outputs:
    """The publishers for one bundle. They are lifecycle publishers: silent while inactive.

    keep_all: results queue up for a slow listener, so that none is lost.
    """

    def __init__(self, node: Any, bundle: Bundle, *, keep_all: bool) -> None:
        self._node = node
        self._bundle = bundle
        self._markers = Markers(bundle)
        self._frames = Frames()
        depth = 1000 if keep_all else 10
        self._publishers: list[Any] = []
        self._detections = self._publisher(Detection3DArray, '~/detections', depth)
        self._poses = {}
        for name in (each.name for each in bundle.objects):
            self._poses[name] = (
                self._publisher(PoseStamped, f'~/{name}/pose', depth),
                self._publisher(
                    PoseWithCovarianceStamped, f'~/{name}/pose_with_covariance', depth
                ),
                self._publisher(TwistWithCovarianceStamped, f'~/{name}/twist', depth),
                self._publisher(PoseArray, f'~/{name}/pose_cloud', depth),
            )
        # What tf2_ros broadcasts with: everybody's /tf, unless remapped.
        self._tf = self._publisher(TFMessage, '/tf', max(depth, 100))
        self._marker_array = self._publisher(MarkerArray, '~/markers', depth)
        self._overlay = self._publisher(Image, '~/overlay', depth if keep_all else 1)
        self._stats = self._publisher(DiagnosticArray, '~/frame_stats', depth)

    def publish(
        self,
        header: Any,
        poses: Sequence[ObjectPose],
        parameters: Parameters,
        tracks: Sequence[Track] = (),
    ) -> str:
        """What was found in a picture, or that nothing was; returns what is wrong with transforms
        that were not sent. tracks: the poses' own, where things are tracked.

        Transforms go first: who is woken by the detections finds them there. All is made before
        any is sent, so that a picture is never answered twice.
        """
        ids = [frame_name(pose, parameters.child_frame) for pose in poses] if tracks else []
        detections = messages.detections(header, poses, self._bundle, ids)
        transforms, wrong = self._frames.transforms(header, poses, parameters)
        # Of its kind; the array has all.
        first = {p.object: i for i, p in sorted(enumerate(poses), key=lambda x: -x[1].instance)}
        made = []
        for name, i in first.items():
            alone, sure, moving, cloud = self._poses[name]
            distribution = poses[i].distribution
            if _is_heard(alone):
                made.append((alone, messages.pose_stamped(header, poses[i])))
            if _is_heard(sure):
                made.append((sure, messages.pose_with_covariance_stamped(header, poses[i])))
            if tracks and _is_heard(moving):
                made.append((moving, messages.twist_stamped(header, tracks[i])))
            if distribution is not None and _is_heard(cloud):
                made.append((cloud, messages.pose_cloud(header, distribution)))
        made.append((self._detections, detections))
        if _is_heard(self._marker_array):
            markers = self._markers.update(header, poses, parameters.marker_lifetime)
            if markers.markers:
                made.append((self._marker_array, markers))

        if transforms.transforms:
            self._tf.publish(transforms)
        for publisher, message in made:
            publisher.publish(message)
        return wrong

    def publish_overlay(
        self, header: Any, picture: np.ndarray, camera: Camera, result: FrameResult
    ) -> None:
        """The picture with the poses drawn in, if somebody listens."""
        if self._overlay.get_subscription_count():
            overlay = draw(picture, camera, result, self._bundle)
            self._overlay.publish(encode_image(overlay, Image(header=header)))

    def publish_stats(self, header: Any, values: Mapping[str, float]) -> None:
        """Times of this picture, if somebody listens."""
        if self._stats.get_subscription_count():
            self._stats.publish(frame_stats(self._node.get_name(), header, values))

    def destroy(self) -> None:
        """Take the publishers away."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = []

    def _publisher(self, kind: type, topic: str, depth: int) -> Any:
        publisher = self._node.create_lifecycle_publisher(
            kind,
            topic,
            QoSProfile(depth=depth),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._publishers.append(publisher)
        return publisher


def _is_heard(publisher: Any) -> bool:
    """Whether a message would reach anybody, now or, where it is kept for those to come, later."""
    kept = publisher.qos_profile.durability != DurabilityPolicy.VOLATILE
    return kept or publisher.get_subscription_count() > 0


__all__ = ['Outputs']
