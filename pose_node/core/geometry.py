"""Rotations SO(3) and poses SE(3) as matrices, with any leading batch axes.

A pose T_a_b (4, 4) maps points of frame b into frame a. Formulas: Sola et al., "A micro Lie theory
for state estimation in robotics" (2018), appendices B and D; tangent vectors of SE(3) are (v, w),
translation first.
"""

from __future__ import annotations

import math

import numpy as np

# Below this angle (rad) the series is exact to double precision; the closed form divides 0 by 0.
_SMALL = 1e-4


def hat(v: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 3, 3) with hat(v) @ u = v x u."""
    v = np.asarray(v, dtype=np.float64)
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    zero = np.zeros_like(x)
    rows = (zero, -z, y, z, zero, -x, -y, x, zero)
    return np.stack(rows, axis=-1).reshape(*v.shape[:-1], 3, 3)


def exp_so3(rotvec: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3), rad -> matrices (..., 3, 3); eq. 132 (Rodrigues)."""
    w = np.asarray(rotvec, dtype=np.float64)
    if w.ndim == 1:
        return _exp_one(*w.tolist())
    a, b, _ = _coefficients(np.linalg.norm(w, axis=-1)[..., None, None])
    W = hat(w)
    return np.eye(3) + a * W + b * (W @ W)


def log_so3(R: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) -> rotation vectors (..., 3) of length at most pi.

    By way of the quaternion's largest component (Markley, 2008), which stays exact near pi, where
    the skew part vanishes.
    """
    R = np.asarray(R, dtype=np.float64)
    if R.ndim == 2:
        return _log_one(R)
    trace = np.trace(R, axis1=-2, axis2=-1)[..., None, None]
    diagonal = np.diagonal(R, axis1=-2, axis2=-1)
    # Row i of Q is 4 q_i times the quaternion (x, y, z, w).
    Q = np.empty((*R.shape[:-2], 4, 4))
    Q[..., :3, :3] = R + np.swapaxes(R, -1, -2)
    index = np.arange(3)
    Q[..., index, index] = 1.0 - trace[..., 0] + 2.0 * diagonal
    Q[..., 3, 0] = Q[..., 0, 3] = R[..., 2, 1] - R[..., 1, 2]
    Q[..., 3, 1] = Q[..., 1, 3] = R[..., 0, 2] - R[..., 2, 0]
    Q[..., 3, 2] = Q[..., 2, 3] = R[..., 1, 0] - R[..., 0, 1]
    Q[..., 3, 3] = 1.0 + trace[..., 0, 0]
    largest = np.abs(np.diagonal(Q, axis1=-2, axis2=-1)).argmax(axis=-1)
    q = np.take_along_axis(Q, largest[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[..., 3:] < 0.0, -q, q)
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., 3:])
    return q[..., :3] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)


def quaternion_of(R: np.ndarray) -> tuple[float, float, float, float]:
    """A matrix (3, 3) -> x, y, z, w with w >= 0, by way of the largest component."""
    (a, b, c), (d, e, f), (g, h, i) = R.tolist()
    largest = max(a + e + i, a, e, i)
    if largest == a:
        q = (1.0 + a - e - i, b + d, c + g, h - f)
    elif largest == e:
        q = (b + d, 1.0 - a + e - i, f + h, c - g)
    elif largest == i:
        q = (c + g, f + h, 1.0 - a - e + i, d - b)
    else:
        q = (h - f, c - g, d - b, 1.0 + a + e + i)
    x, y, z, w = q
    scale = (-1.0 if w < 0.0 else 1.0) / math.sqrt(x * x + y * y + z * z + w * w)
    return scale * x, scale * y, scale * z, scale * w


def exp_se3(xi: np.ndarray) -> np.ndarray:
    """Tangent vectors (..., 6) = (v, w) -> poses (..., 4, 4); eq. 172."""
    xi = np.asarray(xi, dtype=np.float64)
    v, w = xi[..., :3], xi[..., 3:]
    _, b, c = _coefficients(np.linalg.norm(w, axis=-1)[..., None, None])
    W = hat(w)
    V = np.eye(3) + b * W + c * (W @ W)
    return make_pose(exp_so3(w), (V @ v[..., None])[..., 0])


def log_se3(T: np.ndarray) -> np.ndarray:
    """Poses (..., 4, 4) -> tangent vectors (..., 6) = (v, w); eq. 173."""
    T = np.asarray(T, dtype=np.float64)
    w = log_so3(T[..., :3, :3])
    _, b, c = _coefficients(np.linalg.norm(w, axis=-1)[..., None, None])
    W = hat(w)
    V = np.eye(3) + b * W + c * (W @ W)
    v = np.linalg.solve(V, T[..., :3, 3:])[..., 0]
    return np.concatenate((v, w), axis=-1)


def make_pose(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Rotation (..., 3, 3) and translation (..., 3) -> pose (..., 4, 4)."""
    R, t = np.asarray(R, dtype=np.float64), np.asarray(t, dtype=np.float64)
    leading = np.broadcast_shapes(R.shape[:-2], t.shape[:-1])
    T = np.zeros((*leading, 4, 4))
    T[..., :3, :3] = R
    T[..., :3, 3] = t
    T[..., 3, 3] = 1.0
    return T


