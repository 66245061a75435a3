"""A camera: from points in front of it to pixels and back, as ROS and OpenCV define both.

Pixel centres are integers: (0, 0) is the centre of the top-left pixel, so scaling by s maps u to
(u + 0.5) s - 0.5. A crop begins at a pixel, so it only shifts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .distortion import COEFFICIENTS, distort, distorted_points, undistort
from .errors import PoseNodeError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False)
class Camera:
    """The camera of the picture at hand: crops and resizes are already in K and size."""

    K: np.ndarray  # (3, 3) px
    size: tuple[int, int]  # width, height, px
    model: str = 'none'
    D: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no camera can be, in a sentence."""
        K = np.array(self.K, dtype=np.float64)
        K.setflags(write=False)  # a camera is a value: what is derived from it must stay true
        object.__setattr__(self, 'K', K)
        object.__setattr__(self, 'D', tuple(float(d) for d in self.D))
        if K.shape != (3, 3) or not np.isfinite(K).all():
            raise PoseNodeError(
                f'K is {K.tolist()}, wanted 3 x 3 finite numbers; calibrate the camera.'
            )
        if K[0, 0] <= 0.0 or K[1, 1] <= 0.0:
            raise PoseNodeError(
                f'The focal lengths are {K[0, 0]:g} and {K[1, 1]:g} px, wanted positive ones: the '
                'camera is not calibrated; calibrate it and let its driver publish the result.'
            )
        if K[1, 0] != 0.0 or tuple(K[2]) != (0.0, 0.0, 1.0):
            raise PoseNodeError(
                f'K is {K.tolist()}, wanted rows fx s cx, 0 fy cy and 0 0 1; calibrate the camera.'
            )
        if self.model not in COEFFICIENTS:
            raise PoseNodeError(
                f'The distortion model is {self.model!r}, wanted one of '
                f'{", ".join(COEFFICIENTS)}; send rectified pictures, or recalibrate.'
            )
        counts = COEFFICIENTS[self.model]
        if len(self.D) not in counts or not np.isfinite(self.D).all():
            raise PoseNodeError(
                f'Model {self.model} has D = {list(self.D)}, wanted '
                f'{" or ".join(map(str, counts))} finite numbers; calibrate the camera again.'
            )
        if min(self.size) < 1:
            raise PoseNodeError(
                f'The picture is {self.size} px large, wanted at least one pixel; look at the '
                'binning and roi of CameraInfo.'
            )

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

        rectified: the picture was rectified, so P holds and no distortion is left. roi is
        (x, y, width, height) in unbinned pixels, all zero for the full picture; binning 0 means 1.
        A picture that is the expected one scaled evenly gets a scaled camera. R turns the camera
        into the rectified frame of a stereo pair; poses in a rectified picture are in that frame.
        Raises PoseNodeError.
        """
        del R
        width, height = calibration_size
        if min(width, height) < 1:
            raise PoseNodeError(
                f'CameraInfo says the calibration is {width} x {height} px, wanted the size of '
                'the full picture; let the driver fill in width and height.'
            )
        matrix = _intrinsics(K, P, rectified)
        kind, coefficients = ('none', ()) if rectified else _distortion(model, D)
        camera = cls(matrix, (width, height), kind, coefficients)
        if any(roi):
            camera = camera.cropped(*_checked_roi(roi, calibration_size))
        return _fitted(_binned(camera, *binning), picture_size)

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the optical frame, m -> pixels (N, 2); NaN where not in front (z <= 0).

        As OpenCV's: far outside the picture a strongly distorting model may fold back into it.
        """
        points = np.asarray(points_cam, dtype=np.float64)
        front = points[:, 2] > 0.0
        z = np.where(front, points[:, 2], np.nan)
        distorted = distorted_points(self.model, self.D, points[:, :2] / z[:, None])
        return distorted @ self.K[:2, :2].T + self.K[:2, 2]

    def project_jacobian(self, points_cam: np.ndarray) -> np.ndarray:
        """d pixel / d point: (N, 2, 3), px / m; NaN where a point is not in front."""
        points = np.asarray(points_cam, dtype=np.float64)
        z = np.where(points[:, 2] > 0.0, points[:, 2], np.nan)
        xy = points[:, :2] / z[:, None]
        perspective = np.zeros((len(points), 2, 3))
        perspective[:, 0, 0] = perspective[:, 1, 1] = 1.0 / z
        perspective[:, :, 2] = -xy / z[:, None]
        _, J = distort(self.model, self.D, xy)
        return self.K[:2, :2] @ J @ perspective

    def unproject(self, points_px: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) -> (x / z, y / z) of the rays they see (N, 2).

        NaN where the model has no such ray, or has it at 90 degrees or more.
        """
        return self.unproject_with_jacobian(points_px)[0]

    def unproject_jacobian(self, points_px: np.ndarray) -> np.ndarray:
        """d (x / z, y / z) / d pixel: (N, 2, 2), 1 / px; NaN where `unproject` is."""
        return self.unproject_with_jacobian(points_px)[1]

    def unproject_with_jacobian(self, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`unproject` and `unproject_jacobian` for the price of one."""
        points = np.asarray(points_px, dtype=np.float64)
        finite = np.isfinite(points)
        if not finite.all():
            points = np.where(finite.all(axis=1, keepdims=True), points, np.nan)
        fx, skew, fy = self.K[0, 0], self.K[0, 1], self.K[1, 1]
        inverse_K = np.array([[1.0 / fx, -skew / (fx * fy)], [0.0, 1.0 / fy]])
        xy = (points - self.K[:2, 2]) @ inverse_K.T
        xy, J = undistort(self.model, self.D, xy)
        J = J @ inverse_K
        J[np.isnan(xy[:, 0])] = np.nan
        return xy, J

    def cropped(self, x0: float, y0: float, width: int, height: int) -> Camera:
        """The camera of the part of the picture that begins at pixel (x0, y0)."""
        return self.transformed(np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]]), (width, height))

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the picture resized to width x height (the half-pixel rule)."""
        sx, sy = width / self.size[0], height / self.size[1]
        A = np.array([[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5]])
        return self.transformed(A, (width, height))

    def transformed(self, A: np.ndarray, size: tuple[int, int]) -> Camera:
        """The camera of a picture whose pixels are A (2, 3) of this one's; A scales and shifts."""
        if A[0, 1] != 0.0 or A[1, 0] != 0.0:
            raise PoseNodeError(f'A is {A.tolist()}, wanted one that only scales and shifts.')
        return replace(self, K=np.vstack((A, (0.0, 0.0, 1.0))) @ self.K, size=size)


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
    """As Camera wants them: no coefficients are no distortion, zeros too many are dropped."""
    coefficients = [float(d) for d in D]
    if model in ('', 'none') and not any(coefficients):
        return 'none', ()
    if model in ('plumb_bob', 'rational_polynomial') and not coefficients:
        return 'none', ()
    most = COEFFICIENTS.get(model, (0,))[-1]
    while len(coefficients) > most and coefficients[-1] == 0.0:
        coefficients.pop()
    return model, tuple(coefficients)


