"""Weights in a byte each: what is lost, what is read again, and what older bundles hold."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('onnx', reason='the workshop is not installed here')

import onnx
from onnx import TensorProto, helper, numpy_helper

from pose_node.runtime.backends.onnx import OnnxBackend
from training.steps.byte_weights import byte_weights, read_weights


def _model(weights: np.ndarray, bias: np.ndarray):
    """y = conv(x) + bias."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node('Conv', ['x', 'weight', 'bias'], ['y'])],
        'one',
        [value('x', TensorProto.FLOAT, ['batch', weights.shape[1], 5, 5])],
        [value('y', TensorProto.FLOAT, ['batch', len(weights), 3, 3])],
        [numpy_helper.from_array(weights, 'weight'), numpy_helper.from_array(bias, 'bias')],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


@pytest.mark.parametrize(
    ('shape', 'steps'), [((4, 2, 3, 3), 254), ((1200, 1, 3, 3), 254), ((40, 30, 3, 3), 62)]
)
def test_every_channel_has_its_scale_and_the_graph_computes_with_it(rng, shape, steps):
    outputs, inputs, *_ = shape
    magnitude = np.resize([1e-4, 1.0, 30.0, 0.0], outputs).reshape(-1, 1, 1, 1)
    weights = (rng.normal(size=shape) * magnitude).astype(np.float32)
    bias = rng.normal(size=outputs).astype(np.float32)
    model = byte_weights(_model(weights, bias))
    onnx.checker.check_model(model)
    stored = read_weights(model)
    assert set(stored) == {'weight', 'bias'}
    np.testing.assert_array_equal(stored['bias'], bias)
    worst = np.abs(stored['weight'] - weights).max(axis=(1, 2, 3))
    assert (worst <= np.abs(weights).max(axis=(1, 2, 3)) / steps * 1.0001 + 1e-12).all()
    x = rng.normal(size=(3, inputs, 5, 5)).astype(np.float32)
    got = OnnxBackend(model.SerializeToString())({'x': x})['y']
    wanted = OnnxBackend(_model(stored['weight'], bias).SerializeToString())({'x': x})['y']
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('levels', [127, 31])
def test_weights_of_a_bundle_give_its_bytes_again(rng, levels):
    """Whether that bundle packed them into six bits or kept a byte each."""
    whole = rng.integers(-levels, levels + 1, (64, 20, 3, 3))
    whole[:, 0, 0, 0] = levels
    scale = rng.uniform(1e-4, 1.0, (64, 1, 1, 1)).astype(np.float32)
    model = byte_weights(_model((whole * scale).astype(np.float32), np.zeros(64, np.float32)))
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    np.testing.assert_array_equal(stored['weight_bytes'], whole)
    np.testing.assert_allclose(stored['weight_scale'], scale, rtol=1e-6)


def test_bundles_in_half_precision_are_read(rng):
    weights, bias = rng.normal(size=(4, 2, 3, 3)).astype(np.float16), np.zeros(4, np.float32)
    model = _model(weights.astype(np.float32), bias)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, 'weight_half'))
    cast = helper.make_node('Cast', ['weight_half'], ['weight'], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    np.testing.assert_array_equal(read_weights(model)['weight'], weights.astype(np.float32))
