"""Padding into convolutions: the same numbers with fewer steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('onnx', reason='the workshop is not installed here')

import onnx
import torch
from torch import nn
from torch.nn import functional as F

from pose_node.runtime.backends.onnx import OnnxBackend
from training.nets.lite0 import Lite0
from training.steps.export import to_onnx
from training.steps.fold_pads import fold_pads


class Padded(nn.Module):
    """Padding of every kind before a convolution; only the first can be folded."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x):
        if self.kind == 'reflected':
            return self.conv(F.pad(x, (0, 1, 2, 1), mode='reflect'))
        if self.kind == 'ones':
            return self.conv(F.pad(x, (0, 1, 2, 1), value=1.0))
        padded = F.pad(x, (0, 1, 2, 1))
        y = self.conv(padded)
        return y + padded.mean() if self.kind == 'read twice' else y


def exported(network: nn.Module, path: Path) -> onnx.ModelProto:
    picture = torch.zeros(2, 3, 64, 96)
    torch.onnx.export(
        network.eval(), (picture,), path, opset_version=17, dynamo=False,
        do_constant_folding=False, input_names=['picture'], output_names=['maps'],
        dynamic_axes={'picture': {0: 'batch'}},
    )  # fmt: skip
    return onnx.load(path)


@pytest.mark.parametrize('kind', ['zeros', 'ones', 'reflected', 'read twice'])
def test_the_same_numbers(rng, tmp_path, kind):
    torch.manual_seed(0)
    model = exported(Padded(kind), tmp_path / 'n.onnx')
    before = model.SerializeToString()
    folded = fold_pads(model)
    onnx.checker.check_model(folded)
    pads = sum(node.op_type == 'Pad' for node in folded.graph.node)
    assert pads == (0 if kind == 'zeros' else 1)
    picture = {'picture': rng.standard_normal((2, 3, 64, 96)).astype(np.float32)}
    wanted = OnnxBackend(before)(picture)['maps']
    got = OnnxBackend(folded.SerializeToString())(picture)['maps']
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_what_is_exported_pads_in_its_convolutions():
    """`to_onnx` holds the result against torch itself."""
    torch.manual_seed(0)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Lite0()

        def forward(self, x):
            return self.encoder(x)[-1]

    model = onnx.load_from_string(to_onnx(Last(), (64, 64), ['maps']))
    kinds = [node.op_type for node in model.graph.node]
    assert 'Pad' not in kinds and 'Shape' not in kinds
