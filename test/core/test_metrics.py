"""Pose errors: cases that can be worked out by hand, symmetric objects, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.transform import Rotation

from pose_node.core import metrics
from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.symmetry import Symmetries

ONLY_IDENTITY = np.eye(4)[None]
CAMERA = Camera(
    K=np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]]), size=(640, 480), model='none', D=()
)
# The corners of a square of side 2 cm round the z axis.
SQUARE = 0.01 * np.array([[1.0, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]])


def pose(x=0.0, y=0.0, z=1.0, turn=(0.0, 0.0, 0.0)) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    T[:3, 3] = x, y, z
    return T


def turns(count: int) -> np.ndarray:
    return np.array([pose(z=0.0, turn=(0, 0, 2 * np.pi * i / count)) for i in range(count)])


def test_a_perfect_estimate_has_no_error():
    T = pose(0.1, -0.05, 0.8, (0.3, -0.2, 1.0))
    assert metrics.add(T, T, SQUARE) == 0.0
    assert metrics.adds(T, T, SQUARE) == 0.0
    assert metrics.mssd(T, T, SQUARE, ONLY_IDENTITY) == 0.0
    assert metrics.mspd(T, T, SQUARE, ONLY_IDENTITY, CAMERA) == 0.0
    assert metrics.projection_error(T, T, SQUARE, CAMERA) == 0.0
    assert metrics.rotation_error_rad(T, T) == pytest.approx(0.0, abs=1e-9)
    assert metrics.translation_error_m(T, T) == 0.0
    assert metrics.nees(T, T, np.eye(6)) == pytest.approx(0.0, abs=1e-15)


def test_a_shift_along_the_picture():
    """3 mm to the right at 1 m, focal length 500 px: 3 mm for every point, 1.5 px."""
    T_est, T_gt = pose(x=0.003), pose()
    assert metrics.add(T_est, T_gt, SQUARE) == pytest.approx(0.003)
    assert metrics.mssd(T_est, T_gt, SQUARE, ONLY_IDENTITY) == pytest.approx(0.003)
    assert metrics.mspd(T_est, T_gt, SQUARE, ONLY_IDENTITY, CAMERA) == pytest.approx(1.5)
    assert metrics.projection_error(T_est, T_gt, SQUARE, CAMERA) == pytest.approx(1.5)
    assert metrics.translation_error_m(T_est, T_gt) == pytest.approx(0.003)


def test_a_quarter_turn_of_a_square():
    """Every corner goes where its neighbour was: 2 cm off, and yet the square looks the same."""
    T_est, T_gt = pose(turn=(0, 0, np.pi / 2)), pose()
    assert metrics.add(T_est, T_gt, SQUARE) == pytest.approx(0.02)
    assert metrics.adds(T_est, T_gt, SQUARE) == pytest.approx(0.0, abs=1e-12)
    assert metrics.mssd(T_est, T_gt, SQUARE, ONLY_IDENTITY) == pytest.approx(0.02)
    assert metrics.mssd(T_est, T_gt, SQUARE, turns(4)) == pytest.approx(0.0, abs=1e-12)
    assert metrics.mspd(T_est, T_gt, SQUARE, ONLY_IDENTITY, CAMERA) == pytest.approx(10.0)
    assert metrics.mspd(T_est, T_gt, SQUARE, turns(4), CAMERA) == pytest.approx(0.0, abs=1e-9)
    assert metrics.rotation_error_rad(T_est, T_gt) == pytest.approx(np.pi / 2)
    assert not metrics.n_deg_n_cm(T_est, T_gt, 5, 5)
    assert metrics.n_deg_n_cm(T_est, T_gt, 5, 5, turns(4))


def test_mean_and_worst_point_differ():
    """Tilted about its edge x = -1 cm, the far edge rises by 2 cm * sin, the near one stays."""
    angle = 0.1
    tilt = pose(z=0.0, turn=(0, angle, 0))
    hinge, back = pose(x=0.01, z=0.0), pose(x=-0.01, z=0.0)
    T_est = pose() @ back @ tilt @ hinge
    chord = 2 * 0.02 * np.sin(angle / 2)
    assert metrics.add(T_est, pose(), SQUARE) == pytest.approx(chord / 2)
    assert metrics.mssd(T_est, pose(), SQUARE, ONLY_IDENTITY) == pytest.approx(chord)


def test_adds_looks_from_the_true_points():
    """Estimated points that nobody needs cost nothing, true ones without a partner do."""
    points = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.11, 0, 0]])
    T_est = pose(x=0.1)  # at 0.1, 0.2 and 0.21; the true ones are at 0, 0.1 and 0.11
    assert metrics.adds(T_est, pose(), points) == pytest.approx((0.1 + 0.0 + 0.01) / 3)


def test_a_can_turned_about_its_axis(rng):
    """A continuous symmetry: half a step of the rim at most is left of any turn."""
    angles = rng.uniform(0, 2 * np.pi, 40)
    rim = 0.05 * np.stack((np.cos(angles), np.sin(angles), rng.uniform(-1, 1, 40)), axis=1)
    info = {'symmetries_continuous': [{'axis': [0, 0, 1], 'offset': [0, 0, 0]}]}
    symmetries = Symmetries.from_bop(info).transforms(0.01)
    T_gt = pose(0.02, 0.01, 0.7, (0.4, 0.5, -0.1))
    T_est = T_gt @ pose(z=0.0, turn=(0, 0, 1.2345))
    assert metrics.mssd(T_est, T_gt, rim, ONLY_IDENTITY) > 0.05
    assert metrics.mssd(T_est, T_gt, rim, symmetries) <= 0.1 * 0.01 / 2
    assert metrics.mspd(T_est, T_gt, rim, symmetries, CAMERA) < 0.5


def test_symmetry_acts_in_the_objects_frame():
    """A half turn about an axis that does not pass the origin of the object's frame."""
    half = np.eye(4)
    half[:3, :3] = np.diag([-1.0, -1.0, 1.0])
    half[0, 3] = 0.06  # about the line x = 0.03
    points = SQUARE + np.array([0.03, 0, 0])
    T_gt = pose(0.1, 0.0, 0.9, (0.2, 0.1, 0.7))
    symmetries = np.stack((np.eye(4), half))
    assert metrics.mssd(T_gt @ half, T_gt, points, symmetries) == pytest.approx(0.0, abs=1e-12)
    assert metrics.mssd(T_gt @ half, T_gt, points, ONLY_IDENTITY) > 0.02


