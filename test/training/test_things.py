"""Objects of a recipe: one label for poses that look the same, one network for several objects."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch

from pose_node.core.geometry import exp_so3, make_pose
from pose_node.core.symmetry import Continuous, Symmetries
from pose_node.runtime.backends.onnx import OnnxBackend
from training.nets.unet import HeatmapUNet
from training.steps.export import _Maps, to_onnx
from training.synth.scene import SceneOptions, sample_camera, sample_pose, turn_z_onto
from training.synth.things import canonical

HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
SYMMETRIES = {
    'half turn': Symmetries(HALF_TURN[None]),
    'any turn': Symmetries(np.zeros((0, 4, 4)), (Continuous((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),)),
}


def random_pose(rng: np.random.Generator) -> np.ndarray:
    options = SceneOptions()
    return sample_pose(rng, options, sample_camera(rng, options))


@pytest.mark.parametrize('kind', SYMMETRIES)
def test_poses_that_look_the_same_have_one_label(rng: np.random.Generator, kind: str) -> None:
    """Whichever of them was rendered, the label is the same, and it looks the same."""
    symmetries = SYMMETRIES[kind]
    transforms = symmetries.transforms()
    for _ in range(20):
        T = random_pose(rng)
        label = canonical(T, symmetries)
        other = canonical(T @ transforms[rng.integers(len(transforms))], symmetries)
        np.testing.assert_allclose(other, label, atol=1e-9)
        assert np.abs(T @ transforms - label).max(axis=(1, 2)).min() < 1e-9


def test_the_label_does_not_depend_on_the_place_in_the_picture(rng: np.random.Generator) -> None:
    """A crop shows no more than the view along its ray."""
    for kind in SYMMETRIES.values():
        R = exp_so3(rng.normal(size=3))
        views = []
        for ray in ((0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (-0.48, 0.36, 0.8)):
            turn = turn_z_onto(np.array(ray))
            label = canonical(make_pose(turn @ R, 0.7 * np.array(ray)), kind)
            views.append(turn.T @ label[:3, :3])
        np.testing.assert_allclose(views[1:], views[:1] * 2, atol=1e-9)


def test_without_symmetries_the_pose_is_the_label(rng: np.random.Generator) -> None:
    T = random_pose(rng)
    assert canonical(T, Symmetries.none()) is T


def test_each_object_has_its_own_last_layer() -> None:
    """The network told "object 2" is the single network with that object's weights."""
    torch.manual_seed(0)
    many = HeatmapUNet(5, 3).eval()
    torch.nn.init.normal_(many.mark, std=0.5)
    x = torch.randn(4, 3, 64, 64)
    index = torch.tensor([2, 0, 1, 2])
    with torch.no_grad():
        together = many(x, index)
        for i in range(4):
            np.testing.assert_allclose(
                together[i], many(x[i : i + 1], index[i : i + 1])[0], atol=1e-5
            )
        assert (many(x, (index + 1) % 3) - together).abs().max() > 1e-3
        one = HeatmapUNet(5).eval()
        state = many.state_dict()
        kept = {k: v for k, v in state.items() if k not in ('mark', 'head.weight', 'head.bias')}
        kept['head.weight'] = state['head.weight'].reshape(3, 5, 56, 1, 1)[1]
        kept['head.bias'] = state['head.bias'].reshape(3, 5)[1]
        one.load_state_dict(kept)
        many.mark.zero_()
        np.testing.assert_allclose(one(x), many(x, torch.ones(4, dtype=torch.long)), atol=1e-5)


def test_the_exported_network_is_told_the_object() -> None:
    """ONNX with both inputs, any batch, agrees with torch."""
    torch.manual_seed(0)
    network = _Maps(HeatmapUNet(5, 3)).eval()
    backend = OnnxBackend(to_onnx(network, (64, 64), ['heatmaps'], 3))
    picture, index = torch.randn(5, 3, 64, 64), torch.tensor([1, 1, 0, 2, 0])
    with torch.no_grad():
        wanted = network(picture, index)
    got = backend({'picture': picture.numpy(), 'object': index.numpy()})['heatmaps']
    np.testing.assert_allclose(got, wanted, atol=2e-3)
