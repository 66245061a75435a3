"""Pictures with several labelled objects, what the locator is to say of them, and how its boxes
are judged.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from pose_node.runtime.locate import peaks
from training.recipe import load_recipe
from training.steps.feed import HIDDEN, locator_targets
from training.steps.judge_boxes import average_precision, judged
from training.synth.company import Body, sample_company
from training.synth.dataset import Dataset, Label
from training.synth.scene import SceneOptions, sample_camera, sample_pose

RECIPES = Path(__file__).parents[2] / 'config' / 'recipes'
STRIDE = 8


@pytest.fixture(scope='module')
def dataset() -> Dataset:
    """The tiny recipe's object, up to four times in a picture."""
    recipe = load_recipe(RECIPES / 'tiny.toml')
    options = dataclasses.replace(
        recipe.dataset, input_size=(320, 256), others=(1, 3), visible_min=0.3
    )
    return Dataset(options, recipe.objects, recipe.keypoints, 5)


def test_the_labels_are_what_the_decoder_finds(dataset: Dataset) -> None:
    """Every object in sight is a peak, and its box is the label's."""
    found_any = 0
    for number in range(25):
        view = dataset.whole(number)
        centers, boxes, mask = locator_targets(view, STRIDE, 1)
        seen = [label for label in view.labels if not label.hidden]
        found = peaks(np.where(centers == HIDDEN, 0.0, centers), boxes, STRIDE, 0.999)
        assert len(found) <= len(seen)
        for thing, _, xywh in found:
            nearest = min(seen, key=lambda label: np.abs(label.center_px - xywh[:2]).sum())
            np.testing.assert_allclose(xywh[:2], nearest.center_px, atol=1e-3)
            np.testing.assert_allclose(xywh[2:], nearest.size_px, rtol=1e-5)
            assert thing == nearest.thing
        assert (mask.sum() > 0) == bool(seen)
        found_any += len(found)
    assert found_any > 25


def test_hidden_objects_are_neither_asked_for_nor_forbidden(dataset: Dataset) -> None:
    """Their places hold HIDDEN, under which no peak is wanted."""
    view = dataclasses.replace(
        dataset.whole(0), present=False, visible=0.1, others=np.array([[-1.0, 0, 0, 0, 0, 0]])
    )
    assert [label.hidden for label in view.labels] == [True]
    centers, _, mask = locator_targets(view, STRIDE, 1)
    assert centers.max() == np.float32(HIDDEN) and mask.sum() == 0
    seen_beside = np.array([[0.0, 0.0, *view.box_center_px, *view.box_size_px]])
    centers, _, mask = locator_targets(
        dataclasses.replace(view, others=seen_beside), STRIDE, 1
    )
    assert centers.max() == 1.0 and mask.sum() > 0


def test_things_do_not_reach_into_each_other(rng: np.random.Generator) -> None:
    """All that were placed lie in the picture, at a depth of the options, apart."""
    options = SceneOptions(distance_m=(0.5, 1.2))
    body = Body(np.array([[-0.05, -0.04, 0.0], [0.05, 0.04, 0.12]]))
    placed = 0
    for _ in range(40):
        K = sample_camera(rng, options)
        first = sample_pose(rng, options, K)
        poses = sample_company(rng, options, K, (body, first), [body] * 4)
        there = [T for T in poses if T is not None]
        placed += len(there)
        middles = [T[:3, :3] @ body.bounds_m.mean(axis=0) + T[:3, 3] for T in (first, *there)]
        for i, a in enumerate(middles):
            for b in middles[:i]:
                assert np.linalg.norm(a - b) >= 1.1 * body.radius_m
        for T in there:
            assert 0.45 <= np.linalg.norm(T[:3, 3]) <= 1.32
    assert placed > 80


def test_boxes_are_judged_as_pascal_voc_does() -> None:
    """Surest first; a second box on one object is wrong; on a hidden one it is left out."""
    size = np.array([20.0, 20.0])
    labels = [
        Label(0, False, np.array([30.0, 30.0]), size),
        Label(0, True, np.array([90.0, 30.0]), size),
        Label(1, False, np.array([30.0, 90.0]), size),
    ]
    found = [
        (0, 0.9, np.array([31.0, 30.0, 20.0, 20.0])),
        (0, 0.8, np.array([30.0, 31.0, 20.0, 20.0])),  # the same thing again
        (0, 0.7, np.array([91.0, 30.0, 20.0, 20.0])),  # the hidden one
        (1, 0.6, np.array([45.0, 90.0, 20.0, 20.0])),  # shares a seventh
        (1, 0.5, np.array([30.0, 30.0, 20.0, 20.0])),  # the other object's place
    ]
    assert judged(found, labels) == [
        (0, 0.9, True),
        (0, 0.8, False),
        (1, 0.6, False),
        (1, 0.5, False),
    ]


def test_average_precision_by_hand() -> None:
    """Found at ranks 1 and 4 of three that are there: (1 + 2/4) / 3; order does not matter."""
    scores, right = np.array([0.6, 0.9, 0.8, 0.7]), np.array([True, True, False, False])
    assert average_precision(scores, right, 3) == pytest.approx((1 + 2 / 4) / 3)
    assert average_precision(scores, right, 0) == pytest.approx(1.5)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 2) == 0.0
