"""Bags on disk: ROS 2 messages as they went over the wire, with the time they came. Needs no ROS.

Bags are folders of `rosbag2` (MCAP, version 9), read and written by `rosbags`. A message is kept
as its raw CDR bytes and passed on unchanged: nobody between camera and node reinterprets it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import ReaderError, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from pose_node.core.errors import PoseNodeError

from .environment import share_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

    from rosbags.typesys.store import Typestore

_FOREVER = QosTime(9223372036, 854775807)

# What a bag's topics are offered with when it does not say: nothing lost, ten messages deep.
RELIABLE = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=_FOREVER,
    lifespan=_FOREVER,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_FOREVER,
    avoid_ros_namespace_conventions=False,
)


@dataclass(frozen=True)
class Recorded:
    """One message of a bag."""

    topic: str
    type: str  # such as sensor_msgs/msg/Image
    time_ns: int  # when it was received
    cdr: bytes


@dataclass(frozen=True)
class Topic:
    """What a bag holds of one topic."""

    name: str
    type: str
    count: int
    qos: Qos


class BagReader:
    """A bag, open for reading: its topics, and its messages in the order of their times.

    Raises PoseNodeError when the folder is no bag.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.exists():
            raise PoseNodeError(f'{self.folder} does not exist; give the folder of a bag.')
        try:
            self._reader = AnyReader([self.folder], default_typestore=typestore())
            self._reader.open()
        except (AnyReaderError, ReaderError, OSError, KeyError) as error:
            raise PoseNodeError(
                f'{self.folder} cannot be read as a ROS 2 bag ({error}); '
                'give the folder that holds metadata.yaml.'
            ) from None
        self.topics = {
            c.topic: Topic(c.topic, c.msgtype, c.msgcount, _offered(c))
            for c in self._reader.connections
        }

    @property
    def duration_s(self) -> float:
        """From the first message to the last."""
        return max(0.0, (self._reader.end_time - self._reader.start_time) * 1e-9)

    def count(self, topic: str) -> int:
        """How many messages of a topic it holds."""
        return self.topics[topic].count if topic in self.topics else 0

    def raw(self, topics: Collection[str] | None = None) -> Iterator[Recorded]:
        """The messages as they were recorded; of all topics when None."""
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:  # rosbags takes an empty list for all
            return
        for connection, time_ns, cdr in self._reader.messages(wanted):
            yield Recorded(connection.topic, connection.msgtype, time_ns, bytes(cdr))

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[Recorded, Any]]:
        """The messages, and what they say, with the field names of ROS."""
        for recorded in self.raw(topics):
            yield recorded, self._reader.deserialize(recorded.cdr, recorded.type)

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class BagWriter:
    """A new bag, open for writing. Raises PoseNodeError when the folder exists."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.store = typestore()
        self._connections: dict[str, Any] = {}
        try:
            self._writer = Writer(self.folder, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except (WriterError, OSError) as error:
            raise PoseNodeError(
                f'{self.folder} cannot be written ({error}); '
                'name a folder that does not exist yet.'
            ) from None

    def write(self, topic: str, message_type: str, time_ns: int, message: Any) -> None:
        """Add a message made of `store.types` (or whatever has the same fields)."""
        self._connect(topic, message_type)
        cdr = self.store.serialize_cdr(message, message_type)
        self.write_raw(topic, message_type, time_ns, bytes(cdr))

    def write_raw(self, topic: str, message_type: str, time_ns: int, cdr: bytes) -> None:
        """Add a message as it came over the wire."""
        self._writer.write(self._connect(topic, message_type), time_ns, cdr)

    def close(self) -> None:
        """Write the index and metadata.yaml."""
        self._writer.close()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, topic: str, message_type: str) -> Any:
        if topic not in self._connections:
            learn_type(self.store, message_type)
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=self.store, offered_qos_profiles=[RELIABLE]
            )
        return self._connections[topic]


def typestore() -> Typestore:
    """The message types of ROS 2 Kilted, and vision_msgs."""
    store = get_typestore(Stores.ROS2_KILTED)
    learn_type(store, 'vision_msgs/msg/Detection2DArray')
    learn_type(store, 'vision_msgs/msg/Detection3DArray')
    return store


def learn_type(store: Typestore, message_type: str) -> None:
    """Make a store know a type, and those it is made of, from installed .msg files.

    Raises PoseNodeError when there is no such file.
    """
    if message_type in store.fielddefs:
        return
    package, _, name = message_type.split('/')
    found: dict[str, Any] = get_types_from_msg(_definition(package, name), message_type)
    for each in _parts(found):
        learn_type(store, each)
    store.register({key: value for key, value in found.items() if key not in store.fielddefs})


def _parts(found: dict[str, Any]) -> set[str]:
    """Names of the message types that fields of the given ones have."""
    names: set[str] = set()

    def look(field: Any) -> None:
        kind, content = field
        if kind.name == 'NAME':
            names.add(content)
        elif kind.name in ('ARRAY', 'SEQUENCE'):
            look(content[0])

    for _, fields in found.values():
        for _, field in fields:
            look(field)
    return names - set(found)


def _definition(package: str, name: str) -> str:
    """The text of a message's .msg file: an installed one, else our own copy of the package's."""
    prefixes = [
        *filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)),
        sys.prefix,
    ]
    places = [Path(prefix) / 'share' / package / 'msg' for prefix in prefixes]
    places.append(share_folder() / 'interfaces' / package / 'msg')
    for place in places:
        file = place / f'{name}.msg'
        if file.is_file():
            return file.read_text(encoding='utf-8')
    raise PoseNodeError(
        f'{package}/msg/{name}.msg is in none of {", ".join(map(str, places))}; '
        f'install {package} or source the workspace that holds it.'
    )


def _offered(connection: Any) -> Qos:
    profiles = getattr(connection.ext, 'offered_qos_profiles', None)
    return profiles[0] if profiles else RELIABLE


__all__ = ['BagReader', 'BagWriter', 'Recorded', 'Topic', 'learn_type', 'typestore']
