"""The deformable network: where it looks, what it learns from, and the whole way to a pose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from tiny_networks import judged, made, tiny_recipe
from torch import Tensor, nn

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.core.pose_spec import PointsSpec
from pose_node.runtime.estimator import PoseEstimator
from training.nets.deformable import POINTS, DeformableNet
from training.nets.lite0 import Lite0
from training.nets.pnp_layer import LayerOptions
from training.steps import fit
from training.steps.fit_log import read_log

SEED = 99_000_003
POSE = """
network = "deformable"
start = "{bundles}/drill"
samples = 576
batch = 16
lr = 3e-3
warmup = 10
frozen = 16
ema = 0.9
held_out = 32
"""

pytestmark = pytest.mark.usefixtures('one_thread')


def bounds(objects: int = 1) -> Tensor:
    low = torch.tensor([-0.05, -0.04, -0.03]) * torch.arange(1, objects + 1)[:, None]
    return torch.stack((low, -low), dim=1)


class Ramp(nn.Module):
    """In place of features: their own places in the picture, u and v in the first two channels."""

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        u, v = torch.arange(w) * 4.0 + 1.5, torch.arange(h) * 4.0 + 1.5
        rest = x.new_zeros(n, 54, h, w)
        places = torch.stack((u.expand(h, w), v[:, None].expand(h, w)))
        return torch.cat((places.expand(n, -1, -1, -1), rest), dim=1)


def test_points_are_where_their_features_are(rng) -> None:
    """The second look samples at the pixels that the rows name; a picture need be no square."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    network = DeformableNet(bounds(), encoder=Lite0()).eval()
    network.refine = Ramp()  # type: ignore[assignment]
    nn.init.normal_(network.move.weight, std=0.02)
    looked: list[Tensor] = []
    network.looks[1].register_forward_hook(lambda module, given, _: looked.append(given[0][:, :2]))
    with torch.no_grad():
        rows, _, _ = network(torch.randn(3, 3, 64, 96))
    u, v = rows[:, 0], rows[:, 1]
    inside = (u > 1.5) & (u < 93.5) & (v > 1.5) & (v < 61.5)
    assert inside.sum() > POINTS
    off = (looked[0] - rows[:, :2]).abs().amax(1)
    assert off[inside].max() < 1e-3
    assert (u > -0.5).all() and (u < 95.5).all() and (v > -0.5).all() and (v < 63.5).all()


def test_each_object_has_its_own_points(rng) -> None:
    """What is said of a picture hangs on which object it is told to show; weights begin even."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    network = DeformableNet(bounds(2), encoder=Lite0()).eval()
    x = torch.randn(1, 3, 64, 64).expand(2, -1, -1, -1)
    with torch.no_grad():
        maps = network.maps(x, torch.tensor([0, 1]))
        again = network.maps(x[:1], torch.tensor([1]))
    assert maps.shape == (2, 7, 1, POINTS)
    assert (maps[0, :5] - maps[1, :5]).abs().mean() > 0.1
    torch.testing.assert_close(maps[1:], again, atol=1e-4, rtol=1e-4)
    even = torch.full((2, 2, 1, POINTS), np.exp(3.0) / POINTS)
    torch.testing.assert_close(maps[:, 5:], even, atol=0.0, rtol=0.3)


def test_every_weight_has_a_gradient_and_what_is_absent_has_none(rng) -> None:
    """A step on two pictures, one of which shows nothing."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    network = DeformableNet(bounds(), encoder=Lite0(), layer=LayerOptions(samples=64))
    rows, log_scale, index = network(torch.randn(2, 3, 64, 64))
    rows.retain_grad()
    K = torch.tensor([[100.0, 0.0, 31.5], [0.0, 100.0, 31.5], [0.0, 0.0, 1.0]]).expand(2, 3, 3)
    T = torch.eye(4).repeat(2, 1, 1, 1)
    T[..., 2, 3] = 0.3
    labels = (torch.tensor([True, False]), K, T, torch.full((2, 3, 16, 16), torch.nan))
    network.loss((rows, log_scale, index), labels).backward()
    assert rows.grad is not None and rows.grad[0].abs().sum() > 0 and not rows.grad[1].any()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_the_whole_way_to_poses_of_unseen_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three dozen steps by the pose alone, calibrated and exported: the loss falls, the estimator
    finds poses in whole pictures that are no mere guesses, and a wrong manifest is said.
    """
    monkeypatch.setattr(fit, '_LOG_EVERY', 12)
    recipe = tiny_recipe(tmp_path, POSE)
    bundle = made(recipe, tmp_path, monkeypatch)
    told = [line['loss'] for line in read_log(recipe.cache / 'pose.csv') if 'loss' in line]
    print('loss', told)
    assert told[-1] < told[0] - 0.3
    spec = Bundle.load(bundle).pose_network
    assert isinstance(spec, PointsSpec) and spec.points == POINTS
    adds, _ = judged(recipe, bundle, SEED, 24)
    assert len(adds) >= 16
    assert np.median(adds) < 0.4 and np.percentile(adds, 25) < 0.2
    wrong = json.loads((bundle / 'bundle.json').read_text())
    wrong['pose_network']['stride'] = 4
    (bundle / 'bundle.json').write_text(json.dumps(wrong))
    with pytest.raises(PoseNodeError, match='points are in pixels of the input'):
        PoseEstimator(bundle)
