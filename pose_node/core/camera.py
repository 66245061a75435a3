"""A camera: from points in front of it to pixels and back, as ROS and OpenCV define both.

Pixel centres are integers: (0, 0) is the centre of the top-left pixel, so scaling by s maps u to (u + 0.5) s - 0.5.
Models are those of sensor_msgs/CameraInfo: plumb_bob and rational_polynomial (OpenCV's calib3d), equidistant
(Kannala and Brandt, PAMI 2006, eq. 6; OpenCV's fisheye) and none.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import PoseNodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

# How many distortion coefficients each model has; plumb_bob may leave k3 away.
COEFFICIENTS = {'none': (0,), 'plumb_bob': (4, 5), 'rational_polynomial': (8,), 'equidistant': (4,)}

# [[a, b], [c, d]] of every point, each (N,).
_Jacobian = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

_ITERATIONS = 30
_CONVERGED = 1e-6  # of a normalised coordinate; the step that small is the last, and squares it


@dataclass(frozen=True, eq=False)
class Camera:
    """The camera of the picture at hand: whatever crop or resize it went through is in K and size."""

    K: np.ndarray  # (3, 3) px
    size: tuple[int, int]  # width, height, px
    model: str = 'none'
    D: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no camera can be, in a sentence."""
        K = np.asarray(self.K, dtype=np.float64)
        object.__setattr__(self, 'K', K)
        object.__setattr__(self, 'D', tuple(float(d) for d in self.D))
        if K.shape != (3, 3) or not np.isfinite(K).all():
            raise PoseNodeError(f'K is {K.tolist()}, wanted 3 x 3 finite numbers; calibrate the camera.')
        if K[0, 0] <= 0.0 or K[1, 1] <= 0.0:
            raise PoseNodeError(
                f'The focal lengths are {K[0, 0]:g} and {K[1, 1]:g} px, wanted positive ones: the '
                'camera is not calibrated; calibrate it and let its driver publish the result.'
            )
        if self.model not in COEFFICIENTS:
            raise PoseNodeError(
                f'The distortion model is {self.model!r}, wanted one of {", ".join(COEFFICIENTS)}; '
                'rectify the pictures and set input_is_rectified, or recalibrate.'
            )
        if len(self.D) not in COEFFICIENTS[self.model] or not np.isfinite(self.D).all():
            raise PoseNodeError(
                f'Model {self.model} has D = {list(self.D)}, wanted {COEFFICIENTS[self.model][-1]} '
                'finite numbers; calibrate the camera again.'
            )
        if min(self.size) < 1:
            raise PoseNodeError(f'The picture is {self.size} px large, wanted at least one pixel.')

    @classmethod
    def from_calibration(
        cls,
        *,
        calibration_size: tuple[int, int],
        K: np.ndarray,
        D: Sequence[float],
        model: str,
        P: np.ndarray | None = None,
        R: np.ndarray | None = None,
        rectified: bool = False,
        binning: tuple[int, int] = (1, 1),
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
        picture_size: tuple[int, int],
    ) -> Camera:
        """The camera of a picture of `picture_size` from the fields of a CameraInfo (REP 104).

        rectified: the picture was rectified, so P holds and no distortion is left. roi is (x, y, width, height) in
        unbinned pixels, all zero for the full picture; binning 0 means 1. A picture that is the expected one scaled
        evenly gets a scaled camera. R only turns the rectified frame of a stereo camera, whose pose is the one wanted.
        Raises PoseNodeError.
        """
        del R
        width, height = calibration_size
        if min(width, height) < 1:
            raise PoseNodeError(
                f'CameraInfo says the calibration is {width} x {height} px, wanted the size of the '
                'full picture; let the driver fill in width and height.'
            )
        matrix = _intrinsics(K, P, rectified)
        kind, coefficients = ('none', ()) if rectified else _distortion(model, D)
        camera = cls(matrix, (width, height), kind, coefficients)
        x, y, roi_width, roi_height = roi
        if any(roi):
            camera = camera.cropped(x, y, roi_width or width - x, roi_height or height - y)
        columns, rows = (max(1, n) for n in binning)
        if (columns, rows) != (1, 1):
            camera = camera.resized(camera.size[0] // columns, camera.size[1] // rows)
        return _fitted(camera, picture_size)

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the optical frame, m -> pixels (N, 2); NaN where a point is not in front."""
        points = np.asarray(points_cam, dtype=np.float64)
        front = points[:, 2] > 0.0
        z = np.where(front, points[:, 2], np.nan)
        distorted, _ = self._distort(points[:, :2] / z[:, None])
        return distorted @ self.K[:2, :2].T + self.K[:2, 2]

    def project_jacobian(self, points_cam: np.ndarray) -> np.ndarray:
        """d pixel / d point: (N, 2, 3), px / m; NaN where a point is not in front."""
        points = np.asarray(points_cam, dtype=np.float64)
        z = np.where(points[:, 2] > 0.0, points[:, 2], np.nan)
        xy = points[:, :2] / z[:, None]
        perspective = np.zeros((len(points), 2, 3))
        perspective[:, 0, 0] = perspective[:, 1, 1] = 1.0 / z
        perspective[:, :, 2] = -xy / z[:, None]
        _, J = self._distort(xy)
        return self.K[:2, :2] @ np.stack(J, axis=1).reshape(-1, 2, 2) @ perspective

    def unproject(self, points_px: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) -> (x / z, y / z) of the rays they see (N, 2); NaN where the model has no such ray."""
        return self.unproject_with_jacobian(points_px)[0]

    def unproject_jacobian(self, points_px: np.ndarray) -> np.ndarray:
        """d (x / z, y / z) / d pixel: (N, 2, 2), 1 / px; NaN where `unproject` is."""
        return self.unproject_with_jacobian(points_px)[1]

    def unproject_with_jacobian(self, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`unproject` and `unproject_jacobian` for the price of one."""
        points = np.asarray(points_px, dtype=np.float64)
        inverse_K = np.linalg.inv(self.K[:2, :2])
        xy = (points - self.K[:2, 2]) @ inverse_K.T
        if self.model == 'none':
            J = np.broadcast_to(inverse_K, (len(xy), 2, 2)).copy()
            J[np.isnan(xy).any(axis=1)] = np.nan
            return xy, J
        undistort = _undistort_equidistant if self.model == 'equidistant' else _undistort_polynomial
        xy = undistort(xy, self.D)
        _, (a, b, c, d) = self._distort(xy)
        # Inverse of a 2 x 2 matrix, written out: many of them at once.
        J = np.stack((d, -b, -c, a), axis=1) / (a * d - b * c)[:, None]
        return xy, J.reshape(-1, 2, 2) @ inverse_K

    def cropped(self, x0: float, y0: float, width: int, height: int) -> Camera:
        """The camera of the part of the picture that begins at pixel (x0, y0)."""
        return self.transformed(np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]]), (width, height))

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the picture resized to width x height (the half-pixel rule)."""
        sx, sy = width / self.size[0], height / self.size[1]
        A = np.array([[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5]])
        return self.transformed(A, (width, height))

    def transformed(self, A: np.ndarray, size: tuple[int, int]) -> Camera:
        """The camera of a picture whose pixels are A (2, 3) applied to this one's; A scales and shifts."""
        if A[0, 1] != 0.0 or A[1, 0] != 0.0:
            raise PoseNodeError(f'A is {A.tolist()}, wanted one that only scales and shifts.')
        return replace(self, K=np.vstack((A, (0.0, 0.0, 1.0))) @ self.K, size=size)

    def _distort(self, xy: np.ndarray) -> tuple[np.ndarray, _Jacobian]:
        """Normalised points (N, 2) -> distorted ones (N, 2) and the Jacobian."""
        if self.model == 'none':
            one, zero = np.ones(len(xy)), np.zeros(len(xy))
            return xy, (one, zero, zero, one)
        distort = _distort_equidistant if self.model == 'equidistant' else _distort_polynomial
        return distort(xy, self.D)


def _intrinsics(K: np.ndarray, P: np.ndarray | None, rectified: bool) -> np.ndarray:
    if not rectified:
        return np.asarray(K, dtype=np.float64)
    if P is None or not np.any(P):
        raise PoseNodeError(
            'The picture is said to be rectified, and CameraInfo has no P; publish one, or set '
            'input_is_rectified to false.'
        )
    return np.asarray(P, dtype=np.float64)[:3, :3]


def _distortion(model: str, D: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """Model and coefficients as Camera wants them: no coefficients are no distortion, trailing zeros are dropped."""
    coefficients = [float(d) for d in D]
    if model in ('', 'none') and not any(coefficients):
        return 'none', ()
    if model in COEFFICIENTS and not coefficients:
        return 'none', ()
    most = COEFFICIENTS.get(model, (0,))[-1]
    while len(coefficients) > most and coefficients[-1] == 0.0:
        coefficients.pop()
    return model, tuple(coefficients)


def _fitted(camera: Camera, picture_size: tuple[int, int]) -> Camera:
    """The camera scaled to the picture that came, if that is the expected one scaled evenly."""
    if camera.size == tuple(picture_size):
        return camera
    sx, sy = (got / wanted for got, wanted in zip(picture_size, camera.size))  # noqa: B905 (both are pairs)
    # One pixel of rounding is allowed on each axis.
    if abs(sx - sy) * max(camera.size) > 1.0 + 1e-9:
        raise PoseNodeError(
            f'The picture is {picture_size[0]} x {picture_size[1]} px and CameraInfo describes '
            f'{camera.size[0]} x {camera.size[1]}; give the CameraInfo of this stream, or fill in '
            'its roi and binning.'
        )
    return camera.resized(*picture_size)


def _distort_polynomial(xy: np.ndarray, D: Sequence[float]) -> tuple[np.ndarray, _Jacobian]:
    k1, k2, p1, p2, k3, k4, k5, k6 = (*D, *(0.0,) * (8 - len(D)))
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    above, below = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))
    slope_above = k1 + r2 * (2.0 * k2 + 3.0 * k3 * r2)
    slope_below = k4 + r2 * (2.0 * k5 + 3.0 * k6 * r2)
    radial = above / below
    slope = (slope_above - radial * slope_below) / below  # d radial / d r2
    value = np.stack(
        (
            x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
            y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y,
        ),
        axis=1,
    )
    across = 2.0 * (x * y * slope + p1 * x + p2 * y)
    along_x = radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x
    along_y = radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x
    return value, (along_x, across, across, along_y)


def _undistort_polynomial(distorted: np.ndarray, D: tuple[float, ...]) -> np.ndarray:
    """Newton's method, held inside the radius up to which the model grows; NaN where it has no answer there."""
    limit = _growing_radius(D)
    xy = distorted.copy()
    for _ in range(_ITERATIONS):
        r2 = np.einsum('ni,ni->n', xy, xy)
        far = r2 > limit**2
        if far.any():
            xy[far] *= (limit / np.sqrt(r2[far]))[:, None]
        value, (a, b, c, d) = _distort_polynomial(xy, D)
        u, v = (value - distorted).T
        determinant = a * d - b * c
        determinant = np.where(np.abs(determinant) > 1e-12, determinant, 1e-12)
        step = np.stack(((d * u - b * v) / determinant, (a * v - c * u) / determinant), axis=1)
        xy = xy - step
        if not (np.abs(step) > _CONVERGED).any():
            break
    # A last Newton step from 1e-6 lands within 1e-12, so only points that never settled are off.
    wrong = np.abs(step).max(axis=1) > _CONVERGED
    wrong |= np.einsum('ni,ni->n', xy, xy) > limit**2 * (1.0 + 1e-9)
    xy[wrong] = np.nan
    return xy


@functools.lru_cache(maxsize=64)
def _growing_radius(D: tuple[float, ...]) -> float:
    """The normalised radius up to which a larger angle lands farther out; beyond, the picture would fold."""
    radii = np.linspace(0.0, 10.0, 2001)
    xy = np.stack((radii, np.zeros_like(radii)), axis=1)
    _, (slope, *_) = _distort_polynomial(xy, (D[0], D[1], 0.0, 0.0, *D[4:]))
    falling = np.flatnonzero(~(slope > 0.0))
    return float(radii[falling[0]]) if len(falling) else float(radii[-1])


def _distort_equidistant(xy: np.ndarray, D: Sequence[float]) -> tuple[np.ndarray, _Jacobian]:
    r = np.maximum(np.linalg.norm(xy, axis=1), 1e-9)
    theta = np.arctan(r)
    distorted, slope = _fisheye_angle(theta, D)
    factor = distorted / r
    bend = (slope / (1.0 + r * r) - factor) / (r * r)  # d factor / d r, over r
    x, y = xy[:, 0], xy[:, 1]
    across = bend * x * y
    return xy * factor[:, None], (factor + bend * x * x, across, across, factor + bend * y * y)


def _undistort_equidistant(distorted: np.ndarray, D: Sequence[float]) -> np.ndarray:
    """Newton's method on the angle alone; NaN from 90 degrees on, or where the model folds."""
    r = np.linalg.norm(distorted, axis=1)
    theta = np.minimum(r, 1.5)
    for _ in range(_ITERATIONS):
        value, slope = _fisheye_angle(theta, D)
        step = (value - r) / np.where(np.abs(slope) > 1e-9, slope, 1e-9)
        theta = np.clip(theta - step, 0.0, 0.5 * np.pi)
        if not (np.abs(step) > 1e-2 * _CONVERGED).any():
            break
    value, slope = _fisheye_angle(theta, D)
    wrong = (np.abs(value - r) > 1e-7) | (slope <= 0.0) | (theta >= 0.5 * np.pi - 1e-6)
    factor = np.where(r > 1e-9, np.tan(theta) / np.maximum(r, 1e-9), 1.0)
    factor[wrong] = np.nan
    return distorted * factor[:, None]


def _fisheye_angle(theta: np.ndarray, D: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distorted angle of an angle, and its slope."""
    k1, k2, k3, k4 = D
    t2 = theta * theta
    value = theta * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    slope = 1.0 + t2 * (3.0 * k1 + t2 * (5.0 * k2 + t2 * (7.0 * k3 + t2 * 9.0 * k4)))
    return value, slope
