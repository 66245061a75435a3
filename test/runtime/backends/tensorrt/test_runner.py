"""The runner round an engine: any number of pictures, graphs, and nothing left behind.

On a GPU in software (fake_gpu.py), whose engine is ONNX Runtime: the same numbers must come out,
and every failure of CUDA must be told and leave nothing open.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from fake_gpu import FakeContext, FakeCuda, FakeTensorRt, Logger, cudaError_t
from known_bundle import make_bundle
from onnx import TensorProto, helper

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.tensorrt.builder import Built, Tensor
from pose_node.runtime.backends.tensorrt.cuda import Cuda, load_cuda
from pose_node.runtime.backends.tensorrt.runner import EngineRefused, Runner

TENSORS = {
    'picture': Tensor('float32', (-1, 3, 128, 128), True),
    'heatmaps': Tensor('float32', (-1, 12, 32, 32), False),
}


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> bytes:
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots').read('pose.onnx')


def make_runner(gpu, built, *, graphs=True, max_batch=4):
    flavour = SimpleNamespace(trt=FakeTensorRt(gpu), logger=Logger(), title='Fake', rtx=False)
    return Runner(flavour, Cuda(gpu), built, max_batch, graphs=graphs)


@pytest.mark.parametrize('graphs', [True, False])
def test_any_number_of_pictures_comes_out_as_from_onnx_runtime(rng, model, graphs):
    gpu = FakeCuda()
    runner = make_runner(gpu, Built(model, TENSORS), graphs=graphs)
    reference = OnnxBackend(model)
    for count in (1, 2, 4, 3, 9, 1, 9, 0):  # again: by graph; nine: in turns of four
        pictures = rng.standard_normal((count, 3, 128, 128)).astype(np.float32)
        got = runner({'picture': pictures})['heatmaps']
        wanted = reference({'picture': pictures})['heatmaps'] if count else got
        assert got.shape == (count, 12, 32, 32)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    assert ('cudaGraphLaunch' in gpu.calls) == graphs
    if graphs:  # one for every number of pictures, each captured once
        assert gpu.calls.count('cudaGraphInstantiate') == len(gpu.launchable) == 4
    runner.close()
    assert gpu.open == 0


def test_an_index_beside_the_picture_and_results_that_stay(rng):
    """Outputs are copies: the next run does not change them."""
    node = helper.make_node('Gather', ['table', 'object'], ['row'], axis=0)
    graph = helper.make_graph(
        [node, helper.make_node('Add', ['row', 'picture'], ['heatmaps'])],
        'two_inputs',
        [
            helper.make_tensor_value_info('picture', TensorProto.FLOAT, ['n', 2]),
            helper.make_tensor_value_info('object', TensorProto.INT64, ['n']),
        ],
        [helper.make_tensor_value_info('heatmaps', TensorProto.FLOAT, ['n', 2])],
        [onnx.numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), 'table')],
    )
    opset = [helper.make_opsetid('', 13)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    tensors = {
        'picture': Tensor('float32', (-1, 2), True),
        'object': Tensor('int64', (-1,), True),
        'heatmaps': Tensor('float32', (-1, 2), False),
    }
    runner = make_runner(FakeCuda(), Built(data, tensors))
    results = []
    for _ in range(3):
        picture, index = rng.standard_normal((3, 2)).astype(np.float32), rng.integers(0, 3, 3)
        got = runner({'picture': picture, 'object': index})['heatmaps']
        results.append((got, np.eye(3, 2)[index] + picture))
    for got, wanted in results:
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    runner.close()


def calls_of_a_whole_life(model) -> list[str]:
    gpu = FakeCuda()
    runner = make_runner(gpu, Built(model, TENSORS))
    runner({'picture': np.zeros((2, 3, 128, 128), np.float32)})
    return gpu.calls


CAPTURE = ('cudaStreamBeginCapture', 'cudaStreamEndCapture', 'cudaGraphInstantiate')


def test_every_failure_is_told_and_leaves_nothing_open(rng, model):
    calls = calls_of_a_whole_life(model)
    places = [(name, calls[: i + 1].count(name)) for i, name in enumerate(calls)]
    assert len(places) > 20
    pictures = rng.standard_normal((2, 3, 128, 128)).astype(np.float32)
    wanted = OnnxBackend(model)({'picture': pictures})['heatmaps']
    for name, which in places:
        gpu = FakeCuda({(name, which): cudaError_t.cudaErrorIllegalAddress})
        runner, told = None, ''
        try:
            runner = make_runner(gpu, Built(model, TENSORS))
            got = runner({'picture': pictures})['heatmaps']
        except PoseNodeError as error:
            told = str(error)
        if runner is not None:
            runner.close()
        assert gpu.open == (name == 'cudaGraphDestroy'), (name, which)
        if told:
            assert f'{name} of CUDA fails: cudaErrorIllegalAddress' in told
        else:  # a graph that cannot be had is done without
            assert name in (*CAPTURE, 'cudaMemcpyAsync'), name
            assert not runner.graphs
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_sentences_of_cuda(model):
    for error, words in {
        cudaError_t.cudaErrorMemoryAllocation: "the GPU's memory does not suffice",
        cudaError_t.cudaErrorNoDevice: 'no NVIDIA GPU is to be seen',
        cudaError_t.cudaErrorInsufficientDriver: 'serves CUDA 13.0, and cuda-python is of 13.5',
    }.items():
        with pytest.raises(PoseNodeError, match=words):
            Cuda(FakeCuda({'cudaGetDeviceCount': error})).gpu()
        gpu = FakeCuda({'cudaMalloc': error})
        with pytest.raises(PoseNodeError, match=words):
            make_runner(gpu, Built(model, TENSORS))
        assert gpu.open == 0
    gpu = Cuda(FakeCuda()).gpu()
    assert (gpu.name, gpu.architecture, gpu.memory_mb) == ('Software', 'sm86', 8192)


def test_the_real_cuda_python_has_all_that_is_called(model):
    """Where there is no GPU, its functions still are, under these names."""
    real = load_cuda().rt
    missing = [name for name in set(calls_of_a_whole_life(model)) if not hasattr(real, name)]
    missing += [name for name in CAPTURE if not hasattr(real, name)]
    assert not missing
    assert hasattr(real.cudaMemcpyKind, 'cudaMemcpyHostToDevice')
    assert hasattr(real.cudaStreamCaptureMode, 'cudaStreamCaptureModeThreadLocal')
    assert isinstance(real.cudaStreamNonBlocking, int) and real.cudaHostAllocDefault == 0
    assert hasattr(real.cudaDeviceProp(), 'totalGlobalMem')


def test_engines_that_are_not_what_they_say(model, monkeypatch):
    for built, words in (
        (Built(b'noise', TENSORS), 'refuses the engine .Serialization assertion failed'),
        (Built(model, {**TENSORS, 'extra': TENSORS['heatmaps']}), 'its header says'),
        (
            Built(model, {**TENSORS, 'heatmaps': Tensor('float32', (-1, 12, 64, 64), False)}),
            'its header says',
        ),
    ):
        gpu = FakeCuda()
        with pytest.raises(EngineRefused, match=words):
            make_runner(gpu, built)
        assert gpu.open == 0
    with pytest.raises(EngineRefused, match='takes 8 pictures at once'):
        make_runner(FakeCuda(), Built(model, TENSORS), max_batch=9)
    gpu = FakeCuda()
    monkeypatch.setattr(FakeContext, 'refuses', True)
    with pytest.raises(PoseNodeError, match='Fake refuses to run'):
        make_runner(gpu, Built(model, TENSORS))
    assert gpu.open == 0


def test_numbers_that_are_not_finite_are_refused_at_the_start():
    node = helper.make_node('Div', ['picture', 'picture'], ['heatmaps'])
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ['n', 2])
    graph = helper.make_graph([node], 'nan', [value('picture')], [value('heatmaps')])
    opset = [helper.make_opsetid('', 13)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    tensors = {
        'picture': Tensor('float32', (-1, 2), True),
        'heatmaps': Tensor('float32', (-1, 2), False),
    }
    with pytest.raises(PoseNodeError, match='not finite; set precision to fp32'):
        make_runner(FakeCuda(), Built(data, tensors))
