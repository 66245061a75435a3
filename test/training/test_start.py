"""A training goes on from any bundle: what was exported is what the next network starts with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import onnx
import torch
from torch import nn

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.onnx import OnnxBackend
from training.recipe import Recipe, load_recipe
from training.steps.checkpoint import build, load_trained
from training.steps.export import export
from training.steps.fit import fit
from training.steps.start import start_from

MESH = Path(__file__).parents[2] / 'bundles' / 'drill' / 'drill.ply'
HEAD = 'name = "{}"\ndescription = "x"\nkeypoints = {}\n[dataset]\ninput_size = [64, 64]\n'
OBJECT = '[[objects]]\nname = "{}"\nmesh = "{}"\n'
START = '[pose]\nstart = "{0}"\n[locate]\nstart = "{0}"\n'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'cache'))


def recipe_of(
    folder: Path, name: str, objects: list[str], *, keypoints: int = 6, tail: str = ''
) -> Recipe:
    things = ''.join(OBJECT.format(each, MESH) for each in objects)
    path = folder / f'{name}.toml'
    path.write_text(HEAD.format(name, keypoints) + tail + things)
    return load_recipe(path)


def random_network(recipe: Recipe, kind: str = 'pose') -> nn.Module:
    """Every weight random, statistics too, none of them equal."""
    torch.manual_seed(5)
    network = build(recipe, kind, pretrained=False)
    for name, value in network.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point() and value.ndim < 2:
            value.normal_(0.0 if name.endswith(('bias', 'mean')) else 1.0, 0.1)
    if 'mark' in network.state_dict():
        nn.init.normal_(network.mark)
    return network.eval()


def as_stored(value: torch.Tensor) -> torch.Tensor:
    """In a byte or six bits with a scale for every first index; vectors as they are."""
    if value.ndim < 2:
        return value
    levels = 127.0 if value.shape[1] == 1 or value.numel() < 10_000 else 31.0
    scale = value.abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (value.ndim - 1)) / levels
    scale = scale.clamp_min(1e-20)
    return torch.round(value / scale) * scale


def save_random(recipe: Recipe) -> None:
    """Random networks, as if they had been fitted."""
    recipe.cache.mkdir(parents=True)
    for kind in ('pose', 'locator'):
        state = {'average': random_network(recipe, kind).state_dict()}
        torch.save(state, recipe.cache / f'{kind}.pt')


def calibrate(recipe: Recipe) -> None:
    weights = dict.fromkeys(('confidence', 'inlier_share', 'rms'), 1.0)
    one = {'covariance_scale': 1.0, 'score': {'bias': 0.0, 'weights': weights}}
    pose = {'threshold': 0.1, 'min_variance_px2': 0.01}
    pose['objects'] = {each.name: one for each in recipe.objects}
    report = {'pose': pose, 'locator': {'threshold': 0.3}}
    (recipe.cache / 'calibration.json').write_text(json.dumps(report))


def test_what_was_fitted_and_exported_is_what_the_next_training_starts_with(
    tmp_path: Path,
) -> None:
    """Fit, export, start: equal outputs before the first step."""
    fits = '[pose]\nsamples = 8\nbatch = 4\n[locate]\nsamples = 4\nbatch = 4\n'
    first = recipe_of(tmp_path, 'first', ['drill'], tail=fits)
    for kind in ('pose', 'locator'):
        fit(first, kind, workers=0, threads=1)
    calibrate(first)
    export(first, tmp_path / 'bundle')
    second = recipe_of(tmp_path, 'second', ['drill'], tail=START.format('bundle'))
    picture = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for kind in ('pose', 'locator'):
        network = build(second, kind)
        start_from(network, second, kind)
        for name, value in load_trained(first, kind).state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(network.state_dict()[name], as_stored(value))
        backend = OnnxBackend((tmp_path / 'bundle' / f'{kind}.onnx').read_bytes())
        got = next(iter(backend({'picture': picture.numpy()}).values()))
        with torch.no_grad():
            outputs = network.eval()(picture)
        wanted = torch.exp(outputs) if kind == 'pose' else torch.sigmoid(outputs[0])
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_heads_go_by_the_names_of_the_objects(tmp_path: Path) -> None:
    """The third of three becomes the first of two; a stranger's keeps its own start."""
    three = recipe_of(tmp_path, 'three', ['drill', 'duck', 'cat'])
    save_random(three)
    calibrate(three)
    export(three, tmp_path / 'bundle')
    two = recipe_of(tmp_path, 'two', ['cat', 'cow'], tail=START.format('bundle'))
    source = random_network(three).state_dict()
    network = build(two, 'pose')
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start_from(network, two, 'pose')
    state = network.state_dict()

    def stored(name: str) -> torch.Tensor:
        return as_stored(source[name])

    torch.testing.assert_close(state['up8.layers.0.weight'], stored('up8.layers.0.weight'))
    for name in ('head.weight', 'head.bias'):
        torch.testing.assert_close(state[name][:6], stored(name)[12:])
        torch.testing.assert_close(state[name][6:], before[name][6:], rtol=0, atol=0)
    torch.testing.assert_close(state['mark'][0], stored('mark')[2])
    assert not state['mark'][1].any()
    others = recipe_of(tmp_path, 'others', ['cat'], keypoints=4, tail=START.format('bundle'))
    network = build(others, 'pose')
    head = network.head.weight.clone()
    start_from(network, others, 'pose')
    torch.testing.assert_close(network.head.weight, head, rtol=0, atol=0)
    locator = build(two, 'locator')
    start_from(locator, two, 'locator')
    centers = random_network(three, 'locator').state_dict()['centers.bias']
    torch.testing.assert_close(locator.state_dict()['centers.bias'][0], centers[2])
    assert locator.state_dict()['centers.bias'][1] == -4.0


