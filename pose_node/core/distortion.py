"""Lens distortion on normalised points (x / z, y / z), forth and back, with Jacobians.

The models of sensor_msgs/CameraInfo: plumb_bob and rational_polynomial (OpenCV's calib3d),
equidistant (Kannala and Brandt, PAMI 2006, eq. 6; OpenCV's fisheye) and none. The way back is
Newton's method, held where the model grows: beyond, the picture would fold and has no way back.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial import Polynomial

if TYPE_CHECKING:
    from collections.abc import Sequence

# How many coefficients each model has; plumb_bob may leave k3 away.
COEFFICIENTS = {
    'none': (0,),
    'plumb_bob': (4, 5),
    'rational_polynomial': (8,),
    'equidistant': (4,),
}

_WIDEST = 1e3  # normalised radius taken for 90 degrees
_ITERATIONS = 30
_CONVERGED = 1e-5  # rad or normalised; a Newton step that small is the last, and squares it

# The Jacobian [[a, b], [b, c]] of every point, each (N,): it is symmetric for all models.
_Elements = tuple[np.ndarray, np.ndarray, np.ndarray]


def distort(model: str, D: tuple[float, ...], xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised points (N, 2) -> where the lens puts them (N, 2), and the Jacobian (N, 2, 2)."""
    if model == 'none':
        return xy, np.broadcast_to(np.eye(2), (len(xy), 2, 2))
    function = _distort_equidistant if model == 'equidistant' else _distort_polynomial
    value, (a, b, c) = function(xy, D)
    return value, np.stack((a, b, b, c), axis=1).reshape(-1, 2, 2)


def undistort(
    model: str, D: tuple[float, ...], distorted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `distort` and its Jacobian; NaN where there is none short of 90 degrees."""
    if model == 'none':
        return distorted, np.tile(np.eye(2), (len(distorted), 1, 1))
    if model == 'equidistant':
        xy = _undistort_equidistant(distorted, D)
        _, (a, b, c) = _distort_equidistant(xy, D)
    else:
        xy, (a, b, c) = _undistort_polynomial(distorted, D)
    # Inverse of a 2 x 2 matrix, written out: many of them at once.
    J = np.stack((c, -b, -b, a), axis=1) / (a * c - b * b)[:, None]
    return xy, J.reshape(-1, 2, 2)


def _distort_polynomial(xy: np.ndarray, D: Sequence[float]) -> tuple[np.ndarray, _Elements]:
    k1, k2, p1, p2, k3, k4, k5, k6 = (*D, *(0.0,) * (8 - len(D)))
    x, y = xy.T
    xx, yy, xy2 = x * x, y * y, 2.0 * x * y
    r2 = xx + yy
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2.0 * (k1 + r2 * (2.0 * k2 + 3.0 * k3 * r2))  # d radial / d r, over r
    if len(D) == 8:
        below = 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))
        radial = radial / below
        slope = (slope - 2.0 * radial * (k4 + r2 * (2.0 * k5 + 3.0 * k6 * r2))) / below
    value = np.empty_like(xy)
    value[:, 0] = x * radial + p1 * xy2 + p2 * (r2 + 2.0 * xx)
    value[:, 1] = y * radial + p1 * (r2 + 2.0 * yy) + p2 * xy2
    across = 0.5 * xy2 * slope + 2.0 * (p1 * x + p2 * y)
    along_x = radial + xx * slope + 2.0 * p1 * y + 6.0 * p2 * x
    along_y = radial + yy * slope + 6.0 * p1 * y + 2.0 * p2 * x
    return value, (along_x, across, along_y)


def _undistort_polynomial(
    distorted: np.ndarray, D: tuple[float, ...]
) -> tuple[np.ndarray, _Elements]:
    """The points, and the Jacobian of the way forth (at the last step's start, within 1e-5)."""
    limit = _growing_radius(D)
    xy = distorted
    for _ in range(_ITERATIONS):
        r2 = xy[:, 0] ** 2 + xy[:, 1] ** 2
        far = r2 > limit**2
        if far.any():
            # Back to where the slope is well above zero; Newton then grows from below.
            xy = xy * (0.95 * limit / np.sqrt(np.where(far, r2, (0.95 * limit) ** 2)))[:, None]
        value, (a, b, c) = _distort_polynomial(xy, D)
        u, v = (value - distorted).T
        determinant = a * c - b * b
        determinant = np.where(np.abs(determinant) > 1e-12, determinant, 1e-12)
        step = np.empty_like(xy)
        step[:, 0] = (c * u - b * v) / determinant
        step[:, 1] = (a * v - b * u) / determinant
        xy = xy - step
        moved = np.abs(step) > _CONVERGED
        if not moved.any():
            break
    wrong = moved.any(axis=1) | (xy[:, 0] ** 2 + xy[:, 1] ** 2 > limit**2)
    xy[wrong] = np.nan
    return xy, (a, b, c)


@functools.lru_cache(maxsize=64)
def _growing_radius(D: tuple[float, ...]) -> float:
    """The normalised radius up to which a larger angle lands farther out; the picture folds there.

    With s = r², the radius lands at r above(s) / below(s), whose slope has the sign of `slope`.
    """
    k1, k2, _, _, k3, k4, k5, k6 = (*D, *(0.0,) * (8 - len(D)))
    above, below, s = (Polynomial(c) for c in ((1, k1, k2, k3), (1, k4, k5, k6), (0, 1)))
    slope = (above + 2 * s * above.deriv()) * below - 2 * s * above * below.deriv()
    return np.sqrt(min(_first_positive_root(slope), _first_positive_root(below), _WIDEST**2))


def _first_positive_root(polynomial: Polynomial) -> float:
    # Coefficients this small bend nothing, and dividing by them overflows.
    roots = polynomial.trim(1e-50).roots()
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots)) & (roots.real > 0.0)]
    return float(real.min(initial=np.inf))


