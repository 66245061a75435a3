"""Heatmaps taught through the pose: a decoder with a gradient, and a shipped bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from tiny_networks import tiny_recipe
from torch import Tensor

from pose_node.core import heatmap
from pose_node.core.errors import PoseNodeError
from training.nets.decode import decode
from training.nets.decoder import STRIDE
from training.nets.keypoint_pose import KeypointPose
from training.nets.unet import HeatmapUNet
from training.recipe import FitOptions, Recipe
from training.steps.checkpoint import Run, begin
from training.steps.feed import Batches, loader, posed_labels
from training.steps.fit import train_step
from training.steps.judge import add_share, heatmaps
from training.steps.judges import HeatmapJudge
from training.synth.background import Backgrounds
from training.synth.dataset import Dataset

SEED = 88_000_003
POSE = """
start = "{bundles}/drill"
pose_loss = 2.0
samples = 144
batch = 8
lr = 3e-4
warmup = 4
ema = 0.8
frozen = 16
"""

pytestmark = pytest.mark.usefixtures('one_thread')


def blobs(rng: np.random.Generator, count: int, *, floor: float = 1e-3) -> np.ndarray:
    """(count, 5, 20, 24): Gaussians of any shape, some with a second mode, on an uneven floor."""
    v, u = np.mgrid[:20, :24]
    places = np.stack((u, v), axis=-1).astype(float)
    maps = floor * rng.uniform(0.0, 1.0, (count, 5, 20, 24))
    for share in (1.0, 0.3):
        middle = rng.uniform((4.0, 4.0), (19.0, 15.0), (count, 5, 2))
        root = rng.normal(size=(count, 5, 2, 2)) * 0.6
        C = root @ root.swapaxes(-1, -2) + 1.2 * np.eye(2)
        off = places - middle[..., None, None, :]
        squared = np.einsum('nkhwi,nkij,nkhwj->nkhw', off, np.linalg.inv(C), off)
        other = rng.random((count, 5, 1, 1)) < 0.5 if share < 1.0 else 1.0
        maps += share * other * np.exp(-0.5 * squared)
    return maps / maps.sum(axis=(2, 3), keepdims=True)


def test_keypoints_are_the_run_times(rng) -> None:
    """Places, variances of x and y and what counts; with maps that say nothing, too."""
    maps = blobs(rng, 40)
    maps[0, 0], maps[1, 1, 3, 4], maps[2, 2] = 0.0, np.nan, 1.0 / maps[0, 0].size
    maps[3, 3] *= 0.05
    wanted = heatmap.decode(maps, 1.0)
    got = decode(torch.from_numpy(maps), 1.0)
    known = np.isfinite(wanted.points_px).all(axis=-1)
    assert np.array_equal(got.counts.numpy(), wanted.counts)
    assert not known[0, 0] and not known[1, 1] and not wanted.counts[3, 3]
    variances = np.diagonal(wanted.covariances_px, axis1=-2, axis2=-1)
    # The run time stops when all windows stand still; these walk a little farther.
    off = np.abs(got.points_px.numpy() - wanted.points_px)[known]
    assert np.percentile(off, 99) < 2e-3 and off.max() < 0.05
    ratio = (got.variances_px.numpy() / variances)[known]
    assert np.percentile(np.abs(np.log(ratio)), 99) < 0.01


def test_gradient_says_how_keypoints_move(rng) -> None:
    """Against the difference of two decoded maps that are tilted and stretched a little: the
    place, and the logarithm of its variance.
    """
    maps = torch.from_numpy(blobs(rng, 30)).requires_grad_()
    v, u = np.mgrid[-10:10, -12:12] / 10.0
    basis = np.stack((u, v, u * u, u * v, v * v))
    tilt = np.einsum('nkb,bhw->nkhw', rng.normal(size=(30, 5, 5)), basis)
    towards, step = maps.detach() * torch.from_numpy(tilt), 1e-3
    found = decode(maps, 1.0)
    moved = [decode(maps.detach() + s * towards, 1.0) for s in (step, -step)]
    for name in ('points_px', 'variances_px'):
        values, ahead, back = (getattr(each, name) for each in (found, *moved))
        if name == 'variances_px':
            values, ahead, back = values.log(), ahead.log(), back.log()
        numeric = ((ahead - back) / (2.0 * step)).flatten().numpy()
        off = numeric - _along(values, maps, towards).flatten().numpy()
        # Exact for Gaussians, and most are; two modes that run into each other are none.
        assert np.median(np.abs(off)) < 0.1 * np.median(np.abs(numeric))
        assert (off**2).sum() < 0.4 * (numeric**2).sum()


def _along(values: Tensor, maps: Tensor, towards: Tensor) -> Tensor:
    """The derivative of every keypoint's values by its own map, along `towards`."""
    parts = []
    for axis in range(2):
        (gradient,) = torch.autograd.grad(values[..., axis].sum(), maps, retain_graph=True)
        parts.append((gradient * towards).sum((2, 3)))
    return torch.stack(parts, dim=-1)


@pytest.fixture(scope='module')
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The tiny recipe's views of the shipped drill, which it is to know better."""
    return tiny_recipe(tmp_path_factory.mktemp('pose'), POSE, keypoints=24, side_px=96)


def test_a_shipped_bundle_learns_through_the_pose(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same steps with and without: maps alone grow too sure of themselves, which the pose's
    loss prevents; either way poses get better.
    """
    monkeypatch.setattr(Backgrounds.__init__, '__defaults__', (None, 8))
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path))
    dataset = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, SEED)
    views = [view for n in range(40) if (view := dataset.crop(n)).present]
    thing, judge = dataset.things[0], HeatmapJudge(recipe.pose)
    truth = [np.stack(c) for c in zip(*(posed_labels(v, thing.keypoints_obj) for v in views))]
    batches = list(loader(Batches(recipe, 'pose', 0, 6), 0))
    pose = KeypointPose(recipe.pose.sigma_px, STRIDE).eval()

    def figures(run: Run) -> tuple[float, float]:
        """The pose's loss on other renders, and the median of ADD over the diameter."""
        assert isinstance(run.average, HeatmapUNet)
        maps = heatmaps(run.average, views)
        torch.manual_seed(1)
        with torch.no_grad():
            loss = pose(torch.from_numpy(maps).log(), *map(torch.from_numpy, truth))
        poses = [judge(v, thing, each).estimate for v, each in zip(views, judge.read(maps))]
        return float(loss), float(
            np.median([add_share(p, v, thing) for p, v in zip(poses, views)])
        )

    results = []
    for counts in (0.0, recipe.pose.pose_loss):
        options = dataclasses.replace(recipe.pose, pose_loss=counts)
        torch.manual_seed(0)
        run = begin(dataclasses.replace(recipe, pose=options), 'pose', torch.device('cpu'))
        results.append(figures(run))
        for batch in 3 * batches:
            labels = batch if counts else batch[:5]
            assert np.isfinite(train_step(run, 'pose', labels, options)).all()
        results.append(figures(run))
        assert run.skipped == 0
    before, alone, again, through = results
    print(f'loss, median ADD / diameter: {before}; by maps {alone}, by the pose, too {through}')
    assert before == again
    assert through[0] < alone[0] - 1.0 and through[1] < before[1]


def test_only_heatmaps_of_probabilities_can(recipe: Recipe) -> None:
    """The others have no use for the field, and say so."""
    for network, loss in (('dense', 0.1), ('unet', 0.1), ('heatmap', -0.1)):
        with pytest.raises(PoseNodeError, match='wanted 0 or more'):
            FitOptions(network=network, pose_loss=loss)
