"""Which part of a camera's picture a network sees, and where things are in it.

Pixel centres are integers; T_net_px (3, 3) maps pixels of the whole picture to those of the part.
"""

from __future__ import annotations

import numpy as np

from pose_node.core.geometry import apply

FILL = 114  # grey outside the picture, as at run time


def share_inside(low: np.ndarray, high: np.ndarray, picture_size: tuple[int, int]) -> float:
    """Share of a box that lies in the picture."""
    edge = np.array(picture_size) - 0.5
    inside = np.clip(np.minimum(high, edge) - np.maximum(low, -0.5), 0.0, None)
    return float(np.prod(inside) / np.prod(high - low))


def square_region(center_px: np.ndarray, side_px: float, size: tuple[int, int]) -> np.ndarray:
    """T_net_px (3, 3) of the square of side `side_px` round `center_px`, shown at `size`; pixel
    centres are integers.
    """
    s = size[0] / side_px
    return np.array(
        [
            [s, 0, (size[0] - 1) / 2 - s * center_px[0]],
            [0, s, (size[1] - 1) / 2 - s * center_px[1]],
            [0, 0, 1],
        ]
    )


def letterbox(picture_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """T_net_px (3, 3) that shows a whole picture at `size`, one scale for both axes, centred."""
    s = min(size[0] / picture_size[0], size[1] / picture_size[1])
    (cx, cy) = ((n - 1) / 2 for n in picture_size)
    return np.array(
        [
            [s, 0, (size[0] - 1) / 2 - s * cx],
            [0, s, (size[1] - 1) / 2 - s * cy],
            [0, 0, 1],
        ]
    )


def project(K: np.ndarray, T_cam_obj: np.ndarray, points_obj: np.ndarray) -> np.ndarray:
    """(N, 2) px of points in front of a pinhole camera."""
    points = apply(T_cam_obj, points_obj) @ K.T
    return points[:, :2] / points[:, 2:]


def moved(T: np.ndarray, point_px: np.ndarray) -> np.ndarray:
    """(2,) where the affine map T (3, 3) takes a point."""
    return T[:2, :2] @ point_px + T[:2, 2]


def fill_outside(picture: np.ndarray, T_net_px: np.ndarray, picture_size: tuple[int, int]) -> None:
    """Grey where the network's picture shows none of the camera's, in place."""
    low = np.ceil(moved(T_net_px, np.array((-0.5, -0.5))) - 1e-6).astype(int)
    high = np.floor(moved(T_net_px, np.array(picture_size) - 0.5) + 1e-6).astype(int)
    picture[: max(low[1], 0)] = FILL
    picture[max(high[1] + 1, 0) :] = FILL
    picture[:, : max(low[0], 0)] = FILL
    picture[:, max(high[0] + 1, 0) :] = FILL
