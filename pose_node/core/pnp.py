"""Correspondences with covariances to a pose with a covariance that is true.

Each start (see starts.py) is refined by weighted least squares; where some points will not fit it,
it is refined with a Cauchy kernel instead, and then by least squares over the points within the
gate and no others. The normal matrix of that fit, inverted, is the covariance. The gate lets pass
all but one in ten thousand of honest points, so that it does not bend the statistics. Poses are
compared by the squared residuals cut off at the gate (MSAC: Torr and Zisserman, CVIU 2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from . import starts
from .geometry import make_pose
from .refine import Problem, promised_cost, refine, squared_residuals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .camera import Camera


class PnpStatus(Enum):
    """How it went; the value is the sentence to log."""

    OK = 'The pose is found.'
    AMBIGUOUS = 'Two poses explain the points about equally well; the other one is given too.'
    TOO_FEW_POINTS = 'Fewer than four usable points; show more of the object.'
    BEHIND_CAMERA = 'The only pose that fits lies behind the camera; check the calibration.'
    NO_CONSENSUS = 'No pose agrees with enough of the points; they may not be of this object.'
    NOT_CONVERGED = 'The pose did not settle; its points contradict each other.'
    DEGENERATE = 'The points do not fix a pose: they lie on a line or in one place.'


@dataclass(frozen=True)
class PnpOptions:
    """Thresholds; sigmas are those of each point's own covariance."""

    kernel_sigmas: float = 2.5  # scale of the Cauchy kernel
    gate_squared: float = 18.4  # squared sigmas of an inlier: chi2(2) at 0.9999
    inliers_min: int = 4
    inlier_share_min: float = 0.4  # of the usable points
    consensus: float = 0.6  # share of inliers that ends the search for starts
    ransac_samples: int = 100
    ambiguity_cost: float = 4.6  # half squared sigmas: beyond, the other is 100 times less likely
    ambiguity_rad: float = 0.15  # poses nearer than this are the same one


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """A pose, how sure it is, and what it rests on. All NaN where there is none."""

    T_cam_obj: np.ndarray  # (4, 4)
    covariance: np.ndarray  # (6, 6) x, y, z, rx, ry, rz: p' = p + dp, R' = exp(dr) R
    inliers: np.ndarray  # (N,) bool
    reprojection_rms_px: float  # of the inliers
    status: PnpStatus
    residuals_px: np.ndarray  # (N, 2) projected minus seen; NaN for points that are not in front
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
    """Pose of points (N, 3), m, seen at (N, 2), px, with covariances (N, 2, 2), px².

    Points that are not finite or that the camera cannot see are left out. Never raises on bad
    points: the status says what is wrong with them.
    """
    options = options or PnpOptions()
    problem, usable = problem_of(points_obj, points_px, covariances_px, camera)
    if len(problem) < options.inliers_min:
        return _failed(len(points_obj), PnpStatus.TOO_FEW_POINTS)
    centre = problem.points_obj.sum(axis=1) / len(problem)
    offsets = problem.points_obj - centre[:, None]
    spread_squared, axes = np.linalg.eigh(offsets @ offsets.T)
    if spread_squared[1] < 1e-12 + 1e-6 * spread_squared[2]:
        return _failed(len(points_obj), PnpStatus.DEGENERATE)
    fits = _search(problem, centre, axes[:, 0], options)
    if not fits or not fits[0].ok:
        status = fits[0].status if fits else PnpStatus.NO_CONSENSUS
        if status is PnpStatus.NO_CONSENSUS and _fits_behind(problem, options):
            status = PnpStatus.BEHIND_CAMERA
        return _failed(len(points_obj), status)
    best, *others = fits
    rivals = [
        other
        for other in others
        if other.cost - best.cost < options.ambiguity_cost
        and starts.apart(other.R, best.R, options.ambiguity_rad)
    ]
    return _estimate(best, rivals[:1], usable, points_obj, points_px, camera)


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
    problem, usable = problem_of(points_obj, points_px, covariances_px, camera)
    if len(problem) < options.inliers_min:
        return _failed(len(points_obj), PnpStatus.TOO_FEW_POINTS)
    fit = _fit(problem, T_cam_obj[:3, :3], T_cam_obj[:3, 3], options)
    if not fit.ok:
        return _failed(len(points_obj), fit.status)
    return _estimate(fit, [], usable, points_obj, points_px, camera)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A pose, the points it rests on, and half their squared sigmas, cut off at the gate."""

    R: np.ndarray
    t: np.ndarray
    covariance: np.ndarray  # NaN where the status is not OK
    inliers: np.ndarray  # (N,) bool
    cost: float
    status: PnpStatus

    @property
    def ok(self) -> bool:
        return self.status is PnpStatus.OK


def problem_of(
    points_obj: np.ndarray, points_px: np.ndarray, covariances_px: np.ndarray, camera: Camera
) -> tuple[Problem, np.ndarray]:
    """The usable correspondences in normalised coordinates, and their indices."""
    xy, J = camera.unproject_with_jacobian(points_px)
    covariances = J @ covariances_px @ np.swapaxes(J, 1, 2)
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    determinant = a * c - b * b
    finite = np.isfinite(points_obj).all(axis=1) & np.isfinite(xy[:, 0])
    usable = np.flatnonzero(finite & np.isfinite(determinant) & (a > 0.0) & (determinant > 0.0))
    a, b, determinant = a[usable], b[usable], determinant[usable]
    # Inverse of the lower Cholesky factor of [[a, b], [b, c]].
    whitening = np.zeros((2, 2, len(usable)))
    whitening[0, 0] = 1.0 / np.sqrt(a)
    whitening[1, 1] = np.sqrt(a / determinant)
    whitening[1, 0] = -b / a * whitening[1, 1]
    points = np.asarray(points_obj, dtype=np.float64)[usable]
    return Problem(np.ascontiguousarray(points.T), xy[usable].T, whitening), usable


def _search(
    problem: Problem, centre: np.ndarray, normal: np.ndarray, options: PnpOptions
) -> list[_Fit]:
    """Fits from many starts, the best first; centre and normal are of the points' best plane."""
    fits: list[_Fit] = []
    for poses in _starts(problem, options):
        fits += [_fit(problem, R, t, options) for R, t in poses]
        fits.sort(key=lambda fit: (not fit.ok, fit.cost))
        if fits and fits[0].inliers.mean() >= options.consensus:
            break
    if fits and fits[0].ok:
        best, inliers = fits[0], problem.take(fits[0].inliers)
        R, t = starts.mirrored(best.R, best.t, centre, normal)
        # Most mirror images are far from a rival, and one step tells.
        if promised_cost(inliers, R, t) < best.cost + 4.0 * options.ambiguity_cost:
            fits.append(_fit(problem, R, t, options))
            fits.sort(key=lambda fit: (not fit.ok, fit.cost))
    return fits