def inverse(T: np.ndarray) -> np.ndarray:
    """T_b_a from T_a_b, without a general matrix inversion."""
    R = np.swapaxes(np.asarray(T, dtype=np.float64)[..., :3, :3], -1, -2)
    return make_pose(R, -(R @ T[..., :3, 3:])[..., 0])


def apply(T_a_b: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """Points (..., N, 3) of frame b in frame a."""
    T = np.asarray(T_a_b)
    return np.asarray(points_b) @ np.swapaxes(T[..., :3, :3], -1, -2) + T[..., None, :3, 3]


def adjoint(T_a_b: np.ndarray) -> np.ndarray:
    """(..., 6, 6) with exp(Ad xi) T = T exp(xi); eq. 175."""
    T = np.asarray(T_a_b, dtype=np.float64)
    R, t = T[..., :3, :3], T[..., :3, 3]
    A = np.zeros((*T.shape[:-2], 6, 6))
    A[..., :3, :3] = A[..., 3:, 3:] = R
    A[..., :3, 3:] = hat(t) @ R
    return A


def angle_between(R_a: np.ndarray, R_b: np.ndarray) -> np.ndarray:
    """Angle of the rotation that leads from one to the other, rad, in 0..pi."""
    difference = np.asarray(R_a) @ np.swapaxes(np.asarray(R_b), -1, -2)
    return np.linalg.norm(log_so3(difference), axis=-1)


def _coefficients(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sin(a) / a, (1 - cos(a)) / a² and (a - sin(a)) / a³, without 0 / 0."""
    small = angle < _SMALL
    a = np.where(small, 1.0, angle)  # so that the branch that is not taken divides by no zero
    square = angle**2
    return (
        np.where(small, 1.0 - square / 6.0, np.sin(a) / a),
        # Half angles: 1 - cos(a) cancels for small a.
        np.where(small, 0.5 - square / 24.0, 2.0 * np.sin(0.5 * a) ** 2 / a**2),
        np.where(small, 1.0 / 6.0 - square / 120.0, (a - np.sin(a)) / a**3),
    )


# A single rotation in plain numbers takes a tenth of the time: numpy counts calls.


def _exp_one(x: float, y: float, z: float) -> np.ndarray:
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


def _log_one(R: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion_of(R)
    sine = math.sqrt(x * x + y * y + z * z)
    stretch = 2.0 * math.atan2(sine, w) / sine if sine > 1e-12 else 2.0
    return np.array((stretch * x, stretch * y, stretch * z))
