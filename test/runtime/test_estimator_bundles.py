"""The estimator against bundles: those that break their word are refused, others are heeded."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from known_bundle import OBJECT, draw_scene, make_bundle, manifest

from pose_node.core.bundle import Bundle, BundleError, write_bundle
from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import exp_so3, make_pose
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Region

PLAIN = Camera(np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]]), (640, 480))


@pytest.fixture(scope='module')
def bundle(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots')


def random_pose(rng: np.random.Generator) -> np.ndarray:
    z = rng.uniform(0.45, 0.9)
    x, y = rng.uniform(-0.2, 0.2, 2) * z
    return make_pose(exp_so3(2.0 * rng.normal(size=3)), np.array([x, y, z]))


def only(result):
    assert len(result.poses) == 1, [(p.status, p.score, p.features) for p in result.rejected]
    return result.poses[0]


def test_a_bundle_that_lies_about_its_network_is_refused(tmp_path, bundle):
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    data = manifest()
    data['objects'][0]['keypoints_obj_m'] = data['objects'][0]['keypoints_obj_m'][:9]
    write_bundle(tmp_path / 'a', data, files)
    with pytest.raises(PoseNodeError, match=r'\(2, 12, 32, 32\) .* float32 \(2, 9, 32, 32\)'):
        PoseEstimator(tmp_path / 'a')
    data = manifest()
    data['pose_network']['output'] = 'maps'
    write_bundle(tmp_path / 'b', data, files)
    with pytest.raises(PoseNodeError, match=r"\['heatmaps'\], and the bundle says 'maps'"):
        PoseEstimator(tmp_path / 'b')
    write_bundle(tmp_path / 'c', manifest(), {**files, 'pose.onnx': b'not a network'})
    with pytest.raises(PoseNodeError, match='cannot be loaded'):
        PoseEstimator(tmp_path / 'c')


def test_a_network_for_one_picture_only_is_refused(tmp_path, bundle):
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    model = onnx.load_from_string(files['pose.onnx'])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    files['pose.onnx'] = model.SerializeToString()
    write_bundle(tmp_path / 'b', manifest(), files)
    with pytest.raises(PoseNodeError, match='refuses its input'):
        PoseEstimator(tmp_path / 'b')


def test_a_damaged_bundle_is_refused(tmp_path):
    make_bundle(tmp_path / 'b')
    listed = json.loads((tmp_path / 'b' / 'bundle.json').read_text())
    listed['files']['pose.onnx']['sha256'] = '0' * 64
    (tmp_path / 'b' / 'bundle.json').write_text(json.dumps(listed))
    with pytest.raises(BundleError, match='SHA-256'):
        PoseEstimator(tmp_path / 'b')


def test_covariance_scale_reaches_the_pose(rng, tmp_path, bundle):
    """Four times the keypoints' covariance is four times the pose's."""
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    data = manifest()
    data['pose_network']['calibration'][OBJECT]['covariance_scale'] = 4.0
    write_bundle(tmp_path / 'b', data, files)
    picture = draw_scene(PLAIN, random_pose(rng))
    with PoseEstimator(bundle) as one, PoseEstimator(tmp_path / 'b') as four:
        a, b = only(one(picture, PLAIN)), only(four(picture, PLAIN))
    np.testing.assert_allclose(b.covariances_px, 4 * a.covariances_px, rtol=1e-6)
    np.testing.assert_allclose(np.trace(b.covariance), 4 * np.trace(a.covariance), rtol=0.1)


def test_the_posterior_reaches_the_likelihood(rng, tmp_path, bundle):
    """Its scale comes on top of the covariance's; without one the scale is known."""
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    data = manifest()
    data['pose_network']['calibration'][OBJECT]['posterior'] = {'scale': 0.25, 'freedom': 3.5}
    write_bundle(tmp_path / 'b', data, files)
    picture, amis = draw_scene(PLAIN, random_pose(rng)), EstimatorOptions(distribution='amis')
    folders = bundle, tmp_path / 'b'
    plain, spread = (PoseEstimator(folder, options=amis) for folder in folders)
    with plain, spread:
        a, b = only(plain(picture, PLAIN)).likelihood, only(spread(picture, PLAIN)).likelihood
    assert (a.covariance_scale, a.freedom) == (1.0, np.inf)
    assert (b.covariance_scale, b.freedom) == (0.25, 3.5)


