"""Poses from correspondences: known scenes, outliers, degenerate points, and a true covariance."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import least_squares

from pose_node.core import geometry, starts
from pose_node.core.camera import Camera
from pose_node.core.metrics import nees
from pose_node.core.pnp import PnpOptions, PnpStatus, refine_pose, solve_pnp
from pose_node.core.refine import Problem, refine

CAMERA = Camera(
    np.array([[610.0, 0, 322.5], [0, 605.0, 238.0], [0, 0, 1]]),
    (640, 480),
    'plumb_bob',
    (0.12, -0.25, 0.001, -0.0008, 0.09),
)


def random_pose(rng, distance_m=(0.4, 1.2)) -> np.ndarray:
    z = rng.uniform(*distance_m)
    t = np.array([rng.uniform(-0.3, 0.3) * z, rng.uniform(-0.2, 0.2) * z, z])
    return geometry.make_pose(geometry.exp_so3(rng.normal(size=3) * 2.0), t)


def random_covariances(rng, count: int) -> np.ndarray:
    """Ellipses of 0.3 to 3 px."""
    A = rng.uniform(0.3, 1.7, (count, 1, 1)) * (np.eye(2) + rng.uniform(-0.5, 0.5, (count, 2, 2)))
    return A @ A.swapaxes(1, 2) + 0.05 * np.eye(2)


def noise(rng, covariances: np.ndarray) -> np.ndarray:
    factors = np.linalg.cholesky(covariances)
    return (factors @ rng.normal(size=(len(covariances), 2, 1)))[..., 0]


def scene(rng, count: int = 32, size_m: float = 0.2, **kind):
    """Points of an object, where a camera sees them (with noise), its covariances, the pose."""
    points = rng.uniform(-0.5, 0.5, (count, 3)) * size_m
    T = random_pose(rng, **kind)
    covariances = random_covariances(rng, count)
    pixels = CAMERA.project(geometry.apply(T, points)) + noise(rng, covariances)
    return points, pixels, covariances, T


def assert_near(T_found, T_wanted, rad=1e-6, m=1e-6):
    assert geometry.angle_between(T_found[:3, :3], T_wanted[:3, :3]) < rad
    assert np.linalg.norm(T_found[:3, 3] - T_wanted[:3, 3]) < m


@pytest.mark.parametrize('count', [4, 5, 6, 8, 32, 200])
def test_exact_points_give_the_exact_pose(rng, count):
    for _ in range(50):
        points = rng.uniform(-0.1, 0.1, (count, 3))
        T = random_pose(rng)
        pixels = CAMERA.project(geometry.apply(T, points))
        found = solve_pnp(points, pixels, np.tile(0.04 * np.eye(2), (count, 1, 1)), CAMERA)
        if found.status is PnpStatus.AMBIGUOUS:  # four points may have two answers
            off = [
                geometry.angle_between(answer[:3, :3], T[:3, :3])
                for answer in (found.T_cam_obj, found.T_cam_obj_other)
            ]
            assert min(off) < 1e-5
            continue
        assert found.status is PnpStatus.OK
        assert_near(found.T_cam_obj, T, rad=1e-5, m=1e-5)
        assert found.inliers.all()
        assert found.reprojection_rms_px < 1e-4


def test_the_covariance_is_true(rng):
    """Over 2,000 scenes the normalised error squared follows chi-square with 6 degrees."""
    errors = []
    for _ in range(2000):
        points, pixels, covariances, T = scene(rng)
        found = solve_pnp(points, pixels, covariances, CAMERA)
        assert found.ok, found.status
        errors.append(nees(found.T_cam_obj, T, found.covariance))
    assert np.mean(errors) == pytest.approx(6.0, rel=0.1)
    assert 0.93 <= np.mean(np.array(errors) <= stats.chi2(6).ppf(0.95)) <= 0.97
    assert stats.kstest(errors, stats.chi2(6).cdf).pvalue > 1e-4


def test_the_covariance_is_for_fixed_axes_of_the_camera(rng):
    """REP 103: p' = p + dp, R' = exp(dr) R. Its slow twin: the spread of many solutions."""
    points = rng.uniform(-0.1, 0.1, (32, 3)) * (1.0, 0.4, 0.2)
    T = geometry.make_pose(
        geometry.exp_so3(np.array([0.4, 1.0, -0.3])), np.array([0.1, 0.05, 0.7])
    )
    covariances = random_covariances(rng, 32)
    exact = CAMERA.project(geometry.apply(T, points))
    offsets = []
    for _ in range(1500):
        found = solve_pnp(points, exact + noise(rng, covariances), covariances, CAMERA)
        dr = geometry.log_so3(found.T_cam_obj[:3, :3] @ T[:3, :3].T)
        offsets.append(np.concatenate((found.T_cam_obj[:3, 3] - T[:3, 3], dr)))
    spread = np.cov(np.array(offsets).T)
    claimed = solve_pnp(points, exact, covariances, CAMERA).covariance
    scale = np.sqrt(np.diag(claimed))
    np.testing.assert_allclose(np.sqrt(np.diag(spread)), scale, rtol=0.1)
    correlation = claimed / np.outer(scale, scale)
    np.testing.assert_allclose(spread / np.outer(scale, scale), correlation, atol=0.15)


def test_the_pose_is_the_least_squares_one(rng):
    """Against SciPy's optimiser on the whitened reprojection errors in pixels."""
    for _ in range(10):
        points, pixels, covariances, T = scene(rng)
        whitening = np.linalg.inv(np.linalg.cholesky(covariances))

        def residuals(xi, start=T, points=points, pixels=pixels, W=whitening):
            pose = geometry.exp_se3(xi) @ start
            off = CAMERA.project(geometry.apply(pose, points)) - pixels
            return (W @ off[..., None]).ravel()

        best = least_squares(residuals, np.zeros(6), x_scale='jac', xtol=1e-12, ftol=1e-12)
        found = solve_pnp(points, pixels, covariances, CAMERA, PnpOptions(gate_squared=1e6))
        sigma = np.sqrt(np.diag(found.covariance))
        wanted = geometry.exp_se3(best.x) @ T
        off = np.concatenate(
            (
                found.T_cam_obj[:3, 3] - wanted[:3, 3],
                geometry.log_so3(found.T_cam_obj[:3, :3] @ wanted[:3, :3].T),
            )
        )
        # The camera is linearised at the seen pixels: a few per cent of a sigma.
        assert (np.abs(off) < 0.05 * sigma).all()


