"""Rotations and poses: the laws of SO(3) and SE(3), against SciPy and the matrix exponential."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation
from transforms3d.quaternions import quat2mat

from pose_node.core import geometry

component = st.floats(-1.0, 1.0)
vector = st.tuples(component, component, component).map(np.array)
# Angles where closed forms lose their digits: near zero, near pi, and all between.
angle = st.one_of(
    st.floats(0.0, np.pi),
    st.floats(-16.0, -1.0).map(lambda e: 10.0**e),
    st.floats(-16.0, -1.0).map(lambda e: np.pi - 10.0**e),
)


@st.composite
def rotvec(draw):
    axis = draw(vector.filter(lambda v: np.linalg.norm(v) > 1e-3))
    return axis / np.linalg.norm(axis) * draw(angle)


@st.composite
def pose(draw):
    return geometry.make_pose(geometry.exp_so3(draw(rotvec())), draw(vector))


@given(w=rotvec())
def test_exp_is_scipys_and_a_rotation(w):
    R = geometry.exp_so3(w)
    np.testing.assert_allclose(R, Rotation.from_rotvec(w).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(R) == pytest.approx(1.0)


@given(w=rotvec())
def test_log_undoes_exp(w):
    back = geometry.log_so3(geometry.exp_so3(w))
    # At pi both directions of the axis are right.
    other = back - 2.0 * np.pi * back / max(np.linalg.norm(back), 1e-300)
    assert min(np.abs(back - w).max(), np.abs(other - w).max()) < 1e-9
    assert np.linalg.norm(back) <= np.pi + 1e-12


@given(w=rotvec(), v=vector)
def test_exp_of_a_twist_is_the_matrix_exponential(w, v):
    generator = np.zeros((4, 4))
    generator[:3, :3], generator[:3, 3] = geometry.hat(w), v
    T = geometry.exp_se3(np.concatenate((v, w)))
    np.testing.assert_allclose(T, expm(generator), atol=1e-12)


@given(w=rotvec().filter(lambda w: np.linalg.norm(w) < 3.1), v=vector)
def test_log_of_a_pose_undoes_exp(w, v):
    xi = np.concatenate((v, w))
    np.testing.assert_allclose(geometry.log_se3(geometry.exp_se3(xi)), xi, atol=1e-7)


@given(T_a_b=pose(), point=vector)
def test_inverse_leads_back(T_a_b, point):
    np.testing.assert_allclose(geometry.inverse(T_a_b), np.linalg.inv(T_a_b), atol=1e-13)
    there = geometry.apply(T_a_b, point[None])
    back = geometry.apply(geometry.inverse(T_a_b), there)
    np.testing.assert_allclose(back, point[None], atol=1e-13)


@given(T=pose(), w=vector, v=vector)
def test_adjoint_moves_a_twist_past_a_pose(T, w, v):
    xi = np.concatenate((v, w))
    left = geometry.exp_se3(geometry.adjoint(T) @ xi) @ T
    np.testing.assert_allclose(left, T @ geometry.exp_se3(xi), atol=1e-12)


@given(a=rotvec(), b=rotvec())
def test_angle_between_is_a_metric_and_scipys(a, b):
    R_a, R_b = geometry.exp_so3(a), geometry.exp_so3(b)
    found = geometry.angle_between(R_a, R_b)
    wanted = (Rotation.from_matrix(R_a) * Rotation.from_matrix(R_b).inv()).magnitude()
    assert found == pytest.approx(wanted, abs=1e-7)
    assert found == pytest.approx(geometry.angle_between(R_b, R_a), abs=1e-9)


def test_hat_is_the_cross_product(rng):
    v, u = rng.normal(size=(2, 50, 3))
    np.testing.assert_allclose((geometry.hat(v) @ u[..., None])[..., 0], np.cross(v, u))


def test_leading_axes_are_batches(rng):
    """Every function of many is the function of each."""
    xi = rng.normal(size=(4, 5, 6))
    T = geometry.exp_se3(xi)
    assert T.shape == (4, 5, 4, 4)
    points = rng.normal(size=(4, 5, 7, 3))
    for name in ('log_se3', 'inverse', 'adjoint'):
        function = getattr(geometry, name)
        many = function(T)
        for i, j in np.ndindex(4, 5):
            np.testing.assert_allclose(many[i, j], function(T[i, j]), atol=1e-12)
    moved = geometry.apply(T, points)
    np.testing.assert_allclose(moved[2, 3], geometry.apply(T[2, 3], points[2, 3]))
    np.testing.assert_allclose(
        moved[1, 1], (T[1, 1] @ np.c_[points[1, 1], np.ones(7)].T)[:3].T, atol=1e-12
    )


def test_known_rotations():
    quarter = geometry.exp_so3(np.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)
    for half_turn in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1]):
        w = geometry.log_so3(np.diag(np.array(half_turn, dtype=float)))
        np.testing.assert_allclose(np.abs(w), np.pi * (np.array(half_turn) > 0), atol=1e-12)
    np.testing.assert_array_equal(geometry.log_so3(np.eye(3)), np.zeros(3))


@given(w=rotvec())
def test_one_rotation_is_as_many(w):
    """The way for a single one, against that for arrays."""
    R = geometry.exp_so3(w)
    np.testing.assert_allclose(R, geometry.exp_so3(w[None])[0], atol=1e-14)
    np.testing.assert_allclose(geometry.log_so3(R), geometry.log_so3(R[None])[0], atol=1e-12)
    x, y, z, w = geometry.quaternion_of(R)
    np.testing.assert_allclose(quat2mat([w, x, y, z]), R, atol=1e-14)
    assert w >= 0.0
