"""Poses as samples and answers: two where a plate has two, one elsewhere, the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_bundle import OBJECT, draw_scene, make_bundle

from pose_node.core.camera import Camera
from pose_node.core.geometry import angle_between, exp_so3, inverse, log_so3, make_pose
from pose_node.core.pnp import PnpStatus, refine_pose
from pose_node.core.symmetry import Symmetries
from pose_node.runtime.distribution import CLOUD_POSES, answers, sampled
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Region
from pose_node.runtime.readers import DenseReader, HeatmapReader, Sight
from pose_node.runtime.results import Likelihood, ObjectPose, nothing

CAMERA = Camera(np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]]), (640, 480))
PICTURE = np.full((480, 640, 3), 96, np.uint8)
HERE = [Region(OBJECT, (320.0, 240.0), (150.0, 150.0))]
TILT = np.array([0.35, 0.1, 0.0])
T_PLATE = make_pose(exp_so3(TILT), np.array([0.0, 0.0, 0.8]))
AMIS = EstimatorOptions(threads=1, distribution='amis', min_score=0.0)


def sight(points_obj: np.ndarray, T: np.ndarray, sigma_px: float, scale: float = 1.0) -> Sight:
    """Points seen exactly where they are."""
    px = CAMERA.project(points_obj @ T[:3, :3].T + T[:3, 3])
    return Sight(
        points_obj,
        px,
        np.tile(sigma_px**2 * np.eye(2), (len(px), 1, 1)),
        np.ones(len(px)),
        np.ones(len(px), bool),
        scale,
    )


def plate(rng: np.random.Generator, count: int = 24, sigma_px: float = 1.0, **more) -> Sight:
    """A flat thing of 6 cm in 80 cm: its mirror image fits nearly as well."""
    flat = np.concatenate((rng.uniform(-0.03, 0.03, (count, 2)), np.zeros((count, 1))), axis=1)
    return sight(flat, T_PLATE, sigma_px, **more)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots')


@pytest.fixture
def seeing(bundle):
    """An estimator that sees in every crop what it is told to."""
    opened = []

    def make(kind: type, told: Sight, options: EstimatorOptions = AMIS) -> PoseEstimator:
        class Told(kind):
            def __call__(self, maps, names, affines):
                return [told for _ in names]

        estimator = PoseEstimator(bundle, options=options)
        network = estimator._read
        estimator._read = Told(estimator.spec, estimator.objects)
        estimator._read.channels = network.channels
        opened.append(estimator)
        return estimator

    yield make
    for each in opened:
        each.close()


@pytest.mark.parametrize(
    ('kind', 'more'),
    [
        (HeatmapReader, {}),
        (DenseReader, {'count': 512, 'sigma_px': 5.0}),
        # The solver's sigmas are not the likelihood's: it must still name both answers.
        (DenseReader, {'count': 512, 'sigma_px': 0.5, 'scale': 100.0}),
    ],
)
def test_a_plate_has_two_answers(rng, seeing, kind, more):
    """Where refinement from the truth and from its mirror image ends, weighted as Laplace has it;
    the pose is the likelier one.
    """
    told = plate(rng, **more)
    (pose,) = seeing(kind, told)(PICTURE, CAMERA, regions=HERE).poses
    assert pose.status is PnpStatus.AMBIGUOUS
    assert pose.likelihood.points_scale == told.covariance_scale
    covariances = told.covariance_scale * told.covariances_px
    logs, places = [], []
    for tilt in (TILT, -TILT):
        start = make_pose(exp_so3(tilt), T_PLATE[:3, 3])
        found = refine_pose(told.points_obj, told.points_px, covariances, CAMERA, start)
        off = np.square(found.residuals_px).sum() / covariances[0, 0, 0]
        logs.append(0.5 * np.linalg.slogdet(found.covariance)[1] - 0.5 * off)
        places.append(found.T_cam_obj)
    assert angle_between(places[0][:3, :3], places[1][:3, :3]) > 0.5
    likelier, other = pose.distribution.hypotheses
    assert likelier.share + other.share == pytest.approx(1.0, abs=0.03)
    assert likelier.share >= other.share
    np.testing.assert_array_equal(pose.T_cam_obj, likelier.T_cam_obj)
    np.testing.assert_array_equal(pose.covariance, likelier.covariance)
    wanted = np.exp(np.array(logs) - np.logaddexp(*logs))
    for each, share in zip(places, wanted):
        apart = [angle_between(h.T_cam_obj[:3, :3], each[:3, :3]) for h in (likelier, other)]
        nearest = (likelier, other)[int(np.argmin(apart))]
        assert min(apart) < 0.15
        assert np.abs(nearest.T_cam_obj[:3, 3] - each[:3, 3]).max() < 0.01
        assert nearest.share == pytest.approx(share, abs=0.2)
        near = angle_between(pose.distribution.T_cam_obj[:, :3, :3], each[:3, :3]) < 0.3
        assert near.mean() == pytest.approx(nearest.share, abs=0.15)


def test_scores_are_shared(rng, seeing):
    """The answers' scores add up to the pose's, the pose's own first."""
    (pose,) = seeing(HeatmapReader, plate(rng))(PICTURE, CAMERA, regions=HERE).poses
    (T, covariance, score), (_, _, less) = answers(pose)
    assert score >= less > 0.0
    assert score + less == pytest.approx(pose.score, rel=0.03)
    np.testing.assert_array_equal(T, pose.T_cam_obj)
    np.testing.assert_array_equal(covariance, pose.covariance)


