"""Where to begin looking for a pose: closed forms and samples, every pose in front of the camera.

SQPnP (Terzakis and Lourakis, ECCV 2020); P3P (Ke and Roumeliotis, CVPR 2017), on all triples of a
few points or on random ones as in RANSAC (Fischler and Bolles, 1981); and the mirror image of a
pose, which explains flat and far objects nearly as well (Oberkampf, DeMenthon and Davis, 1996).
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .refine import Problem, robust_cost, squared_residuals

if TYPE_CHECKING:
    from collections.abc import Sequence

# R_cam_obj (3, 3) and the object's origin in the camera frame (3,), m.
Pose = tuple[np.ndarray, np.ndarray]


def sqpnp(problem: Problem) -> list[Pose]:
    """The poses that all points together ask for, each point weighted the same."""
    points, xy = _for_opencv(problem)
    try:
        found = cv2.solvePnPGeneric(points, xy, np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # OpenCV throws on points it dislikes: no pose
        return []
    return _in_front(problem, found[1] or (), found[2] or ())


def surest_half(problem: Problem) -> list[Pose]:
    """SQPnP on the half of the points whose places are known best; outliers are rarer there."""
    (a, b), (c, d) = problem.whitening
    order = np.argsort(b * c - a * d)
    return sqpnp(problem.take(order[: (len(problem) + 1) // 2]))


def all_triples(problem: Problem, count: int, kernel: float) -> list[Pose]:
    """The `count` best of all poses of three points."""
    triples = list(combinations(range(len(problem)), 3))
    return _best(problem, _p3p(problem, triples), count, kernel)


def random_triples(problem: Problem, samples: int, count: int, kernel: float) -> list[Pose]:
    """The `count` best of the poses of random triples; the draws are the same every time."""
    draws = np.random.default_rng(0).random((samples, len(problem)))
    return _best(problem, _p3p(problem, draws.argsort(axis=1)[:, :3]), count, kernel)


def mirrored(R: np.ndarray, t: np.ndarray, centre: np.ndarray, normal: np.ndarray) -> Pose:
    """The pose with the object's depth reversed along the line of sight.

    centre and normal are those of the plane that the object's points come nearest to.
    """
    centre_cam = R @ centre + t
    sight = centre_cam / np.linalg.norm(centre_cam)
    # Two reflections, of the object in its own plane and of space along the line of sight.
    flipped = R - np.outer(2.0 * R @ normal, normal)
    flipped -= np.outer(2.0 * sight, sight @ flipped)
    return flipped, centre_cam - flipped @ centre


def apart(R_a: np.ndarray, R_b: np.ndarray, angle_rad: float) -> bool:
    """Whether two rotations differ by more than an angle."""
    return float((R_a * R_b).sum()) < 1.0 + 2.0 * np.cos(angle_rad)


def _best(problem: Problem, poses: list[Pose], count: int, kernel: float) -> list[Pose]:
    """Those of the lowest robust cost, no two of them near each other."""
    if not poses:
        return []
    R, t = (np.stack(part) for part in zip(*poses))
    costs = robust_cost(squared_residuals(problem, R, t), kernel)
    kept: list[Pose] = []
    for i in costs.argsort():
        if len(kept) < count and all(apart(R[i], other, 0.1) for other, _ in kept):
            kept.append(poses[i])
    return kept


def _p3p(problem: Problem, triples: Sequence[Sequence[int]] | np.ndarray) -> list[Pose]:
    """Up to four poses of each triple of points."""
    points, xy = _for_opencv(problem)
    identity, method = np.eye(3), cv2.SOLVEPNP_AP3P
    poses = []
    for triple in np.asarray(triples):
        try:
            _, *found = cv2.solveP3P(points[triple], xy[triple], identity, None, method)
        except cv2.error:
            continue
        poses += _in_front(problem, found[0] or (), found[1] or ())
    return poses


def _for_opencv(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and places (N, 2), contiguous."""
    return np.ascontiguousarray(problem.points_obj.T), np.ascontiguousarray(problem.points_xy.T)


def _in_front(problem: Problem, rotvecs: Sequence, translations: Sequence) -> list[Pose]:
    """The finite poses that have every point in front of the camera."""
    poses = []
    for rotvec, translation in zip(rotvecs, translations):
        R, t = cv2.Rodrigues(rotvec)[0], translation[:, 0]
        if (R[2] @ problem.points_obj).min() + t[2] > 0.0 and np.isfinite(t).all():
            poses.append((R, t))
    return poses
