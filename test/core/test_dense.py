"""Maps of a known pose give that pose; what is broken gives nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pose_node.core.camera import Camera
from pose_node.core.dense import KERNEL_SIGMAS, correspondences, point_correspondences, solve
from pose_node.core.geometry import angle_between, apply, exp_so3, inverse, make_pose

STRIDE, SIZE = 4, 32
K = np.array([[600.0, 0.0, 63.5], [0.0, 600.0, 63.5], [0.0, 0.0, 1.0]])
BOUNDS = np.array([[-0.05, -0.03, -0.04], [0.05, 0.07, 0.04]])


def ball_maps(T_cam_obj: np.ndarray, radius_m: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """(5, h, w) of a ball at the origin seen at a pose, weight 0.02 where it is, and where."""
    v, u = np.mgrid[:SIZE, :SIZE] * STRIDE + 0.5 * STRIDE - 0.5
    rays = np.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)), axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    centre = T_cam_obj[:3, 3]
    along = rays @ centre
    inside = along**2 - centre @ centre + radius_m**2
    hit = inside > 0.0
    surface = rays * (along - np.sqrt(np.maximum(inside, 0.0)))[..., None]
    points = apply(inverse(T_cam_obj), surface.reshape(-1, 3)).reshape(SIZE, SIZE, 3)
    unit = (points - BOUNDS.mean(axis=0)) / (0.5 * np.ptp(BOUNDS, axis=0))
    maps = np.concatenate((unit, np.where(hit, 0.02, 1e-9)[..., None].repeat(2, -1)), axis=-1)
    return maps.transpose(2, 0, 1).astype(np.float32), hit


def solved(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pose, and the covariance that belongs to the likelihood."""
    found = correspondences(maps, BOUNDS, STRIDE, 0.1)
    points_px = (found.points_px + 0.5) * STRIDE - 0.5
    camera = Camera(K, (SIZE * STRIDE, SIZE * STRIDE))
    covariances_px = found.covariances_px * STRIDE**2
    estimate = solve(found.points_obj, points_px, covariances_px, found.covariance_scale, camera)
    assert estimate.ok
    return estimate.T_cam_obj, estimate.covariance


def test_maps_of_a_pose_are_that_pose(rng) -> None:
    """Exact maps to the last digit of float32, and with a fifth of wrong coordinates nearly so."""
    for _ in range(5):
        T = make_pose(exp_so3(rng.normal(size=3)), np.array([0.005, -0.004, 0.62]))
        maps, hit = ball_maps(T)
        got, _ = solved(maps)
        assert angle_between(got[:3, :3], T[:3, :3]) < 1e-4
        assert np.abs(got[:3, 3] - T[:3, 3]).max() < 1e-4
        rows, columns = np.nonzero(hit)
        wrong = rng.choice(len(rows), len(rows) // 5, replace=False)
        maps[:3, rows[wrong], columns[wrong]] = rng.uniform(-1, 1, (3, len(wrong)))
        got, _ = solved(maps)
        assert angle_between(got[:3, :3], T[:3, :3]) < 0.02


def test_covariance_is_the_likelihoods() -> None:
    """Weights w mean residuals of 1 / w px: twice the weights, a quarter of the covariance; and
    the kernel's edge is where it was taught to be.
    """
    maps, hit = ball_maps(make_pose(exp_so3(np.array([0.2, 0.3, 0.1])), np.array([0, 0, 0.62])))
    _, covariance = solved(maps)
    twice = maps.copy()
    twice[3:] *= 2.0
    _, narrower = solved(twice)
    np.testing.assert_allclose(narrower, covariance / 4.0, rtol=1e-6)
    found = correspondences(maps, BOUNDS, STRIDE, 0.1)
    spread_px = STRIDE * np.sqrt(2.0 * (SIZE**2 - 1.0) / 12.0)
    assert found.delta == pytest.approx(0.1 * spread_px * maps[3:].mean(), rel=1e-4)
    sigma_px = STRIDE * np.sqrt(found.covariances_px[0, 0, 0])
    assert KERNEL_SIGMAS * sigma_px * found.weights[0, 0] == pytest.approx(found.delta, rel=1e-6)
    assert len(found.points_obj) <= hit.sum()


@pytest.mark.parametrize('harm', ['nan', 'zero', 'three'])
def test_maps_of_nothing_give_nothing(harm: str) -> None:
    """NaN pixels are left out; fewer than four points are none."""
    maps, hit = ball_maps(make_pose(np.eye(3), np.array([0, 0, 0.62])))
    if harm == 'nan':
        rows, columns = np.nonzero(hit)
        maps[0, rows[::2], columns[::2]] = np.nan
        found = correspondences(maps, BOUNDS, STRIDE, 0.1)
        assert np.isfinite(found.points_obj).all() and len(found.points_obj) > 50
        maps[:] = np.nan
    elif harm == 'zero':
        maps[3:] = 0.0
    else:
        maps[3:] = 0.0
        maps[3:, 4, 4:7] = 1.0
    found = correspondences(maps, BOUNDS, STRIDE, 0.1)
    assert len(found.points_obj) == 0 and found.points_px.shape == (0, 2)
    assert found.covariance_scale == 1.0


def test_chosen_places_are_read_as_pixels_are() -> None:
    """The same points as rows, in pixels of the input: one likelihood; a row that is not finite
    is left out.
    """
    maps, hit = ball_maps(make_pose(exp_so3(np.array([0.2, 0.3, 0.1])), np.array([0, 0, 0.62])))
    v, u = np.mgrid[:SIZE, :SIZE] * STRIDE + 0.5 * STRIDE - 0.5
    rows = np.concatenate((u[None], v[None], maps)).reshape(7, -1)
    wanted = correspondences(maps, BOUNDS, STRIDE, 0.1)
    got = point_correspondences(rows, BOUNDS, 1, 0.1)
    assert got.delta == pytest.approx(wanted.delta, rel=1e-12)
    assert got.covariance_scale == pytest.approx(wanted.covariance_scale, rel=1e-12)
    np.testing.assert_allclose(got.points_px, (wanted.points_px + 0.5) * STRIDE - 0.5)
    np.testing.assert_allclose(got.covariances_px, wanted.covariances_px * STRIDE**2)
    np.testing.assert_array_equal(got.points_obj, wanted.points_obj)
    columns = np.flatnonzero(hit)
    rows[0, columns[:5]], rows[1, columns[5:9]], rows[6, columns[9]] = np.nan, np.inf, -1.0
    got = point_correspondences(rows, BOUNDS, 1, 0.1)
    assert np.isfinite(got.points_px).all() and np.isfinite(got.covariances_px).all()
    left = set(map(tuple, rows[:2, columns[10:]].T))
    assert len(got.points_px) and set(map(tuple, got.points_px)) <= left
    rows[:2] = np.nan
    assert len(point_correspondences(rows, BOUNDS, 1, 0.1).points_obj) == 0
