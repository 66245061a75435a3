"""The OpenVINO backend: ONNX Runtime's numbers for the shipped networks, refusals in sentences."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from known_bundle import make_bundle, weights_elsewhere

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import openvino
from pose_node.runtime.backends.fold import fold
from pose_node.runtime.backends.int8 import activation_bounds, quantised
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.openvino import OpenVinoBackend

BUNDLES = Path(__file__).parents[3] / 'bundles'


def test_without_openvino_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(PoseNodeError, match='pip install openvino'):
        OpenVinoBackend(b'')


def test_int8_where_sums_would_be_cut_off(monkeypatch, tmp_path):
    pytest.importorskip('openvino', reason='OpenVINO is not installed here')
    monkeypatch.setattr(openvino.platform, 'machine', lambda: 'x86_64')
    for flags in ('flags : avx2 avx512f', None):
        info = tmp_path / 'cpuinfo'
        if flags:
            info.write_text(flags)
        else:
            info.unlink()
        monkeypatch.setattr(openvino, '_CPU_INFO', info)
        with pytest.raises(PoseNodeError, match=r'it has no VNNI.*set precision to fp32'):
            OpenVinoBackend(b'', int8=True)


class TestWhereItIsInstalled:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip('openvino', reason='OpenVINO is not installed here')

    @pytest.fixture
    def model(self, tmp_path) -> bytes:
        return make_bundle(tmp_path / 'dots').read('pose.onnx')

    @pytest.mark.parametrize('name', ['drill', 'lmo_driller'])
    def test_the_shipped_networks_say_the_same(self, rng, name):
        bundle = Bundle.load(BUNDLES / name)
        for spec in filter(None, (bundle.pose_network, bundle.locator)):
            model = bundle.read(spec.file)
            ours, theirs = OpenVinoBackend(model, threads=1), OnnxBackend(model, threads=1)
            for count in (1, 3):  # one after the other through the same request
                shape = (count, 3, *spec.input_size[::-1])
                inputs = {spec.input: rng.standard_normal(shape).astype(np.float32)}
                got, wanted = ours(inputs), theirs(inputs)
                assert set(got) == set(wanted)
                for output, value in wanted.items():
                    np.testing.assert_allclose(got[output], value, atol=1e-4)

    @pytest.mark.parametrize('name', ['drill', 'lmo_driller'])
    def test_int8_is_what_its_graph_says(self, rng, name):
        """Held against ONNX Runtime, which computes the same graph."""
        if not openvino._multiplies_bytes():
            pytest.skip('this processor has no VNNI')
        bundle = Bundle.load(BUNDLES / name)
        for spec in filter(None, (bundle.pose_network, bundle.locator)):
            model = bundle.read(spec.file)
            twin = OnnxBackend(quantised(fold(model), activation_bounds(model)), threads=1)
            ours = OpenVinoBackend(model, threads=1, int8=True)
            whole = OnnxBackend(model, threads=1)
            shape = (2, 3, *spec.input_size[::-1])
            inputs = {spec.input: rng.standard_normal(shape).astype(np.float32)}
            got, wanted, exact = ours(inputs), twin(inputs), whole(inputs)
            for output, value in exact.items():
                # Sums are added in another order, and numbers rounded the other way: not the same
                # answer, but no worse one.
                cost, costs = (np.abs(each[output] - value).mean() for each in (wanted, got))
                assert 0.0 < costs < 1.5 * cost

    def test_an_answer_is_not_written_over_by_the_next(self, rng, model):
        backend = OpenVinoBackend(model)
        pictures = rng.standard_normal((2, 1, 3, 128, 128)).astype(np.float32)
        first = backend({'picture': pictures[0]})['heatmaps']
        copy = first.copy()
        second = backend({'picture': pictures[1]})['heatmaps']
        np.testing.assert_array_equal(first, copy)
        assert not np.array_equal(first, second)

    def test_refusals(self, model):
        with pytest.raises(PoseNodeError, match=r'cannot be loaded by OpenVINO .*; export it'):
            OpenVinoBackend(b'this is no network')
        with pytest.raises(PoseNodeError, match='outside the base directory'):
            OpenVinoBackend(weights_elsewhere(model))
        with pytest.raises(PoseNodeError, match='threads is -1; give 0'):
            OpenVinoBackend(model, threads=-1)
        backend = OpenVinoBackend(model)
        with pytest.raises(PoseNodeError, match=r"has inputs \['picture'\], got \['image'\]"):
            backend({'image': np.zeros((1, 3, 128, 128), np.float32)})
        for wrong in (np.zeros((1, 3, 64, 64), np.float32), np.zeros((1, 3, 128, 128))):
            with pytest.raises(PoseNodeError, match='refuses its input'):
                backend({'picture': wrong})
