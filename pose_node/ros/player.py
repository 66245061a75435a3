"""Play a bag: its messages go out on their topics, unchanged, in the rhythm they came in."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pose_node.core.errors import PoseNodeError

from .bagfile import BagReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .bagfile import Topic

_DISCOVERY_POLL_S = 0.02
_ACKNOWLEDGE_S = 5.0


@dataclass(frozen=True)
class PlayOptions:
    """How to play."""

    rate: float = 1.0  # times as fast as recorded; 0: as fast as `answers` come
    loop: bool = False
    topics: tuple[str, ...] = ()  # all when empty
    # Start when so many subscribers listen to a topic; empty: when anybody listens to anything.
    subscribers: Mapping[str, int] = field(default_factory=dict)
    patience_s: float = 30.0  # how long to wait for them
    # With a topic of answers, one a picture: at most `window` messages of `pictures` go
    # unanswered, so that nothing is lost however slow the other side is.
    answers: str = ''
    pictures: str = ''
    window: int = 4


class Player:
    """Publishers for everything in a bag, on one ROS node."""

    def __init__(self, reader: BagReader, options: PlayOptions) -> None:
        import rclpy

        self._reader = reader
        self._options = options
        self.stopped = threading.Event()
        self.topics = {
            name: topic
            for name, topic in reader.topics.items()
            if not options.topics or name in options.topics
        }
        self._check()
        self.node = rclpy.create_node('bag_player')
        self._publishers = {
            name: self.node.create_publisher(message_class(topic.type), name, qos_profile(topic))
            for name, topic in self.topics.items()
        }
        self._in_flight = threading.Semaphore(options.window)
        self._listener: threading.Thread | None = None

    def wait_for_subscribers(self) -> None:
        """Return when everybody who shall hear the bag listens; raises PoseNodeError."""
        end = time.monotonic() + self._options.patience_s
        while (lacking := self._lacking()) and not self.stopped.is_set():
            if time.monotonic() > end:
                raise PoseNodeError(
                    f'Nobody listens: after {self._options.patience_s:g} s still missing are '
                    f'{lacking}. Start the node, look at its remappings, and at ROS_DOMAIN_ID and '
                    'ROS_AUTOMATIC_DISCOVERY_RANGE, which must be the same on both sides.'
                )
            self.stopped.wait(_DISCOVERY_POLL_S)

    def play(self, progress: Callable[[float], None] = lambda share: None) -> int:
        """Play it once, or for ever; how many messages went out. progress: told 0..1."""
        self._follow_answers()
        sent = self._play_once(progress)
        while self._options.loop and not self.stopped.is_set():
            sent += self._play_once(progress)
        self._wait_until_heard()
        return sent

    def close(self) -> None:
        """Take the node away. A thread left inside rclpy would abort the process as it ends."""
        self.stopped.set()
        if self._listener is not None:
            self._listener.join()
        self.node.destroy_node()

    def _play_once(self, progress: Callable[[float], None]) -> int:
        options, sent = self._options, 0
        total = max(1, sum(topic.count for topic in self.topics.values()))
        began, first_ns = time.monotonic(), -1
        for recorded in self._reader.raw(self.topics):
            first_ns = recorded.time_ns if first_ns < 0 else first_ns
            if options.rate > 0.0:
                due = began + (recorded.time_ns - first_ns) * 1e-9 / options.rate
                self.stopped.wait(max(0.0, due - time.monotonic()))
            if options.answers and recorded.topic == options.pictures:
                self._wait_for_answer()
            if self.stopped.is_set():
                break
            self._publishers[recorded.topic].publish(recorded.cdr)
            sent += 1
            progress(sent / total)
        return sent

    def _check(self) -> None:
        options = self._options
        known = ', '.join(sorted(self._reader.topics)) or 'nothing'
        wanted = {*options.topics, *options.subscribers, *filter(None, [options.pictures])}
        missing = sorted(wanted - set(self._reader.topics))
        if missing:
            raise PoseNodeError(
                f'{self._reader.folder} holds no messages of {", ".join(missing)}; it has {known}.'
            )
        if bool(options.answers) != bool(options.pictures):
            raise PoseNodeError('Name both the topic of pictures and that of their answers.')
        if not options.rate >= 0.0 or (options.rate == 0.0 and not options.answers):
            raise PoseNodeError(
                f'The rate is {options.rate:g}; '
                'give a positive number, or 0 and a topic of answers.'
            )
        if options.window < 1:
            raise PoseNodeError(f'The window is {options.window} pictures; give 1 or more.')

    def _lacking(self) -> str:
        """Which subscribers are not there yet; '' when all are."""
        wanted = self._options.subscribers
        counts = {name: each.get_subscription_count() for name, each in self._publishers.items()}
        if not wanted:
            return '' if any(counts.values()) else f'subscribers of {", ".join(counts)}'
        return ', '.join(
            f'{number - counts[name]} of {number} subscribers of {name}'
            for name, number in wanted.items()
            if counts[name] < number
        )

    def _follow_answers(self) -> None:
        """Count the answers, in a thread of its own."""
        if not self._options.answers:
            return
        import rclpy

        def subscribe() -> bool:
            found = self.node.get_publishers_info_by_topic(self._options.answers)
            if not found:
                return False
            self.node.create_subscription(
                message_class(found[0].topic_type),
                self._options.answers,
                lambda _: self._in_flight.release(),
                100,
                raw=True,
            )
            return True

        end = time.monotonic() + self._options.patience_s
        while not subscribe() and not self.stopped.wait(_DISCOVERY_POLL_S):
            if time.monotonic() > end:
                raise PoseNodeError(
                    f'Nobody publishes {self._options.answers} after {self._options.patience_s:g} '
                    's; start the node, or look at the name of the topic.'
                )

        def spin() -> None:
            while not self.stopped.is_set() and rclpy.ok():
                rclpy.spin_once(self.node, timeout_sec=0.1)

        self._listener = threading.Thread(target=spin, daemon=True)
        self._listener.start()

    def _wait_for_answer(self) -> None:
        """Wait until fewer than `window` pictures are unanswered; raises PoseNodeError."""
        end = time.monotonic() + self._options.patience_s
        while not self.stopped.is_set():
            if self._in_flight.acquire(timeout=0.1):
                return
            if time.monotonic() > end:
                raise PoseNodeError(
                    f'{self._options.window} pictures have gone out and for '
                    f'{self._options.patience_s:g} s nothing came on {self._options.answers}; '
                    "look into the node's log."
                )

    def _wait_until_heard(self) -> None:
        from rclpy.duration import Duration

        for publisher in self._publishers.values():
            if not self.stopped.is_set():
                publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_S))


def play(
    folder: str | Path,
    options: PlayOptions | None = None,
    *,
    attached: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Play the bag in `folder`; how many messages went out.

    attached: start when a line comes on stdin, stop when stdin ends. rclpy must be initialised.
    """
    with BagReader(folder) as reader:
        player = Player(reader, options or PlayOptions())
        go = threading.Event()
        if attached:
            threading.Thread(target=_obey, args=(go, player.stopped), daemon=True).start()
        else:
            go.set()
        try:
            player.wait_for_subscribers()
            go.wait()
            return player.play(progress)
        except KeyboardInterrupt:
            return 0
        finally:
            player.close()


