"""Things at rest on a table, close together: in poses they would keep, and never inside another.

Each is its convex hull here. Where it rests, and how likely, is what a rigid body thrown at random
does on its own (Goldberg et al., "Part pose statistics: estimators and experiments", 1999, as
trimesh has it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import manifold3d as m3
import numpy as np
import trimesh

from pose_node.core.geometry import make_pose

from .mesh import Mesh, simplified

_HULL_FACES = 2000  # of the mesh whose hull is taken
_GAP_M = 0.0015  # things keep this distance: they touch for the eye, and never meet
_TRIES = 60


@dataclass(frozen=True)
class Body:
    """corners (H, 3) of the convex hull, rests (P, 3, 3) R_world_obj, shares (P,) sum to 1."""

    corners_m: np.ndarray
    rests: np.ndarray
    shares: np.ndarray


def make_body(mesh: Mesh, tilt_rad: float) -> Body:
    """A body that rests with its z axis at most `tilt_rad` off the vertical; where it would not by
    itself, it stands upright all the same.
    """
    hull = trimesh.convex.convex_hull(simplified(mesh, _HULL_FACES).vertices_m)
    poses, shares = trimesh.poses.compute_stable_poses(hull, sigma=0.0, n_samples=1)
    fits = np.arccos(np.clip(poses[:, 2, 2], -1.0, 1.0)) <= tilt_rad
    rests, shares = poses[fits, :3, :3], shares[fits]
    if not len(rests):
        rests, shares = np.eye(3)[None], np.ones(1)
    return Body(np.asarray(hull.vertices), rests, shares / shares.sum())


def turned(R: np.ndarray, yaw_rad: float) -> np.ndarray:
    """R_world_obj turned about the vertical."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ R


def pile_up(
    rng: np.random.Generator,
    bodies: Sequence[Body],
    spread_m: float,
    yaw_rad: tuple[float, float] = (0.0, 2 * np.pi),
) -> list[np.ndarray | None]:
    """T_world_obj of each body on the plane z = 0, round the origin; None for what found no place.

    Places are tried from the middle outwards, so that the pile is as close as it can be.
    """
    placed: list[m3.Manifold] = []
    poses: list[np.ndarray | None] = []
    for body in bodies:
        R = turned(body.rests[rng.choice(len(body.rests), p=body.shares)], rng.uniform(*yaw_rad))
        corners = body.corners_m @ R.T
        hull = m3.Manifold.hull_points(corners.astype(np.float32))
        middle = (corners[:, :2].min(axis=0) + corners[:, :2].max(axis=0)) / 2
        lift = 0.0003 - corners[:, 2].min()
        tries = rng.normal(0.0, spread_m, (_TRIES, 2))
        poses.append(None)
        for xy in tries[np.argsort(np.linalg.norm(tries, axis=1))]:
            t = np.array((*(xy - middle), lift))
            moved = hull.translate(t.tolist())
            if all(moved.min_gap(other, 2 * _GAP_M) >= _GAP_M for other in placed):
                placed.append(moved)
                poses[-1] = make_pose(R, t)
                break
    return poses
