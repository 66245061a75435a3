"""How far an estimated pose is from the true one, by the measures that benchmarks use.

Definitions are those of the BOP challenge (Hodan et al., "BOP Challenge 2020";
bop_toolkit pose_error.py), in metres, pixels and radians. Poses are T_cam_obj (4, 4), points those
of the object's mesh (N, 3) in its own frame. An estimate that is missing has the error infinity,
which no threshold admits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from .errors import PoseNodeError
from .geometry import apply, log_so3

if TYPE_CHECKING:
    from collections.abc import Callable

    from .camera import Camera

# Shares of the diameter at which MSSD is judged, pixels (of a picture 640 wide) at which MSPD is.
MSSD_THRESHOLDS = np.arange(0.05, 0.51, 0.05)
MSPD_THRESHOLDS_PX = np.arange(5.0, 51.0, 5.0)
MSPD_WIDTH_PX = 640.0

# Symmetries looked at in one go: a continuous one has hundreds, a mesh many thousand vertices.
_CHUNK = 32


def add(T_est: np.ndarray, T_gt: np.ndarray, points_obj: np.ndarray) -> float:
    """ADD: mean distance of corresponding points, m (Hinterstoisser et al., ACCV 2012)."""
    return float(_distances(apply(T_est, points_obj), apply(T_gt, points_obj)).mean())


def adds(T_est: np.ndarray, T_gt: np.ndarray, points_obj: np.ndarray) -> float:
    """ADD-S: mean distance of each true point to the nearest estimated one, m (same paper)."""
    estimated = apply(T_est, points_obj)
    if not np.isfinite(estimated).all():
        return float('inf')
    distances, _ = cKDTree(estimated).query(apply(T_gt, points_obj))
    return float(np.mean(distances))


def mssd(
    T_est: np.ndarray, T_gt: np.ndarray, points_obj: np.ndarray, symmetries: np.ndarray
) -> float:
    """MSSD: largest distance of a point, for the symmetry (S, 4, 4) that makes it least, m."""
    estimated = apply(T_est, points_obj)
    return _least_worst(estimated, symmetries, lambda S: apply(T_gt @ S, points_obj))


def mspd(
    T_est: np.ndarray,
    T_gt: np.ndarray,
    points_obj: np.ndarray,
    symmetries: np.ndarray,
    camera: Camera,
) -> float:
    """MSPD: as MSSD, but in the picture, px. Multiply by 640 / width before judging it."""

    def project(T: np.ndarray) -> np.ndarray:
        points = apply(T, points_obj)
        return camera.project(points.reshape(-1, 3)).reshape(*points.shape[:-1], 2)

    return _least_worst(project(T_est), symmetries, lambda S: project(T_gt @ S))


def projection_error(
    T_est: np.ndarray, T_gt: np.ndarray, points_obj: np.ndarray, camera: Camera
) -> float:
    """Mean distance of corresponding projections, px (Brachmann et al., CVPR 2016)."""
    estimated, true = (camera.project(apply(T, points_obj)) for T in (T_est, T_gt))
    return float(_distances(estimated, true).mean())


def rotation_error_rad(T_est: np.ndarray, T_gt: np.ndarray) -> float:
    """Angle of the rotation between two poses."""
    # The arc cosine of the trace, as papers write it, has no digits left near zero.
    return float(np.linalg.norm(_turn(T_est, T_gt)))


def translation_error_m(T_est: np.ndarray, T_gt: np.ndarray) -> float:
    """Distance of the two origins."""
    return float(_distances(T_est[:3, 3], T_gt[:3, 3]))


def n_deg_n_cm(
    T_est: np.ndarray,
    T_gt: np.ndarray,
    n_deg: float,
    n_cm: float,
    symmetries: np.ndarray | None = None,
) -> bool:
    """Whether the pose is right to n degrees and n centimetres, under the best symmetry."""
    symmetries = np.eye(4)[None] if symmetries is None else symmetries
    return any(
        rotation_error_rad(T_est, T_gt @ S) < np.radians(n_deg)
        and translation_error_m(T_est, T_gt @ S) < 0.01 * n_cm
        for S in symmetries
    )


def recall(errors: np.ndarray, threshold: float) -> float:
    """Share of the errors below the threshold; one that is NaN or infinite is a miss."""
    errors = np.asarray(errors, dtype=np.float64)
    if not errors.size:
        raise PoseNodeError(
            'There are no errors to take the recall of; give one for every target.'
        )
    return float(np.mean(errors < threshold))


def area_under_curve(errors: np.ndarray, limit: float) -> float:
    """Area under recall over thresholds from 0 to `limit`, as a share of the whole.

    Of ADD(-S) up to 0.1 m it is the AUC of Xiang et al., "PoseCNN", RSS 2018, sec. V.A. Exact: an
    error e adds recall to all thresholds above it.
    """
    errors = np.asarray(errors, dtype=np.float64)
    shares = np.where(np.isfinite(errors), errors, np.inf) / limit
    return float(np.mean(np.clip(1.0 - shares, 0.0, 1.0)))


def average_recall(errors: np.ndarray, thresholds: np.ndarray) -> float:
    """Mean recall over thresholds: AR of one error function.

    For MSSD divide the errors by the diameter and use MSSD_THRESHOLDS; for MSPD multiply them by
    MSPD_WIDTH_PX / width of the picture and use MSPD_THRESHOLDS_PX.
    """
    return float(np.mean([recall(errors, threshold) for threshold in thresholds]))


def pose_error(T_est: np.ndarray, T_gt: np.ndarray) -> np.ndarray:
    """(6,) dp, dr with p_gt = p_est + dp and R_gt = exp(dr) R_est: what a covariance speaks of."""
    return np.concatenate((T_gt[:3, 3] - T_est[:3, 3], _turn(T_est, T_gt)))


def nees(T_est: np.ndarray, T_gt: np.ndarray, covariance: np.ndarray) -> float:
    """Normalised estimation error squared: chi²(6) when the covariance (6, 6) is true.

    Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001,
    sec. 5.4.
    """
    error = pose_error(T_est, T_gt)
    return float(error @ np.linalg.solve(covariance, error))


def _turn(T_est: np.ndarray, T_gt: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) of R_gt R_estᵀ; infinite when the estimate is missing."""
    if not np.isfinite(T_est).all():
        return np.full(3, np.inf)
    return log_so3(T_gt[:3, :3] @ T_est[:3, :3].T)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Lengths of the differences along the last axis; infinite where either is not finite."""
    distances = np.linalg.norm(a - b, axis=-1)
    return np.where(np.isnan(distances), np.inf, distances)


def _least_worst(
    estimated: np.ndarray, symmetries: np.ndarray, true_points: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Least over symmetries of the largest distance over points."""
    least = np.inf
    for start in range(0, len(symmetries), _CHUNK):
        distances = _distances(estimated, true_points(symmetries[start : start + _CHUNK]))
        least = min(least, float(distances.max(axis=-1).min()))
    return float(least)
