"""On a real GPU: `pytest -m gpu`. Parity, batches, CUDA graphs, memory given back.

Never run yet: this project's machines have none. They skip with the reason where one is missing.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import EngineOptions
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.tensorrt.backend import TensorRtBackend
from pose_node.runtime.backends.tensorrt.cuda import load_cuda, need_driver
from pose_node.runtime.backends.tensorrt.flavour import load_flavour
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.parity import compare, painted_scenes

pytestmark = pytest.mark.gpu
BUNDLES = Path(__file__).parents[4] / 'bundles'
SHIPPED = sorted(BUNDLES.glob('*/*.onnx'))
ID = lambda path: f'{path.parent.name}/{path.stem}'


@pytest.fixture(scope='session')
def cache(tmp_path_factory) -> str:
    """Engines built once for this session; skips where nothing can run them."""
    try:
        need_driver()
        flavour, gpu = load_flavour(), load_cuda().gpu()
    except PoseNodeError as error:
        pytest.skip(f'no engine can run here: {error}')
    if flavour.rtx and gpu.architecture not in flavour.targets:
        pytest.skip(f'{flavour.title} does not run on {gpu.architecture}')
    return str(tmp_path_factory.mktemp('engines'))


def picture_of(model: bytes, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    shape = OnnxBackend(model).inputs['picture'][1:]
    return {'picture': rng.standard_normal((count, *shape)).astype(np.float32)}


@pytest.mark.parametrize('precision', ['fp16', 'fp32', 'int8'])
def test_poses_are_those_of_onnx_runtime(cache, rng, precision):
    options = EstimatorOptions(
        second_look=1.0, contour=False, engines=EngineOptions(cache=cache, precision=precision)
    )
    with (
        PoseEstimator(BUNDLES / 'drill', 'tensorrt', options) as tested,
        PoseEstimator(BUNDLES / 'drill', 'onnx', options) as reference,
    ):
        scenes = painted_scenes(tested.bundle, 20, rng)
        assert tested._network.makes_crops  # held against the CPU's when it was opened
        parity = compare(tested, reference, scenes, precision)
    print(parity)
    assert parity.fault == ''


@pytest.mark.parametrize('graphs', [True, False])
@pytest.mark.parametrize('path', SHIPPED, ids=ID)
def test_every_batch_agrees(cache, rng, path, graphs):
    model = path.read_bytes()
    reference = OnnxBackend(model)
    network = TensorRtBackend(
        model, EngineOptions('fp32', max_batch=16, cache=cache, cuda_graphs=graphs)
    )
    for count in (1, 2, 3, 8, 16, 17, 2):
        inputs = picture_of(model, count, rng)
        wanted = reference(inputs)
        for _ in range(3):  # plainly, then by the graph that was captured
            for name, values in network(inputs).items():
                scale = np.abs(wanted[name]).max()
                np.testing.assert_allclose(values, wanted[name], atol=2e-3 * scale)
    assert network._runner.graphs == graphs
    network.close()


def test_memory_is_given_back(cache, rng):
    """Ten times open and closed takes no more than once."""
    model = Bundle.load(BUNDLES / 'drill').read('pose.onnx')
    cuda, inputs = load_cuda(), picture_of(model, 3, rng)

    def once() -> int:
        network = TensorRtBackend(model, EngineOptions(cache=cache))
        for _ in range(3):
            network(inputs)
        network.close()
        return cuda.free_mb()

    once()  # the CUDA context and its kernels stay
    first = once()
    last = [once() for _ in range(9)][-1]
    assert last >= first - 8


def test_latency_and_throughput(cache, rng):
    """Figures for BENCHMARKS.md (`-s`); asserted is only that graphs do not make it worse."""
    model = Bundle.load(BUNDLES / 'drill').read('pose.onnx')
    median_ms = {}
    for graphs in (False, True):
        network = TensorRtBackend(
            model, EngineOptions(max_batch=16, cache=cache, cuda_graphs=graphs, say=print)
        )
        for count in (1, 2, 4, 8, 16):
            inputs, times = picture_of(model, count, rng), []
            for _ in range(220):
                start = time.perf_counter()
                network(inputs)
                times.append(1e3 * (time.perf_counter() - start))
            p50, p90, p99 = np.percentile(times[20:], (50, 90, 99))
            median_ms[graphs, count] = p50
            print(f'graphs {graphs}, {count}: {p50:.3f} {p90:.3f} {p99:.3f} ms p50 p90 p99')
        network.close()
    assert median_ms[True, 1] < 1.2 * median_ms[False, 1]