@pytest.mark.parametrize('kind', [HeatmapReader, DenseReader])
def test_a_clear_pose_stays_what_it_was(rng, seeing, kind):
    """One answer, with the solver's pose and covariance up to the sampling's own error; an outlier
    among keypoints counts for nothing, as in the solver.
    """
    told = sight(rng.uniform(-0.08, 0.08, (24, 3)), T_PLATE, 0.8)
    told.points_px[:] += 0.8 * rng.normal(size=told.points_px.shape)
    if kind is HeatmapReader:
        told.points_px[:2] += 60.0
    plain = EstimatorOptions(threads=1, min_score=0.0)
    (before,) = seeing(kind, told, plain)(PICTURE, CAMERA, regions=HERE).poses
    (pose,) = seeing(kind, told)(PICTURE, CAMERA, regions=HERE).poses
    assert before.distribution is None and len(answers(before)) == 1
    (only,) = pose.distribution.hypotheses
    assert only.share == pytest.approx(1.0)
    assert answers(pose)[0][2] == pytest.approx(before.score)
    sigmas = np.sqrt(np.diag(before.covariance))
    turn = log_so3(pose.T_cam_obj[:3, :3] @ before.T_cam_obj[:3, :3].T)
    off = np.append(pose.T_cam_obj[:3, 3] - before.T_cam_obj[:3, 3], turn)
    assert np.abs(off / sigmas).max() < 0.4
    np.testing.assert_allclose(np.sqrt(np.diag(pose.covariance)), sigmas, rtol=0.3)
    assert pose.distribution.T_cam_obj.shape == (CLOUD_POSES, 4, 4)


def test_the_same_picture_gives_the_same_samples(rng, bundle):
    """To the last bit, from two estimators; another stamp gives others."""
    T = make_pose(exp_so3(rng.normal(size=3)), np.array([0.02, 0.01, 0.6]))
    picture = draw_scene(CAMERA, T)
    found = []
    for stamp_ns in (7_000_000_000, 7_000_000_000, 8_000_000_000, -5):
        with PoseEstimator(bundle, options=AMIS) as estimator:
            (pose,) = estimator(picture, CAMERA, stamp_ns).poses
        found.append(pose.distribution.T_cam_obj.tobytes() + pose.covariance.tobytes())
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_it_moves_with_its_frame(rng, seeing):
    """Samples and hypotheses with covariances, there and back."""
    (pose,) = seeing(HeatmapReader, plate(rng))(PICTURE, CAMERA, regions=HERE).poses
    T = make_pose(exp_so3(rng.normal(size=3)), rng.normal(size=3))
    moved = pose.distribution.moved(T)
    np.testing.assert_allclose(moved.T_cam_obj, T @ pose.distribution.T_cam_obj)
    along = T[:3, :3] @ np.array([0.0, 0.0, 1.0])
    for old, new in zip(pose.distribution.hypotheses, moved.hypotheses):
        assert along @ new.covariance[:3, :3] @ along == pytest.approx(old.covariance[2, 2])
        assert new.share == old.share
    back = moved.moved(inverse(T))
    np.testing.assert_allclose(back.T_cam_obj, pose.distribution.T_cam_obj, atol=1e-12)


def told(points: Sight, optima: tuple[np.ndarray, ...]) -> ObjectPose:
    """A pose that has a likelihood and is not sampled."""
    likelihood = Likelihood(
        points.points_obj, points.points_px, points.covariances_px, optima, 2.5
    )
    return replace(
        nothing(HERE[0], 4), T_cam_obj=optima[0], covariance=np.eye(6), likelihood=likelihood
    )


def test_equal_poses_are_one_answer(rng, seeing):
    """Of a thing that looks the same after the turn from one answer to the other."""
    (pose,) = seeing(HeatmapReader, plate(rng))(PICTURE, CAMERA, regions=HERE).poses
    first, other = pose.likelihood.optima
    turn = inverse(first) @ other
    same = sampled(pose, CAMERA, Symmetries(np.stack((turn, inverse(turn)))), 5)
    (only,) = same.distribution.hypotheses
    assert only.share == pytest.approx(1.0)
    assert len(sampled(pose, CAMERA, Symmetries.none(), 5).distribution.hypotheses) == 2


@pytest.mark.parametrize('sigma_px', [1e-9, 1e-3, 1e3, 1e9])
@pytest.mark.parametrize('kind', ['four', 'line', 'one place', 'far', 'behind', 'nan', 'none'])
def test_what_cannot_be_sampled_stays_what_it_was(rng, kind, sigma_px):
    """Never a crash, and never a pose or covariance that is no number."""
    points = rng.uniform(-0.05, 0.05, (4 if kind == 'four' else 12, 3))
    points[:, 1:] *= kind != 'line'
    points *= kind != 'one place'
    T = T_PLATE.copy()
    T[:3, 3] *= {'far': 1e4, 'behind': -1.0}.get(kind, 1.0)
    each = sight(points, T, sigma_px)
    each.points_px[:] = np.nan if kind == 'nan' else np.nan_to_num(each.points_px)
    pose = told(each, (T,))
    if kind == 'none':
        pose = replace(pose, likelihood=None)
    with np.errstate(all='raise', under='ignore'):
        found = sampled(pose, CAMERA, Symmetries.none(), 5)
    assert np.isfinite(found.T_cam_obj).all()
    assert (np.linalg.eigvalsh(found.covariance) > 0.0).all()
    if kind in ('nan', 'none'):
        assert found.distribution is None
        np.testing.assert_array_equal(found.T_cam_obj, T)
