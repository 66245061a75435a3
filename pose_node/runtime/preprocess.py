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


@dataclass(frozen=True)
class Window:
    """The part of a picture that a crop is sampled from, and the whole number that it is reduced
    by first: columns x0 .. x1 - 1, rows y0 .. y1 - 1.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    n: int

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows after the reduction; the last ones may be made of fewer pixels."""
        return -(-(self.x1 - self.x0) // self.n), -(-(self.y1 - self.y0) // self.n)

    def map(self, A: np.ndarray) -> np.ndarray:
        """The map (2, 3) from pixels of the crop to the reduced window, of that to the picture.

        Pixel j of the window shows the place x0 + n (j + 0.5) - 0.5.
        """
        M: np.ndarray = A / self.n
        M[:, 2] = ((A[:, 2] + 0.5) - (self.x0, self.y0)) / self.n - 0.5
        return M


@dataclass(frozen=True, eq=False)
class Crops:
    """Parts of one picture as a network wants them: by `tensor`, or by a backend that makes them
    itself.
    """

    picture: np.ndarray  # (H, W, 3) uint8
    affines: np.ndarray  # (N, 2, 3) pixels of the input to pixels of the picture
    size: tuple[int, int]  # width, height of the input
    mean: Sequence[float]
    std: Sequence[float]

    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.affines)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """What `tensor` will have."""
        return len(self), 3, self.size[1], self.size[0]

    def tensor(self) -> np.ndarray:
        """(N, 3, h, w) float32."""
        width, height = self.size
        parts = np.empty((len(self), height, width, 3), np.uint8)
        for i, A in enumerate(self.affines):
            parts[i] = sample(self.picture, A, self.size)
        return to_tensor(parts, self.mean, self.std)


def crop_map(region: Region, input_size: tuple[int, int], region_scale: float) -> np.ndarray:
    """The map (2, 3) from pixels of the network's input to pixels of the picture, of the square
    round a region, region_scale times its longer side.
    """
    side = region_scale * max(region.size_px)
    return _map(region.center_px, side / min(input_size), input_size)


def letterbox_map(picture_size: Sequence[int], input_size: tuple[int, int]) -> np.ndarray:
    """The same of the whole picture (width, height), centred."""
    width, height = picture_size
    reduction = max(width / input_size[0], height / input_size[1])
    return _map(((width - 1) / 2.0, (height - 1) / 2.0), reduction, input_size)


def _map(center_px: Sequence[float], reduction: float, size: tuple[int, int]) -> np.ndarray:
    """`size` pixels round `center_px`, each `reduction` picture pixels wide."""
    width, height = size
    # The first pixel's centre, half an output pixel inside the crop's edge.
    x = center_px[0] - reduction * (width - 1) / 2.0
    y = center_px[1] - reduction * (height - 1) / 2.0
    return np.array([[reduction, 0.0, x], [0.0, reduction, y]])


def crop(
    picture: np.ndarray, region: Region, input_size: tuple[int, int], region_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The square round a region at the network's size.

    picture (H, W, 3) uint8 -> ((h, w, 3) uint8, A (2, 3) that maps pixels of the result to pixels
    of the picture). Outside the picture is grey.
    """
    A = crop_map(region, input_size, region_scale)
    return sample(picture, A, input_size), A


def letterbox(picture: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture at the network's size, centred, grey where it does not reach.

    Returns what `crop` does. Both axes have the same scale.
    """
    A = letterbox_map(picture.shape[1::-1], input_size)
    return sample(picture, A, input_size), A


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


def sample(picture: np.ndarray, A: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8, whose pixels lie in the picture where A (2, 3) says; grey outside of it."""
    width, height = size
    window = window_of(picture.shape, A, size)
    if window is None:
        return np.full((height, width, 3), FILL, np.uint8)
    shrunk, M = _shrink(picture, window), window.map(A)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if window.n == 1 or np.abs(M - np.eye(2, 3)).max() > 1e-6 or window.size != size:
        shrunk = cv2.warpAffine(
            shrunk, M, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(FILL,) * 3
        )
    return shrunk


def window_of(shape: Sequence[int], A: np.ndarray, size: tuple[int, int]) -> Window | None:
    """What a crop needs of a picture of that shape (H, W, ..); None when it does not touch it.

    Bilinear sampling looks at two neighbours: where it would skip pixels, they are averaged first.
    """
    rows, columns = shape[:2]
    n = max(1, math.floor(A[0, 0] + 1e-6))
    margin = 2 * n
    first = np.floor(A[:, 2]).astype(int) - margin
    last = np.ceil(A[:, 2] + A[0, 0] * (np.array(size) - 1.0)).astype(int) + margin
    x0, y0 = (max(0, int(value)) for value in first)
    x1, y1 = min(columns, int(last[0]) + 1), min(rows, int(last[1]) + 1)
    return None if x0 >= x1 or y0 >= y1 else Window(x0, y0, x1, y1, n)


def _shrink(picture: np.ndarray, window: Window) -> np.ndarray:
    """The window, n x n pixels averaged to one; what is missing of the last ones is repeated."""
    part, n = picture[window.y0 : window.y1, window.x0 : window.x1], window.n
    if n > 1:
        right, below = -part.shape[1] % n, -part.shape[0] % n
        if right or below:
            part = cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_REPLICATE)
        part = cv2.resize(part, window.size, interpolation=cv2.INTER_AREA)
    return part