def _starts(problem: Problem, options: PnpOptions) -> Iterator[list[starts.Pose]]:
    """Rounds of starts that cost more and more; the next is for when the last found nothing."""
    kernel = options.kernel_sigmas
    if len(problem) < 6:
        yield starts.sqpnp(problem) + starts.all_triples(problem, 6, kernel)
        return
    yield starts.sqpnp(problem)
    if len(problem) >= 8:
        yield starts.surest_half(problem)
    yield starts.random_triples(problem, options.ransac_samples, 4, kernel)


def _fit(problem: Problem, R: np.ndarray, t: np.ndarray, options: PnpOptions) -> _Fit:
    """The least squares pose near a start over the points within the gate."""
    gate = options.gate_squared
    wanted = max(options.inliers_min, options.inlier_share_min * len(problem))
    # Few iterations: without outliers it takes three, and with some it is in vain.
    found = refine(problem, R, t, iterations=5)
    squared = found.squared
    inliers = squared < gate
    if not (inliers.all() and found.converged):
        found = refine(problem, R, t, kernel=options.kernel_sigmas)
        squared = found.squared
        for _ in range(3):
            inliers = squared < gate
            if inliers.sum() < wanted:
                break
            found = refine(problem.take(inliers), found.R, found.t)
            squared = squared_residuals(problem, found.R, found.t)
            if np.array_equal(squared < gate, inliers):
                break
    covariance = covariance_of(found.normal)
    status = PnpStatus.OK
    if inliers.sum() < wanted:
        status = PnpStatus.NO_CONSENSUS
    elif np.isnan(covariance).any():
        status = PnpStatus.DEGENERATE
    elif not found.converged:
        status = PnpStatus.NOT_CONVERGED
    cost = 0.5 * float(np.minimum(squared, gate).sum())
    return _Fit(found.R, found.t, covariance, inliers, cost, status)


def covariance_of(normal: np.ndarray) -> np.ndarray:
    """The covariance of an information matrix; NaN where some direction is not known at all."""
    # Metres and radians have different sizes: scaled, numbers near one say how well all is known.
    scale = np.sqrt(np.maximum(normal.diagonal(), 1e-300))
    outer = scale[:, None] * scale
    try:
        inverse = np.linalg.inv(normal / outer)
    except np.linalg.LinAlgError:
        return np.full((6, 6), np.nan)
    known = inverse.diagonal().min() > 0.0 and inverse.diagonal().max() < 1e12
    return (inverse + inverse.T) / (2.0 * outer) if known else np.full((6, 6), np.nan)


def _fits_behind(problem: Problem, options: PnpOptions) -> bool:
    """Whether the points have a pose behind the camera: seen are then the rays of -points_obj."""
    behind = Problem(-problem.points_obj, problem.points_xy, problem.whitening)
    return any(_fit(behind, R, t, options).ok for R, t in starts.sqpnp(behind))


def _estimate(
    fit: _Fit,
    rivals: list[_Fit],
    usable: np.ndarray,
    points_obj: np.ndarray,
    points_px: np.ndarray,
    camera: Camera,
) -> PoseEstimate:
    off_px = camera.project(np.asarray(points_obj) @ fit.R.T + fit.t) - points_px
    inliers, chosen = np.zeros(len(points_obj), bool), usable[fit.inliers]
    inliers[chosen] = True
    sum_squared = float(np.square(off_px[chosen]).sum())
    return PoseEstimate(
        T_cam_obj=make_pose(fit.R, fit.t),
        covariance=fit.covariance,
        inliers=inliers,
        reprojection_rms_px=math.sqrt(sum_squared / len(chosen)),
        status=PnpStatus.AMBIGUOUS if rivals else PnpStatus.OK,
        residuals_px=off_px,
        T_cam_obj_other=make_pose(rivals[0].R, rivals[0].t) if rivals else None,
    )


def _failed(count: int, status: PnpStatus) -> PoseEstimate:
    return PoseEstimate(
        T_cam_obj=np.full((4, 4), np.nan),
        covariance=np.full((6, 6), np.nan),
        inliers=np.zeros(count, bool),
        reprojection_rms_px=math.nan,
        status=status,
        residuals_px=np.full((count, 2), np.nan),
    )