def far_off(rng, count: int) -> np.ndarray:
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    return rng.uniform(15.0, 80.0, (count, 1)) * np.stack((np.cos(angle), np.sin(angle)), axis=1)


@pytest.mark.parametrize('share', [0.1, 0.3])
def test_outliers_are_left_out(rng, share):
    errors, kept = [], []
    for _ in range(300):
        points, pixels, covariances, T = scene(rng)
        wrong = rng.random(32) < share
        pixels[wrong] += far_off(rng, wrong.sum())
        found = solve_pnp(points, pixels, covariances, CAMERA)
        assert found.ok, found.status
        errors.append(nees(found.T_cam_obj, T, found.covariance))
        kept.append(found.inliers[wrong].mean() if wrong.any() else 0.0)
    assert np.mean(kept) < 0.01
    assert np.mean(errors) == pytest.approx(6.0, rel=0.2)


def test_a_second_object_does_not_draw_the_pose(rng):
    """Outliers that agree with each other: a third of the points follow another pose."""
    for _ in range(50):
        points, pixels, covariances, T = scene(rng)
        other = random_pose(rng)
        pixels[:10] = CAMERA.project(geometry.apply(other, points[:10]))
        found = solve_pnp(points, pixels, covariances, CAMERA)
        assert found.ok and nees(found.T_cam_obj, T, found.covariance) < 40.0


def test_flat_objects(rng):
    """Points of a plane: SQPnP alone may answer with the mirror image."""
    for _ in range(200):
        points = rng.uniform(-0.1, 0.1, (24, 3)) * (1.0, 1.0, 0.0)
        T = random_pose(rng, distance_m=(0.3, 0.6))
        tilt = abs(T[:3, 2] @ T[:3, 3]) / np.linalg.norm(T[:3, 3])
        covariances = np.tile(0.25 * np.eye(2), (24, 1, 1))
        pixels = CAMERA.project(geometry.apply(T, points)) + noise(rng, covariances)
        found = solve_pnp(points, pixels, covariances, CAMERA)
        if tilt < 0.1:
            continue  # seen edge-on, nothing is to be seen
        answers = [found.T_cam_obj]
        if found.status is PnpStatus.AMBIGUOUS:
            answers.append(found.T_cam_obj_other)
        assert found.ok
        assert min(nees(answer, T, found.covariance) for answer in answers) < 60.0


