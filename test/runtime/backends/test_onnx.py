"""The ONNX backend: it runs what ONNX's own reference runs, and refuses in sentences."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from known_bundle import make_bundle, weights_elsewhere
from onnx.reference import ReferenceEvaluator

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import BACKENDS, open_backend
from pose_node.runtime.backends.onnx import OnnxBackend, usable_cores


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> bytes:
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots').read('pose.onnx')


@pytest.mark.parametrize('name', sorted(set(BACKENDS) - {'auto', 'tensorrt'}))
def test_agrees_with_the_reference_evaluator(rng, model, name):
    if name == 'openvino':
        pytest.importorskip('openvino', reason='OpenVINO is not installed here')
    picture = rng.standard_normal((1, 3, 128, 128)).astype(np.float32)
    backend = open_backend(name, model)
    outputs = backend({'picture': picture})
    (wanted,) = ReferenceEvaluator(onnx.load_from_string(model)).run(None, {'picture': picture})
    assert backend.name == name and set(outputs) == {'heatmaps'}
    np.testing.assert_allclose(outputs['heatmaps'], wanted, rtol=1e-4, atol=1e-6)
    backend.close()
    with pytest.raises(PoseNodeError, match='was closed'):
        backend({'picture': picture})
    backend.close()  # twice does no harm


def test_batches_do_not_mix(rng, model):
    pictures = rng.standard_normal((3, 3, 128, 128)).astype(np.float32)
    backend = OnnxBackend(model, threads=1)
    together = backend({'picture': pictures})['heatmaps']
    for i in range(3):
        alone = backend({'picture': pictures[i : i + 1]})['heatmaps'][0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-7)


def test_loads_a_file_and_tells_its_shapes(tmp_path, model):
    (tmp_path / 'pose.onnx').write_bytes(model)
    backend = OnnxBackend(tmp_path / 'pose.onnx', threads=2)
    assert backend.inputs == {'picture': ('n', 3, 128, 128)}
    assert backend.outputs == {'heatmaps': ('n', 12, 32, 32)}


def test_there_is_at_least_one_core():
    assert usable_cores() >= 1


def test_refusals(tmp_path, model):
    with pytest.raises(PoseNodeError, match=r"'tensorflow'; choose from .*onnx"):
        open_backend('tensorflow', model)
    with pytest.raises(PoseNodeError, match=r'ONNX model cannot be loaded .*; export it again'):
        OnnxBackend(b'this is no network')
    with pytest.raises(PoseNodeError, match=r'none\.onnx cannot be loaded'):
        OnnxBackend(tmp_path / 'none.onnx')
    with pytest.raises(PoseNodeError, match='cannot be loaded'):
        OnnxBackend(weights_elsewhere(model))
    with pytest.raises(PoseNodeError, match='threads is -1; give 0'):
        OnnxBackend(model, threads=-1)
    backend = OnnxBackend(model)
    with pytest.raises(PoseNodeError, match=r"has inputs \['picture'\], got \['image'\]"):
        backend({'image': np.zeros((1, 3, 128, 128), np.float32)})
    for wrong in (np.zeros((1, 3, 64, 64), np.float32), np.zeros((1, 3, 128, 128))):
        with pytest.raises(PoseNodeError, match='refuses its input'):
            backend({'picture': wrong})
