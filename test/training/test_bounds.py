"""Bounds for int8: which tensors have one, and how large."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='the workshop is not installed')

import torch
from torch import nn

from pose_node.runtime.backends.int8 import activation_bounds
from training.steps.bounds import best_bound, with_bounds
from training.steps.export import to_onnx


class Joined(nn.Module):
    """Four convolutions; the third reads two tensors side by side, the second 64 times as large
    as the first, and the fourth is the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 72, 3, padding=1)
        self.second = nn.Conv2d(72, 72, 1)
        self.third = nn.Conv2d(144, 72, 1)
        self.small = nn.Conv2d(72, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.first(x))
        b = torch.relu(self.second(a))
        c = torch.relu(self.third(torch.cat((a, 64.0 * b), 1)))
        return self.last(self.depthwise(torch.relu(self.small(c))))


def test_a_bound_costs_least():
    rng = np.random.default_rng(0)
    even = rng.uniform(-3.0, 3.0, 100_000)
    assert best_bound(even) == pytest.approx(3.0, rel=0.02)  # nothing is worth cutting off
    normal = rng.standard_normal(100_000)
    # Of a normal distribution 4 sigmas in 255 levels (Banner et al., NeurIPS 2019: 3.9 of 8 bits).
    assert best_bound(normal) == pytest.approx(3.9, abs=0.3)
    assert best_bound(np.append(even, 8.0)) < 6.0  # one number may be cut off
    assert best_bound(np.zeros(10)) > 0.0


def test_which_tensors_have_bounds_and_powers():
    torch.manual_seed(0)
    network = Joined().eval()
    model = to_onnx(network, (16, 16), ['y'])
    rng = np.random.default_rng(1)
    batches = [{'picture': rng.standard_normal((4, 3, 16, 16), np.float32)} for _ in range(6)]
    bounds = activation_bounds(with_bounds(model, batches))
    # What `second` and `third` read: not the picture, not what small or last convolutions read.
    assert len(bounds) == 2
    plain, joined = bounds.values()
    assert plain.shifts == ()
    with torch.no_grad():
        pictures = torch.from_numpy(np.concatenate([each['picture'] for each in batches]))
        a = torch.relu(network.first(pictures))
        b = 64.0 * torch.relu(network.second(a))
    assert 0.5 * a.max() < plain.largest <= 1.01 * a.max()
    sizes = np.percentile(
        torch.cat((a, b), 1).movedim(1, -1).reshape(-1, 144).numpy(), 99.9, axis=0
    )
    even = sizes * np.exp2(joined.shifts)
    used = sizes > sizes.max() / 2**7
    assert (even[used] > 0.6 * sizes.max()).all() and (even < 1.8 * sizes.max()).all()
    assert np.mean(joined.shifts[:72]) > np.mean(joined.shifts[72:]) + 3
