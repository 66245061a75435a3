"""Correspondences with covariances to a pose with a covariance that is true.

Start: SQPnP (Terzakis and Lourakis, ECCV 2020) on all points, and on the surest half; both solutions of IPPE (Collins and
Bartoli, IJCV 2014) where the points are planar; P3P in a small RANSAC (Fischler and Bolles, 1981) only when these find no
consensus. Each start is refined with a Cauchy kernel; then the points within the gate, and no others, are fitted by
weighted least squares, whose normal matrix inverted is the covariance. The gate lets through all but one in ten thousand
of honest points, so that it does not bend the statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .geometry import angle_between, make_pose
from .refine import Problem, Refined, refine, squared_residuals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .camera import Camera


class PnpStatus(Enum):
    """How it went; the value is the sentence to log."""

    OK = 'The pose is found.'
    AMBIGUOUS = 'Two poses explain the points about equally well; the other one is given too.'
    TOO_FEW_POINTS = 'Fewer than four usable points; show more of the object or lower the threshold.'
    BEHIND_CAMERA = 'The only pose that fits lies behind the camera; check the calibration.'
    NO_CONSENSUS = 'No pose agrees with enough of the points; they may not be of this object.'
    NOT_CONVERGED = 'The pose did not settle; its points contradict each other.'
    DEGENERATE = 'The points do not fix a pose: they lie on a line or in one place.'


@dataclass(frozen=True)
class PnpOptions:
    """Thresholds; sigmas are those of each point's own covariance."""

    kernel_sigmas: float = 2.5  # scale of the Cauchy kernel
    gate_squared: float = 18.4  # squared sigmas within which a point is an inlier: chi2(2) at 0.9999
    inliers_min: int = 4
    inlier_share_min: float = 0.4  # of the usable points
    consensus: float = 0.7  # share of inliers that ends the search for starts
    ransac_samples: int = 60
    ambiguity_cost: float = 4.6  # half squared sigmas by which the second pose may be worse: chi2(2) at 0.99
    ambiguity_rad: float = 0.15  # poses nearer than this are the same one
    planar_share: float = 0.01  # thickness over extent below which points count as planar


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """A pose, how sure it is, and what it rests on. All NaN where there is none."""

    T_cam_obj: np.ndarray  # (4, 4)
    covariance: np.ndarray  # (6, 6) x, y, z, rx, ry, rz: p' = p + dp, R' = exp(dr) R
    inliers: np.ndarray  # (N,) bool
    reprojection_rms_px: float  # of the inliers
    status: PnpStatus
    T_cam_obj_other: np.ndarray | None = None  # the second answer of an ambiguous one

    @property
    def ok(self) -> bool:
        """Whether there is a pose."""
        return self.status in (PnpStatus.OK, PnpStatus.AMBIGUOUS)


def solve_pnp(
    points_obj: np.ndarray,
    points_px: np.ndarray,
    covariances_px: np.ndarray,
    camera: Camera,
    options: PnpOptions | None = None,
) -> PoseEstimate:
    """Pose of points (N, 3), m, seen at (N, 2), px, with covariances (N, 2, 2), px². Never raises on bad points."""
    options = options or PnpOptions()
    count = len(points_obj)
    problem, usable = _problem(points_obj, points_px, covariances_px, camera)
    if len(usable) < options.inliers_min:
        return _failed(count, PnpStatus.TOO_FEW_POINTS)
    extent = np.linalg.svd(problem.points_obj - problem.points_obj.mean(axis=0), compute_uv=False)
    if extent[1] < 1e-6 + 1e-3 * extent[0]:
        return _failed(count, PnpStatus.DEGENERATE)
    minima = _minima(problem, extent, options)
    if not minima:
        behind = _only_behind(problem)
        return _failed(count, PnpStatus.BEHIND_CAMERA if behind else PnpStatus.NO_CONSENSUS)
    best = _finish(problem, minima[0], options)
    if isinstance(best, PnpStatus):
        return _failed(count, best)
    refined, chosen = best
    other = _rival(problem, minima, refined, chosen, options)
    inliers = np.zeros(count, bool)
    inliers[usable[chosen]] = True
    T_cam_obj = make_pose(refined.R, refined.t)
    return PoseEstimate(
        T_cam_obj=T_cam_obj,
        covariance=np.linalg.inv(refined.normal),
        inliers=inliers,
        reprojection_rms_px=_rms_px(T_cam_obj, points_obj[inliers], points_px[inliers], camera),
        status=PnpStatus.OK if other is None else PnpStatus.AMBIGUOUS,
        T_cam_obj_other=other,
    )