def test_an_ambiguous_answer_says_so(rng):
    """A small far plane has two poses that explain it; the other one is given."""
    told = 0
    for _ in range(100):
        points = rng.uniform(-0.03, 0.03, (16, 3)) * (1.0, 1.0, 0.0)
        tilt = geometry.exp_so3(np.array([0.5, 0.0, 0.0]))
        T = geometry.make_pose(tilt @ np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 3.0]))
        covariances = np.tile(0.25 * np.eye(2), (16, 1, 1))
        pixels = CAMERA.project(geometry.apply(T, points)) + noise(rng, covariances)
        found = solve_pnp(points, pixels, covariances, CAMERA)
        assert found.ok
        off = [geometry.angle_between(found.T_cam_obj[:3, :3], T[:3, :3])]
        if found.status is PnpStatus.AMBIGUOUS:
            told += 1
            other = found.T_cam_obj_other
            off.append(geometry.angle_between(other[:3, :3], T[:3, :3]))
            seen = CAMERA.project(geometry.apply(other, points))
            assert np.sqrt(np.mean((seen - pixels) ** 2)) < 1.0
        assert min(off) < 0.5
    assert told > 60


def test_a_clear_answer_is_not_called_ambiguous(rng):
    statuses = [solve_pnp(*scene(rng)[:3], CAMERA).status for _ in range(200)]
    assert statuses.count(PnpStatus.OK) == 200


def usual(count: int = 32, seed: int = 5):
    return scene(np.random.default_rng(seed), count)


def few():
    points, pixels, covariances, _ = usual(3)
    return points, pixels, covariances


def collinear():
    _, _, covariances, T = usual()
    points = np.linspace(-0.1, 0.1, 32)[:, None] * np.array([1.0, 0.5, 0.2])
    return points, CAMERA.project(geometry.apply(T, points)), covariances


def one_place():
    points, pixels, covariances, _ = usual()
    return np.tile(points[:1], (32, 1)), pixels, covariances


def behind():
    """What a camera with a negative focal length would see: the pose that fits is behind."""
    points, _, covariances, T = usual()
    plain = Camera(CAMERA.K, CAMERA.size)
    T = T.copy()
    T[:3, 3] *= -1.0
    cam = geometry.apply(T, points)
    return points, cam[:, :2] / cam[:, 2:] * (610.0, 605.0) + plain.K[:2, 2], 0.01 * covariances


def nonsense():
    points, _, covariances, _ = usual()
    rng = np.random.default_rng(9)
    return points, rng.uniform((0, 0), CAMERA.size, (32, 2)), covariances


@pytest.mark.parametrize(
    ('make', 'status'),
    [
        (few, PnpStatus.TOO_FEW_POINTS),
        (collinear, PnpStatus.DEGENERATE),
        (one_place, PnpStatus.DEGENERATE),
        (behind, PnpStatus.BEHIND_CAMERA),
        (nonsense, PnpStatus.NO_CONSENSUS),
    ],
)
def test_what_has_no_pose_says_why(make, status):
    points, pixels, covariances = make()
    camera = Camera(CAMERA.K, CAMERA.size) if make is behind else CAMERA
    found = solve_pnp(points, pixels, covariances, camera)
    assert found.status is status
    assert not found.ok and not found.inliers.any()
    assert np.isnan(found.T_cam_obj).all() and np.isnan(found.covariance).all()
    assert found.status.value.endswith('.')


def test_unusable_points_are_left_out():
    points, pixels, covariances, T = usual()
    points[0, 1], pixels[1, 0], covariances[2] = np.nan, np.inf, np.nan
    covariances[3], covariances[4] = 0.0, -np.eye(2)
    found = solve_pnp(points, pixels, covariances, CAMERA)
    assert found.status is PnpStatus.OK
    assert not found.inliers[:5].any() and found.inliers[5:].sum() >= 26
    assert nees(found.T_cam_obj, T, found.covariance) < 25.0


@given(
    data=st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=9, max_size=9),
        max_size=12,
    )
)
def test_no_points_whatever_raise(data):
    """A node never dies of its input: a pose or a status, for any floats."""
    rows = np.array(data, dtype=float).reshape(-1, 9)
    with np.errstate(all='ignore'):
        found = solve_pnp(rows[:, :3], rows[:, 3:5], rows[:, 5:].reshape(-1, 2, 2), CAMERA)
    assert isinstance(found.status, PnpStatus)
    assert found.ok == bool(np.isfinite(found.T_cam_obj).all())


