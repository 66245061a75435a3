"""int8: whole numbers as computed by hand, powers of two for channels, refusals in sentences."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.fold import fold
from pose_node.runtime.backends.int8 import (
    METADATA,
    Bound,
    activation_bounds,
    quantised,
    with_activation_bounds,
)
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.tensorrt.graph import prepare

BUNDLES = Path(__file__).parents[3] / 'bundles'
SHIPPED = sorted(BUNDLES.glob('*/*.onnx'))


def one_convolution(weights: np.ndarray, groups: int = 1) -> bytes:
    """'picture' (n, C, 3, 3), its convolution of 1 x 1 is 'y'."""
    shape = ('n', weights.shape[1] * groups, 3, 3)
    graph = helper.make_graph(
        [helper.make_node('Conv', ['picture', 'weights'], ['y'], group=groups)],
        'one',
        [helper.make_tensor_value_info('picture', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, ('n', len(weights), 3, 3))],
        [numpy_helper.from_array(weights.astype(np.float32), 'weights')],
    )
    opset = [helper.make_opsetid('', 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def answer(model: bytes, picture: np.ndarray) -> np.ndarray:
    return OnnxBackend(model, threads=1)({'picture': picture})['y']


def test_whole_numbers_as_computed_by_hand(rng):
    weights = rng.standard_normal((5, 4, 1, 1)) * [[[[0.1]], [[2.0]], [[1.0]], [[1.0]]]]
    picture = 3.0 * rng.standard_normal((2, 4, 3, 3)).astype(np.float32)
    largest = 6.0  # what is beyond is cut off
    got = answer(quantised(one_convolution(weights), {'picture': Bound(largest)}), picture)
    # The integers that an accelerator multiplies, and the two scales put back.
    whole = np.clip(np.rint(picture / (largest / 127)), -128, 127).astype(np.int64)
    scale = np.abs(weights).max(axis=(1, 2, 3)) / 127
    rows = np.rint(weights[:, :, 0, 0] / scale[:, None]).astype(np.int64)
    sums = np.einsum('oc,nchw->nohw', rows, whole)
    wanted = sums * scale[:, None, None] * (largest / 127)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert np.abs(rows).max() == 127 and np.abs(picture).max() > largest


def test_powers_of_two_save_small_channels(rng):
    """A channel of a hundredth of the other's size, which matters as much."""
    sizes = np.array([100.0, 1.0])
    weights = rng.standard_normal((8, 2, 1, 1)) / sizes[:, None, None]
    picture = (rng.uniform(-1, 1, (1, 2, 3, 3)) * sizes[:, None, None]).astype(np.float32)
    model = one_convolution(weights)
    wanted = answer(model, picture)
    plain = answer(quantised(model, {'picture': Bound(100.0)}), picture)
    even = answer(quantised(model, {'picture': Bound(100.0, (0, 6))}), picture)
    off = [np.abs(each - wanted).max() / np.abs(wanted).max() for each in (plain, even)]
    assert off[1] < 0.02 < 5 * off[1] < off[0]


def test_depthwise_convolutions_have_no_part_in_it(rng):
    model = one_convolution(rng.standard_normal((4, 1, 1, 1)), groups=4)
    with pytest.raises(PoseNodeError, match=r"No convolution of the network reads 'picture'"):
        quantised(model, {'picture': Bound(1.0)})


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_what_is_shipped_carries_its_bounds(path):
    """In half precision besides, as TensorRT wants it: scales, too, and a graph that is valid."""
    model = path.read_bytes()
    bounds = activation_bounds(model)
    assert len(bounds) > 15 and any(each.shifts for each in bounds.values())
    proto = onnx.load_from_string(prepare(model, 'int8'))
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    # One pair a bound; weights are whole numbers already.
    assert kinds.count('QuantizeLinear') == len(bounds)
    assert kinds.count('DequantizeLinear') >= 2 * len(bounds)
    types = {each.name: each.data_type for each in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            assert types[node.input[1]] == TensorProto.FLOAT16
            assert types[node.input[2]] == TensorProto.INT8
    # Where types are wishes, all the rest is in float32.
    weak = onnx.load_from_string(prepare(model, 'int8', strongly_typed=False))
    assert all(each.data_type != TensorProto.FLOAT16 for each in weak.graph.initializer)


def test_metadata_are_read_as_written(rng):
    model = one_convolution(rng.standard_normal((2, 3, 1, 1)))
    bounds = {'picture': Bound(1.5), 'other': Bound(40.25, (0, 7, 3))}
    once = with_activation_bounds(model, {'picture': Bound(9.0)})
    assert activation_bounds(with_activation_bounds(once, bounds)) == bounds


@pytest.mark.parametrize('text', ['', '[1]', '{"a": 0}', '{"a": "x"}', '{"a": [1, "0x"]}', 'null'])
def test_metadata_that_make_no_sense(rng, text):
    proto = onnx.load_from_string(one_convolution(rng.standard_normal((2, 3, 1, 1))))
    proto.metadata_props.add(key=METADATA, value=text)
    with pytest.raises(PoseNodeError, match='are no numbers above zero by the names of tensors'):
        activation_bounds(proto.SerializeToString())


def test_refusals_are_sentences(rng, monkeypatch):
    model = one_convolution(rng.standard_normal((2, 3, 1, 1)))
    with pytest.raises(PoseNodeError, match='this bundle does not say; export it again'):
        prepare(model, 'int8')
    with pytest.raises(PoseNodeError, match="'picture' has 3 channels, and the bundle tells of 2"):
        quantised(model, {'picture': Bound(1.0, (0, 1))})
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(PoseNodeError, match='precision int8 needs the Python package onnx'):
        prepare(model, 'int8')


def test_the_shipped_drill_says_nearly_the_same(rng):
    """On noise; what it comes to on pictures is held by test_parity.py."""
    drill = Bundle.load(BUNDLES / 'drill')
    model = drill.read('pose.onnx')
    picture = {'picture': rng.standard_normal((2, 3, 192, 192)).astype(np.float32)}
    wanted = OnnxBackend(model)(picture)['heatmaps']
    got = OnnxBackend(quantised(fold(model), activation_bounds(model)))(picture)['heatmaps']
    assert 0.0 < np.abs(got - wanted).max() < 0.25 * wanted.max()
