"""The whole picture to regions, by the bundle's locator network.

The network's form is CenterNet's (Zhou et al., "Objects as Points", 2019): peaks of a map
are objects' centres, and their boxes stand in other maps at the same cell.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .networks import check_outputs
from .preprocess import Crops, Region, letterbox_map

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pose_node.core.manifest import LocatorSpec

    from .backends import Backend

# Two boxes of one object that share more than this are the same one.
_SAME_BOX_IOU = 0.5


class Locator:
    """Finds objects in a picture."""

    def __init__(self, backend: Backend, spec: LocatorSpec) -> None:
        self.backend = backend
        self.spec = spec
        width, height = spec.map_size
        shapes = {
            spec.centers: (len(spec.objects), height, width),
            spec.boxes: (4, height, width),
        }
        check_outputs(backend, spec, shapes)

    def __call__(self, picture: np.ndarray) -> list[Region]:
        """Regions of the picture (H, W, 3), the surest first."""
        spec = self.spec
        A = letterbox_map(picture.shape[1::-1], spec.input_size)
        crops = Crops(picture, A[None], spec.input_size, spec.mean, spec.std)
        outputs = self.backend({spec.input: crops})
        found = pick_boxes(outputs[spec.centers][0], outputs[spec.boxes][0], spec)
        return [
            Region(
                name,
                (float(A[0, 0] * x + A[0, 2]), float(A[1, 1] * y + A[1, 2])),
                (float(A[0, 0] * width), float(A[1, 1] * height)),
                score,
            )
            for name, score, (x, y, width, height) in found
        ]


def in_turn(regions: Iterable[Region]) -> list[Region]:
    """The surest of every object, then the second of every object: where not all can be looked at,
    a dozen of one do not hide another. Within a turn the surest come first.
    """
    turns: Counter[str] = Counter()
    placed = []
    for region in sorted(regions, key=lambda region: -region.score):
        placed.append((turns[region.object], -region.score, region))
        turns[region.object] += 1
    return [region for *_, region in sorted(placed, key=lambda each: each[:2])]


def pick_boxes(
    centers: np.ndarray, boxes: np.ndarray, spec: LocatorSpec
) -> list[tuple[str, float, np.ndarray]]:
    """(object, score, (x, y, width, height) in input pixels) of every peak, the surest first."""
    found = peaks(centers, boxes, spec.stride, spec.threshold)
    return [(spec.objects[channel], score, box) for channel, score, box in found]


def peaks(
    centers: np.ndarray, boxes: np.ndarray, stride: int, threshold: float
) -> list[tuple[int, float, np.ndarray]]:
    """(channel, score, (x, y, width, height) in input pixels) of every peak, the surest first.

    centers (C, h, w), boxes (4, h, w). A peak is a cell no lower than its eight neighbours. Of two
    boxes of one channel that are nearly the same only the surer one is kept; those of different
    channels may share a place.
    """
    centers = np.nan_to_num(centers.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    highest = np.stack([cv2.dilate(channel, np.ones((3, 3), np.uint8)) for channel in centers])
    channels, rows, columns = np.nonzero((centers >= highest) & (centers >= threshold))
    dx, dy, log_width, log_height = boxes[:, rows, columns].astype(np.float64)
    # Cell j covers the input pixels j * stride .. (j + 1) * stride - 1.
    half = 0.5 * stride - 0.5
    xywh = np.stack(
        (
            (columns + dx) * stride + half,
            (rows + dy) * stride + half,
            np.exp(np.clip(log_width, -20.0, 20.0)),
            np.exp(np.clip(log_height, -20.0, 20.0)),
        ),
        axis=1,
    )
    scores = centers[channels, rows, columns]
    kept: list[tuple[int, float, np.ndarray]] = []
    for i in np.argsort(-scores, kind='stable'):
        rivals = (other for channel, _, other in kept if channel == channels[i])
        if np.isfinite(xywh[i]).all() and all(iou(xywh[i], o) < _SAME_BOX_IOU for o in rivals):
            kept.append((int(channels[i]), float(scores[i]), xywh[i]))
    return kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Shared area over joint area of two boxes (x, y, width, height), x and y at their centres."""
    low = np.maximum(a[:2] - a[2:] / 2.0, b[:2] - b[2:] / 2.0)
    high = np.minimum(a[:2] + a[2:] / 2.0, b[:2] + b[2:] / 2.0)
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    return shared / float(np.prod(a[2:]) + np.prod(b[2:]) - shared)
