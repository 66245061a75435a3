"""Record topics into a bag, whatever their types, with the times at which they were received."""

from __future__ import annotations

import base64
import json
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2

from .bagfile import BagWriter
from .pictures import decode_image
from .player import message_class

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'

_DISCOVERY_S = 0.05
# Messages above this size are echoed without their content.
_ECHO_BYTES = 32768
_DEPTH = 100


@dataclass(frozen=True)
class RecordOptions:
    """What to record."""

    topics: tuple[str, ...]  # the type of each is asked of its publisher
    jpeg: tuple[str, ...] = ()  # those of raw pictures that are kept as JPEG, as TOPIC/compressed
    jpeg_quality: int = 85
    echo: bool = False  # every message is written to stdout too, as a line of JSON


class Recorder:
    """Subscriptions to topics, on one ROS node, and the bag they go to.

    A topic is subscribed when its first publisher shows, with the quality of service it offers.
    """

    def __init__(self, folder: str | Path, options: RecordOptions) -> None:
        import rclpy

        self._options = options
        self._writer = BagWriter(folder)
        self.node = rclpy.create_node('bag_recorder')
        self._subscriptions: dict[str, Any] = {}
        self._ready_said = False
        self.count = 0
        self.node.create_timer(_DISCOVERY_S, self._discover)

    @property
    def ready(self) -> bool:
        """Whether every topic is being listened to."""
        return set(self._subscriptions) == set(self._options.topics)

    def close(self) -> None:
        """Finish the bag."""
        self._writer.close()
        self.node.destroy_node()

    def _discover(self) -> None:
        for topic in self._options.topics:
            if topic in self._subscriptions:
                continue
            publishers = self.node.get_publishers_info_by_topic(topic)
            if publishers:
                self._subscribe(topic, publishers)
        if self.ready and not self._ready_said:
            self._ready_said = True
            self._say({'ready': True})

    def _subscribe(self, topic: str, publishers: list[Any]) -> None:
        message_type = publishers[0].topic_type
        self._subscriptions[topic] = self.node.create_subscription(
            message_class(message_type),
            topic,
            _with_time(lambda cdr, time_ns: self._take(topic, message_type, cdr, time_ns)),
            _matching(publishers),
            raw=True,
        )

    def _take(self, topic: str, message_type: str, cdr: bytes, time_ns: int) -> None:
        self.count += 1
        if topic in self._options.jpeg and message_type == IMAGE:
            cdr = self._to_jpeg(cdr)
            topic, message_type = f'{topic}/compressed', COMPRESSED
        self._writer.write_raw(topic, message_type, time_ns, cdr)
        content = base64.b64encode(cdr).decode() if len(cdr) <= _ECHO_BYTES else None
        self._say(
            {'topic': topic, 'type': message_type, 'time_ns': time_ns, 'stamp_ns': stamp_of(cdr)}
            | ({'cdr': content} if content is not None else {})
        )

    def _to_jpeg(self, cdr: bytes) -> bytes:
        """A raw picture as CompressedImage, the way image_transport writes it."""
        store = self._writer.store
        message: Any = store.deserialize_cdr(cdr, IMAGE)
        bgr = cv2.cvtColor(decode_image(message), cv2.COLOR_RGB2BGR)
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._options.jpeg_quality]
        _, data = cv2.imencode('.jpg', bgr, quality)
        form = 'rgb8; jpeg compressed bgr8'
        compressed = store.types[COMPRESSED](header=message.header, format=form, data=data.ravel())
        return bytes(store.serialize_cdr(compressed, COMPRESSED))

    def _say(self, line: dict[str, Any]) -> None:
        if self._options.echo:
            sys.stdout.write(json.dumps(line) + '\n')
            sys.stdout.flush()


def record(folder: str | Path, options: RecordOptions, *, attached: bool = False) -> int:
    """Record until Ctrl-C (or the end of stdin, when `attached`); how many messages there were.

    rclpy must be initialised. Raises PoseNodeError when the folder exists.
    """
    from rclpy.executors import SingleThreadedExecutor

    stopped = threading.Event()
    if attached:
        threading.Thread(target=_watch_stdin, args=(stopped,), daemon=True).start()
    recorder = Recorder(folder, options)
    executor = SingleThreadedExecutor()
    executor.add_node(recorder.node)
    try:
        while not stopped.is_set():
            executor.spin_once(timeout_sec=0.1)
    except KeyboardInterrupt:
        pass
    finally:
        recorder.close()
    return recorder.count


def stamp_of(cdr: bytes) -> int | None:
    """header.stamp of a message whose first field is a header, ns; None when it is too short.

    CDR: four bytes that say the byte order, then sec and nanosec, four bytes each.
    """
    if len(cdr) < 12:
        return None
    sec, nanosec = struct.unpack_from('<iI' if cdr[1] & 1 else '>iI', cdr, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def _watch_stdin(stopped: threading.Event) -> None:
    for _ in sys.stdin:
        pass
    stopped.set()


def _with_time(take: Any) -> Any:
    """A callback that also learns when DDS received the message, ns; Humble does not tell it."""
    from rclpy import subscription

    if hasattr(subscription, 'MessageInfo'):
        return lambda cdr, info: take(cdr, int(info['received_timestamp']) or time.time_ns())
    return lambda cdr: take(cdr, time.time_ns())


def _matching(publishers: list[Any]) -> Any:
    """Ask no more than every publisher offers, so that all are heard."""
    from rclpy import qos as ros

    reliable, latched = ros.ReliabilityPolicy.RELIABLE, ros.DurabilityPolicy.TRANSIENT_LOCAL
    all_reliable = all(each.qos_profile.reliability == reliable for each in publishers)
    all_latched = all(each.qos_profile.durability == latched for each in publishers)
    return ros.QoSProfile(
        reliability=reliable if all_reliable else ros.ReliabilityPolicy.BEST_EFFORT,
        durability=latched if all_latched else ros.DurabilityPolicy.VOLATILE,
        history=ros.HistoryPolicy.KEEP_LAST,
        depth=_DEPTH,
    )


__all__ = ['RecordOptions', 'Recorder', 'record', 'stamp_of']
