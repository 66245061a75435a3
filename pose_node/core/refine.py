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
from functools import cached_property

import cv2
import numpy as np

from .geometry import exp_so3

# A step that promises to lower the cost (half squared sigmas) by less than this is the last: a
# robust minimum is only the start of a fit, and no fit need be surer than its covariance can tell.
_CONVERGED_ROBUST, _CONVERGED = 5e-2, 1e-5
_NEAREST_M = 1e-6  # points nearer to the camera's plane than this have no projection

# (a x b)_i = sum over j, k of _CROSS[i, j, k] a_j b_k
_CROSS = np.zeros((3, 3, 3))
_CROSS[(0, 1, 2), (1, 2, 0), (2, 0, 1)] = 1.0
_CROSS[(0, 1, 2), (2, 0, 1), (1, 2, 0)] = -1.0


@dataclass(frozen=True, eq=False)
class Problem:
    """Points of the object and where they were seen, in normalised coordinates (x / z, y / z)."""

    points_obj: np.ndarray  # (3, N) m
    points_xy: np.ndarray  # (2, N)
    whitening: np.ndarray  # (2, 2, N), W covariance W^T = I

    def __len__(self) -> int:
        """How many points."""
        return self.points_obj.shape[1]

    @cached_property
    def columns(self) -> np.ndarray:
        """(2, 2, N) the whitening, its column first."""
        return self.whitening.transpose(1, 0, 2).copy()

    @cached_property
    def whitened_xy(self) -> np.ndarray:
        """(2, N) the places in sigmas."""
        W, xy = self.columns, self.points_xy
        return W[0] * xy[0] + W[1] * xy[1]

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
    squared, system = linearise(problem, R, t)
    cost = robust_cost(squared, kernel)
    normal, gradient = _normal_equations(system, squared, kernel)
    damping, growth = 1e-4, 2.0
    for _ in range(iterations):
        scaled = damping * normal.diagonal()
        damped = normal.copy()
        damped.ravel()[::7] += scaled
        solved, column = cv2.solve(damped, gradient, flags=cv2.DECOMP_CHOLESKY)
        if not solved:
            break
        step = column[:, 0]
        expected = 0.5 * float(step @ (scaled * step + gradient))
        if not math.isfinite(expected):
            break
        R_new, t_new = exp_so3(step[3:]) @ R, t + step[:3]
        if expected < enough:
            return Minimum(R_new, t_new, squared, normal, True)
        squared_new, system = linearise(problem, R_new, t_new)
        cost_new = robust_cost(squared_new, kernel)
        if cost_new < cost:
            shrink = 1.0 - (2.0 * (cost - cost_new) / expected - 1.0) ** 3
            R, t, squared, cost = R_new, t_new, squared_new, cost_new
            normal, gradient = _normal_equations(system, squared, kernel)
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
    squared, system = linearise(problem, R, t)
    normal, gradient = _normal_equations(system, squared, np.inf)
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


def linearise(problem: Problem, R: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared whitened residuals (N,) and the system (7, 2, N): the Jacobian of the residuals
    (seen minus projected) by (dp, dr), and below it the residuals. Points that are not in front
    have zeros there, and infinity for their square.
    """
    turned = R @ problem.points_obj
    points = turned + t[:, None]
    z = points[2]
    columns, seen, hidden = problem.columns, problem.whitened_xy, None
    if not np.minimum.reduce(z) > _NEAREST_M:
        hidden = ~(z > _NEAREST_M)
        z[hidden] = 1.0
        columns, seen = columns * ~hidden, seen * ~hidden
    minus_inverse_z = -1.0 / z
    system = np.empty((7, 2, len(z)))
    # d residual / d p = -W [I, -(x, y) / z] / z, and the point moves by dr x turned.
    np.multiply(columns, minus_inverse_z, out=system[:2])
    across, down = system[:2] * points[:2, None]
    minus_projected = across + down
    np.multiply(minus_projected, minus_inverse_z, out=system[2])
    products = turned[:, None, None] * system[:3]
    np.matmul(_CROSS.reshape(3, 9), products.reshape(9, -1), out=system[3:6].reshape(3, -1))
    residuals = np.add(seen, minus_projected, out=system[6])
    first, second = residuals * residuals
    squared = first + second
    if hidden is not None:
        squared[hidden] = np.inf
    return squared, system


def _normal_equations(
    system: np.ndarray, squared: np.ndarray, kernel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Information (6, 6) and downhill gradient (6,), each point weighted as the kernel has it."""
    weighted = flat = system.reshape(7, -1)
    if math.isfinite(kernel):
        weighted = (system * (kernel**2 / (kernel**2 + squared))).reshape(7, -1)
    both = weighted[:6] @ flat.T
    return both[:, :6], -both[:, 6]
