"""Lens distortion on normalised points (x / z, y / z), forth and back, with Jacobians.

The models of sensor_msgs/CameraInfo: plumb_bob and rational_polynomial (OpenCV's calib3d),
equidistant (Kannala and Brandt, PAMI 2006, eq. 6; OpenCV's fisheye) and none. The way back is
Newton's method, held where the model grows: beyond, the picture would fold and has no way back.
OpenCV's fixed-point iteration is quick and nearly there for common lenses, so it goes first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.polynomial import Polynomial

# How many coefficients each model has; plumb_bob may leave k3 away.
COEFFICIENTS = {
    'none': (0,),
    'plumb_bob': (4, 5),
    'rational_polynomial': (8,),
    'equidistant': (4,),
}

_WIDEST = 1e3  # normalised radius taken for 90 degrees
_ITERATIONS = 30
_FROM_NEARBY = 3  # iterations from OpenCV's answer
_CONVERGED = 1e-5  # rad or normalised; a Newton step that small is the last, and squares it

# The Jacobian [[a, b], [b, c]] of every point, each (N,): it is symmetric for all models.
_Elements = Sequence[np.ndarray] | np.ndarray


def distort(model: str, D: tuple[float, ...], xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised points (N, 2) -> where the lens puts them (N, 2), and the Jacobian (N, 2, 2)."""
    if model == 'none':
        return xy, np.broadcast_to(np.eye(2), (len(xy), 2, 2))
    function = _distort_equidistant if model == 'equidistant' else _distort_polynomial
    value, (a, b, c) = function(xy, D)
    return value, np.stack((a, b, b, c), axis=1).reshape(-1, 2, 2)


def distorted_points(model: str, D: tuple[float, ...], xy: np.ndarray) -> np.ndarray:
    """`distort` without the Jacobian."""
    if model == 'none':
        return xy
    if model == 'equidistant':
        return _distort_equidistant(xy, D)[0]
    rows = np.ascontiguousarray(xy.T)
    squares, _, radial, _ = _radial(rows, D)
    return (rows * radial + _tangential(D) @ squares).T


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
    value, elements = _polynomial(np.ascontiguousarray(xy.T), D)
    return value.T, elements


def _polynomial(xy: np.ndarray, D: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Points (2, N) -> (2, N) and a, b, c of the Jacobian (3, N): few calls of numpy, for there
    are few points.
    """
    squares, r2, radial, below = _radial(xy, D)
    k1, k2, p1, p2, k3, k4, k5, k6 = (*D, *(0.0,) * (8 - len(D)))
    slope = 2.0 * k1 + r2 * (4.0 * k2 + 6.0 * k3 * r2)  # d radial / d r, over r
    if below is not None:
        slope = (slope - 2.0 * radial * (k4 + r2 * (2.0 * k5 + 3.0 * k6 * r2))) / below
    # The slope of the tangential part is linear in the points.
    bend = np.array(((6.0 * p2, 2.0 * p1), (2.0 * p1, 2.0 * p2), (2.0 * p2, 6.0 * p1)))
    elements = slope * squares + bend @ xy
    elements[::2] += radial
    return xy * radial + _tangential(D) @ squares, elements


def _radial(
    xy: np.ndarray, D: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """x², xy, y² (3, N); r²; the radial factor, and what it was divided by, if it was."""
    k1, k2, _, _, k3, k4, k5, k6 = (*D, *(0.0,) * (8 - len(D)))
    x, y = xy
    squares = np.array((x * x, x * y, y * y))
    r2 = squares[0] + squares[2]
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    if len(D) != 8:
        return squares, r2, radial, None
    below = 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))
    return squares, r2, radial / below, below


def _tangential(D: Sequence[float]) -> np.ndarray:
    """(2, 3): the tangential part is linear in x², xy, y²."""
    p1, p2 = D[2], D[3]
    return np.array(((3.0 * p2, 2.0 * p1, p2), (p1, 2.0 * p2, 3.0 * p1)))


def _undistort_polynomial(
    distorted: np.ndarray, D: tuple[float, ...]
) -> tuple[np.ndarray, _Elements]:
    """The points, and the Jacobian of the way forth (at the last step's start, within 1e-5)."""
    limit = _growing_radius(D)
    wanted = np.ascontiguousarray(distorted.T)
    nearby = wanted
    if len(distorted):
        nearby = cv2.undistortPoints(distorted[:, None], np.eye(3), np.array(D))[:, 0].T
    xy, elements, wrong = _newton(nearby, wanted, D, limit, _FROM_NEARBY)
    if wrong.any():
        xy, elements, wrong = _newton(wanted, wanted, D, limit, _ITERATIONS)
    xy[:, wrong] = np.nan
    return xy.T, elements


def _newton(
    xy: np.ndarray, wanted: np.ndarray, D: tuple[float, ...], limit: float, iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From xy (2, N) to what lands at `wanted`, the Jacobian at the last step's start, and which
    (N,) have not arrived or lie beyond the limit.
    """
    for _ in range(iterations):
        r2 = xy[0] ** 2 + xy[1] ** 2
        far = r2 > limit**2
        if far.any():
            # Back to where the slope is well above zero; Newton then grows from below.
            xy = xy * (0.95 * limit / np.sqrt(np.where(far, r2, (0.95 * limit) ** 2)))
        value, elements = _polynomial(xy, D)
        a, b, c = elements
        u, v = value - wanted
        determinant = a * c - b * b
        determinant = np.where(np.abs(determinant) > 1e-12, determinant, 1e-12)
        step = np.array((c * u - b * v, a * v - b * u)) / determinant
        xy = xy - step
        moved = np.abs(step) > _CONVERGED
        if not moved.any():
            break
    return xy, elements, moved.any(axis=0) | (xy[0] ** 2 + xy[1] ** 2 > limit**2)


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