def _checked_roi(
    roi: tuple[int, int, int, int], calibration_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The region of interest; a width or height of zero reaches to the border."""
    x, y = roi[:2]
    width, height = roi[2] or calibration_size[0] - x, roi[3] or calibration_size[1] - y
    right, bottom = x + width, y + height
    inside = x >= 0 and y >= 0 and right <= calibration_size[0] and bottom <= calibration_size[1]
    if not inside or min(width, height) < 1:
        raise PoseNodeError(
            f'The roi begins at ({x}, {y}) and is {roi[2]} x {roi[3]} px, wanted one inside the '
            f'calibrated {calibration_size[0]} x {calibration_size[1]}; it counts unbinned pixels.'
        )
    return x, y, width, height


def _binned(camera: Camera, columns: int, rows: int) -> Camera:
    """The camera whose pixels are columns x rows of this one's; those left over are dropped."""
    columns, rows = max(1, columns), max(1, rows)
    A = np.array([[1.0 / columns, 0.0, 0.5 / columns - 0.5], [0.0, 1.0 / rows, 0.5 / rows - 0.5]])
    return camera.transformed(A, (camera.size[0] // columns, camera.size[1] // rows))


def _fitted(camera: Camera, picture_size: tuple[int, int]) -> Camera:
    """The camera scaled to the picture that came, if that is the expected one scaled evenly."""
    if camera.size == tuple(picture_size):
        return camera
    sx, sy = (got / wanted for got, wanted in zip(picture_size, camera.size))
    # One pixel of rounding is allowed on each axis.
    if abs(sx - sy) * max(camera.size) > 1.0 + 1e-9:
        raise PoseNodeError(
            f'The picture is {picture_size[0]} x {picture_size[1]} px and CameraInfo describes '
            f'{camera.size[0]} x {camera.size[1]}; give the CameraInfo of this stream, or fill in '
            'its roi and binning.'
        )
    return camera.resized(*picture_size)