def test_the_answer_moves_with_the_object(rng):
    """Naming the object's points in another frame changes nothing but that frame."""
    points, pixels, covariances, _ = scene(rng)
    found = solve_pnp(points, pixels, covariances, CAMERA)
    T_new_obj = random_pose(rng)
    again = solve_pnp(geometry.apply(T_new_obj, points), pixels, covariances, CAMERA)
    # Where a fit ends depends a little on the frame: far below a sigma.
    difference = nees(again.T_cam_obj @ T_new_obj, found.T_cam_obj, found.covariance)
    assert difference < 1e-4


def test_the_order_of_points_does_not_matter(rng):
    points, pixels, covariances, _ = scene(rng)
    order = rng.permutation(len(points))
    found = solve_pnp(points, pixels, covariances, CAMERA)
    again = solve_pnp(points[order], pixels[order], covariances[order], CAMERA)
    assert nees(again.T_cam_obj, found.T_cam_obj, found.covariance) < 1e-4
    np.testing.assert_array_equal(again.inliers, found.inliers[order])


def test_the_same_points_give_the_same_pose(rng):
    points, pixels, covariances, _ = scene(rng, 16)
    pixels[:6] += 60.0  # so that the random starts are drawn
    first, second = (solve_pnp(points, pixels, covariances, CAMERA) for _ in range(2))
    np.testing.assert_array_equal(first.T_cam_obj, second.T_cam_obj)


def test_refine_from_a_near_start_is_solve(rng):
    for _ in range(20):
        points, pixels, covariances, T = scene(rng)
        start = geometry.exp_se3(rng.normal(size=6) * 0.03) @ T
        tracked = refine_pose(points, pixels, covariances, CAMERA, start)
        found = solve_pnp(points, pixels, covariances, CAMERA)
        assert tracked.status is PnpStatus.OK
        assert nees(tracked.T_cam_obj, found.T_cam_obj, found.covariance) < 1e-3


def test_the_kernel_bears_half_the_points_being_wrong(rng):
    """From the true pose the robust fit stays there; least squares is pulled away."""
    points, pixels, covariances, T = scene(rng)
    pixels[:14] += 40.0
    xy, J = CAMERA.unproject_with_jacobian(pixels)
    W = np.linalg.inv(np.linalg.cholesky(J @ covariances @ J.swapaxes(1, 2)))
    problem = Problem(points.T, xy.T, np.moveaxis(W, 0, -1))
    robust = refine(problem, T[:3, :3], T[:3, 3], kernel=2.5)
    plain = refine(problem, T[:3, :3], T[:3, 3])
    off = [np.linalg.norm(found.t - T[:3, 3]) for found in (robust, plain)]
    assert off[0] < 0.2 * off[1]


def test_p3p_starts_hold_the_pose_and_are_in_front(rng):
    points, _, _, T = scene(rng, 5)
    xy = CAMERA.unproject(CAMERA.project(geometry.apply(T, points)))
    problem = Problem(points.T, xy.T, np.tile(300.0 * np.eye(2)[..., None], 5))
    found = starts.all_triples(problem, 6, 2.5)
    assert min(geometry.angle_between(R, T[:3, :3]) for R, _ in found) < 1e-5
    for R, t in found:
        assert ((R @ problem.points_obj)[2] + t[2] > 0).all()


def test_the_mirror_image_of_a_plane_looks_the_same_from_afar(rng):
    points = rng.uniform(-0.05, 0.05, (20, 3)) * (1.0, 1.0, 0.0)
    T = random_pose(rng, distance_m=(5.0, 6.0))
    R, t = starts.mirrored(T[:3, :3], T[:3, 3], points.mean(axis=0), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    seen = [CAMERA.project(points @ A.T + b) for A, b in ((T[:3, :3], T[:3, 3]), (R, t))]
    np.testing.assert_allclose(seen[0], seen[1], atol=0.5)


def test_better_than_opencvs_where_points_differ(rng):
    """What the covariances are for: half of the points are ten times less sure."""
    ours, theirs = [], []
    for _ in range(100):
        points, _, _, T = scene(rng)
        sigma = np.where(np.arange(32) < 16, 0.3, 3.0)
        covariances = sigma[:, None, None] ** 2 * np.eye(2)
        pixels = CAMERA.project(geometry.apply(T, points)) + noise(rng, covariances)
        found = solve_pnp(points, pixels, covariances, CAMERA)
        _, _, t = cv2.solvePnP(points, pixels, CAMERA.K, np.array(CAMERA.D))
        ours.append(np.linalg.norm(found.T_cam_obj[:3, 3] - T[:3, 3]))
        theirs.append(np.linalg.norm(t[:, 0] - T[:3, 3]))
    assert np.median(ours) < 0.4 * np.median(theirs)
