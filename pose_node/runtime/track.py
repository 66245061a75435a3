"""From poses picture by picture to things that last: who is who, how fast, and where they are when
nobody sees them.

Poses and tracks of one object are paired so that the sum of their squared distances is least
(Kuhn, 1955), within the gate. A track without a pose goes on as it moved until it is lost. A pose
without a track begins one at once where no track of its object goes unseen; otherwise it may be a
wrong pose of that one, or a jump of it, and must be seen again before it is believed: then it
takes over the number of the one that it must be. Of a picture that leaves two answers a track goes
on with the one that it followed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.assignment import assigned
from pose_node.core.motion import (
    Motion,
    MotionOptions,
    corrected,
    distance_squared,
    first_seen,
    nearest_twin,
    predicted,
)

from .distribution import readings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pose_node.core.symmetry import Symmetries

    from .results import ObjectPose

_FAR = 1e9  # a price that nobody pays
_UNNUMBERED = -1


@dataclass(frozen=True)
class TrackOptions:
    """When tracks begin and end."""

    lost_after_s: float = 1.0  # without a pose
    longest_step_s: float = 1.0  # between pictures; after a longer one all tracks begin anew
    motion: MotionOptions = field(default_factory=MotionOptions)


@dataclass(frozen=True, eq=False)
class Track:
    """One thing: its object, a number that stays with it, how it moves, when it was last seen.

    Numbers of one object are the smallest that are free: one that is lost frees its own.
    """

    object: str
    id: int  # -1 until it is believed
    motion: Motion
    seen_ns: int
    pose: ObjectPose  # the last one that was measured

    @property
    def believed(self) -> bool:
        """Whether it has a number."""
        return self.id != _UNNUMBERED

    def as_pose(self) -> ObjectPose:
        """The measured pose with the filter's place and covariance."""
        return replace(
            self.pose,
            instance=self.id,
            T_cam_obj=self.motion.T_ref_obj,
            covariance=self.motion.pose_covariance,
        )


class Tracker:
    """Holds the tracks of one camera, in the frame in which its poses are given."""

    def __init__(
        self, symmetries: Mapping[str, Symmetries], options: TrackOptions | None = None
    ) -> None:
        self.options = options or TrackOptions()
        self.tracks: list[Track] = []
        self._symmetries = symmetries
        self._stamp_ns: int | None = None  # of the newest picture
        self._late = False  # whether the last one was older

    def reset(self) -> None:
        """Forget everything."""
        self.tracks, self._stamp_ns, self._late = [], None, False

    def __call__(self, poses: Sequence[ObjectPose], stamp_ns: int) -> list[Track]:
        """`predict` and `update` in one."""
        self.predict(stamp_ns)
        return self.update(poses)

    def predict(self, stamp_ns: int) -> list[Track]:
        """Go on to the picture of `stamp_ns`; returns the believed tracks as they should be there.

        One long before the last picture, or long after it, begins anew: a bag that loops is no
        motion. So does one of the very same stamp: a camera that stamps nothing cannot be
        followed. One that is only late moves nothing.
        """
        last_ns = stamp_ns if self._stamp_ns is None else self._stamp_ns
        seconds = (stamp_ns - last_ns) / 1e9
        if seconds == 0.0 or abs(seconds) > self.options.longest_step_s:
            self.reset()
        self._late = self._stamp_ns is not None and seconds < 0.0
        if not self._late:
            self.tracks = [
                replace(track, motion=predicted(track.motion, seconds, self.options.motion))
                for track in self.tracks
            ]
            self._stamp_ns = stamp_ns
        return [track for track in self.tracks if track.believed]

    def update(self, poses: Sequence[ObjectPose]) -> list[Track]:
        """Take in the poses that were measured in the picture that was predicted; returns the
        believed tracks among them, in their order.

        A picture that was older than the last tells of a moment that has been told of: its poses
        come as they were measured, with their tracks' numbers, and change nothing.
        """
        seen: dict[int, Track] = {}
        tracks: list[Track] = []
        for name in {*(pose.object for pose in poses), *(track.object for track in self.tracks)}:
            numbers = [i for i, pose in enumerate(poses) if pose.object == name]
            known = [track for track in self.tracks if track.object == name]
            found, kept = self._of_one_object([poses[i] for i in numbers], known)
            seen.update(zip(numbers, found, strict=True))
            tracks += [*found, *kept]
        if not self._late:
            self.tracks = tracks
        return [seen[i] for i in sorted(seen) if seen[i].believed]

    def _of_one_object(
        self, poses: Sequence[ObjectPose], known: Sequence[Track]
    ) -> tuple[list[Track], list[Track]]:
        """A track for every pose, in their order, and the tracks that go on unseen."""
        partners, read = self._paired(poses, known)
        measured = [(each.T_cam_obj, each.covariance) for each in read]
        stamp_ns, motion = self._stamp_ns or 0, self.options.motion
        unseen = [t for j, t in enumerate(known) if j not in partners.values() and t.believed]
        taken = {track.id for track in known}
        found = []
        for i, pose in enumerate(read):
            start = first_seen(*measured[i], motion)
            if i not in partners:
                track = Track(pose.object, _UNNUMBERED, start, stamp_ns, pose)
                number = _UNNUMBERED if unseen else _free(taken)
            else:
                track = known[partners[i]]
                moved = start if self._late else corrected(track.motion, *measured[i], motion)
                track = replace(track, motion=moved, seen_ns=stamp_ns, pose=pose)
                number = track.id
                if not track.believed:  # seen again: the one that is missing, or another one
                    number = unseen.pop(_nearest(track, unseen)).id if unseen else _free(taken)
            taken.add(number)
            found.append(replace(track, id=number))
        patience_ns = 1e9 * self.options.lost_after_s
        return found, [track for track in unseen if stamp_ns - track.seen_ns <= patience_ns]

    def _paired(
        self, poses: Sequence[ObjectPose], tracks: Sequence[Track]
    ) -> tuple[dict[int, int], list[ObjectPose]]:
        """Pose number -> number of its track, and every pose as its track reads it: of the answers
        that the picture has, and of the twins that look the same, the one that is nearest.
        """
        motion = self.options.motion
        read = [[self._read(pose, track) for track in tracks] for pose in poses]
        prices = np.array([[price for price, _ in row] for row in read])
        prices = prices.reshape(len(poses), len(tracks))
        prices = np.where(prices <= motion.gate_squared, prices, _FAR)
        partners = {i: j for i, j in assigned(prices) if prices[i, j] < _FAR}
        return partners, [
            read[i][partners[i]][1] if i in partners else pose for i, pose in enumerate(poses)
        ]

    def _read(self, pose: ObjectPose, track: Track) -> tuple[float, ObjectPose]:
        """The nearest of what the pose may be to a track, with its squared distance."""
        found = []
        for each in readings(pose):
            T, covariance = nearest_twin(
                each.T_cam_obj,
                each.covariance,
                track.motion.T_ref_obj,
                self._symmetries[pose.object],
            )
            price = distance_squared(track.motion, T, covariance)
            found.append((price, replace(each, T_cam_obj=T, covariance=covariance)))
        return min(found, key=lambda pair: pair[0])


def _free(taken: set[int]) -> int:
    return next(number for number in count() if number not in taken)


def _nearest(track: Track, others: Sequence[Track]) -> int:
    """Which of the others stands nearest to it."""
    place = track.motion.T_ref_obj[:3, 3]
    distances = [np.linalg.norm(each.motion.T_ref_obj[:3, 3] - place) for each in others]
    return int(np.argmin(distances))
