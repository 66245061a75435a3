"""The node's subscriptions: pictures, CameraInfo and 2D boxes into the intake, and no work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.qos import (
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from .health import Complaint, Health, supply_complaint
from .intake import Frame, Intake
from .messages import stamp_ns

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cameras import Cameras
    from .parameters import Parameters

# Messages that DDS may hold for us when every picture counts.
_DEEP = 1000


class Inputs:
    """The subscriptions of an active node."""

    def __init__(
        self,
        node: Any,
        parameters: Parameters,
        intake: Intake,
        cameras: Cameras,
        health: Health,
        admit: Callable[[], bool],
    ) -> None:
        """admit: asked at every picture whether it is to be processed."""
        self._node = node
        self._intake = intake
        self._cameras = cameras
        self._health = health
        self._admit = admit
        self._transport = parameters.image_transport
        self._reliable = parameters.deterministic
        compressed = self._transport == 'compressed'
        self.picture_topic, self._other_topic = picture_topics(node, self._transport)
        kind = CompressedImage if compressed else Image
        self._subscriptions = [
            self._subscribe(kind, self.picture_topic, self._on_picture),
            self._subscribe(CameraInfo, 'camera_info', self._on_camera_info),
        ]
        if parameters.use_detections:
            self._subscriptions.append(
                self._subscribe(Detection2DArray, 'detections_2d', self._on_boxes)
            )

    def publishers(self) -> int:
        """How many publishers of pictures there are."""
        return self._node.count_publishers(self.picture_topic)

    def complaint(self, arrived: int, silent_s: float, timeout_s: float) -> Complaint | None:
        """What keeps pictures from arriving, if none has for timeout_s."""
        return supply_complaint(
            topic=self.picture_topic,
            publishers=self.publishers(),
            transport=self._transport,
            other_topic=self._other_topic,
            other_publishers=self._node.count_publishers(self._other_topic),
            arrived=arrived,
            silent_s=silent_s,
            timeout_s=timeout_s,
        )

    def destroy(self) -> None:
        """Hear nothing any more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _on_picture(self, message: Any) -> None:
        self._health.arrived()
        if not self._admit():
            self._health.dropped('paused')
            return
        self._intake.put(Frame(message, stamp_ns(message.header.stamp)))

    def _on_camera_info(self, message: Any) -> None:
        self._cameras.put(stamp_ns(message.header.stamp), message)

    def _on_boxes(self, message: Any) -> None:
        self._intake.put_boxes(stamp_ns(message.header.stamp), message)

    def _subscribe(self, kind: type, topic: str, callback: Any) -> Any:
        if self._reliable:
            qos = QoSProfile(depth=_DEEP, reliability=ReliabilityPolicy.RELIABLE)
        else:
            qos = QoSProfile(
                depth=qos_profile_sensor_data.depth,
                reliability=ReliabilityPolicy.BEST_EFFORT,
            )
        name = self._node.resolve_topic_name(topic)

        def on_incompatible(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self._node.get_logger().error(
                f'A publisher of {name} offers a {policy} that this node does not accept, so '
                f'nothing comes from it; set qos_overrides.{name}.subscription.'
                f'{str(policy).split("_")[0].lower()} to what it offers.'
            )

        return self._node.create_subscription(
            kind,
            topic,
            callback,
            qos,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=on_incompatible),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )


def picture_topics(node: Any, transport: str) -> tuple[str, str]:
    """Full topic of the pictures under this image_transport, and under the other one.

    As image_transport does it: `image` is remapped first, then the transport's name is added.
    """
    raw = node.resolve_topic_name('image')
    compressed = node.resolve_topic_name(f'{raw}/compressed')
    return (compressed, raw) if transport == 'compressed' else (raw, compressed)


__all__ = ['Inputs', 'picture_topics']
