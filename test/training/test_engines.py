"""The export asks TensorRT: an operator that it lacks ends the export, in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pose_node.core.errors import PoseNodeError
from training.steps import engines
from training.steps.bounds import with_bounds
from training.steps.export import to_onnx


class Turned(nn.Module):
    """A convolution that TensorRT takes and, if `strange`, an operator that it does not."""

    def __init__(self, *, strange: bool):
        super().__init__()
        self.conv, self.strange = nn.Conv2d(3, 2, 3, padding=1), strange

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.linalg.det(x)[:, :, None, None] if self.strange else x


def exported(network: Turned) -> bytes:
    batch = {'picture': np.zeros((1, 3, 8, 8), np.float32)}
    return with_bounds(to_onnx(network, (8, 8), ['heatmaps']), [batch])


def test_an_operator_that_tensorrt_lacks_ends_the_export(capsys):
    torch.manual_seed(0)
    engines.check_engines('pose.onnx', exported(Turned(strange=False)))
    assert 'TensorRT compiles it for sm75, sm86, sm89, sm120' in capsys.readouterr().out
    with pytest.raises(PoseNodeError, match=r'pose\.onnx would run on no NVIDIA GPU .*Det'):
        engines.check_engines('pose.onnx', exported(Turned(strange=True)))


def test_without_tensorrt_the_export_goes_on_and_says_so(monkeypatch, capsys):
    def missing() -> None:
        raise PoseNodeError('no TensorRT for Python is installed.')

    monkeypatch.setattr(engines, 'load_flavour', missing)
    engines.check_engines('pose.onnx', b'never looked at')
    assert 'not compiled for a trial' in capsys.readouterr().out
