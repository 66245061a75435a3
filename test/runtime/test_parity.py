"""Parity: half precision passes it, and what is really different does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from known_bundle import make_bundle
from onnx import numpy_helper

from pose_node.core.bundle import Bundle, write_bundle
from pose_node.runtime.backends.tensorrt.graph import prepare
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.parity import KEYPOINT_PX, Parity, compare, painted_scenes

BUNDLES = Path(__file__).parents[2] / 'bundles'
ONCE = EstimatorOptions(second_look=1.0, contour=False)


def with_network(bundle: Bundle, model: bytes, folder: Path) -> Bundle:
    """The same bundle with another pose network."""
    manifest = json.loads((bundle.folder / 'bundle.json').read_text())
    files = {name: bundle.read(name) for name in manifest.pop('files')}
    manifest.pop('schema')
    return write_bundle(folder, manifest, {**files, bundle.pose_network.file: model})


def parity_of(
    tested: Bundle,
    reference: Bundle,
    rng: np.random.Generator,
    count: int,
    precision: str = 'fp16',
) -> Parity:
    with PoseEstimator(tested, 'onnx', ONCE) as one, PoseEstimator(reference, 'onnx', ONCE) as two:
        return compare(one, two, painted_scenes(reference, count, rng), precision)


def test_the_drill_in_half_precision(rng, tmp_path):
    """What TensorRT is given, computed by ONNX Runtime: 0.1 px is not what rounding costs."""
    drill = Bundle.load(BUNDLES / 'drill')
    half = with_network(drill, prepare(drill.read('pose.onnx'), 'fp16'), tmp_path / 'half')
    parity = parity_of(half, drill, rng, 12)
    print(parity)
    assert parity.fault == ''
    assert len(parity.keypoints_px) > 40 and len(parity.poses_sigma) > 1
    px, sigmas = np.array(parity.keypoints_px), np.array(parity.sigmas_px)
    assert px[sigmas < 8.0].max() < 0.6 * KEYPOINT_PX['fp16']
    assert 0.0 < (px / sigmas).max() < 0.05 and max(parity.poses_sigma) < 0.2


def test_the_drill_in_int8(rng, tmp_path):
    """What TensorRT and OpenVINO are given, its whole numbers computed by ONNX Runtime."""
    drill = Bundle.load(BUNDLES / 'drill')
    graph = prepare(drill.read('pose.onnx'), 'int8', strongly_typed=False)
    other = with_network(drill, graph, tmp_path / 'int8')
    parity = parity_of(other, drill, rng, 12, 'int8')
    print(parity)
    assert parity.fault == '' and parity_of(other, drill, rng, 12).fault != ''
    assert len(parity.keypoints_px) > 40 and len(parity.poses_sigma) > 1


def test_other_weights_are_found_out(rng, tmp_path):
    """As a build would be that goes wrong: every weight off by 15 % of their spread."""
    drill = Bundle.load(BUNDLES / 'drill')
    proto = onnx.load_from_string(prepare(drill.read('pose.onnx'), 'fp32'))
    for each in proto.graph.initializer:
        weights = numpy_helper.to_array(each)
        if weights.ndim == 4:
            noise = 0.15 * weights.std() * rng.standard_normal(weights.shape)
            changed = (weights + noise).astype(np.float32)
            each.CopyFrom(numpy_helper.from_array(changed, each.name))
    other = with_network(drill, proto.SerializeToString(), tmp_path / 'other')
    fault = parity_of(other, drill, rng, 6).fault
    assert 'px off' in fault or 'by one of them only' in fault


def test_the_painted_dots_are_seen_where_they_are(rng, tmp_path):
    """The painter has its own idea of a projection: the known network finds what it painted."""
    dots = make_bundle(tmp_path / 'dots')
    found = 0
    with PoseEstimator(dots, 'onnx', ONCE) as estimator:
        for picture, camera, regions in painted_scenes(dots, 10, rng):
            assert picture.dtype == np.uint8 and picture.shape == (480, 640, 3)
            result = estimator(picture, camera, regions=regions)
            found += len(result.poses)
    assert found >= 3
    again = [p for p, _, _ in painted_scenes(dots, 2, np.random.default_rng(5))]
    same = [p for p, _, _ in painted_scenes(dots, 2, np.random.default_rng(5))]
    assert all((a == b).all() for a, b in zip(again, same))


def test_faults_in_words():
    assert 'nothing was found by both' in Parity().fault
    good = {'pictures': 1, 'keypoints_px': [0.05] * 100, 'sigmas_px': [0.3] * 100}
    good['poses_sigma'] = [0.2]
    assert Parity(**good).fault == ''
    assert Parity(1, poses_sigma=[0.2]).fault == ''  # of a network without keypoints
    for apart, sigma, fault in (
        (0.2, 0.5, 'a keypoint is 0.200 px off, wanted at most 0.100'),
        (0.2, 3.0, ''),  # the network does not know itself
        (0.4, 3.0, 'a keypoint is 0.400 px off, wanted at most 0.300'),
        (float('nan'), 1.0, 'a keypoint is nan px off'),
    ):
        worse = {**good, 'keypoints_px': [0.05, apart], 'sigmas_px': [0.3, sigma]}
        found = Parity(**worse).fault
        assert fault in found and (found == '') == (fault == '')
    assert '3 keypoints are seen by one' in Parity(**good, lost=3).fault
    assert 'pose is 1.50 sigma off' in Parity(**{**good, 'poses_sigma': [1.5]}).fault
    assert '1 poses are given by one' in Parity(**good, lost_poses=1).fault
