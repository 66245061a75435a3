"""The tracks of every camera, and what they say about the next picture: where to look, and whether
the locator must be asked.

A scene that goes on as it was costs one small network a picture. The locator is asked when nothing
is tracked, when something was not seen where it should have been, and every `locate_period`, since
there may be new things.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from pose_node.core.motion import MotionOptions
from pose_node.runtime.track import Tracker, TrackOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pose_node.core.symmetry import Symmetries
    from pose_node.runtime.results import ObjectPose
    from pose_node.runtime.track import Track

    from .parameters import Parameters

_CAMERAS = 16  # frames whose tracks are kept
_TURN_PER_SHIFT = 3.0  # rad/s² for every m/s²
# A filter that remembers for seconds must know that errors are alike for longer, too.
_STILL = MotionOptions(
    acceleration=0.01,
    angular_acceleration=0.03,
    speed=0.05,
    angular_speed=0.1,
    correlation=0.5,
)


class Tracks:
    """One tracker for every camera frame."""

    def __init__(self, symmetries: Mapping[str, Symmetries]) -> None:
        self._symmetries = symmetries
        self._cameras: OrderedDict[str, _Camera] = OrderedDict()

    def expect(
        self, frame_id: str, stamp_ns: int, parameters: Parameters
    ) -> tuple[list[Track], bool]:
        """The tracks as they should be in this picture, and whether the locator must look too."""
        camera = self._cameras.setdefault(frame_id, _Camera(self._symmetries))
        self._cameras.move_to_end(frame_id)
        if len(self._cameras) > _CAMERAS:
            self._cameras.popitem(last=False)
        camera.tracker.options = options_of(parameters)
        return camera.expect(stamp_ns, round(1e9 * parameters.locate_period))

    def update(self, frame_id: str, poses: Sequence[ObjectPose]) -> list[Track]:
        """What was seen in the picture that was expected, as tracks."""
        return self._cameras[frame_id].update(poses)


class _Camera:
    def __init__(self, symmetries: Mapping[str, Symmetries]) -> None:
        self.tracker = Tracker(symmetries)
        self._all_seen = False
        self._located_ns: int | None = None

    def expect(self, stamp_ns: int, period_ns: int) -> tuple[list[Track], bool]:
        expected = self.tracker.predict(stamp_ns)
        since_ns = None if self._located_ns is None else stamp_ns - self._located_ns
        # Between two looks of the locator; a clock that went back begins anew.
        between = since_ns is not None and 0 <= since_ns < period_ns
        locate = not (expected and self._all_seen and between)
        if locate:
            self._located_ns = stamp_ns
        return expected, locate

    def update(self, poses: Sequence[ObjectPose]) -> list[Track]:
        seen = self.tracker.update(poses)
        self._all_seen = len(seen) == len(self.tracker.tracks)
        return seen


def options_of(parameters: Parameters) -> TrackOptions:
    """The tracker's options as the node's parameters have them."""
    shift = parameters.acceleration
    motion = MotionOptions(acceleration=shift, angular_acceleration=_TURN_PER_SHIFT * shift)
    if parameters.still:
        motion = _STILL
    return TrackOptions(lost_after_s=parameters.lost_after, motion=motion)


__all__ = ['Tracks', 'options_of']
