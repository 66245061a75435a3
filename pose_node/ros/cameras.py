"""CameraInfo of every camera heard, and the Camera of a picture made from it.

Pictures and CameraInfo are matched by frame and size, not by stamp: many drivers stamp them
differently, or send CameraInfo rarely. Where there is one of the picture's very stamp it is
preferred, for cameras that zoom. Nothing here knows rclpy.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError

# Cameras kept ready: an unchanging CameraInfo is converted once.
_READY = 8

# Frames whose CameraInfo is kept: a robot has fewer, and a sender gone wild must not fill memory.
_FRAMES = 64

ToCamera = Callable[[Any, tuple[int, int]], Camera]


class Cameras:
    """CameraInfo messages by frame.

    to_camera: makes the Camera of a picture size from a CameraInfo; raises PoseNodeError.
    topic: where CameraInfo comes from, for the sentences.
    memory: how many CameraInfo are kept per frame.
    """

    def __init__(self, to_camera: ToCamera, topic: str, memory: int = 100) -> None:
        self._to_camera = to_camera
        self._topic = topic
        self._memory = memory
        self._infos: OrderedDict[str, deque[tuple[int, Any]]] = OrderedDict()
        self._ready: OrderedDict[tuple, Camera] = OrderedDict()
        self._changed = threading.Condition()
        self._synchronised = False  # the last picture waited for had a CameraInfo of its stamp

    def put(self, stamp_ns: int, info: Any) -> None:
        """Add a CameraInfo."""
        with self._changed:
            frame_id = info.header.frame_id
            known = self._infos.setdefault(frame_id, deque(maxlen=self._memory))
            known.append((stamp_ns, info))
            self._infos.move_to_end(frame_id)
            if len(self._infos) > _FRAMES:  # the one not heard of for longest
                self._infos.popitem(last=False)
            self._changed.notify_all()

    @property
    def frames(self) -> tuple[str, ...]:
        """The frames of which there is a CameraInfo."""
        with self._changed:
            return tuple(self._infos)

    def wait(self, frame_id: str, stamp_ns: int, patience_s: float) -> None:
        """Return when a CameraInfo for this picture is here, or patience is over.

        Cameras that send one with every picture are waited for until the very one is here.
        """
        end = time.monotonic() + patience_s
        with self._changed:
            while (left_s := end - time.monotonic()) > 0.0:
                known = self._infos.get(frame_id, ())
                if any(stamp == stamp_ns for stamp, _ in known):
                    self._synchronised = True
                    return
                if known and not self._synchronised:
                    return
                self._changed.wait(left_s)
            self._synchronised = False

    def find(self, frame_id: str, stamp_ns: int, size: tuple[int, int]) -> Camera:
        """The camera of a picture of `size` (width, height); raises PoseNodeError."""
        info = self._choose(frame_id, stamp_ns, size)
        key = (size, _content(info))
        camera = self._ready.get(key)
        if camera is None:
            camera = self._ready[key] = self._to_camera(info, size)
            while len(self._ready) > _READY:
                self._ready.popitem(last=False)
        return camera

    def _choose(self, frame_id: str, stamp_ns: int, size: tuple[int, int]) -> Any:
        with self._changed:
            known = list(self._infos.get(frame_id, ()))
            frames = ', '.join(repr(frame) for frame in self._infos)
        if not known:
            if frames:
                raise PoseNodeError(
                    f'The picture is of frame {frame_id!r}, and CameraInfo on {self._topic} of '
                    f'{frames}; let the driver write the same frame into both, or remap '
                    'camera_info to the topic beside the pictures.'
                )
            raise PoseNodeError(
                f'No CameraInfo has come on {self._topic}; remap camera_info to the topic that '
                'the camera driver publishes beside the pictures, and look whether the camera '
                'is calibrated.'
            )
        for stamp, info in reversed(known):
            if stamp == stamp_ns:
                return info
        for _, info in reversed(known):
            if (info.width, info.height) == size:
                return info
        return known[-1][1]


def _content(info: Any) -> tuple:
    """What the camera depends on."""
    roi = info.roi
    return (
        info.width,
        info.height,
        info.distortion_model,
        tuple(info.d),
        tuple(info.k),
        tuple(info.r),
        tuple(info.p),
        info.binning_x,
        info.binning_y,
        (roi.x_offset, roi.y_offset, roi.width, roi.height),
    )


__all__ = ['Cameras']
