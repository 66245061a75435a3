"""Half precision written into a graph: the same answers, float32 outside and in the heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from known_bundle import make_bundle
from onnx import TensorProto, helper, numpy_helper

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.fold import fold
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.tensorrt import graph
from pose_node.runtime.backends.tensorrt.graph import prepare
from pose_node.runtime.backends.tensorrt.half import half_precision

BUNDLES = Path(__file__).parents[4] / 'bundles'
SHIPPED = sorted(BUNDLES.glob('*/*.onnx'))


def types_of(model: bytes) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    known = (*inferred.value_info, *inferred.output, *inferred.input)
    return {each.name: each.type.tensor_type.elem_type for each in known}


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_shipped_networks(rng, path):
    model = path.read_bytes()
    folded, half = prepare(model, 'fp32'), prepare(model, 'fp16')
    reference = OnnxBackend(model)
    shape = (2, *reference.inputs['picture'][1:])
    picture = rng.standard_normal(shape).astype(np.float32)
    inputs = {'picture': picture}
    if 'object' in reference.inputs:
        inputs['object'] = np.array([0, 1])
    wanted = reference(inputs)
    for got, bound in ((OnnxBackend(folded), 1e-4), (OnnxBackend(half), 0.02)):
        assert got.inputs['picture'][1:] == reference.inputs['picture'][1:]
        for name, values in got(inputs).items():
            assert values.dtype == np.float32
            scale = np.abs(wanted[name]).max()
            np.testing.assert_allclose(values, wanted[name], atol=bound * scale)
    proto = onnx.load_from_string(half)
    onnx.checker.check_model(proto, full_check=True)
    types = types_of(half)
    sums = {each.output[0] for each in proto.graph.node if each.op_type == 'ReduceMean'}
    for node in proto.graph.node:
        if node.op_type == 'Conv' and node.input[0] not in sums:  # what follows them is a head
            assert types[node.output[0]] == TensorProto.FLOAT16, node.name
        if node.op_type in ('LogSoftmax', 'Exp', 'Sigmoid', 'Softmax'):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
    bytes_of = lambda kind: sum(
        numpy_helper.to_array(each).nbytes
        for each in proto.graph.initializer
        if each.data_type == kind
    )
    assert bytes_of(TensorProto.FLOAT) < 0.01 * bytes_of(TensorProto.FLOAT16)
    assert Bundle.load(path.parent).read(path.name) == model


def test_the_known_networks(rng, tmp_path):
    """Abs, ReduceSum, Log, Div: what is not in the list stays in float32, and what follows."""
    bundle = make_bundle(tmp_path / 'dots')
    for file, size in (('pose.onnx', (128, 128)), ('locator.onnx', (240, 320))):
        model = bundle.read(file)
        picture = rng.uniform(-1, 1, (1, 3, *size)).astype(np.float32)
        wanted = OnnxBackend(model)({'picture': picture})
        got = OnnxBackend(prepare(model, 'fp16'))({'picture': picture})
        for name, values in wanted.items():
            np.testing.assert_allclose(got[name], values, rtol=0.02, atol=2e-3)


def network(nodes: list, outputs: list[str], **constants: np.ndarray) -> bytes:
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [*'nchw'])
    made = helper.make_graph(
        nodes,
        'made',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, ['n', 2, 4, 4])],
        [info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid('', 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


def test_outputs_that_others_use_and_bounds_that_are_infinite(rng):
    """An output in the middle keeps its name and type; a clip's bound may be beyond half."""
    model = network(
        [
            helper.make_node('Clip', ['x', 'low', 'high'], ['middle']),
            helper.make_node('Relu', ['middle'], ['above']),
            helper.make_node('Shape', ['middle'], ['shape']),
            helper.make_node('Reshape', ['above', 'shape'], ['kept']),
            helper.make_node('Exp', ['kept'], ['end']),
            helper.make_node('Add', ['end', 'middle'], ['sum']),
        ],
        ['middle', 'end', 'sum'],
        low=np.float32(-1.0),
        high=np.float32(3.4e38),
    )
    half = half_precision(model)
    onnx.checker.check_model(onnx.load_from_string(half), full_check=True)
    types = types_of(half)
    assert types['above'] == types['kept'] == TensorProto.FLOAT16
    assert {types[name] for name in ('middle', 'end', 'sum')} == {TensorProto.FLOAT}
    x = rng.standard_normal((2, 2, 4, 4)).astype(np.float32)
    wanted, got = OnnxBackend(model)({'x': x}), OnnxBackend(half)({'x': x})
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=4e-3, atol=4e-3)


def test_scales_of_a_resize_stay_float32(rng):
    model = network(
        [helper.make_node('Resize', ['x', '', 'scales'], ['y'], mode='nearest')],
        ['y'],
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    half = half_precision(model)
    x = rng.standard_normal((1, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(OnnxBackend(half)({'x': x})['y'][..., ::2, ::2], x, rtol=1e-3)


def test_weights_beyond_half_precision_are_refused():
    model = network(
        [helper.make_node('Mul', ['x', 'large'], ['y'])],
        ['y'],
        large=np.full((1, 2, 1, 1), 1e5, np.float32),
    )
    with pytest.raises(PoseNodeError, match=r"holds 1e\+05 in 'large'.* set precision to fp32"):
        half_precision(model)


def test_folding_leaves_no_bytes_and_no_batchnorm():
    proto = onnx.load_from_string(fold((BUNDLES / 'drill' / 'pose.onnx').read_bytes()))
    kinds = {node.op_type for node in proto.graph.node}
    assert 'BatchNormalization' not in kinds
    assert {node.domain for node in proto.graph.node} == {''}
    assert all(each.data_type != TensorProto.INT8 for each in proto.graph.initializer)


def test_without_the_package_onnx(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(PoseNodeError, match='needs the Python package onnx'):
        prepare(b'', 'fp16')
    assert graph.GRAPH_VERSION >= 1
