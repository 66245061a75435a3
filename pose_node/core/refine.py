"""A pose that fits points best: weighted Levenberg-Marquardt on SE(3) with a robust kernel.

Levenberg-Marquardt: Madsen, Nielsen and Tingleff, "Methods for non-linear least squares problems"
(2004), algorithm 3.16, with Marquardt's scaling. The step is (dp, dr) with p' = p + dp and
R' = exp(dr) R: fixed axes of the camera frame, as REP-103 has the covariance, so that the inverse
of the normal matrix is the covariance to publish and needs no conversion.

Points are few and numpy counts calls: arrays here have the component first and the point last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# A step that promises to lower the cost (half squared sigmas) by less than this is the last: a
# robust minimum is only the start of a fit, and no fit need be surer than its covariance can tell.
_CONVERGED_ROBUST, _CONVERGED = 5e-2, 1e-5
_NEAREST_M = 1e-6  # points nearer to the camera's plane than this have no projection


@dataclass(frozen=True, eq=False)
class Problem:
    """Points of the object and where they were seen, in normalised coordinates (x / z, y / z)."""

    points_obj: np.ndarray  # (3, N) m
    points_xy: np.ndarray  # (2, N)
    whitening: np.ndarray  # (2, 2, N), W covariance W^T = I

    def __len__(self) -> int:
        """How many points."""
        return self.points_obj.shape[1]

    def take(self, chosen: np.ndarray) -> Problem:
        """The problem of the chosen points alone."""
        return Problem(
            self.points_obj[:, chosen], self.points_xy[:, chosen], self.whitening[:, :, chosen]
        )


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a refinement ended."""

    R: np.ndarray  # R_cam_obj
    t: np.ndarray  # of the object in the camera frame, m
    squared: np.ndarray  # (N,) squared whitened residuals; infinite for points not in front
    normal: np.ndarray  # (6, 6) information of (dp, dr)
    converged: bool


def refine(
    problem: Problem, R: np.ndarray, t: np.ndarray, *, kernel: float = np.inf, iterations: int = 20
) -> Minimum:
    """The minimum near (R, t).

    kernel: beyond this many sigmas a point pulls ever less (Cauchy); inf is least squares.
    """
    enough = _CONVERGED if math.isinf(kernel) else _CONVERGED_ROBUST
    squared, residuals, J = linearise(problem, R, t)
    cost = robust_cost(squared, kernel)
    normal, gradient = _normal_equations(J, residuals, squared, kernel)
    damping, growth = 1e-4, 2.0
    for _ in range(iterations):
        scaled = damping * normal.diagonal()
        damped = normal.copy()
        damped.flat[::7] += scaled
        try:
            step = np.linalg.solve(damped, gradient)
        except np.linalg.LinAlgError:
            break
        expected = 0.5 * float(step @ (scaled * step + gradient))
        if not math.isfinite(expected):
            break
        R_new, t_new = _exp(step[3:]) @ R, t + step[:3]
        if expected < enough:
            return Minimum(R_new, t_new, squared, normal, True)
        squared_new, residuals, J = linearise(problem, R_new, t_new)
        cost_new = robust_cost(squared_new, kernel)
        if cost_new < cost:
            shrink = 1.0 - (2.0 * (cost - cost_new) / expected - 1.0) ** 3
            R, t, squared, cost = R_new, t_new, squared_new, cost_new
            normal, gradient = _normal_equations(J, residuals, squared, kernel)
            damping, growth = damping * max(1.0 / 3.0, shrink), 2.0
        else:
            damping, growth = damping * growth, 2.0 * growth
    return Minimum(R, t, squared, normal, False)


def squared_residuals(problem: Problem, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(..., N) squared whitened residuals of poses R (..., 3, 3), t (..., 3)."""
    points = R @ problem.points_obj + t[..., None]
    front = points[..., 2, :] > _NEAREST_M
    z = np.where(front, points[..., 2, :], 1.0)
    x_off = points[..., 0, :] / z - problem.points_xy[0]
    y_off = points[..., 1, :] / z - problem.points_xy[1]
    (a, b), (c, d) = problem.whitening
    return np.where(front, (a * x_off + b * y_off) ** 2 + (c * x_off + d * y_off) ** 2, np.inf)


def promised_cost(problem: Problem, R: np.ndarray, t: np.ndarray) -> float:
    """The least squares cost after one step from here, were the problem linear."""
    squared, residuals, J = linearise(problem, R, t)
    normal, gradient = _normal_equations(J, residuals, squared, np.inf)
    try:
        return 0.5 * float(squared.sum() - gradient @ np.linalg.solve(normal, gradient))
    except np.linalg.LinAlgError:
        return np.inf


def robust_cost(squared: np.ndarray, kernel: float) -> np.ndarray:
    """(..., N) -> (...): half the squared sigmas, or Cauchy's kernel of them.

    Being behind the camera costs the kernel most of all.
    """
    if math.isinf(kernel):
        return 0.5 * squared.sum(axis=-1)
    return 0.5 * kernel**2 * np.log1p(np.minimum(squared, 1e12) / kernel**2).sum(axis=-1)


def linearise(
    problem: Problem, R: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared whitened residuals (N,), residuals (2, N), their Jacobian by (dp, dr) (6, 2, N)."""
    turned = R @ problem.points_obj
    x, y, z = turned + t[:, None]
    front = z > _NEAREST_M
    everywhere = front.all()
    inverse_z = 1.0 / (z if everywhere else np.where(front, z, 1.0))
    x, y = x * inverse_z, y * inverse_z
    W = problem.whitening
    residuals = W[:, 0] * (x - problem.points_xy[0]) + W[:, 1] * (y - problem.points_xy[1])
    squared = residuals[0] ** 2 + residuals[1] ** 2
    if not everywhere:
        squared[~front] = np.inf
        W = W * front
    # d residual / d p = W [I, -(x, y)] / z, and the point moves by dr x turned.
    J = np.empty((6, *residuals.shape))
    J[:2] = W.transpose(1, 0, 2) * inverse_z
    J[2] = -(J[0] * x + J[1] * y)
    J[3] = turned[1] * J[2] - turned[2] * J[1]
    J[4] = turned[2] * J[0] - turned[0] * J[2]
    J[5] = turned[0] * J[1] - turned[1] * J[0]
    return squared, residuals, J


def _normal_equations(
    J: np.ndarray, residuals: np.ndarray, squared: np.ndarray, kernel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Information (6, 6) and downhill gradient (6,), each point weighted as the kernel has it."""
    flat = J.reshape(6, -1)
    weighted = flat
    if math.isfinite(kernel):
        visible = squared < np.inf
        weights = np.where(visible, kernel**2 / (kernel**2 + np.where(visible, squared, 0.0)), 0.0)
        weighted = (J * weights).reshape(6, -1)
    return weighted @ flat.T, -(weighted @ residuals.ravel())


def _exp(w: np.ndarray) -> np.ndarray:
    """geometry.exp_so3 of one vector, in a tenth of the time."""
    x, y, z = w.tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    a, b = 1.0, 0.5
    if angle > 1e-6:
        a, b = math.sin(angle) / angle, 2.0 * (math.sin(0.5 * angle) / angle) ** 2
    c = 1.0 - b * angle * angle
    return np.array(
        (
            (c + b * x * x, b * x * y - a * z, b * x * z + a * y),
            (b * x * y + a * z, c + b * y * y, b * y * z - a * x),
            (b * x * z - a * y, b * y * z + a * x, c + b * z * z),
        )
    )
