"""The locator's boxes against the labels of pictures, decoded as the run time does it.

As everywhere since PASCAL VOC (Everingham et al., IJCV 2010): a box is right when it shares more
than half with an object of its kind that no surer box has taken. A box of an object that is hidden
is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pose_node.runtime.locate import iou, peaks

from ..nets import locator
from ..nets.locator import Locator
from ..synth.dataset import Label, View
from .feed import normalise

LOWEST = 0.05  # height of the lowest peak that is judged
_RIGHT_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Found:
    """Every judged box: its object, score, whether it is right, and its picture (B,).

    wanted (N, O): how many of each object are to be found in each picture; without (N, O): whether
    the picture has none of it, not even a hidden one.
    """

    things: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    pictures: np.ndarray
    wanted: np.ndarray
    without: np.ndarray


def find_boxes(network: Locator, views: Sequence[View], objects: int) -> Found:
    """What the network finds in the views; it is in evaluation mode."""
    device = next(network.parameters()).device
    rows: list[tuple[int, float, bool, int]] = []
    wanted, labelled = np.zeros((2, len(views), objects), int)
    with torch.no_grad():
        for number, view in enumerate(views):
            labels = view.labels
            for label in labels:
                labelled[number, label.thing] += 1
                wanted[number, label.thing] += not label.hidden
            picture = torch.from_numpy(view.picture[None]).to(device)
            logits, boxes = network(normalise(picture, network))
            centers = torch.sigmoid(logits)[0].cpu().numpy()
            found = peaks(centers, boxes[0].cpu().numpy(), locator.STRIDE, LOWEST)
            rows += [(*row, number) for row in judged(found, labels)]
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0)] * 4
    things, scores, right, pictures = columns
    return Found(
        things=things.astype(int),
        scores=scores.astype(float),
        right=right.astype(bool),
        pictures=pictures.astype(int),
        wanted=wanted,
        without=labelled == 0,
    )


def judged(
    found: Sequence[tuple[int, float, np.ndarray]], labels: Sequence[Label]
) -> list[tuple[int, float, bool]]:
    """(object, score, whether it is right) of one picture's boxes (object, score, (x, y, width,
    height)), the surest first; those of hidden objects are left out.
    """
    left = [label for label in labels if not label.hidden]
    hidden = [label for label in labels if label.hidden]
    rows = []
    for thing, score, xywh in found:
        fitting = [label for label in left if label.thing == thing]
        best = max(fitting, key=lambda label: iou(xywh, _xywh(label)), default=None)
        right = best is not None and iou(xywh, _xywh(best)) > _RIGHT_IOU
        if right:
            left = [label for label in left if label is not best]
        elif any(label.thing == thing and _within(xywh, label) for label in hidden):
            continue
        rows.append((thing, score, right))
    return rows


def average_precision(scores: np.ndarray, right: np.ndarray, wanted: int) -> float:
    """Mean, over the objects that are there, of the precision at the height at which each is
    found; 0 for one that is not.
    """
    right = right[np.argsort(-scores, kind='stable')]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / max(1, wanted))


def mean_average_precision(found: Found) -> float:
    """The mean over the kinds of objects that are anywhere to be found."""
    each = [
        average_precision(found.scores[own], found.right[own], wanted)
        for thing, wanted in enumerate(found.wanted.sum(axis=0).tolist())
        if wanted
        for own in [found.things == thing]
    ]
    return float(np.mean(each)) if each else 0.0


def _xywh(label: Label) -> np.ndarray:
    return np.concatenate((label.center_px, label.size_px))


def _within(xywh: np.ndarray, label: Label) -> bool:
    """Whether the box's centre lies in the label's box."""
    return bool((np.abs(xywh[:2] - label.center_px) <= label.size_px / 2).all())
