"""Things at rest on a table, close together: standing as they would stand, upon each other or
leaning on each other, and never one inside another.

Each is its convex hull here. Where it rests, and how likely, is what a rigid body thrown at random
does on its own (Goldberg et al., "Part pose statistics: estimators and experiments", 1999, as
trimesh has it).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import trimesh

from pose_node.core.geometry import exp_so3, make_pose

from .mesh import Mesh, simplified

_HULL_FACES = 2000  # of the mesh whose hull is taken
_AXES = 120  # of a hull's faces, the largest, along which gaps are looked for
_GAP_M = 0.0005  # things keep this distance: they touch for the eye, and never meet
_LIFT_M = 0.0003
_FLAT_M = 0.002  # corners so near the lowest, or highest, touch what is below, or carry
_TRIES = 150
_LEAN_RAD = np.radians((2.0, 40.0))  # at least this far beyond the balance; at most off upright


@dataclass(frozen=True)
class Solid:
    """A convex body: corners (N, 3), and normals (F, 3) of faces that are `offsets_m` (F,) from
    the origin.
    """

    corners_m: np.ndarray
    normals: np.ndarray
    offsets_m: np.ndarray

    def moved(self, T: np.ndarray) -> Solid:
        """Where the rigid motion T (4, 4) takes it."""
        R, t = T[:3, :3], T[:3, 3]
        normals = self.normals @ R.T
        return Solid(self.corners_m @ R.T + t, normals, self.offsets_m + normals @ t)


def clearance_m(a: Solid, b: Solid, shifts_m: np.ndarray) -> np.ndarray:
    """(S,) how far `a` and `b` moved by each of `shifts_m` (S, 3) are apart; negative where they
    may meet.

    Along the normals of their faces alone, so never more than the distance: separating axes that
    are normal to two edges are not looked for (Gottschalk et al., "OBBTree", SIGGRAPH 1996).
    """
    of_a = (a.normals @ b.corners_m.T).min(axis=1) - a.offsets_m
    of_b = (b.normals @ a.corners_m.T).min(axis=1) - b.offsets_m
    along_a = (shifts_m @ a.normals.T + of_a).max(axis=1)
    along_b = (of_b - shifts_m @ b.normals.T).max(axis=1)
    return np.asarray(np.maximum(along_a, along_b))


@dataclass(frozen=True)
class Body:
    """A solid in its own frame; it rests as rests (P, 3, 3) R_world_obj, whose shares (P,) sum to
    1.
    """

    solid: Solid
    rests: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class PileOptions:
    """How things lie."""

    spread_m: float = 0.1  # standard deviation of the places that are tried
    stacked: float = 0.15  # share of things that stand on another, where one has a flat top
    leaning: float = 0.12  # share of things that lean on another, where one is near enough
    apart: bool = False  # all round the pile instead, at three to ten spreads
    yaw_rad: tuple[float, float] = (0.0, 2 * np.pi)
    # lowest x, y and highest x, y of the table: nothing stands beyond its edges
    table_m: tuple[float, ...] = (-np.inf, -np.inf, np.inf, np.inf)


def make_body(mesh: Mesh, tilt_rad: float = 0.0) -> Body:
    """A body that rests with its z axis at most `tilt_rad` off the vertical; where it would not by
    itself, it stands upright all the same.
    """
    hull = trimesh.convex.convex_hull(simplified(mesh, _HULL_FACES).vertices_m)
    largest = np.argsort(-hull.area_faces)[:_AXES]
    corners, normals = np.asarray(hull.vertices), np.asarray(hull.face_normals)[largest]
    # What rounding leaves of a face's plane must not cut its corners off.
    solid = Solid(corners, normals, (normals @ corners.T).max(axis=1))
    rests, shares = np.eye(3)[None], np.ones(1)
    if tilt_rad > 0.0:
        poses, found = trimesh.poses.compute_stable_poses(hull, sigma=0.0, n_samples=1)
        fits = np.arccos(np.clip(poses[:, 2, 2], -1.0, 1.0)) <= tilt_rad
        if fits.any():
            rests, shares = poses[fits, :3, :3], found[fits]
    return Body(solid, rests, shares / shares.sum())


class Pile:
    """Grows round the origin of the plane z = 0."""

    def __init__(self, rng: np.random.Generator, options: PileOptions):
        self.rng, self.options = rng, options
        self.solids: list[Solid] = []
        self.tops: list[tuple[np.ndarray, float]] = []  # corners (N, 2) and height of flat tops

    def add(self, body: Body) -> np.ndarray | None:
        """T_world_obj of one more body; None where no place was found for it."""
        rng, options = self.rng, self.options
        rest = body.rests[rng.choice(len(body.rests), p=body.shares)]
        R = exp_so3(np.array((0.0, 0.0, rng.uniform(*options.yaw_rad)))) @ rest
        solid = body.solid.moved(make_pose(R, np.zeros(3)))
        kind = rng.random()
        moved = None
        if kind < options.stacked:
            moved = self._on_top(solid)
        elif kind < options.stacked + options.leaning:
            moved = self._leaning(solid)
        if moved is None:
            moved = self._beside(solid)
        if moved is None:
            return None
        solid = solid.moved(moved)
        self.solids.append(solid)
        heights = solid.corners_m[:, 2]
        flat = solid.corners_m[heights > heights.max() - _FLAT_M, :2]
        if len(flat) >= 3:
            self.tops.append((flat, float(heights.max())))
        return moved @ make_pose(R, np.zeros(3))

    def _free(self, solid: Solid, shifts_m: np.ndarray) -> np.ndarray:
        """(S,) whether `solid`, shifted, keeps clear of all that is there."""
        free = np.ones(len(shifts_m), bool)
        low, high = solid.corners_m.min(axis=0), solid.corners_m.max(axis=0)
        low, high = low + shifts_m.min(axis=0), high + shifts_m.max(axis=0)
        for other in self.solids:
            box = other.corners_m.min(axis=0) - _GAP_M, other.corners_m.max(axis=0) + _GAP_M
            if (low > box[1]).any() or (high < box[0]).any():
                continue
            free[free] = clearance_m(other, solid, shifts_m[free]) >= _GAP_M
        return free

    def _beside(self, solid: Solid) -> np.ndarray | None:
        """A motion onto the table: from the middle outwards, so that the pile is as close as it
        can be.
        """
        rng, options, spread_m = self.rng, self.options, self.options.spread_m
        if options.apart:
            turn, radius_m = rng.uniform((0.0, 3 * spread_m), (6.28, 10 * spread_m), (_TRIES, 2)).T
            tries = np.stack((radius_m * np.cos(turn), radius_m * np.sin(turn)), axis=1)
        else:
            tries = rng.normal(0.0, spread_m, (_TRIES, 2))
            tries = tries[np.argsort(np.linalg.norm(tries, axis=1))]
        low, high = solid.corners_m.min(axis=0), solid.corners_m.max(axis=0)
        shifts = np.column_stack((tries - (low + high)[:2] / 2, np.full(_TRIES, _LIFT_M - low[2])))
        held = ((low + shifts)[:, :2] >= options.table_m[:2]).all(axis=1)
        held &= ((high + shifts)[:, :2] <= options.table_m[2:]).all(axis=1)
        return _first(shifts, held & self._free(solid, shifts))

    def _on_top(self, solid: Solid) -> np.ndarray | None:
        """A motion onto a flat top that holds all that the body stands on."""
        low = solid.corners_m[:, 2].min()
        feet = solid.corners_m[solid.corners_m[:, 2] < low + _FLAT_M, :2]
        for index in self.rng.permutation(len(self.tops)):
            top, height_m = self.tops[index]
            outline = cv2.convexHull(top.astype(np.float32))
            middles = top.mean(axis=0) + self.rng.normal(0.0, 0.015, (8, 2))
            shifts = np.column_stack((middles, np.full(8, height_m + _GAP_M)))
            shifts -= (*feet.mean(axis=0), low)
            held = [
                all(cv2.pointPolygonTest(outline, foot.tolist(), False) >= 0 for foot in feet + s)
                for s in shifts[:, :2]
            ]
            motion = _first(shifts, np.array(held) & self._free(solid, shifts))
            if motion is not None:
                return motion
        return None

    def _leaning(self, solid: Solid) -> np.ndarray | None:
        """A motion onto the table and over from there, until it meets another, which holds it."""
        motion = self._beside(solid)
        if motion is None or not self.solids:
            return None
        solid = solid.moved(motion)
        center = solid.corners_m.mean(axis=0)
        feet = solid.corners_m[solid.corners_m[:, 2] < solid.corners_m[:, 2].min() + _FLAT_M]
        for turn in self.rng.uniform(0.0, 2 * np.pi, 8):
            toward = np.array((np.cos(turn), np.sin(turn), 0.0))
            pivot = feet[(feet @ toward).argmax()]
            balance = np.arctan2((pivot - center) @ toward, center[2] - pivot[2])
            last = np.eye(4)
            for angle in np.arange(0.0, _LEAN_RAD[1], np.radians(1.0)):
                R = exp_so3(angle * np.array((-toward[1], toward[0], 0.0)))
                tip = make_pose(R, pivot - R @ pivot)
                tip[2, 3] += _LIFT_M - solid.moved(tip).corners_m[:, 2].min()
                if not self._free(solid.moved(tip), np.zeros((1, 3)))[0]:
                    break
                last = tip
            else:
                continue  # nothing there to lean on
            if angle > balance + _LEAN_RAD[0]:
                return last @ motion
        return None


def _first(shifts_m: np.ndarray, good: np.ndarray) -> np.ndarray | None:
    """The first good shift as a motion (4, 4)."""
    return make_pose(np.eye(3), shifts_m[good.argmax()]) if good.any() else None
