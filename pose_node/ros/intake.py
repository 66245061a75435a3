"""Between the subscriptions and the worker: which picture is processed next.

Subscription callbacks only put things here; they never wait for a network. Nothing here knows ROS.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Pictures that may wait for their boxes when the newest wins, and boxes for their picture.
_PAIRING_DEPTH = 30

Dropped = Callable[[str, int], None]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture as it came in."""

    message: Any  # sensor_msgs/Image or CompressedImage
    stamp_ns: int
    arrival: float = field(default_factory=time.monotonic)  # s
    boxes: Any = None  # vision_msgs/Detection2DArray, or None


class Intake:
    """Holds pictures until the worker takes them.

    keep_all: every picture, in the order of arrival; otherwise taking one throws the older away.
    with_boxes: a picture is ready when boxes of its very stamp are here. When keep_all, it is
        given out without them after `patience_s`, so that it gets its answer all the same.
    capacity: pictures that may wait when keep_all; what comes then is lost.
    dropped: told why pictures were not processed ('superseded', 'no_boxes', 'backlog'), how many.
    """

    def __init__(
        self,
        *,
        keep_all: bool = False,
        with_boxes: bool = False,
        patience_s: float = 2.0,
        capacity: int = 2000,
        dropped: Dropped = lambda reason, count: None,
    ) -> None:
        self._keep_all = keep_all
        self._with_boxes = with_boxes
        self._patience_s = patience_s
        self._capacity = capacity if keep_all else (_PAIRING_DEPTH if with_boxes else 1)
        self._dropped = dropped
        self._frames: deque[Frame] = deque()
        self._boxes: OrderedDict[int, Any] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, frame: Frame) -> None:
        """Add a picture."""
        with self._changed:
            if len(self._frames) < self._capacity:
                self._frames.append(frame)
            elif self._keep_all:
                self._dropped('backlog', 1)
            else:
                self._frames.popleft()
                self._frames.append(frame)
                self._dropped('no_boxes' if self._with_boxes else 'superseded', 1)
            self._changed.notify()

    def put_boxes(self, stamp_ns: int, boxes: Any) -> None:
        """Add the boxes of the picture with this stamp."""
        with self._changed:
            self._boxes[stamp_ns] = boxes
            while len(self._boxes) > max(self._capacity, _PAIRING_DEPTH):
                self._boxes.popitem(last=False)
            self._changed.notify()

    def take(self) -> Frame | None:
        """The next picture, as soon as there is one; None after close()."""
        with self._changed:
            while not self._closed:
                frame = self._take_ready()
                if frame is not None:
                    return frame
                # Only a picture that waits for boxes grows ready without anybody's doing.
                impatient = self._keep_all and bool(self._frames)
                self._changed.wait(0.05 if impatient else None)
            return None

    def close(self) -> None:
        """Let take() return None from now on."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._boxes.clear()
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many pictures are here."""
        with self._changed:
            return len(self._frames)

    def _take_ready(self) -> Frame | None:
        if self._keep_all:
            if not self._frames or not self._is_ready(self._frames[0]):
                return None
            return self._with_its_boxes(self._frames.popleft())
        for i in range(len(self._frames) - 1, -1, -1):
            if self._is_ready(self._frames[i]):
                frame = self._frames[i]
                for _ in range(i + 1):
                    self._frames.popleft()
                if i:
                    self._dropped('no_boxes' if self._with_boxes else 'superseded', i)
                return self._with_its_boxes(frame)
        return None

    def _is_ready(self, frame: Frame) -> bool:
        if not self._with_boxes or frame.stamp_ns in self._boxes:
            return True
        return self._keep_all and time.monotonic() - frame.arrival > self._patience_s

    def _with_its_boxes(self, frame: Frame) -> Frame:
        if not self._with_boxes:
            return frame
        boxes = self._boxes.pop(frame.stamp_ns, None)
        return Frame(frame.message, frame.stamp_ns, frame.arrival, boxes)


__all__ = ['Frame', 'Intake']
