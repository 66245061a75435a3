"""Encoders by name: what a recipe may ask for, and that it reaches a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from tiny_networks import judged, made, tiny_recipe

from pose_node.core.errors import PoseNodeError
from training.nets.dense import DenseUNet
from training.nets.lite0 import Lite0
from training.nets.resnet import ResNet
from training.nets.unet import HeatmapUNet
from training.recipe import FitOptions

pytestmark = pytest.mark.usefixtures('one_thread')
POSE = """
network = "{network}"
encoder = "{encoder}"
samples = 16
batch = 8
warmup = 1
held_out = 16
"""


@pytest.mark.parametrize(
    ('network', 'encoder'),
    [('heatmap', 'resnet18'), ('dense', 'resnet18'), ('dense', 'lite0_short')],
)
def test_an_encoder_reaches_a_bundle(
    network: str, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps teach it nothing, but it is fitted, calibrated, exported and looks at pictures."""
    pose = POSE.replace('{network}', network).replace('{encoder}', encoder)
    recipe = tiny_recipe(tmp_path, pose)
    bundle = made(recipe, tmp_path, monkeypatch)
    errors, _ = judged(recipe, bundle, 5, 4)
    assert len(errors) and not np.isinf(errors).any()


@pytest.mark.parametrize('encoder', [Lite0, ResNet])
def test_networks_share_names_and_shapes(encoder: type) -> None:
    """All but the last layers: so one starts from another; and the picture's size is the maps',
    four times.
    """
    box = torch.tensor([[[-0.1] * 3, [0.1] * 3]])
    heat, dense = HeatmapUNet(4, encoder=encoder()), DenseUNet(box, encoder=encoder())
    ours, theirs = heat.state_dict(), dense.state_dict()
    shared = [name for name in ours if not name.startswith('head.')]
    assert all(ours[name].shape == theirs[name].shape for name in shared)
    assert heat.mean == dense.mean == encoder.mean
    assert heat.eval()(torch.zeros(2, 3, 64, 96)).shape == (2, 4, 16, 24)


def test_an_encoder_that_cannot_be_is_refused() -> None:
    """By name, with what else there is."""
    for fields, words in (
        ({'encoder': 'vgg'}, 'wanted one of , lite0, lite0_short, resnet18, resnet34'),
        ({'network': 'unet', 'encoder': 'lite0'}, "wanted 'resnet34' or 'resnet18'"),
        ({'network': 'unet', 'encoder': 'lite0_short'}, "encoder is 'lite0_short', wanted"),
        ({'weights': Path('resnet18.pth')}, "encoder is a 'lite0': name 'resnet18'"),
    ):
        with pytest.raises(PoseNodeError, match=words):
            FitOptions(**fields)  # type: ignore[arg-type]
    assert FitOptions(network='unet').depth == 34 and FitOptions().depth is None
    assert FitOptions(network='unet', encoder='resnet18').depth == 18