def _distort_equidistant(xy: np.ndarray, D: Sequence[float]) -> tuple[np.ndarray, _Elements]:
    r = np.maximum(np.linalg.norm(xy, axis=1), 1e-9)
    theta = np.arctan(r)
    distorted, slope = _fisheye_angle(theta, D)
    factor = distorted / r
    bend = (slope / (1.0 + r * r) - factor) / (r * r)  # d factor / d r, over r
    x, y = xy[:, 0], xy[:, 1]
    elements = (factor + bend * x * x, bend * x * y, factor + bend * y * y)
    return xy * factor[:, None], elements


def _undistort_equidistant(distorted: np.ndarray, D: tuple[float, ...]) -> np.ndarray:
    """Newton's method on the angle alone, held where the model grows; NaN beyond."""
    limit = _growing_angle(D)
    r = np.linalg.norm(distorted, axis=1)
    theta = np.minimum(r, limit)
    for _ in range(_ITERATIONS):
        value, slope = _fisheye_angle(theta, D)
        step = (value - r) / np.maximum(slope, 1e-9)
        theta = np.clip(theta - step, 0.0, limit)
        if not (np.abs(step) > _CONVERGED).any():
            break
    wrong = np.abs(step) > _CONVERGED
    factor = np.where(r > 1e-9, np.tan(theta) / np.maximum(r, 1e-9), 1.0)
    factor[wrong] = np.nan
    return distorted * factor[:, None]


@functools.lru_cache(maxsize=64)
def _growing_angle(D: tuple[float, ...]) -> float:
    """The angle (rad) up to which a larger one lands farther out, short of 90 degrees."""
    slope = Polynomial((1, *(k * n for k, n in zip(D, (3, 5, 7, 9)))))
    return min(np.sqrt(_first_positive_root(slope)), np.arctan(_WIDEST))


def _fisheye_angle(theta: np.ndarray, D: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distorted angle of an angle, and its slope."""
    k1, k2, k3, k4 = D
    t2 = theta * theta
    value = theta * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    slope = 1.0 + t2 * (3.0 * k1 + t2 * (5.0 * k2 + t2 * (7.0 * k3 + t2 * 9.0 * k4)))
    return value, slope
