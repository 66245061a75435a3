"""Picture and region to network input, and the affine map back.

Pixel centres are integers everywhere: output pixel u shows the place s (u + 0.5) - 0.5 + edge of
the picture, where s is the reduction and `edge` that of the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

FILL = 114  # what lies outside the picture, all channels


@dataclass(frozen=True)
class Region:
    """A box in the picture that holds, or should hold, one object."""

    object: str
    center_px: tuple[float, float]
    size_px: tuple[float, float]  # width, height
    score: float = 1.0

    @classmethod
    def from_xywh(cls, name: str, xywh: Sequence[float], score: float = 1.0) -> Region:
        """From the first pixel of a box and its size in pixels, as BOP and COCO give it."""
        x, y, width, height = (float(value) for value in xywh)
        # The box covers the pixels x .. x + width - 1, whose centres are these numbers.
        return cls(
            name, (x + (width - 1.0) / 2.0, y + (height - 1.0) / 2.0), (width, height), score
        )


def crop(
    picture: np.ndarray, region: Region, input_size: tuple[int, int], region_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The square round a region, region_scale times its longer side, at the network's size.

    picture (H, W, 3) uint8 -> ((h, w, 3) uint8, A (2, 3) that maps pixels of the result to pixels
    of the picture). Outside the picture is grey.
    """
    side = region_scale * max(region.size_px)
    return _sample(picture, region.center_px, side / min(input_size), input_size)


def letterbox(picture: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture at the network's size, centred, grey where it does not reach.

    Returns what `crop` does. Both axes have the same scale.
    """
    height, width = picture.shape[:2]
    reduction = max(width / input_size[0], height / input_size[1])
    return _sample(picture, ((width - 1) / 2.0, (height - 1) / 2.0), reduction, input_size)


def to_tensor(batch: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(N, h, w, 3) uint8 -> (N, 3, h, w) float32, (rgb - mean) / std."""
    tensor = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32)
    tensor -= np.asarray(mean, np.float32)[:, None, None]
    tensor /= np.asarray(std, np.float32)[:, None, None]
    return tensor


def map_to_picture(A: np.ndarray, stride: int) -> np.ndarray:
    """The affine (2, 3) from heatmap pixels to picture pixels, given the input's."""
    B = A.copy()
    B[:, :2] *= stride
    B[:, 2] += A[:, :2] @ np.full(2, 0.5 * stride - 0.5)
    return B


def _sample(
    picture: np.ndarray, center_px: Sequence[float], reduction: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """`size` pixels round `center_px`, each `reduction` picture pixels wide; and the map back."""
    width, height = size
    # The first pixel's centre, half an output pixel inside the crop's edge.
    x = center_px[0] - reduction * (width - 1) / 2.0
    y = center_px[1] - reduction * (height - 1) / 2.0
    A = np.array([[reduction, 0.0, x], [0.0, reduction, y]])
    shrunk, x0, y0, n = _shrink(picture, A, size)
    if shrunk is None:
        return np.full((height, width, 3), FILL, np.uint8), A
    # The same map into the shrunk window: its pixel j shows the place x0 + n (j + 0.5) - 0.5.
    M = A / n
    M[:, 2] = ((A[:, 2] + 0.5) - (x0, y0)) / n - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if n == 1 or np.abs(M - np.eye(2, 3)).max() > 1e-6 or shrunk.shape[:2] != (height, width):
        shrunk = cv2.warpAffine(
            shrunk, M, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(FILL,) * 3
        )
    return shrunk, A


def _shrink(
    picture: np.ndarray, A: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray | None, int, int, int]:
    """The part of the picture the crop needs, from (x0, y0), reduced by the whole number n.

    Bilinear sampling looks at two neighbours: where it would skip pixels, they are averaged first.
    None when the crop does not touch the picture.
    """
    rows, columns = picture.shape[:2]
    n = max(1, math.floor(A[0, 0] + 1e-6))
    margin = 2 * n
    first = np.floor(A[:, 2]).astype(int) - margin
    last = np.ceil(A[:, 2] + A[0, 0] * (np.array(size) - 1.0)).astype(int) + margin
    x0, y0 = (max(0, int(value)) for value in first)
    x1, y1 = min(columns, int(last[0]) + 1), min(rows, int(last[1]) + 1)
    if x0 >= x1 or y0 >= y1:
        return None, 0, 0, 1
    window = picture[y0:y1, x0:x1]
    if n > 1:
        right, below = -window.shape[1] % n, -window.shape[0] % n
        if right or below:
            window = cv2.copyMakeBorder(window, 0, below, 0, right, cv2.BORDER_REPLICATE)
        shape = (window.shape[1] // n, window.shape[0] // n)
        window = cv2.resize(window, shape, interpolation=cv2.INTER_AREA)
    return window, x0, y0, n
