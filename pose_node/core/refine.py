"""A pose that fits points best: weighted Levenberg-Marquardt on SE(3) with a robust kernel.

Levenberg-Marquardt: Madsen, Nielsen and Tingleff, "Methods for non-linear least squares problems" (2004), algorithm 3.16.
The step is (dp, dr) with p' = p + dp and R' = exp(dr) R: fixed axes of the camera frame, as REP-103 has the covariance,
so that the inverse of the normal matrix is the covariance to publish and needs no conversion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_I3 = np.eye(3)
# A step that promises to lower the cost (half squared sigmas) by less than this is the last: a robust minimum is
# only the start of a fit, and the fit need not be surer than its covariance can tell.
_CONVERGED_ROBUST, _CONVERGED = 5e-2, 1e-5
_NEAREST_M = 1e-6  # points nearer to the camera's plane than this have no projection


@dataclass(frozen=True)
class Problem:
    """Points of the object and where they were seen, in normalised coordinates (x / z, y / z)."""

    points_obj: np.ndarray  # (N, 3) m
    points_xy: np.ndarray  # (N, 2)
    whitening: np.ndarray  # (N, 2, 2) lower triangular, W Sigma W^T = I

    def take(self, chosen: np.ndarray) -> Problem:
        """The problem of the chosen points alone."""
        return Problem(self.points_obj[chosen], self.points_xy[chosen], self.whitening[chosen])


@dataclass(frozen=True)
class Refined:
    """A local minimum."""

    R: np.ndarray  # R_cam_obj
    t: np.ndarray
    squared: np.ndarray  # (N,) squared whitened residuals; infinite for points not in front
    normal: np.ndarray  # (6, 6) J^T J, the information of (dp, dr)
    cost: float  # of the robust kernel
    converged: bool


def refine(
    problem: Problem, R: np.ndarray, t: np.ndarray, *, kernel: float = np.inf, iterations: int = 20
) -> Refined:
    """The minimum near (R, t). kernel: beyond this many sigmas a point pulls ever less (Cauchy); inf is least squares."""
    squared, J, residuals = _linearise(problem, R, t)
    cost, weights = _robust(squared, kernel)
    normal, gradient = _normal_equations(J, residuals, weights)
    damping, growth, converged = 1e-4, 2.0, False
    for _ in range(iterations):
        # Marquardt's scaling: metres and radians have different sizes.
        scale = damping * normal.diagonal()
        step = _solve(normal + np.diag(scale), gradient)
        if step is None:
            break
        R_new, t_new = _exp(step[3:]) @ R, t + step[:3]
        squared_new, J_new, residuals_new = _linearise(problem, R_new, t_new)
        cost_new, weights_new = _robust(squared_new, kernel)
        expected = 0.5 * float(step @ (scale * step + gradient))
        gain = (cost - cost_new) / max(expected, 1e-300)
        if np.isfinite(cost_new) and gain > 0.0:
            R, t, squared, cost = R_new, t_new, squared_new, cost_new
            normal, gradient = _normal_equations(J_new, residuals_new, weights_new)
            damping *= max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
            growth = 2.0
        else:
            damping *= growth
            growth *= 2.0
        if expected < (_CONVERGED if np.isinf(kernel) else _CONVERGED_ROBUST):
            converged = True
            break
    return Refined(R, t, squared, normal, cost, converged)


def squared_residuals(problem: Problem, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(N,) squared whitened residuals; infinite for points not in front."""
    return _linearise(problem, R, t)[0]


def _linearise(
    problem: Problem, R: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared whitened residuals (N,), their Jacobian (N, 2, 6) and the residuals (N, 2)."""
    turned = problem.points_obj @ R.T
    points = turned + t
    front = points[:, 2] > _NEAREST_M
    inverse_z = 1.0 / np.where(front, points[:, 2], 1.0)
    xy = points[:, :2] * inverse_z[:, None]
    W = problem.whitening
    residuals = (W @ (xy - problem.points_xy)[:, :, None])[:, :, 0]
    squared = np.where(front, np.einsum('ni,ni->n', residuals, residuals), np.inf)
    # d residual / d p: W [I, -xy] / z; d residual / d r is that row times d(exp(r) q) = r x q.
    J = np.empty((len(points), 2, 6))
    J[:, :, :2] = W * inverse_z[:, None, None]
    J[:, :, 2] = -(J[:, :, :2] @ xy[:, :, None])[:, :, 0]
    x, y, z = turned[:, 0, None], turned[:, 1, None], turned[:, 2, None]
    a, b, c = J[:, :, 0], J[:, :, 1], J[:, :, 2]
    J[:, :, 3] = y * c - z * b
    J[:, :, 4] = z * a - x * c
    J[:, :, 5] = x * b - y * a
    return squared, J, residuals


def _robust(squared: np.ndarray, kernel: float) -> tuple[float, np.ndarray]:
    """Cost and weights; a point behind the camera costs what no point in front does."""
    if np.isinf(kernel):
        return 0.5 * float(squared.sum()), np.isfinite(squared).astype(np.float64)
    scaled = np.minimum(squared, 1e12) / kernel**2
    return 0.5 * kernel**2 * float(np.log1p(scaled).sum()), np.where(
        np.isfinite(squared), 1.0 / (1.0 + scaled), 0.0
    )


def _normal_equations(
    J: np.ndarray, residuals: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    weighted = J * weights[:, None, None]
    flat = J.reshape(-1, 6)
    normal = weighted.reshape(-1, 6).T @ flat
    return normal, -(weighted.reshape(-1, 6).T @ residuals.reshape(-1))


def _exp(w: np.ndarray) -> np.ndarray:
    """geometry.exp_so3 of one vector, in a tenth of the time."""
    x, y, z = w.tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    a, b = (math.sin(angle) / angle, (1.0 - math.cos(angle)) / angle**2) if angle > 1e-6 else (1.0, 0.5)
    W = np.array(((0.0, -z, y), (z, 0.0, -x), (-y, x, 0.0)))
    return np.asarray(_I3 + a * W + b * (W @ W))


def _solve(A: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    try:
        step = np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        return None
    return step if np.isfinite(step).all() else None
