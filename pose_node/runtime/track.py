"""From poses picture by picture to things that last: who is who, how fast, and where they are when
nobody sees them.

Poses and tracks of one object are paired so that the sum of their squared distances is least
(Kuhn, 1955), within the gate. A pose without a track begins one; a track without a pose goes on as
it moved until it is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from pose_node.core.motion import (
    Motion,
    MotionOptions,
    corrected,
    distance_squared,
    first_seen,
    nearest_twin,
    predicted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pose_node.core.symmetry import Symmetries

    from .results import ObjectPose

_FAR = 1e9  # a price that nobody pays


@dataclass(frozen=True)
class TrackOptions:
    """When tracks begin and end."""

    lost_after_s: float = 0.5  # without a pose
    longest_step_s: float = 1.0  # between pictures; after a longer one all tracks begin anew
    motion: MotionOptions = field(default_factory=MotionOptions)


@dataclass(frozen=True, eq=False)
class Track:
    """One thing: its object, a number that stays with it, how it moves, when it was last seen."""

    object: str
    id: int
    motion: Motion
    seen_ns: int
    pose: ObjectPose  # the last one that was measured

    def as_pose(self) -> ObjectPose:
        """The measured pose with the filter's place and covariance."""
        return replace(
            self.pose,
            instance=self.id,
            T_cam_obj=self.motion.T_cam_obj,
            covariance=self.motion.pose_covariance,
        )


class Tracker:
    """Holds the tracks of one camera."""

    def __init__(
        self, symmetries: Mapping[str, Symmetries], options: TrackOptions | None = None
    ) -> None:
        self.options = options or TrackOptions()
        self.tracks: list[Track] = []
        self._symmetries = symmetries
        self._stamp_ns: int | None = None
        self._next_id: dict[str, int] = {}

    def reset(self) -> None:
        """Forget everything but the numbers that were given."""
        self.tracks, self._stamp_ns = [], None

    def __call__(self, poses: Sequence[ObjectPose], stamp_ns: int) -> list[Track]:
        """The tracks that are seen in the picture of `stamp_ns`, in the order of their poses.

        A stamp before the last one, or long after it, begins anew: a bag that loops is no motion.
        """
        options = self.options
        if self._stamp_ns is not None:
            seconds = (stamp_ns - self._stamp_ns) / 1e9
            if not 0.0 < seconds <= options.longest_step_s:
                self.reset()
            else:
                self._predict(seconds)
        self._stamp_ns = stamp_ns
        seen: dict[int, Track] = {}
        for name in {pose.object for pose in poses}:
            numbers = [i for i, pose in enumerate(poses) if pose.object == name]
            known = [track for track in self.tracks if track.object == name]
            for i, track in self._paired([poses[i] for i in numbers], known, stamp_ns).items():
                seen[numbers[i]] = track
        fresh = {(track.object, track.id) for track in seen.values()}
        kept = [
            track
            for track in self.tracks
            if (track.object, track.id) not in fresh
            and stamp_ns - track.seen_ns <= 1e9 * options.lost_after_s
        ]
        self.tracks = [*seen.values(), *kept]
        return [seen[i] for i in sorted(seen)]

    def _predict(self, seconds: float) -> None:
        self.tracks = [
            replace(track, motion=predicted(track.motion, seconds, self.options.motion))
            for track in self.tracks
        ]

    def _paired(
        self, poses: Sequence[ObjectPose], tracks: Sequence[Track], stamp_ns: int
    ) -> dict[int, Track]:
        """Pose number -> its track after this measurement, a new one where none was near."""
        motion, symmetries = self.options.motion, self._symmetries[poses[0].object]
        twins = [
            [
                nearest_twin(pose.T_cam_obj, pose.covariance, t.motion.T_cam_obj, symmetries)
                for t in tracks
            ]
            for pose in poses
        ]
        prices = np.array(
            [[distance_squared(t.motion, *twin, motion) for t, twin in zip(tracks, row)]
             for row in twins]
        ).reshape(len(poses), len(tracks))  # fmt: skip
        prices = np.where(prices <= motion.gate_squared, prices, _FAR)
        rows, columns = linear_sum_assignment(prices)
        partner = {
            int(i): int(j) for i, j in zip(rows, columns) if prices[i, j] < _FAR
        }
        found = {}
        for i, pose in enumerate(poses):
            if i in partner:
                track = tracks[partner[i]]
                moved = corrected(track.motion, *twins[i][partner[i]], motion)
                found[i] = replace(track, motion=moved, seen_ns=stamp_ns, pose=pose)
            else:
                start = first_seen(pose.T_cam_obj, pose.covariance, motion)
                found[i] = Track(pose.object, self._number(pose.object), start, stamp_ns, pose)
        return found

    def _number(self, name: str) -> int:
        number = self._next_id.get(name, 0)
        self._next_id[name] = number + 1
        return number
