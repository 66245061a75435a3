"""One moving pose and its twist from measurements with covariances: a Kalman filter on SE(3).

The state is T_ref_obj, in whatever frame the measurements are, and its twist (v, w) in the axes of
that frame, constant but for white noise of acceleration (Bar-Shalom et al., "Estimation with
Applications to Tracking and Navigation", 2001, sec. 6.3.2). Errors are those of the pose's
covariance everywhere: p' = p + dp, R' = exp(dr) R, with the twist's error behind them:
(dp, dr, dv, dw).

A filter that takes 30 equal errors a second for news grows sure of them. `correlation` says how
alike errors are that lie a tenth of a second apart; it fades exponentially, and covariances are
widened by (1 + c) / (1 - c): then the mean of many is as uncertain as that of a first order
autoregression, however many there are in a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import angle_between, exp_so3, hat, log_so3, make_pose
from .symmetry import Symmetries

_APART_S = 0.1
_MOST_ALIKE = 0.99


@dataclass(frozen=True)
class MotionOptions:
    """How things may move, and how far a measurement may lie from what was expected."""

    acceleration: float = 0.3  # m / s² in one second, standard deviation
    angular_acceleration: float = 0.9  # rad / s²
    speed: float = 0.5  # m / s of a thing that is first seen, standard deviation
    angular_speed: float = 1.0  # rad / s
    correlation: float = 0.2  # of the errors of measurements that are 0.1 s apart
    gate_squared: float = 22.5  # squared sigmas of a measurement: chi2(6) at 0.999


@dataclass(frozen=True, eq=False)
class Motion:
    """What is known: T_ref_obj (4, 4), twist (6,) m/s and rad/s, covariance (12, 12)."""

    T_ref_obj: np.ndarray
    twist: np.ndarray
    covariance: np.ndarray
    unmeasured_s: float = 0.0  # since the last measurement

    @property
    def pose_covariance(self) -> np.ndarray:
        """(6, 6) x, y, z, rx, ry, rz."""
        return self.covariance[:6, :6]

    @property
    def twist_covariance(self) -> np.ndarray:
        """(6, 6) in the order of the twist."""
        return self.covariance[6:, 6:]


def first_seen(T_ref_obj: np.ndarray, covariance: np.ndarray, options: MotionOptions) -> Motion:
    """The motion of something that was measured once."""
    speeds = np.repeat((options.speed, options.angular_speed), 3)
    P = np.zeros((12, 12))
    P[:6, :6] = covariance
    P[6:, 6:] = np.diag(speeds**2)
    return Motion(T_ref_obj, np.zeros(6), P)


def predicted(motion: Motion, seconds: float, options: MotionOptions) -> Motion:
    """The motion so many seconds later, with nothing measured."""
    R, p = motion.T_ref_obj[:3, :3], motion.T_ref_obj[:3, 3]
    turn = seconds * motion.twist[3:]
    F = np.eye(12)
    F[:3, 6:9] = seconds * np.eye(3)
    F[3:6, 3:6] = exp_so3(turn)
    F[3:6, 9:] = seconds * _left_jacobian(turn)
    density = np.repeat((options.acceleration**2, options.angular_acceleration**2), 3)
    P = F @ motion.covariance @ F.T
    six = np.arange(6)
    P[six, six] += seconds**3 / 3.0 * density
    P[six, six + 6] += seconds**2 / 2.0 * density
    P[six + 6, six] += seconds**2 / 2.0 * density
    P[six + 6, six + 6] += seconds * density
    T = make_pose(F[3:6, 3:6] @ R, p + seconds * motion.twist[:3])
    return Motion(T, motion.twist, P, motion.unmeasured_s + seconds)


def distance_squared(motion: Motion, T_ref_obj: np.ndarray, covariance: np.ndarray) -> float:
    """Squared sigmas between a measurement of now and what was expected of it."""
    error = _difference(T_ref_obj, motion.T_ref_obj)
    return float(error @ np.linalg.solve(motion.pose_covariance + covariance, error))


def corrected(
    motion: Motion, T_ref_obj: np.ndarray, covariance: np.ndarray, options: MotionOptions
) -> Motion:
    """The motion after a measurement of now."""
    alike = 0.0
    if options.correlation > 0.0:
        alike = min(options.correlation ** (motion.unmeasured_s / _APART_S), _MOST_ALIKE)
    P, C = motion.covariance, (1.0 + alike) / (1.0 - alike) * covariance
    gain = np.linalg.solve(P[:6, :6] + C, P[:6]).T
    step = gain @ _difference(T_ref_obj, motion.T_ref_obj)
    # Joseph's form: symmetric and positive whatever the rounding.
    I_KH = np.eye(12)
    I_KH[:, :6] -= gain
    P = I_KH @ P @ I_KH.T + gain @ C @ gain.T
    R, p = motion.T_ref_obj[:3, :3], motion.T_ref_obj[:3, 3]
    T = make_pose(exp_so3(step[3:6]) @ R, p + step[:3])
    return Motion(T, motion.twist + step[6:], P)


def nearest_twin(
    T_ref_obj: np.ndarray, covariance: np.ndarray, expected: np.ndarray, symmetries: Symmetries
) -> tuple[np.ndarray, np.ndarray]:
    """Of the poses that look the same the one nearest in rotation to `expected`, and its
    covariance.
    """
    transforms = symmetries.transforms()
    if len(transforms) == 1:
        return T_ref_obj, covariance
    twins = T_ref_obj @ transforms
    nearest = twins[int(np.argmin(angle_between(twins[:, :3, :3], expected[:3, :3])))]
    # The place moves along where the turn between the two origins has a lever.
    J = np.eye(6)
    J[:3, 3:] = -hat(nearest[:3, 3] - T_ref_obj[:3, 3])
    return nearest, J @ covariance @ J.T


def _difference(T_to: np.ndarray, T_from: np.ndarray) -> np.ndarray:
    """(dp, dr) that leads from one pose to the other."""
    turn = log_so3(T_to[:3, :3] @ T_from[:3, :3].T)
    return np.concatenate((T_to[:3, 3] - T_from[:3, 3], turn))


def _left_jacobian(turn: np.ndarray) -> np.ndarray:
    """(3, 3) with exp(turn + d) = exp(J d) exp(turn) for small d; Sola et al., eq. 145."""
    angle = float(np.linalg.norm(turn))
    W = hat(turn)
    if angle < 1e-4:
        return np.eye(3) + 0.5 * W + W @ W / 6.0
    a, b = (1.0 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
    return np.eye(3) + a * W + b * (W @ W)