def _obey(go: threading.Event, stopped: threading.Event) -> None:
    for _ in sys.stdin:
        go.set()
    stopped.set()
    go.set()


def message_class(message_type: str) -> Any:
    """The Python class of a type such as sensor_msgs/msg/Image; raises PoseNodeError."""
    from importlib import import_module

    package, _, name = message_type.split('/')
    try:
        return getattr(import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
        raise PoseNodeError(
            f'{message_type} is not installed; install {package} or source its workspace.'
        ) from None


def qos_profile(topic: Topic) -> Any:
    """How to offer a topic: as it was when it was recorded."""
    from rclpy import qos as ros

    offered = topic.qos
    best_effort = offered.reliability.name == 'BEST_EFFORT'
    latched = offered.durability.name == 'TRANSIENT_LOCAL'
    keep_all = offered.history.name == 'KEEP_ALL'
    return ros.QoSProfile(
        reliability=(
            ros.ReliabilityPolicy.BEST_EFFORT if best_effort else ros.ReliabilityPolicy.RELIABLE
        ),
        durability=(
            ros.DurabilityPolicy.TRANSIENT_LOCAL if latched else ros.DurabilityPolicy.VOLATILE
        ),
        history=ros.HistoryPolicy.KEEP_ALL if keep_all else ros.HistoryPolicy.KEEP_LAST,
        depth=max(10, offered.depth),
    )


__all__ = ['PlayOptions', 'Player', 'message_class', 'play', 'qos_profile']
