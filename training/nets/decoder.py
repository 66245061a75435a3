"""Encoder and decoder that our own networks share: a U-Net (Ronneberger et al., MICCAI 2015) from
the deepest features to a quarter of the picture's size.

Any of them may start from any other with the same encoder, because these parts bear the same
names. The encoder is EfficientNet-Lite0 where nothing else is asked for: with two CPU cores its
ImageNet weights are worth more than a larger network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lite0 import Lite0
from .pose_network import PoseNetwork
from .resnet import ResNet

STRIDE = 4
WIDTH = 56  # channels of the finest features
_WIDTHS = {16: 128, 8: 80, 4: WIDTH}  # of the decoder, by stride

Encoder = Lite0 | ResNet


class Up(nn.Module):
    """Twice the size, joined with the skip connection, a 3x3 convolution."""

    def __init__(self, inputs: int, skip: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode='nearest')
        return self.layers(torch.cat((x, skip), dim=1))


class UNet(PoseNetwork):
    """What comes before the last layers.

    One network may serve several objects: which one a picture shows is told (N,) and, where
    `marked`, marks the deepest features.
    """

    def __init__(self, encoder: Encoder, objects: int = 1, *, marked: bool = True):
        super().__init__()
        self.objects, self.encoder = objects, encoder
        self.mean, self.std = encoder.mean, encoder.std
        *skips, inputs = encoder.channels
        self.deepest = inputs
        self.strides = [STRIDE << level for level in reversed(range(len(skips)))]
        for stride, skip in zip(self.strides, reversed(skips), strict=True):
            setattr(self, f'up{stride}', Up(inputs, skip, _WIDTHS[stride]))
            inputs = _WIDTHS[stride]
        self.refine = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
        )
        if objects > 1 and marked:
            self.mark = nn.Parameter(torch.zeros(objects, self.deepest, 1, 1))

    def features(self, x: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The deepest ones (N, deepest, ..), and those at a quarter of the size (N, WIDTH, ..)."""
        *skips, deep = self.encoder(x)
        if index is not None and hasattr(self, 'mark'):
            deep = deep + self.mark[index]
        x = deep
        for stride, skip in zip(self.strides, reversed(skips), strict=True):
            x = getattr(self, f'up{stride}')(x, skip)
        return deep, self.refine(x)

    def own_head(self, head: nn.Conv2d, x: Tensor, index: Tensor | None) -> Tensor:
        """A last layer (objects * channels, WIDTH, 1, 1) of the objects that pictures show."""
        if index is None or self.objects == 1:
            return head(x)
        n, width, h, w = x.shape
        weight = head.weight.reshape(self.objects, -1, width)[index]
        bias = head.bias.reshape(self.objects, -1, 1)[index]  # type: ignore[union-attr]
        return (weight @ x.reshape(n, width, h * w) + bias).reshape(n, -1, h, w)
