"""Clouds of poses: right where a covariance is right, and where there are two answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pose_node.core import amis, metrics
from pose_node.core.amis import AmisOptions, pose_costs, sample_poses
from pose_node.core.camera import Camera
from pose_node.core.geometry import angle_between, exp_so3, make_pose
from pose_node.core.pnp import PnpStatus, refine_pose, solve_pnp
from pose_node.core.refine import squared_residuals

CAMERA = Camera(np.array([[600.0, 0.0, 319.5], [0.0, 600.0, 239.5], [0.0, 0.0, 1.0]]), (640, 480))
MANY = AmisOptions(samples=4096, kernel_sigmas=20.0)


def scene(rng: np.random.Generator, points_obj: np.ndarray, R: np.ndarray, sigma_px: float):
    """points_obj, points_px, covariances_px of a pose 0.8 m away, and the pose."""
    T = make_pose(R, np.array([0.02, -0.03, 0.8]))
    px = CAMERA.project(points_obj @ R.T + T[:3, 3])
    px = px + sigma_px * rng.normal(size=px.shape)
    return points_obj, px, np.tile(sigma_px**2 * np.eye(2), (len(px), 1, 1)), T


def test_a_clear_pose_is_a_gaussian(rng) -> None:
    """Mean and covariance of the cloud are the solver's, the normaliser is Laplace's."""
    X, px, covariances, _ = scene(
        rng, rng.uniform(-0.08, 0.08, (20, 3)), exp_so3(rng.normal(size=3)), 0.5
    )
    estimate = solve_pnp(X, px, covariances, CAMERA)
    cloud = sample_poses(X, px, covariances, CAMERA, [estimate.T_cam_obj], rng, options=MANY)
    assert cloud is not None and len(cloud.hypotheses) == 1
    assert cloud.effective > 0.2 * len(cloud.weights)
    (only,) = cloud.hypotheses
    spread = np.sqrt(np.diag(estimate.covariance))
    unit = spread[:, None] * spread
    np.testing.assert_allclose(only.covariance / unit, estimate.covariance / unit, atol=0.15)
    assert (np.abs(only.T_cam_obj[:3, 3] - estimate.T_cam_obj[:3, 3]) < 0.2 * spread[:3]).all()
    off = CAMERA.project(X @ estimate.T_cam_obj[:3, :3].T + estimate.T_cam_obj[:3, 3]) - px
    least = 0.5 * np.sum(off**2) / 0.5**2
    # The mass of all orientations is one: near the identity a radian³ holds 1 / (8 pi²) of it.
    volume = 3.0 * np.log(2.0 * np.pi) + 0.5 * np.linalg.slogdet(estimate.covariance)[1]
    assert cloud.log_normaliser == pytest.approx(volume - least - np.log(8.0 * np.pi**2), abs=0.1)
    mean = cloud.draw(2000, rng)[:, :3, 3].mean(axis=0)
    assert (np.abs(mean - only.T_cam_obj[:3, 3]) < 0.15 * spread[:3]).all()


def test_two_answers_are_two_hypotheses(rng) -> None:
    """A small plate seen from afar: its mirror image has the mass that the integrals say."""
    plate = np.concatenate((rng.uniform(-0.03, 0.03, (24, 2)), np.zeros((24, 1))), axis=1)
    for _ in range(50):
        R = exp_so3(np.array([0.35, 0.1, 0.0]))
        X, px, covariances, _ = scene(rng, plate, R, 1.0)
        estimate = solve_pnp(X, px, covariances, CAMERA)
        if estimate.status is PnpStatus.AMBIGUOUS:
            break
    assert estimate.T_cam_obj_other is not None
    optima = [estimate.T_cam_obj, estimate.T_cam_obj_other]
    cloud = sample_poses(X, px, covariances, CAMERA, optima, rng, options=MANY)
    assert cloud is not None
    logs = []
    for pose in optima:
        found = refine_pose(X, px, covariances, CAMERA, pose)
        off = CAMERA.project(X @ found.T_cam_obj[:3, :3].T + found.T_cam_obj[:3, 3]) - px
        logs.append(0.5 * np.linalg.slogdet(found.covariance)[1] - 0.5 * np.sum(off**2))
    wanted = 1.0 / (1.0 + np.exp(logs[1] - logs[0]))
    shares = {
        int(angle_between(h.T_cam_obj[:3, :3], optima[1][:3, :3]) < 0.1): h.share
        for h in cloud.hypotheses
    }
    assert shares.get(0, 0.0) == pytest.approx(wanted, abs=0.2)
    assert sum(shares.values()) > 0.85


def test_scale_is_the_covariances(rng) -> None:
    """covariance_scale 9 makes the cloud three times as wide."""
    X, px, covariances, _ = scene(
        rng, rng.uniform(-0.08, 0.08, (20, 3)), exp_so3(rng.normal(size=3)), 0.5
    )
    pose = solve_pnp(X, px, covariances, CAMERA).T_cam_obj
    spreads = []
    for scale in (1.0, 9.0):
        cloud = sample_poses(
            X, px, covariances, CAMERA, [pose], rng, covariance_scale=scale, options=MANY
        )
        assert cloud is not None
        spreads.append(np.sqrt(np.diag(cloud.hypotheses[0].covariance)))
    np.testing.assert_allclose(spreads[1] / spreads[0], 3.0, rtol=0.15)


@pytest.mark.parametrize('freedom', [3.0, 12.0])
def test_a_scale_half_known_is_students_t(rng, freedom: float) -> None:
    """Of a nearly linear problem, squared distance over six is F's of 6 and that many degrees of
    freedom; the densest region of 90 % of the mass ends where F says.
    """
    X, px, covariances, _ = scene(
        rng, rng.uniform(-0.08, 0.08, (20, 3)), exp_so3(rng.normal(size=3)), 0.02
    )
    estimate = solve_pnp(X, px, covariances, CAMERA)
    options = AmisOptions(samples=16_384, kernel_sigmas=20.0, freedom=freedom)
    cloud = sample_poses(X, px, covariances, CAMERA, [estimate.T_cam_obj], rng, options=options)
    assert cloud is not None and cloud.effective > 0.1 * len(cloud.weights)
    distances = [metrics.nees(estimate.T_cam_obj, T, estimate.covariance) for T in cloud.T_cam_obj]
    for level in (0.5, 0.9, 0.95):
        within = np.array(distances) / 6.0 < stats.f(6, freedom).ppf(level)
        assert cloud.weights[within].sum() == pytest.approx(level, abs=0.04)


def test_costs_of_poses_are_the_clouds(rng) -> None:
    """What pose_costs says of its samples."""
    X, px, covariances, T = scene(rng, rng.uniform(-0.08, 0.08, (20, 3)), np.eye(3), 0.5)
    cloud = sample_poses(X, px, covariances, CAMERA, [T], rng, covariance_scale=3.0)
    assert cloud is not None
    costs = pose_costs(X, px, covariances, CAMERA, cloud.T_cam_obj, covariance_scale=3.0)
    np.testing.assert_allclose(costs, cloud.costs, rtol=1e-9)


def test_an_origin_far_from_the_points_costs_no_samples(rng) -> None:
    """Half a metre aside every turn moves it; the cloud is as wide as the solver says, all the
    same.
    """
    points = rng.uniform(-0.08, 0.08, (20, 3)) + np.array([0.3, -0.4, 0.1])
    R = exp_so3(rng.normal(size=3))
    T = make_pose(R, np.array([0.0, 0.0, 0.8]) - R @ points.mean(axis=0))
    px = CAMERA.project(points @ R.T + T[:3, 3]) + 0.5 * rng.normal(size=(20, 2))
    covariances = np.tile(0.25 * np.eye(2), (20, 1, 1))
    estimate = solve_pnp(points, px, covariances, CAMERA)
    cloud = sample_poses(points, px, covariances, CAMERA, [estimate.T_cam_obj], rng)
    assert cloud is not None and cloud.effective > 0.3 * len(cloud.weights)
    spread = np.sqrt(np.diag(estimate.covariance))
    (only,) = cloud.hypotheses
    np.testing.assert_allclose(np.sqrt(np.diag(only.covariance)), spread, rtol=0.2)


def test_nothing_to_see_is_no_cloud(rng) -> None:
    """Without usable points, without a pose to begin at, or with points that are not finite."""
    X, px, covariances, T = scene(rng, rng.uniform(-0.08, 0.08, (9, 3)), np.eye(3), 0.5)
    assert sample_poses(X, px, 0.0 * covariances, CAMERA, [T], rng) is None
    assert sample_poses(X, px, covariances, CAMERA, [], rng) is None
    px[:5] = np.nan
    cloud = sample_poses(X, px, covariances, CAMERA, [T], rng)
    assert cloud is not None and np.isfinite(cloud.weights).all()
    behind = make_pose(np.eye(3), np.array([0.0, 0.0, -0.8]))
    cloud = sample_poses(X, px, covariances, CAMERA, [behind], rng)
    assert cloud is None or np.isfinite(cloud.weights).all()


def test_costs_are_hubers_of_the_residuals(rng) -> None:
    """In parts and by linear forms, against the formula; points behind the camera count most."""
    X, px, covariances, T = scene(rng, rng.uniform(-0.08, 0.08, (700, 3)), np.eye(3), 3.0)
    problem = amis._problem(X, px, covariances, CAMERA)
    t = T[:3, 3] + 0.02 * rng.normal(size=(60, 3))
    t[0, 2], t[1, 2] = 0.01, -0.8
    q = rng.normal(size=(60, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    s = np.sqrt(squared_residuals(problem, amis._matrices(q), t))
    assert np.isinf(s[1]).all() and 0 < np.isinf(s[0]).sum() < 700
    s = np.minimum(s, amis._WORST)
    wanted = np.where(s < 2.5, 0.5 * s**2, 2.5 * (s - 1.25)).sum(axis=1)
    got = amis._costs(amis._forms(problem), t, q, 2.5)
    np.testing.assert_allclose(got, wanted, rtol=1e-9)