def test_the_prior_reaches_the_pose(rng, tmp_path, bundle):
    """Without what pulled them together keypoints are farther apart: the object is nearer."""
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    data = manifest()
    data['pose_network']['calibration'][OBJECT]['prior_std_px'] = 1.0
    write_bundle(tmp_path / 'b', data, files)
    picture = draw_scene(PLAIN, random_pose(rng))
    with PoseEstimator(bundle) as plain, PoseEstimator(tmp_path / 'b') as pulled:
        a, b = only(plain(picture, PLAIN)), only(pulled(picture, PLAIN))
    assert b.T_cam_obj[2, 3] < a.T_cam_obj[2, 3]


def _serve_two(model: onnx.ModelProto) -> bytes:
    """The known network with an input that says which object: for the second, the maps are drawn
    in reverse order.
    """
    graph, node = model.graph, onnx.helper.make_node
    for each in graph.node:
        each.output[:] = ['forward' if name == 'heatmaps' else name for name in each.output]
    constants = {'one': [1], 'axes': [1, 2, 3], 'starts': [-1], 'ends': [-1000], 'channel': [1]}
    for name, values in {**constants, 'steps': [-1]}.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    graph.node.extend(
        [
            node('Slice', ['forward', 'starts', 'ends', 'channel', 'steps'], ['reverse']),
            node('Equal', ['object', 'one'], ['second']),
            node('Unsqueeze', ['second', 'axes'], ['which']),
            node('Where', ['which', 'reverse', 'forward'], ['heatmaps']),
        ]
    )
    graph.input.append(onnx.helper.make_tensor_value_info('object', onnx.TensorProto.INT64, ['N']))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_one_network_serves_two_objects(rng, tmp_path, bundle):
    """Every crop is looked at as the object its region names; each kind has its own instances."""
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files['pose.onnx'] = _serve_two(onnx.load_from_string(files['pose.onnx']))
    data = manifest()
    network = data['pose_network']
    reverse = np.array(data['objects'][0]['keypoints_obj_m'])[::-1]
    data['objects'].append({**data['objects'][0], 'name': 'stod', 'keypoints_obj_m': reverse})
    network.update(objects=[OBJECT, 'stod'], object_input='object')
    network['calibration']['stod'] = {
        **network['calibration'][OBJECT], 'covariance_scale': 4.0,
    }  # fmt: skip
    write_bundle(tmp_path / 'b', data, files)
    T = random_pose(rng)
    picture = draw_scene(PLAIN, T)
    center = tuple(PLAIN.project(T[None, :3, 3])[0].tolist())
    regions = [Region(name, center, (150.0, 150.0)) for name in ('stod', OBJECT, 'cup', 'stod')]
    with PoseEstimator(tmp_path / 'b') as estimator:
        result = estimator(picture, PLAIN, regions=regions)
    found = {pose.object: pose for pose in result.poses}
    assert set(found) == {OBJECT, 'stod'} and len(result.poses) == 2
    assert [pose.instance for pose in result.poses] == [0, 0]
    assert [pose.object for pose in result.rejected] == ['stod']  # the same thing again
    np.testing.assert_allclose(found['stod'].T_cam_obj, found[OBJECT].T_cam_obj, atol=1e-5)
    np.testing.assert_allclose(found['stod'].keypoints_px[::-1], found[OBJECT].keypoints_px)
    np.testing.assert_allclose(
        found['stod'].covariances_px[::-1], 4.0 * found[OBJECT].covariances_px
    )