def refine_pose(
    points_obj: np.ndarray,
    points_px: np.ndarray,
    covariances_px: np.ndarray,
    camera: Camera,
    T_cam_obj: np.ndarray,
    options: PnpOptions | None = None,
) -> PoseEstimate:
    """As solve_pnp, from a known start instead of a search: for tracking."""
    options = options or PnpOptions()
    problem, usable = _problem(points_obj, points_px, covariances_px, camera)
    if len(usable) < options.inliers_min:
        return _failed(len(points_obj), PnpStatus.TOO_FEW_POINTS)
    R, t = T_cam_obj[:3, :3], T_cam_obj[:3, 3]
    best = _finish(problem, refine(problem, R, t, kernel=options.kernel_sigmas), options)
    if isinstance(best, PnpStatus):
        return _failed(len(points_obj), best)
    refined, chosen = best
    inliers = np.zeros(len(points_obj), bool)
    inliers[usable[chosen]] = True
    T = make_pose(refined.R, refined.t)
    rms_px = _rms_px(T, points_obj[inliers], points_px[inliers], camera)
    return PoseEstimate(T, np.linalg.inv(refined.normal), inliers, rms_px, PnpStatus.OK)


def _problem(
    points_obj: np.ndarray, points_px: np.ndarray, covariances_px: np.ndarray, camera: Camera
) -> tuple[Problem, np.ndarray]:
    """The usable correspondences in normalised coordinates, and their indices."""
    xy, J = camera.unproject_with_jacobian(points_px)
    covariances = J @ covariances_px @ np.swapaxes(J, 1, 2)
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    determinant = a * c - b * b
    with np.errstate(invalid='ignore'):
        good = np.isfinite(points_obj).all(axis=1) & np.isfinite(xy).all(axis=1)
        good &= np.isfinite(determinant) & (a > 0.0) & (determinant > 0.0)
    usable = np.flatnonzero(good)
    a, b, determinant = a[usable], b[usable], determinant[usable]
    # Inverse of the lower Cholesky factor of [[a, b], [b, c]].
    whitening = np.zeros((len(usable), 2, 2))
    whitening[:, 0, 0] = 1.0 / np.sqrt(a)
    whitening[:, 1, 1] = np.sqrt(a / determinant)
    whitening[:, 1, 0] = -b / a * whitening[:, 1, 1]
    points = np.asarray(points_obj, dtype=np.float64)[usable]
    return Problem(points, xy[usable], whitening), usable


def _minima(problem: Problem, extent: np.ndarray, options: PnpOptions) -> list[Refined]:
    """Distinct robust minima, the best first; none when no start lies in front of the camera.

    Starts cost more and more, so each is tried only when those before found no consensus.
    """
    minima: list[Refined] = []
    for search in (_all_points, _surest_half, _ransac):
        starts = search(problem, extent, options)
        minima += [refine(problem, R, t, kernel=options.kernel_sigmas) for R, t in starts]
        minima = _distinct(minima, options)
        if minima and (minima[0].squared < options.gate_squared).mean() >= options.consensus:
            break
    return minima


def _distinct(minima: list[Refined], options: PnpOptions) -> list[Refined]:
    kept: list[Refined] = []
    for each in sorted(minima, key=lambda m: m.cost):
        usable = np.isfinite(each.cost) and (np.isfinite(each.squared)).any()
        if usable and all(angle_between(each.R, k.R) > options.ambiguity_rad for k in kept):
            kept.append(each)
    return kept