@given(seed=st.integers(0, 2**32 - 1))
def test_laws(seed):
    rng = np.random.default_rng(seed)
    points = 0.1 * rng.standard_normal((30, 3))
    T_a, T_b = (pose(*0.1 * rng.standard_normal(2), 1.0, rng.standard_normal(3)) for _ in 'ab')
    assert metrics.adds(T_a, T_b, points) <= metrics.add(T_a, T_b, points) + 1e-12
    mssd = metrics.mssd(T_a, T_b, points, ONLY_IDENTITY)
    assert metrics.add(T_a, T_b, points) <= mssd + 1e-12
    assert metrics.mssd(T_a, T_b, points, turns(3)) <= mssd + 1e-12
    R_a, R_b = (Rotation.from_matrix(T[:3, :3]) for T in (T_a, T_b))
    angle = (R_a.inv() * R_b).magnitude()
    assert metrics.rotation_error_rad(T_a, T_b) == pytest.approx(angle, abs=1e-7)
    # A common motion of camera and poses changes no distance.
    M = pose(0.3, -0.2, 0.5, rng.standard_normal(3))
    assert metrics.add(M @ T_a, M @ T_b, points) == pytest.approx(metrics.add(T_a, T_b, points))


@pytest.mark.parametrize('angle', [1e-9, 1e-6, 1e-3, 1.0, np.pi - 1e-6])
def test_rotation_error_has_digits_at_both_ends(angle):
    T = pose(turn=(0.3, -1.2, 0.5))
    T_est = pose(turn=(0, 0, angle)) @ T
    assert metrics.rotation_error_rad(T_est, T) == pytest.approx(angle, rel=1e-6)


