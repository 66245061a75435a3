"""Figures on pictures that no training sees, by which the best weights are told from the last.

The pictures are own renders of a seed that neither trains nor calibrates and, where the recipe
names a data set, pictures by another renderer in the BOP format. The latter then decide alone: a
network may learn what is peculiar to our own renders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from pose_node.core import metrics
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.bop import BopDataset, Truth
from pose_node.runtime.preprocess import Region, crop, letterbox

from ..nets.locator import Locator
from ..nets.pose_network import PoseNetwork
from ..recipe import Recipe
from ..synth.dataset import Dataset, View
from ..synth.region import project
from ..synth.things import Thing, canonical
from .judge import add_share, heatmaps, mssd_share
from .judge_boxes import find_boxes, mean_average_precision
from .judges import JUDGES

_SEED = 2_000_003


class Validation:
    """Pictures in memory; called with a network, it says how good that is."""

    def __init__(self, recipe: Recipe, kind: str) -> None:
        options, shown = recipe.fit_options(kind), recipe.dataset_options(kind)
        dataset = Dataset(shown, recipe.objects, recipe.keypoints, recipe.seed + _SEED)
        look = dataset.crop if kind == 'pose' else dataset.whole
        self.kind, self.things = kind, dataset.things
        self.judge = JUDGES[options.network](options)
        self.views: dict[str, Sequence[View]] = {
            'own': [look(shown.ramp + n) for n in range(options.validate_on)]
        }
        if options.validation:
            self.views['other'] = bop_views(
                options.validation, self.things, recipe, kind, options.validate_on
            )
        # The first figure of each set is the one that decides.
        names = ('ar_mssd', 'add_01d', 'keypoint_px') if kind == 'pose' else ('ap',)
        self.names = [f'{which}_{name}' for which in self.views for name in names]
        self.decides = f'{"other" if options.validation else "own"}_{names[0]}'

    def __call__(self, network: PoseNetwork | Locator) -> dict[str, float]:
        """Figures by name; the network in evaluation mode."""
        figures: list[float] = []
        for views in self.views.values():
            if self.kind == 'pose':
                figures += self._poses(cast(PoseNetwork, network), views)
            else:
                found = find_boxes(cast(Locator, network), views, len(self.things))
                figures.append(mean_average_precision(found))
        return dict(zip(self.names, np.round(figures, 4).tolist(), strict=True))

    def _poses(self, network: PoseNetwork, views: Sequence[View]) -> tuple[float, float, float]:
        """Mean recall of MSSD over BOP's thresholds, share of ADD below a tenth of the diameter,
        median distance of the keypoints; of what is there to be seen.
        """
        present = [view for view in views if view.present]
        mssd, add, errors_px = [], [], []
        read = self.judge.read(heatmaps(network, present))
        for view, found in zip(present, read, strict=True):
            thing = self.things[view.thing]
            answer = self.judge(view, thing, found)
            mssd.append(mssd_share(answer.estimate, view, thing))
            add.append(add_share(answer.estimate, view, thing))
            errors_px.append(answer.keypoint_px)
        return (
            metrics.average_recall(np.array(mssd), metrics.MSSD_THRESHOLDS),
            metrics.recall(np.array(add), 0.1),
            float(np.nanmedian(errors_px)),
        )


def bop_views(
    folder: Path, things: Sequence[Thing], recipe: Recipe, kind: str, most: int
) -> list[View]:
    """At most so many pictures of the recipe's objects out of a BOP data set, evenly chosen."""
    scenes = sorted(folder.glob('*/*/scene_gt.json'))
    if not scenes:
        raise PoseNodeError(f'{folder} is no BOP data set: it has no SPLIT/SCENE/scene_gt.json')
    dataset = BopDataset(folder, scenes[0].parents[1].name)
    found = {target.object for target in dataset.targets}
    numbers = {thing.bop_id: i for i, thing in enumerate(things) if thing.bop_id}
    if not numbers and len(things) == len(found) == 1:
        numbers = dict.fromkeys(found, 0)
    targets = [t for t in dataset.targets if t.object in numbers]
    if not targets:
        raise PoseNodeError(
            f'{folder} shows none of the objects of {recipe.path}: give them the bop_id that they '
            f'have there ({", ".join(map(str, sorted(found)))})'
        )
    chosen = [targets[i] for i in np.unique(np.linspace(0, len(targets) - 1, most).astype(int))]
    if kind == 'locator':  # a picture with everything in it, once
        chosen = list({(t.scene, t.image): t for t in chosen}.values())
    views = []
    for target in chosen:
        truths = [t for t in dataset.truths(target.scene, target.image) if t.object in numbers]
        shown = sorted(truths, key=lambda t: -(t.visible or 0.0))
        first = next(t for t in shown if kind == 'locator' or t.object == target.object)
        rest = [t for t in shown if t is not first] if kind == 'locator' else []
        picture = dataset.picture(target.scene, target.image)
        size = (picture.shape[1], picture.shape[0])
        K = dataset.camera(target.scene, target.image, size).K
        known = [(numbers[truth.object], truth) for truth in (first, *rest)]
        views.append(_view(picture, K, known, things, recipe, kind))
    return views


def _view(
    picture: np.ndarray,
    K: np.ndarray,
    known: Sequence[tuple[int, Truth]],
    things: Sequence[Thing],
    recipe: Recipe,
    kind: str,
) -> View:
    """Objects' numbers and true poses in a picture, as the run time would show it to the network;
    the first one is the view's own.
    """
    (index, truth), *rest = known
    thing, shown = things[index], recipe.dataset_options(kind)
    low, high = _box(K, truth, thing)
    if kind == 'pose':
        region = Region(thing.name, tuple((low + high) / 2), tuple(high - low))
        if truth.box_visible_px:
            region = Region.from_xywh(thing.name, truth.box_visible_px)
        seen, A = crop(picture, region, shown.input_size, shown.region_scale)
    else:
        seen, A = letterbox(picture, shown.input_size)
    T_net_px = np.linalg.inv(np.vstack((A, (0.0, 0.0, 1.0))))
    T_cam_obj = canonical(truth.T_cam_obj, thing.symmetries)
    others = np.zeros((len(rest), 6))
    for row, (other, other_truth) in zip(others, rest, strict=True):
        hidden = other_truth.visible is not None and other_truth.visible < shown.visible_min
        row[:] = other, hidden, *_shown_box(T_net_px, *_box(K, other_truth, things[other]))
    center_px, size_px = np.split(_shown_box(T_net_px, low, high), 2)
    return View(
        picture=seen,
        K=T_net_px @ K,
        thing=index,
        T_cam_obj=T_cam_obj,
        present=True,
        keypoints_px=project(T_net_px @ K, T_cam_obj, thing.keypoints_obj),
        box_center_px=center_px,
        box_size_px=size_px,
        visible=1.0 if truth.visible is None else truth.visible,
        others=others,
    )


def _box(K: np.ndarray, truth: Truth, thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest pixel of the whole object's projection."""
    outline_px = project(K, truth.T_cam_obj, thing.outline_obj)
    return outline_px.min(axis=0), outline_px.max(axis=0)


def _shown_box(T_net_px: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(4,) centre and size of a box in the network's picture."""
    center_px = T_net_px[:2, :2] @ (low + high) / 2 + T_net_px[:2, 2]
    return np.concatenate((center_px, (high - low) * T_net_px[0, 0]))
