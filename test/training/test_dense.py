"""The dense network: its labels, its objects, and the whole way from a mesh to a pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    'moderngl', reason='moderngl is not installed: `make test` installs the workshop'
)
pytest.importorskip('torch', reason='torch is not installed: `make test` installs the workshop')

import torch
from tiny_networks import judged, made, tiny_recipe

from pose_node.core.bundle import Bundle
from pose_node.core.camera import Camera
from pose_node.core.geometry import apply
from training.nets.dense import DenseUNet
from training.nets.lite0 import Lite0
from training.nets.pnp_layer import LayerOptions, Status
from training.nets.resnet import ResNet
from training.recipe import Recipe
from training.steps.feed import Batches, dense_labels, loader
from training.synth.dataset import Dataset

SEED = 77_000_003
POSE = """
network = "dense"
start = "{bundles}/drill"
samples = 1280
batch = 16
lr = 3e-3
warmup = 10
ema = 0.9
held_out = 48
"""


@pytest.fixture(scope='module')
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A dense network that starts from the shipped drill."""
    return tiny_recipe(tmp_path_factory.mktemp('tiny_dense'), POSE)


def bounds(objects: int = 1) -> torch.Tensor:
    low = torch.tensor([-0.05, -0.04, -0.03]) * torch.arange(1, objects + 1)[:, None]
    return torch.stack((low, -low), dim=1)


def test_labels_project_onto_their_own_pixels(recipe: Recipe) -> None:
    """The surface under a pixel of the map is seen at that pixel, by the view's own camera."""
    dataset = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, SEED, surface_stride=4)
    seen = 0
    for number in range(8):
        view = dataset.crop(number)
        present, K, poses, surface = dense_labels(view, 4, np.eye(4)[None])
        assert surface.shape == (3, 16, 16) and bool(present) is view.present
        rows, columns = np.nonzero(np.isfinite(surface[0]))
        assert view.present or not len(rows)
        camera = Camera(K.astype(np.float64), (64, 64))
        px = camera.project(apply(poses[0].astype(np.float64), surface[:, rows, columns].T))
        if len(rows):
            wanted = np.stack((columns, rows), axis=1) * 4.0 + 1.5
            assert np.abs(px - wanted).max() < 0.05
            seen += len(rows)
    assert seen > 200


@pytest.mark.parametrize('which', ['lite0', 'resnet'])
def test_each_object_has_its_own_last_layer(rng, which: str) -> None:
    """What picture 1 shows hangs on which object it is told to be; weights begin even."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    encoder = Lite0(deep=True) if which == 'lite0' else ResNet(18)
    network = DenseUNet(bounds(2), encoder=encoder).eval()
    x = torch.randn(1, 3, 64, 64).expand(2, -1, -1, -1)
    with torch.no_grad():
        maps = network.maps(x, torch.tensor([0, 1]))
        again = network.maps(x[:1], torch.tensor([1]))
    assert maps.shape == (2, 5, 16, 16)
    assert (maps[0, :3] - maps[1, :3]).abs().max() > 1e-3
    torch.testing.assert_close(maps[1:], again, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps[:, 3:], torch.full((2, 2, 16, 16), np.exp(3.0) / 256))


def test_every_weight_has_a_gradient_and_what_is_absent_has_none(recipe: Recipe) -> None:
    """A step on two pictures, one of which shows nothing: only the other one's labels count."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = DenseUNet(bounds(), encoder=Lite0(), layer=LayerOptions(samples=64))
    _, thing, present, K, T, surface = next(iter(loader(Batches(recipe, 'pose', 0, 1), 0)))
    seen = int(torch.nonzero(present)[0])
    pair = [seen, seen]
    x = torch.randn(2, 3, 64, 64)
    outputs = network(x, thing[pair])
    present = torch.tensor([True, False])
    surface = surface[pair].clone()
    surface[1] = torch.nan
    maps = outputs[0]
    maps.retain_grad()
    network.loss(outputs, (present, K[pair], T[pair], surface)).backward()
    assert maps.grad is not None
    assert maps.grad[0].abs().sum() > 0 and not maps.grad[1].any()
    assert network.layer.by_status[Status.OK] + network.layer.by_status[Status.DEGENERATE] == 1
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_coordinates_and_a_mask_alone(recipe: Recipe) -> None:
    """Without a pose loss: nothing of K and the poses matters, and a pixel weighs what its share
    of being the object's is.
    """
    torch.manual_seed(0)
    network = DenseUNet(bounds(), encoder=Lite0(), end_to_end=False).train(False)
    _, thing, present, K, T, surface = next(iter(loader(Batches(recipe, 'pose', 0, 1), 0)))
    outputs = network(torch.randn(2, 3, 64, 64), thing[:2])
    labels = present[:2], K[:2], T[:2], surface[:2]
    loss = network.loss(outputs, labels)
    other = torch.full_like(K[:2], torch.nan), T[:2] * 2.0
    nowhere = network.loss(outputs, (present[:2], *other, surface[:2]))
    assert loss == nowhere
    maps, log_scale, index = outputs
    known = surface[:2].isfinite()
    middle, half = (x[index][:, :, None, None] for x in (network.middle_obj, network.half_obj))
    exact = torch.where(known, (surface[:2] - middle) / half, maps[:, :3])
    sure = torch.where(known[:, :2], 20.0, -20.0)
    right = network.loss((torch.cat((exact, sure), 1), log_scale, index), labels)
    assert right < 1e-6 and loss > 0.1
    worth = network.maps(torch.randn(1, 3, 64, 64))[:, 3:]
    assert worth.min() > 0.0 and worth.max() < 1.0


def test_poses_of_unseen_renders_are_right(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 80 steps; a pose that is guessed is off by a diameter or is none at all."""
    bundle = made(recipe, tmp_path, monkeypatch)
    assert Bundle.load(bundle).pose_network.kind == 'dense'
    adds, squared = judged(recipe, bundle, SEED, 30)
    assert len(adds) >= 20
    assert np.median(adds) < 0.4 and np.percentile(adds, 25) < 0.15
    assert 0.5 < np.nanmedian(squared) < 50.0
