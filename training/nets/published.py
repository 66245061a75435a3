"""The network of the pipeline without real data, as published (Alexandra Institute, "A pipeline
for learned pose estimation with no real data"): ResNet-34 U-Net, Gaussian heatmaps, MSE that turns
into the distance of soft-argmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pose_network import PoseNetwork
from .resnet import CHANNELS, ResNet, ShuffleUp

STRIDE = 4
RELEASE = 5  # the epoch at which a frozen encoder begins to learn


class PublishedUNet(PoseNetwork):
    """Picture (N, 3, h, w) normalised -> heatmaps (N, K, h / 4, w / 4), trained towards Gaussians
    of height 1; not normalised. It knows one object.

    `held`: the encoder, which has learned something before, keeps its weights until epoch 5.
    """

    per_object = ('head.weight', 'head.bias')
    encoder: ResNet

    def __init__(self, keypoints: int, encoder: ResNet | None = None, *, held: bool = True):
        """encoder: ResNet-34 at random, if none."""
        super().__init__()
        self.encoder = encoder or ResNet(34)
        self.encoder.frozen = held
        self.mean, self.std = self.encoder.mean, self.encoder.std
        self.held, self.epoch = held, 0
        c4, c8, c16 = CHANNELS
        self.up8 = ShuffleUp(c16, c8, 192)
        self.up4 = ShuffleUp(192, c4, 96)
        self.head = nn.Conv2d(96, keypoints, 1)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        f4, f8, f16 = self.encoder(x)
        maps: Tensor = self.head(self.up4(self.up8(f16, f8), f4))
        return maps

    def maps(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """A regressed map rings below zero, and that says nothing."""
        return F.relu(self(x, index))

    def loss(self, outputs: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Pixels at first, distance in the end."""
        targets, points_px, known = labels
        return published_loss(outputs.float(), targets, points_px, known, self.epoch)

    def advance(self, epoch: int) -> None:
        """The loss turns, and the encoder is released."""
        self.epoch = epoch
        self.encoder.frozen = self.held and epoch < RELEASE

    def rate(self, usual: float) -> float:
        """Steeply down each epoch."""
        return steep_rate(self.epoch, 1.0)


def soft_argmax(maps: Tensor, sharpness: float = 10.0) -> Tensor:
    """(N, K, 2) x, y of the softmax-weighted mean, map pixels (Sun et al., "Integral human pose
    regression", ECCV 2018). Maps have height 1, so softmax needs `sharpness` to see the peak.
    """
    n, k, h, w = maps.shape
    weights = F.softmax(sharpness * maps.reshape(n, k, h * w), dim=2).reshape(n, k, h, w)
    x = (weights.sum(dim=2) * torch.arange(w, device=maps.device)).sum(dim=2)
    y = (weights.sum(dim=3) * torch.arange(h, device=maps.device)).sum(dim=2)
    return torch.stack((x, y), dim=2)


def published_loss(
    maps: Tensor, targets: Tensor, points_px: Tensor, known: Tensor, epoch: float
) -> Tensor:
    """p 0.5^e + r (1 - 0.5^e): pixel error first, then the distance of what is decoded.

    targets (N, K, h, w) Gaussians of height 1; points_px (N, K, 2) map pixels; known (N, K) bool:
    keypoints that were dropped are neither suppressed nor forced. epoch: e, may be a fraction.
    """
    share = known.float() / known.sum().clamp(min=1)
    pixels = ((maps - targets) ** 2).mean(dim=(2, 3))
    h, w = maps.shape[2:]
    size = torch.tensor((w, h), device=maps.device)
    distance = (((soft_argmax(maps) - points_px) / size) ** 2).sum(dim=2)
    old = 0.5**epoch
    return ((old * pixels + (1.0 - old) * distance) * share).sum()


def steep_rate(epoch: float, highest: float = 0.01) -> float:
    """Adam's rate: from 0.01 steeply down each epoch."""
    return float(highest * 0.6**epoch)
