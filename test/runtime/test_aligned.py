"""Alignment in the estimator: what that changes, and when it is left away."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from known_bundle import BALL_RADIUS_M, OBJECT, draw_scene, make_bundle, manifest

from pose_node.core.bundle import Bundle, write_bundle
from pose_node.core.camera import Camera
from pose_node.core.contour import align
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import apply, exp_so3, make_pose
from pose_node.core.outline import Shape
from pose_node.runtime.aligned import Aligner
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator

CAMERA = Camera(np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]]), (640, 480))
BALL = trimesh.creation.icosphere(2, BALL_RADIUS_M)


@pytest.fixture(scope='module')
def plain(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots')


@pytest.fixture(scope='module')
def shaped(tmp_path_factory, plain) -> Bundle:
    """The same with a ball for a shape, which no picture of it shows."""
    files = {name: plain.read(name) for name in plain.manifest.files}
    data = manifest()
    data['objects'][0]['shape'] = 'dots.shape.ply'
    data['pose_network']['calibration'][OBJECT]['contour'] = {'covariance_scale': 2.5}
    ply = trimesh.exchange.ply.export_ply(BALL)
    return write_bundle(
        tmp_path_factory.mktemp('s') / 'dots', data, {**files, 'dots.shape.ply': ply}
    )


@pytest.fixture
def picture(rng) -> np.ndarray:
    T = make_pose(exp_so3(2.0 * rng.normal(size=3)), np.array([0.05, -0.03, 0.6]))
    return draw_scene(CAMERA, T)


def only(estimator: PoseEstimator, picture: np.ndarray):
    result = estimator(picture, CAMERA)
    (pose,) = result.poses
    return pose, result


def test_the_pose_is_the_aligned_one(picture, plain, shaped):
    anything = EstimatorOptions(min_score=0.0)
    with PoseEstimator(plain, options=anything) as before, PoseEstimator(
        shaped, options=anything
    ) as after:  # fmt: skip
        first, _ = only(before, picture)
        pose, result = only(after, picture)
    shape = Shape.from_mesh(np.asarray(BALL.vertices, np.float32), np.asarray(BALL.faces))
    given = first.likelihood
    wanted = align(
        picture, shape, given.points_obj, given.points_px, given.covariances_px,
        first.T_cam_obj, first.covariance, CAMERA,
    )  # fmt: skip
    np.testing.assert_allclose(pose.T_cam_obj, wanted.T_cam_obj, atol=1e-9)
    np.testing.assert_allclose(pose.covariance, 2.5 * wanted.covariance, rtol=1e-6)
    spread = np.log(np.sqrt(np.trace(pose.covariance[:3, :3])) / shaped.object(OBJECT).diameter_m)
    known = {'agreement': wanted.agreement, 'spread': pytest.approx(spread)}
    assert pose.features == {**first.features, **known}
    assert pose.score == first.score  # this bundle has no other score for it
    off_px = CAMERA.project(apply(wanted.T_cam_obj, given.points_obj)) - given.points_px
    assert pose.reprojection_rms_px == pytest.approx(np.sqrt((off_px**2).sum(axis=1).mean()))
    assert np.abs(pose.T_cam_obj - first.T_cam_obj).max() > 1e-6
    assert result.stage_ms['align'] > 0.0


def test_points_weigh_what_their_calibration_says(picture, plain, shaped):
    """Not what a network calls its pixels: nine times surer ones, known to be so, change nothing;
    believed, they change the pose.
    """
    with PoseEstimator(plain, options=EstimatorOptions(min_score=0.0)) as estimator:
        first, _ = only(estimator, picture)
    aligner, given = Aligner(shaped), first.likelihood
    surer = replace(given, covariances_px=given.covariances_px / 9.0, points_scale=9.0)
    wanted = aligner(picture, first, CAMERA)
    same = aligner(picture, replace(first, likelihood=surer), CAMERA)
    np.testing.assert_allclose(same.T_cam_obj, wanted.T_cam_obj, atol=1e-9)
    np.testing.assert_allclose(same.covariance, wanted.covariance, rtol=1e-6)
    believed = aligner(
        picture, replace(first, likelihood=replace(surer, points_scale=1.0)), CAMERA
    )
    assert np.trace(believed.covariance) < 0.9 * np.trace(wanted.covariance)


def test_it_has_a_score_of_its_own(tmp_path, picture, shaped):
    """Where the bundle says how outline and spread weigh."""
    data = json.loads((shaped.folder / 'bundle.json').read_text())
    files = {name: shaped.read(name) for name in data.pop('files')}
    data.pop('schema')
    contour = data['pose_network']['calibration'][OBJECT]['contour']
    weights = {'confidence': 0.5, 'rms': -0.3, 'spread': -0.2}
    contour['score'] = {'bias': -1.0, 'weights': weights}
    bundle = write_bundle(tmp_path / 'scored', data, files)
    anything = EstimatorOptions(min_score=0.0)
    with PoseEstimator(bundle, options=anything) as estimator:
        pose, _ = only(estimator, picture)
    x = -1.0 + sum(weight * pose.features[name] for name, weight in weights.items())
    assert pose.score == pytest.approx(1.0 / (1.0 + np.exp(-x)))
    with PoseEstimator(bundle, options=EstimatorOptions(min_score=pose.score + 1e-6)) as strict:
        assert strict(picture, CAMERA).poses == ()  # it is judged by that score
    contour['score']['weights']['agreement'] = 1.0
    with pytest.raises(PoseNodeError, match='agreement'):
        write_bundle(tmp_path / 'other', data, files)


def test_it_can_be_left_away_and_sampled_poses_are_not_aligned(picture, plain, shaped):
    with PoseEstimator(shaped) as estimator, PoseEstimator(plain) as other:
        for options in (EstimatorOptions(contour=False), EstimatorOptions(distribution='amis')):
            estimator.options = other.options = options
            pose, result = only(estimator, picture)
            assert result.stage_ms['align'] == 0.0
            wanted, _ = only(other, picture)
            np.testing.assert_array_equal(pose.T_cam_obj, wanted.T_cam_obj)
            assert pose.score == wanted.score


def test_one_look_is_aligned_like_two(picture, shaped):
    with PoseEstimator(shaped, options=EstimatorOptions(second_look=2.0)) as estimator:
        assert 'agreement' in only(estimator, picture)[0].features


def test_a_bundle_without_a_shape_takes_no_time_for_it(picture, plain):
    with PoseEstimator(plain) as estimator:
        assert only(estimator, picture)[1].stage_ms['align'] == 0.0


def test_a_pose_without_an_outline_in_the_picture_stays(picture, shaped):
    """As the estimator's own, handed a picture that shows another place."""
    with PoseEstimator(shaped, options=EstimatorOptions(contour=False)) as estimator:
        pose, _ = only(estimator, picture)
        beside = replace(pose, T_cam_obj=pose.T_cam_obj + make_pose(np.zeros((3, 3)), (9.0, 0, 0)))
        T = beside.T_cam_obj.copy()
        T[3] = (0.0, 0.0, 0.0, 1.0)
        beside = replace(beside, T_cam_obj=T)
        assert estimator._align(picture, beside, CAMERA) is beside
        unknown = replace(pose, likelihood=None)
        assert estimator._align(picture, unknown, CAMERA) is unknown