def _all_points(
    problem: Problem, extent: np.ndarray, options: PnpOptions
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    points, xy = problem.points_obj, problem.points_xy
    if extent[2] < options.planar_share * extent[0]:
        yield from _solutions(points, xy, cv2.SOLVEPNP_IPPE)
    else:
        yield from _solutions(points, xy, cv2.SOLVEPNP_SQPNP)
    if len(points) <= 5:
        # Each triple has up to four poses; the refinement sorts them out.
        for triple in combinations(range(len(points)), 3):
            yield from _p3p(points[list(triple)], xy[list(triple)])


def _surest_half(
    problem: Problem, extent: np.ndarray, options: PnpOptions
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    del extent, options
    count = len(problem.points_obj)
    if count >= 8:
        sureness = problem.whitening[:, 0, 0] * problem.whitening[:, 1, 1]
        half = np.argsort(-sureness)[: (count + 1) // 2]
        yield from _solutions(problem.points_obj[half], problem.points_xy[half], cv2.SOLVEPNP_SQPNP)


def _solutions(
    points: np.ndarray, xy: np.ndarray, method: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Poses in front of the camera; OpenCV throws on points it dislikes, which is no pose."""
    try:
        _, rotations, translations, _ = cv2.solvePnPGeneric(
            np.ascontiguousarray(points), np.ascontiguousarray(xy), np.eye(3), None, flags=method
        )
    except cv2.error:
        return []
    return _in_front(points, rotations, translations)


def _p3p(points: np.ndarray, xy: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    try:
        _, rotations, translations = cv2.solveP3P(
            np.ascontiguousarray(points), np.ascontiguousarray(xy), np.eye(3), None, cv2.SOLVEPNP_AP3P
        )
    except cv2.error:
        return []
    return _in_front(points, rotations, translations)


def _in_front(
    points: np.ndarray, rotations: tuple[np.ndarray, ...], translations: tuple[np.ndarray, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    poses = []
    for rotvec, translation in zip(rotations or (), translations or (), strict=True):
        R, t = cv2.Rodrigues(rotvec)[0], translation.ravel()
        if np.isfinite(R).all() and np.isfinite(t).all() and ((points @ R[2] + t[2]) > 0.0).all():
            poses.append((R, t))
    return poses


def _ransac(
    problem: Problem, extent: np.ndarray, options: PnpOptions
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The P3P pose with the least truncated cost; the draws are the same every time."""
    del extent
    rng = np.random.default_rng(0)
    points, xy = problem.points_obj, problem.points_xy
    best: list[tuple[np.ndarray, np.ndarray]] = []
    best_cost = np.inf
    for _ in range(options.ransac_samples if len(points) > 5 else 0):
        triple = rng.choice(len(points), 3, replace=False)
        for R, t in _p3p(points[triple], xy[triple]):
            squared = squared_residuals(problem, R, t)
            cost = float(np.minimum(squared, options.gate_squared).sum())
            if cost < best_cost:
                best, best_cost = [(R, t)], cost
    return best


def _finish(
    problem: Problem, robust: Refined, options: PnpOptions
) -> tuple[Refined, np.ndarray] | PnpStatus:
    """Least squares over the points within the gate, and their indices; or why there is none."""
    chosen = np.flatnonzero(robust.squared < options.gate_squared)
    refined = robust
    for _ in range(3):
        wanted = max(options.inliers_min, options.inlier_share_min * len(problem.points_obj))
        if len(chosen) < wanted:
            return PnpStatus.NO_CONSENSUS
        refined = refine(problem.take(chosen), refined.R, refined.t)
        squared = squared_residuals(problem, refined.R, refined.t)
        again = np.flatnonzero(squared < options.gate_squared)
        if np.array_equal(again, chosen):
            break
        chosen = again
    else:
        refined = refine(problem.take(chosen), refined.R, refined.t)
    if not refined.converged:
        return PnpStatus.NOT_CONVERGED
    scale = np.sqrt(refined.normal.diagonal())
    if (scale <= 0.0).any() or np.linalg.cond(refined.normal / np.outer(scale, scale)) > 1e12:
        return PnpStatus.DEGENERATE
    return refined, chosen


def _rival(
    problem: Problem, minima: list[Refined], best: Refined, chosen: np.ndarray, options: PnpOptions
) -> np.ndarray | None:
    """Another minimum that explains the inliers nearly as well."""
    inliers = problem.take(chosen)
    for other in minima:
        if angle_between(other.R, best.R) <= options.ambiguity_rad:
            continue
        settled = refine(inliers, other.R, other.t)
        apart = angle_between(settled.R, best.R) > options.ambiguity_rad
        if apart and settled.cost - best.cost < options.ambiguity_cost:
            return make_pose(settled.R, settled.t)
    return None


def _only_behind(problem: Problem) -> bool:
    """Whether the mirrored rays, and only they, have a pose: the object would lie behind the camera."""
    mirrored = problem.points_obj * (-1.0, -1.0, -1.0)
    found = _solutions(mirrored, problem.points_xy, cv2.SOLVEPNP_SQPNP)
    gate = 18.4
    minima = [refine(Problem(mirrored, problem.points_xy, problem.whitening), R, t) for R, t in found]
    return any((m.squared < gate).mean() > 0.7 for m in minima)


def _rms_px(
    T_cam_obj: np.ndarray, points_obj: np.ndarray, points_px: np.ndarray, camera: Camera
) -> float:
    seen = camera.project(points_obj @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3])
    return float(np.sqrt(np.mean(np.sum((seen - points_px) ** 2, axis=1))))


def _failed(count: int, status: PnpStatus) -> PoseEstimate:
    nothing = np.full((4, 4), np.nan)
    return PoseEstimate(nothing, np.full((6, 6), np.nan), np.zeros(count, bool), np.nan, status)
