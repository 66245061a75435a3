"""Batches rendered in worker processes, in a fixed order: batch b holds samples b * n to b * n + n
- 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pose_node.core import heatmap
from pose_node.core.errors import PoseNodeError
from pose_node.core.symmetry import Symmetries

from ..nets import decoder, locator
from ..nets.locator import Locator
from ..nets.pose_network import PoseNetwork
from ..recipe import FitOptions, Recipe
from ..synth.dataset import View
from ..synth.mesh import load_mesh
from ..synth.things import keypoints_of
from .shards import Shards, rendered

MODES = 8  # poses of a symmetric object that are taught at once
HIDDEN = 0.99  # of `centers` where an object is that need not be found


def pose_targets(sample: View, stride: int, sigma_px: float) -> np.ndarray:
    """(K, h, w) float32, each map sums to 1: a Gaussian round the keypoint, or uniform where there
    is none to find.
    """
    height, width = (n // stride for n in sample.picture.shape[:2])
    points_px, inside = _places(sample, stride)
    maps = heatmap.encode(points_px, (width, height), sigma_px)
    maps[~inside] = 1.0
    return maps / maps.sum(axis=(1, 2), keepdims=True)


def pose_labels(
    sample: View, stride: int, options: FitOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """targets (K, h, w), points_px (K, 2) in map pixels, known (K,) bool: what counts in the loss.

    A probability is told of what is not there to be seen, a regressed map is not; either leaves
    out keypoints that the annotation has dropped.
    """
    points_px, inside = _places(sample, stride)
    known = inside
    if options.network == 'heatmap':
        targets = pose_targets(sample, stride, options.sigma_px)
        known = np.isfinite(points_px).all(axis=1) | (not sample.present)
    else:
        height, width = (n // stride for n in sample.picture.shape[:2])
        targets = heatmap.encode(points_px, (width, height), options.sigma_px)
    return targets, np.nan_to_num(points_px).astype(np.float32), known


def posed_labels(
    view: View, points_obj: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """present, K (3, 3), T_cam_obj (1, 4, 4), points_obj (K, 3) m, for KeypointPose: maps of
    symmetric objects are taught one pose, and so is what they give.
    """
    T_cam_obj = view.T_cam_obj[None].astype(np.float32)
    present = np.array(bool(view.present))
    return present, view.K.astype(np.float32), T_cam_obj, points_obj.astype(np.float32)


def dense_labels(
    view: View, stride: int, alike: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """present, K (3, 3), T_cam_obj (M, 4, 4), surface (3, h, w) in m, NaN where there is none.

    alike (M, 4, 4): turns of the object that cannot be told from each other.
    """
    height, width = (n // stride for n in view.picture.shape[:2])
    surface = view.surface_obj
    if surface is None or not view.present:
        surface = np.full((3, height, width), np.nan, np.float32)
    poses = (view.T_cam_obj @ alike).astype(np.float32)
    return np.array(bool(view.present)), view.K.astype(np.float32), poses, surface


def alike_poses(recipe: Recipe) -> list[np.ndarray]:
    """For every object the (M, 4, 4) of `dense_labels`; M is one number for all of them, so that
    those with fewer symmetries have some twice.
    """
    found = [
        Symmetries.from_bop(each.symmetries, scale=1.0).transforms() for each in recipe.objects
    ]
    most = min(MODES, max(len(each) for each in found))
    return [each[np.arange(most) * len(each) // most] for each in found]


def _places(sample: View, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, 2) labels in map pixels, (K,) whether they lie on the map of an object that is there."""
    height, width = (n // stride for n in sample.picture.shape[:2])
    labels_px = sample.keypoints_px if sample.labels_px is None else sample.labels_px
    points_px = (labels_px + 0.5) / stride - 0.5
    inside = ((points_px > -0.5) & (points_px < np.array((width, height)) - 0.5)).all(axis=1)
    return points_px, np.asarray(inside & bool(sample.present))


def locator_targets(
    view: View, stride: int, objects: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """centers (O, h, w), boxes (4, h, w), mask (1, h, w) of one picture; see nets/locator.py.

    A cell's box is that of the object whose centre is nearest. Round the centre of a hidden object
    the map is just below a peak, where the loss asks for nothing.
    """
    height, width = (n // stride for n in view.picture.shape[:2])
    centers = np.zeros((objects, height, width), np.float32)
    boxes = np.zeros((4, height, width), np.float32)
    nearest = np.full((height, width), np.inf)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    # Peaks last: one may stand where another object is hidden.
    for label in sorted(view.labels, key=lambda label: not label.hidden):
        center = (label.center_px + 0.5) / stride - 0.5
        cell = np.clip(np.round(center), 0, (width - 1, height - 1)).astype(int)
        near = (u - cell[0]) ** 2 + (v - cell[1]) ** 2
        own = centers[label.thing]
        if label.hidden:
            reach = max(1.5, 0.3 * float(label.size_px.min()) / stride)
            own[near <= reach**2] = HIDDEN
            continue
        sigma = max(0.6, 0.12 * float(label.size_px.min()) / stride)
        np.maximum(own, np.exp(-near / (2 * sigma**2)), out=own)
        mine = near < nearest
        nearest[mine] = near[mine]
        values = (center[0] - u, center[1] - v, *np.log(label.size_px))
        for channel, value in zip(boxes, values, strict=True):
            channel[mine] = np.broadcast_to(value, mine.shape)[mine]
    return centers, boxes, (nearest <= 2)[None].astype(np.float32)


def normalise(pictures: Tensor, network: PoseNetwork | Locator) -> Tensor:
    """(N, h, w, 3) uint8 -> (N, 3, h, w) float32 as the network's encoder wants it."""
    mean, std = (
        torch.tensor(values, device=pictures.device).view(1, 3, 1, 1)
        for values in (network.mean, network.std)
    )
    return (pictures.permute(0, 3, 1, 2).float() - mean) / std


class Batches(IterableDataset):  # type: ignore[type-arg]
    """Batches `first` to `last` of a recipe's samples; of each, this process has the part `rank`
    of `world` equal ones. Each worker has its own renderer and makes every n-th batch.

    `shards`: the folder of samples that were rendered ahead (steps/shards.py).
    """

    def __init__(
        self,
        recipe: Recipe,
        kind: str,
        first: int,
        last: int,
        *,
        rank: int = 0,
        world: int = 1,
        shards: Path | None = None,
    ):
        self.recipe, self.kind, self.first, self.last = recipe, kind, first, last
        self.rank, self.shards = rank, shards
        if shards:
            Shards(recipe, kind, shards)  # what is wrong with them is said here, not in a worker
        self.batch = recipe.fit_options(kind).batch
        self.alike = alike_poses(recipe)
        self.points_obj = [
            keypoints_of(each, load_mesh(each.mesh, each.mesh_unit_m), recipe.keypoints)
            for each in (recipe.objects if kind == 'pose' and recipe.pose.pose_loss else ())
        ]
        self.part, rest = divmod(self.batch, world)
        if rest:
            raise PoseNodeError(
                f'{recipe.path}: batches of {self.batch} cannot be shared by {world} processes '
                'evenly: choose another number of either'
            )

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        cv2.setNumThreads(1)
        recipe, kind = self.recipe, self.kind
        look = Shards(recipe, kind, self.shards) if self.shards else rendered(recipe, kind)
        worker = get_worker_info()
        offset, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(self.first + offset, self.last, step):
            start = number * self.batch + self.rank * self.part
            views = [look(n) for n in range(start, start + self.part)]
            labels = [self._labels(view) for view in views]
            pictures = np.stack([view.picture for view in views])
            yield (pictures, *(np.stack(column) for column in zip(*labels, strict=True)))

    def _labels(self, view: View) -> tuple[np.ndarray, ...]:
        if self.kind == 'pose' and self.recipe.pose.network in ('dense', 'deformable'):
            return np.array(view.thing), *dense_labels(
                view, decoder.STRIDE, self.alike[view.thing]
            )
        if self.kind == 'pose':
            labels = np.array(view.thing), *pose_labels(view, decoder.STRIDE, self.recipe.pose)
            if self.recipe.pose.pose_loss:
                return *labels, *posed_labels(view, self.points_obj[view.thing])
            return labels
        return locator_targets(view, locator.STRIDE, len(self.recipe.objects))


def loader(batches: Batches, workers: int) -> DataLoader:  # type: ignore[type-arg]
    """Tensors of each batch, in order, made by `workers` processes beside this one."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context='spawn' if workers else None,
    )
