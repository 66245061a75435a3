"""ResNet encoder and the published U-Net on it (He et al., CVPR 2016; Alexandra Institute, "A
pipeline for learned pose estimation with no real data").

Parameter names are torchvision's, so that its published ImageNet weights (resnet34-b627a593.pth,
resnet18-f37072fd.pth; BSD-3-Clause) load as they are where a user has the file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pose_node.core.errors import PoseNodeError

BLOCKS = {18: (2, 2, 2), 34: (3, 4, 6)}  # of the stages at strides 4, 8 and 16
CHANNELS = (64, 128, 256)
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class _Basic(nn.Module):
    """Two 3x3 convolutions and a short cut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + short, inplace=True)


class ResNet(nn.Module):
    """Picture (N, 3, h, w) -> features at strides 4, 8, 16: the first seven blocks of the whole.

    While `frozen` is set it keeps its weights and statistics.
    """

    channels = CHANNELS
    mean, std = MEAN, STD

    def __init__(self, depth: int = 34):
        super().__init__()
        self.frozen = False
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs, stages = 64, []
        for outputs, count in zip(CHANNELS, BLOCKS[depth], strict=True):
            stride = 1 if outputs == 64 else 2
            blocks = [_Basic(inputs, outputs, stride)]
            blocks += [_Basic(outputs, outputs, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.layer1, self.layer2, self.layer3 = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = F.relu(self.bn1(self.conv1(x)), inplace=True)
            f4 = self.layer1(F.max_pool2d(x, 3, 2, 1))
            f8 = self.layer2(f4)
            return [f4, f8, self.layer3(f8)]

    def train(self, mode: bool = True) -> ResNet:
        """Frozen, the statistics of the normalisation stay too."""
        super().train(mode and not self.frozen)
        self.training = mode
        return self

    def load_imagenet(self, path: Path) -> None:
        """Load torchvision's weights file; layers that are not used are passed over."""
        if not path.is_file():
            raise PoseNodeError(
                f'weights {path} do not exist: download them from pytorch.org, or leave the '
                'recipe\'s "weights" away to begin from random ones.'
            )
        weights = torch.load(path, map_location='cpu', weights_only=True)
        wanted = self.state_dict()
        missing = [name for name in wanted if name not in weights]
        if missing:
            raise PoseNodeError(f'weights {path} lack {missing[:3]}: wrong network or depth.')
        self.load_state_dict({name: weights[name] for name in wanted})


def icnr_(weight: Tensor, upscale: int = 2) -> None:
    """Fill a convolution before a pixel shuffle so that it begins as nearest-neighbour upsampling,
    without checkerboards (Aitken et al., "Checkerboard artifact free sub-pixel convolution").
    """
    groups = upscale**2
    kernel = torch.empty(weight.shape[0] // groups, *weight.shape[1:])
    nn.init.kaiming_normal_(kernel)
    with torch.no_grad():
        weight.copy_(kernel.repeat_interleave(groups, dim=0))


class ShuffleUp(nn.Module):
    """Twice the size by pixel shuffle, joined with the skip connection, two 3x3 convolutions."""

    def __init__(self, inputs: int, skip: int, outputs: int):
        super().__init__()
        self.widen = nn.Conv2d(inputs, 2 * inputs, 1)
        icnr_(self.widen.weight)
        self.norm = nn.BatchNorm2d(skip)
        self.conv1 = nn.Conv2d(inputs // 2 + skip, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.pixel_shuffle(F.relu(self.widen(x)), 2)
        x = F.relu(torch.cat((x, self.norm(skip)), dim=1))
        return F.relu(self.conv2(F.relu(self.conv1(x))))
