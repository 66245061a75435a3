"""The published network and both annotations go the whole way, in few and small steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from torch import Tensor

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.onnx import OnnxBackend
from training.nets import resnet
from training.recipe import FitOptions, Recipe, load_recipe
from training.steps import fit as fit_module
from training.steps.checkpoint import begin, pose_network
from training.steps.evaluate import evaluate
from training.steps.export import export
from training.steps.feed import Batches, loader, normalise, pose_labels
from training.steps.fit import fit
from training.steps.judge import decoded, heatmaps, solve
from training.synth.background import Backgrounds
from training.synth.dataset import Dataset

MESH = Path(__file__).parents[2] / 'bundles' / 'drill' / 'drill.ply'
RECIPE = """
name = "small"
description = "x"
keypoints = 5
locator = false
[[objects]]
name = "drill"
mesh = "{mesh}"
[dataset]
input_size = [64, 64]
object_faces = 2000
[dataset.scene]
distractors = [0, 0]
occlusion = 0.0
negatives = 0.3
elevation_deg = [20.0, 30.0]
azimuth_deg = [50.0, 80.0]
[pose]
network = "{network}"
encoder = "resnet18"
annotation = "{annotation}"
annotation_m = 0.02
samples = 24
epoch = 4
batch = 4
lr = 1e-3
warmup = 0
ema = 0.0
held_out = 10
"""


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few backgrounds, one thread."""
    torch.set_num_threads(1)
    monkeypatch.setattr(Backgrounds.__init__, '__defaults__', (None, 4))
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'cache'))


def recipe_of(folder: Path, network: str = 'unet', annotation: str = 'nearest') -> Recipe:
    path = folder / 'small.toml'
    path.write_text(RECIPE.format(mesh=MESH, network=network, annotation=annotation))
    return load_recipe(path)


@pytest.mark.parametrize('annotation', ['nearest', 'projection'])
def test_the_whole_way(tmp_path: Path, annotation: str, capsys) -> None:
    """Fit, evaluate, export; the bundle's maps are the network's, and one crop is solved."""
    recipe = recipe_of(tmp_path, annotation=annotation)
    run = fit(recipe, 'pose', workers=0, threads=1)
    assert run.step == 6 and run.skipped == 0
    assert 'starts from random' in capsys.readouterr().out
    evaluate(recipe)
    export(recipe, tmp_path / 'bundle')
    spec = json.loads((tmp_path / 'bundle' / 'bundle.json').read_text())['pose_network']
    assert tuple(spec['mean']) == resnet.MEAN and tuple(spec['std']) == resnet.STD
    network = pose_network(recipe)
    dataset = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, 99)
    view = next(v for v in map(dataset.crop, range(9)) if v.present)
    maps = heatmaps(network, [view])
    assert maps.shape == (1, 5, 16, 16) and maps.min() >= 0.0
    picture = normalise(torch.from_numpy(view.picture[None]), network).numpy()
    got = OnnxBackend((tmp_path / 'bundle' / 'pose.onnx').read_bytes())({'picture': picture})
    np.testing.assert_allclose(got['heatmaps'], maps, atol=2e-2)
    answer = solve(view, dataset.things[0], decoded(maps, recipe.pose.sigma_px)[0])
    assert np.isfinite(answer.covariances_px).all()


def test_interrupted_work_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is released on the way: at epoch 5 of these of one step each."""
    weights = tmp_path / 'r18.pth'
    torch.manual_seed(3)
    torch.save(resnet.ResNet(18).state_dict(), weights)
    recipe = recipe_of(tmp_path)
    recipe = dataclasses.replace(recipe, pose=dataclasses.replace(recipe.pose, weights=weights))
    whole = fit(recipe, 'pose', workers=0, threads=1)
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'other'))

    def three(batches: Batches, workers: int) -> Iterator[tuple[Tensor, ...]]:
        for number, batch in enumerate(loader(batches, workers)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(fit_module, 'loader', three)
    monkeypatch.setattr(fit_module, '_SAVE_EVERY_S', 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, 'pose', workers=0, threads=1)
    monkeypatch.setattr(fit_module, 'loader', loader)
    left = begin(recipe, 'pose', torch.device('cpu'))
    assert left.step == 3
    before = torch.load(weights, weights_only=True)
    for name, value in left.network.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    resumed = fit(recipe, 'pose', workers=0, threads=1)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert not torch.equal(resumed.network.encoder.conv1.weight, before['conv1.weight'])


def test_labels_at_the_nearest_surface(tmp_path: Path) -> None:
    """In sight they are the projections; what is out of sight is left out of the loss of both."""
    recipe = recipe_of(tmp_path)
    dataset = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, 1, 0.004)
    dropped = compared = 0
    for number in range(12):
        view = dataset.crop(number)
        assert view.labels_px is not None
        near = np.isfinite(view.labels_px).all(axis=1)
        for network in ('unet', 'heatmap'):
            options = FitOptions(network=network)
            targets, points_px, known = pose_labels(view, 4, options)
            assert np.isfinite(targets).all() and np.isfinite(points_px).all()
            if not view.present:
                assert known.all() == (network == 'heatmap')
            else:
                assert not known[~near].any()
        if view.present:
            away = np.linalg.norm(view.labels_px - view.keypoints_px, axis=1)[near]
            assert away.max(initial=0.0) < 6.0
            compared, dropped = compared + near.sum(), dropped + (~near).sum()
    assert compared > 5 and dropped > 5


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(PoseNodeError, match='wanted one of heatmap, unet, dense'):
        recipe_of(tmp_path, network='vgg')
    with pytest.raises(PoseNodeError, match='wanted one of projection, nearest'):
        recipe_of(tmp_path, annotation='guess')
    recipe = recipe_of(tmp_path)
    with pytest.raises(PoseNodeError, match='is for one'):
        dataclasses.replace(recipe, objects=recipe.objects * 2)