def test_missing_estimates_are_infinitely_wrong():
    missing = np.full((4, 4), np.nan)
    for error in (
        metrics.add(missing, pose(), SQUARE),
        metrics.adds(missing, pose(), SQUARE),
        metrics.mssd(missing, pose(), SQUARE, ONLY_IDENTITY),
        metrics.mspd(missing, pose(), SQUARE, ONLY_IDENTITY, CAMERA),
        metrics.projection_error(missing, pose(), SQUARE, CAMERA),
        metrics.rotation_error_rad(missing, pose()),
        metrics.translation_error_m(missing, pose()),
    ):
        assert error == np.inf
    assert not metrics.n_deg_n_cm(missing, pose(), 5, 5)


def test_an_estimate_behind_the_camera_projects_nowhere():
    behind = pose(z=-1.0)
    assert metrics.mspd(behind, pose(), SQUARE, ONLY_IDENTITY, CAMERA) == np.inf
    assert metrics.projection_error(behind, pose(), SQUARE, CAMERA) == np.inf


def test_recall_by_hand():
    errors = np.array([0.01, 0.02, 0.05, np.inf, np.nan])
    assert metrics.recall(errors, 0.05) == pytest.approx(0.4)  # 0.05 is not below 0.05
    assert metrics.recall(errors, 1.0) == pytest.approx(0.6)
    assert metrics.average_recall(errors, np.array([0.015, 0.05, 1.0])) == pytest.approx(0.4)
    with pytest.raises(PoseNodeError, match='no errors'):
        metrics.recall(np.array([]), 1.0)


def test_bop_thresholds():
    np.testing.assert_allclose(metrics.MSSD_THRESHOLDS, [0.05 * i for i in range(1, 11)])
    np.testing.assert_allclose(metrics.MSPD_THRESHOLDS_PX, [5.0 * i for i in range(1, 11)])
    # A pose wrong by 12 % of the diameter is right for eight of ten thresholds.
    assert metrics.average_recall([0.12], metrics.MSSD_THRESHOLDS) == pytest.approx(0.8)


def test_n_deg_n_cm_needs_both():
    T = pose()
    assert metrics.n_deg_n_cm(pose(x=0.04, turn=(0, 0, np.radians(4))), T, 5, 5)
    assert not metrics.n_deg_n_cm(pose(x=0.06), T, 5, 5)
    assert not metrics.n_deg_n_cm(pose(turn=(0, 0, np.radians(6))), T, 5, 5)


def test_nees_by_hand():
    covariance = np.diag([0.01**2, 0.01**2, 0.02**2, 0.1**2, 0.1**2, 0.1**2])
    T_gt = pose(x=0.02, turn=(0, 0.1, 0))
    assert metrics.nees(pose(), T_gt, covariance) == pytest.approx(4.0 + 1.0)


def test_pose_error_is_what_the_covariance_convention_says(rng):
    """p' = p + dp and R' = exp(dr) R, in the camera's axes, whatever the pose."""
    T_est = pose(0.1, 0.2, 0.9, (1.0, -0.5, 0.3))
    error = 0.1 * rng.standard_normal(6)
    T_gt = T_est.copy()
    T_gt[:3, 3] += error[:3]
    T_gt[:3, :3] = Rotation.from_rotvec(error[3:]).as_matrix() @ T_est[:3, :3]
    np.testing.assert_allclose(metrics.pose_error(T_est, T_gt), error, atol=1e-12)


def test_nees_is_chi_squared_for_a_true_covariance(rng):
    A = rng.standard_normal((6, 6)) * 0.01
    covariance = A @ A.T + 1e-5 * np.eye(6)
    T_est = pose(0.1, 0.2, 0.9, (1.0, -0.5, 0.3))
    values = []
    for error in rng.multivariate_normal(np.zeros(6), covariance, 2000):
        T_gt = T_est.copy()
        T_gt[:3, 3] += error[:3]
        T_gt[:3, :3] = Rotation.from_rotvec(error[3:]).as_matrix() @ T_est[:3, :3]
        values.append(metrics.nees(T_est, T_gt, covariance))
    assert stats.kstest(values, stats.chi2(6).cdf).pvalue > 0.001
