"""The backend as a whole on a GPU in software: from the cache to answers, and back to nothing.

What is built is a copy of the ONNX model, which the software GPU runs (fake_gpu.py).
"""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from fake_gpu import FakeContext, SoftwareGpu, cudaError_t
from known_bundle import draw_scene, make_bundle

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import EngineOptions, open_backend
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.tensorrt import backend
from pose_node.runtime.backends.tensorrt.backend import TensorRtBackend
from pose_node.runtime.backends.tensorrt.builder import Built
from pose_node.runtime.backends.tensorrt.cache import EngineCache
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator

CAMERA = Camera(np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]), (640, 480))


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    return SoftwareGpu(tmp_path, monkeypatch)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots')


@pytest.fixture(scope='module')
def model(bundle):
    return bundle.read('pose.onnx')


def threads():
    return {each.name for each in threading.enumerate() if each.name.startswith('tensorrt')}


def test_a_whole_life(rng, gpu, model):
    network = open_backend('tensorrt', model, 0, gpu.options)
    picture = rng.standard_normal((6, 3, 128, 128)).astype(np.float32)
    wanted = OnnxBackend(model)({'picture': picture})['heatmaps']
    np.testing.assert_allclose(network({'picture': picture})['heatmaps'], wanted, atol=1e-6)
    assert network.name == 'tensorrt' and gpu.builds == 1 and len(threads()) == 1
    assert 'runs fp16 on Software (sm86), engine ' in gpu.said[-1]
    for wrong, words in (
        ({'image': picture}, r"has inputs \['picture'\], got \['image'\]"),
        ({'picture': picture[:, :, :64]}, r"refuses its input: 'picture' is float32 \(6, 3, 64,"),
        ({'picture': picture.astype(np.float64)}, 'is float64'),
    ):
        with pytest.raises(PoseNodeError, match=words):
            network(wrong)
    network.close()
    network.close()  # twice does no harm
    assert gpu.cuda.open == 0 and not threads()
    with pytest.raises(PoseNodeError, match='was closed'):
        network({'picture': picture})
    open_backend('tensorrt', model, 0, gpu.options).close()
    assert gpu.builds == 1  # the second time it is read


def test_poses_as_from_onnx_runtime(gpu, bundle):
    T = np.eye(4)
    T[:3, 3] = 0.02, -0.01, 0.6
    picture = draw_scene(CAMERA, T)
    options = EstimatorOptions(engines=gpu.options)
    with PoseEstimator(bundle, 'onnx') as one, PoseEstimator(bundle, 'auto', options) as two:
        assert (one.backend, two.backend) == ('onnx', 'tensorrt')
        wanted, got = (each(picture, CAMERA).poses[0] for each in (one, two))
    np.testing.assert_allclose(got.T_cam_obj, wanted.T_cam_obj, atol=1e-4)
    assert gpu.builds == 2  # pose network and locator
    keys = [entry.key['batch'] for entry in EngineCache(gpu.options.cache).entries()]
    assert sorted(keys) == ['2', '8']


def test_an_engine_that_does_not_load_is_built_anew(gpu, model, monkeypatch):
    """Right by its hash and wrong all the same: as after an update behind the version's back."""
    TensorRtBackend(model, gpu.options).close()
    (entry,) = EngineCache(gpu.options.cache).entries()
    stale = Built(b'other bytes', EngineCache(gpu.options.cache).load(entry.key).tensors)
    EngineCache(gpu.options.cache).store(entry.key, stale)
    TensorRtBackend(model, gpu.options).close()
    assert gpu.builds == 2 and any('is of no use' in line for line in gpu.said)
    monkeypatch.setattr(gpu, 'build', lambda *_: stale)
    monkeypatch.setattr(backend, 'build', lambda *_: stale)
    EngineCache(gpu.options.cache).discard(entry.key)
    with pytest.raises(PoseNodeError, match='refuses the engine'):  # twice is enough
        TensorRtBackend(model, gpu.options)
    assert gpu.cuda.open == 0 and not threads()


@pytest.mark.parametrize(
    ('fail', 'words'),
    [
        ({'cudaMalloc': cudaError_t.cudaErrorMemoryAllocation}, 'memory does not suffice'),
        ({'cudaGetDeviceCount': cudaError_t.cudaErrorNoDevice}, 'no NVIDIA GPU'),
        ({'cudaDriverGetVersion': cudaError_t.cudaErrorInsufficientDriver}, 'too old'),
        ({'cudaGraphLaunch': cudaError_t.cudaErrorIllegalAddress}, ''),
        ('run', 'refuses to run'),
    ],
)
def test_what_fails_at_the_start_makes_auto_fall_back(gpu, model, monkeypatch, fail, words):
    if fail == 'run':
        monkeypatch.setattr(FakeContext, 'refuses', True)
    else:
        gpu.cuda.fail = fail
    network = open_backend('auto', model, 1, gpu.options)
    if words:
        assert network.name == 'onnx' and gpu.cuda.open == 0 and not threads()
        assert gpu.said[-1].startswith('TensorRT is not used: ') and words in gpu.said[-1]
        with pytest.raises(PoseNodeError, match=words):
            open_backend('tensorrt', model, 1, gpu.options)
    else:  # the start is well: later failures are the picture's, in a sentence
        picture = np.zeros((1, 3, 128, 128), np.float32)
        with pytest.raises(PoseNodeError, match='cudaGraphLaunch of CUDA fails'):
            network({'picture': picture})
    network.close()


def test_what_nobody_expected_of_tensorrt_is_told_too(gpu, model, monkeypatch):
    """A version that lacks a method: `auto` still has a robot to serve."""
    monkeypatch.delattr(FakeContext, 'set_tensor_address')
    network = open_backend('auto', model, 1, gpu.options)
    assert network.name == 'onnx' and gpu.cuda.open == 0 and not threads()
    assert 'TensorRT 8.6.1 does what is not expected of it (AttributeError: ' in gpu.said[-1]
    network.close()


def test_progress_is_told_by_the_thread_that_waits(gpu, model, monkeypatch):
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(backend, '_TOLD_EVERY_S', 0.02)
    gpu.slow_s = 0.2
    tell = lambda line: told.append((threading.current_thread().name, line))
    options = EngineOptions(cache=gpu.options.cache, progress=tell)
    TensorRtBackend(model, options).close()
    assert len(told) > 2 and {name for name, _ in told} == {threading.current_thread().name}
    assert told[0][1].startswith('building an engine, 40 %, ')


def test_the_wait_can_be_ended(gpu, model, monkeypatch):
    """A node that is told to end while it configures ends the build, too."""
    monkeypatch.setattr(backend, '_TOLD_EVERY_S', 0.02)
    gpu.slow_s = 30.0

    def stop(_: str) -> None:
        raise PoseNodeError('stopped by a signal.')

    start = time.monotonic()
    with pytest.raises(PoseNodeError, match='stopped by a signal'):
        TensorRtBackend(model, EngineOptions(cache=gpu.options.cache, progress=stop))
    assert time.monotonic() - start < 5.0
    assert gpu.cuda.open == 0 and not threads()
