"""Held-out whole pictures through the locator: figures, and the threshold that the bundle carries.

The threshold makes F3 of all objects together largest: a missed object is lost, a false region
only costs a look, because the score of the pose judges it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.progress import track

from ..nets.locator import Locator
from ..recipe import Recipe
from ..synth.dataset import Dataset
from .checkpoint import load_trained
from .judge_boxes import Found, find_boxes

_THRESHOLDS = np.arange(0.1, 0.91, 0.05).round(2).tolist()


def evaluate_locator(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Figures on the recipe's held-out pictures, which are those of `seed`."""
    network = load_trained(recipe, 'locator')
    assert isinstance(network, Locator)
    options = recipe.locator_dataset
    dataset = Dataset(options, recipe.objects, recipe.keypoints, seed)
    samples = [
        dataset.whole(options.ramp + n) for n in track(range(recipe.locate.held_out), 'locator')
    ]
    found = find_boxes(network, samples, len(recipe.objects))
    threshold = best_threshold(found)
    everything = np.arange(len(recipe.objects))
    return {
        'samples': len(samples),
        'threshold': threshold,
        **figures(found, threshold, everything),
        'objects': {
            each.name: figures(found, threshold, everything[i : i + 1])
            for i, each in enumerate(recipe.objects)
        },
    }


def best_threshold(found: Found) -> float:
    """Of a row of thresholds the one with the largest F3."""

    def f3(threshold: float) -> float:
        sure = found.scores >= threshold
        hits = float(found.right[sure].sum())
        recall, precision = hits / max(1, found.wanted.sum()), hits / max(1, sure.sum())
        return 10.0 * recall * precision / max(1e-9, recall + 9.0 * precision)

    return float(max(_THRESHOLDS, key=f3))


def figures(found: Found, threshold: float, things: np.ndarray) -> dict[str, float]:
    """recall and precision of the boxes of some objects, and the false alarms: the share of
    pictures without such an object in which a box of it is found; mean over the objects.
    """
    use = np.isin(found.things, things) & (found.scores >= threshold)
    hits, wanted = float(found.right[use].sum()), int(found.wanted[:, things].sum())
    alarm = np.zeros(found.without.shape, bool)
    alarm[found.pictures[use], found.things[use]] = True
    without = found.without[:, things]
    return {
        'wanted': wanted,
        'recall': round(hits / max(1, wanted), 4),
        'precision': round(hits / max(1, int(use.sum())), 4),
        'false_alarms': round(
            float((alarm[:, things] & without).sum() / max(1, without.sum())), 4
        ),
    }