def test_a_shorter_encoder_takes_over_what_fits(tmp_path: Path) -> None:
    """Of several objects, too, whose marks are as wide as the deepest features."""
    full = recipe_of(tmp_path, 'full', ['drill', 'duck'])
    save_random(full)
    short = '[pose]\nencoder = "lite0_short"\nstart = "full"\n'
    recipe = recipe_of(tmp_path, 'short', ['drill', 'duck'], tail=short)
    network = build(recipe, 'pose', pretrained=False)
    start_from(network, recipe, 'pose')
    state, wanted = network.state_dict(), random_network(full).state_dict()
    for name in ('encoder._blocks.10._bn2.running_var', 'head.weight'):
        torch.testing.assert_close(state[name], wanted[name], rtol=0, atol=0)
    assert state['mark'].shape != wanted['mark'].shape
    assert not state['mark'].any()


def test_other_keypoints_are_another_head(tmp_path: Path) -> None:
    """From a recipe's checkpoint, too: the rest is taken over, the head is not."""
    many = recipe_of(tmp_path, 'many', ['drill'], keypoints=8)
    save_random(many)
    few = recipe_of(tmp_path, 'few', ['drill'], keypoints=4, tail=START.format('many'))
    network = build(few, 'pose')
    head = network.head.weight.clone()
    start_from(network, few, 'pose')
    wanted = random_network(many).state_dict()
    for name in ('encoder._bn0.running_mean', 'refine.1.running_var'):
        torch.testing.assert_close(network.state_dict()[name], wanted[name], rtol=0, atol=0)
    torch.testing.assert_close(network.head.weight, head, rtol=0, atol=0)


def test_what_cannot_be_started_from_is_said(tmp_path: Path) -> None:
    """Nothing there, nothing fitted, and weights that an older export has fused."""
    for start, sentence in (('nowhere', 'neither a recipe'), ('other', 'fit recipe other first')):
        recipe_of(tmp_path, 'other', ['drill'])
        recipe = recipe_of(tmp_path, 'own', ['drill'], tail=START.format(start))
        with pytest.raises(PoseNodeError, match=sentence):
            start_from(build(recipe, 'pose', pretrained=False), recipe, 'pose')
    recipe = dataclasses.replace(recipe_of(tmp_path, 'old', ['drill']), locator=False)
    save_random(recipe)
    calibrate(recipe)
    export(recipe, tmp_path / 'bundle')
    model = onnx.load(tmp_path / 'bundle' / 'pose.onnx')
    kept = [i for i in model.graph.initializer if 'running' not in i.name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    _replace(tmp_path / 'bundle', 'pose.onnx', model.SerializeToString())
    recipe = recipe_of(tmp_path, 'own', ['drill'], tail=START.format('bundle'))
    with pytest.raises(PoseNodeError, match='fused'):
        start_from(build(recipe, 'pose', pretrained=False), recipe, 'pose')


@pytest.mark.parametrize('kind', ['pose', 'locator'])
def test_the_shipped_drill_can_be_started_from(tmp_path: Path, kind: str) -> None:
    """What the recipe of one's own object does first; `mustard.toml` has it."""
    recipe = recipe_of(tmp_path, 'own', ['bottle'], tail=START.format(MESH.parent))
    network = build(recipe, kind, pretrained=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start_from(network, recipe, kind)
    after = network.state_dict()
    taken = [n for n in after if n.endswith('running_mean') and (after[n] != before[n]).any()]
    assert len(taken) > 20


def _replace(folder: Path, name: str, data: bytes) -> None:
    """Another file in a bundle, with what its manifest says of it."""
    from pose_node.core.bundle import write_bundle

    manifest = json.loads((folder / 'bundle.json').read_text())
    names = list(manifest.pop('files'))
    del manifest['schema']
    files: dict[str, bytes | Path] = {each: (folder / each).read_bytes() for each in names}
    write_bundle(folder, manifest, {**files, name: data})
