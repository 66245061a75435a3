"""The published network and its loss: shapes, laws, and overfitting one picture."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from torch import nn

from pose_node.core import heatmap
from pose_node.core.errors import PoseNodeError
from training.nets.published import PublishedUNet, published_loss, soft_argmax, steep_rate
from training.nets.resnet import BLOCKS, ResNet, icnr_

pytestmark = pytest.mark.usefixtures('one_thread')


def gaussians(points: np.ndarray, size: tuple[int, int] = (24, 16)) -> torch.Tensor:
    return torch.from_numpy(heatmap.encode(points, size, 1.5))[None]


@pytest.mark.parametrize('depth', BLOCKS)
def test_names_and_shapes_are_torchvisions(depth: int) -> None:
    """Spot checks by hand against the published weights file's listing."""
    state = ResNet(depth).state_dict()
    assert state['conv1.weight'].shape == (64, 3, 7, 7)
    assert state['layer2.0.downsample.0.weight'].shape == (128, 64, 1, 1)
    assert state['layer3.0.bn2.running_var'].shape == (256,)
    last = {18: 'layer3.1', 34: 'layer3.5'}[depth]
    assert f'{last}.conv2.weight' in state
    features = ResNet(depth).eval()(torch.zeros(2, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (2, 64, 16, 24),
        (2, 128, 8, 12),
        (2, 256, 4, 6),
    ]


def test_weights_of_another_network_are_a_sentence(tmp_path) -> None:
    with pytest.raises(PoseNodeError, match='do not exist'):
        ResNet(18).load_imagenet(tmp_path / 'none.pth')
    torch.save(ResNet(18).state_dict(), tmp_path / 'r18.pth')
    ResNet(18).load_imagenet(tmp_path / 'r18.pth')
    with pytest.raises(PoseNodeError, match='wrong network or depth'):
        ResNet(34).load_imagenet(tmp_path / 'r18.pth')


def test_frozen_encoder_does_not_move() -> None:
    torch.manual_seed(0)
    network = PublishedUNet(3, ResNet(18), held=True).train()
    before = {k: v.clone() for k, v in network.encoder.state_dict().items()}
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.encoder.state_dict().items())
    network.encoder.frozen = False
    network.train()(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None for p in network.encoder.parameters())


def test_icnr_begins_as_nearest_neighbour() -> None:
    """The four pixels that one pixel becomes are equal."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 16, 1, bias=False)
    icnr_(convolution.weight)
    shuffled = nn.functional.pixel_shuffle(convolution(torch.randn(1, 8, 5, 6)), 2)
    blocks = shuffled.reshape(1, 4, 5, 2, 6, 2)
    torch.testing.assert_close(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))


def test_soft_argmax_finds_the_middle_of_a_gaussian(rng) -> None:
    points = rng.uniform((6, 5), (17, 10), (12, 2))
    found = soft_argmax(gaussians(points))[0].numpy()
    # A soft-argmax over the whole map is drawn a little to its middle, that is its known weakness.
    assert np.abs(found - points).max() < 0.7
    assert np.abs(np.corrcoef(found[:, 0], points[:, 0])[0, 1]) > 0.999


def test_dropped_keypoints_are_neither_suppressed_nor_forced() -> None:
    points = np.array([[5.0, 6.0], [12.0, 8.0]])
    targets, places = gaussians(points), torch.from_numpy(points)[None].float()
    maps = torch.rand(1, 2, 16, 24, requires_grad=True)
    known = torch.tensor([[True, False]])
    published_loss(maps, targets, places, known, 1.0).backward()
    assert maps.grad[0, 0].abs().max() > 0 and not maps.grad[0, 1].any()
    maps.grad = None
    nothing = published_loss(maps, targets, places, torch.tensor([[False, False]]), 1.0)
    assert nothing == 0.0


def test_the_loss_turns_from_pixels_to_distance() -> None:
    """A map in the right place but half as high: wrong at first, right at the end."""
    points = np.array([[12.0, 8.0]])
    targets, places = gaussians(points), torch.from_numpy(points)[None].float()
    known = torch.ones(1, 1, dtype=torch.bool)
    early, late = (published_loss(0.5 * targets, targets, places, known, e) for e in (0.0, 20.0))
    assert early == pytest.approx(float((0.25 * targets**2).mean()))
    assert late < 0.1 * early
    assert steep_rate(0) == 0.01 and steep_rate(10) < 1e-4


def test_one_picture_can_be_learned() -> None:
    torch.manual_seed(0)
    network = PublishedUNet(2, ResNet(18), held=False).train()
    points = np.array([[4.0, 10.0], [11.0, 5.0]])
    targets, places = gaussians(points, (16, 16)), torch.from_numpy(points)[None].float()
    picture, known = torch.randn(1, 3, 64, 64), torch.ones(1, 2, dtype=torch.bool)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for step in range(60):
        loss = published_loss(network(picture), targets, places, known, step / 60)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
