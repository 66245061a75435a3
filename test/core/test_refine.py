"""The equations of one step of the fit, by differences and point by point."""

from __future__ import annotations

import numpy as np
import pytest

from pose_node.core import geometry
from pose_node.core.refine import Problem, linearise, squared_residuals


def test_the_jacobian_is_the_slope(rng):
    problem = Problem(
        rng.uniform(-0.1, 0.1, (3, 9)), rng.uniform(-0.2, 0.2, (2, 9)), rng.normal(size=(2, 2, 9))
    )
    R, t = geometry.exp_so3(rng.normal(size=3) * 2.0), np.array([0.1, -0.05, 0.7])
    _, system = linearise(problem, R, t)
    J, residuals = system[:6], system[6]
    np.testing.assert_allclose(
        squared_residuals(problem, R, t), (residuals**2).sum(axis=0), rtol=1e-12
    )
    for i in range(6):
        step = 1e-6 * np.eye(6)[i]
        ahead = linearise(problem, geometry.exp_so3(step[3:]) @ R, t + step[:3])[1][6]
        back = linearise(problem, geometry.exp_so3(-step[3:]) @ R, t - step[:3])[1][6]
        np.testing.assert_allclose(J[i], (ahead - back) / 2e-6, rtol=1e-5, atol=1e-5)


def test_the_system_of_equations_is_that_of_each_point_alone(rng):
    """One point behind the camera: it says nothing, and costs everything."""
    problem = Problem(
        rng.uniform(-0.1, 0.1, (3, 7)), rng.uniform(-0.2, 0.2, (2, 7)), rng.normal(size=(2, 2, 7))
    )
    R, t = geometry.exp_so3(rng.normal(size=3)), np.array([0.1, -0.2, 0.5])
    problem.points_obj[:, 3] = R.T @ (np.array([0.1, 0.1, -0.2]) - t)
    squared, system = linearise(problem, R, t)
    for i in range(7):
        turned = R @ problem.points_obj[:, i]
        x, y, z = turned + t
        if i == 3:
            assert squared[i] == np.inf and not system[:, :, i].any()
            continue
        W = problem.whitening[:, :, i]
        perspective = np.array([[1.0 / z, 0.0, -x / z**2], [0.0, 1.0 / z, -y / z**2]])
        J = -W @ perspective @ np.hstack((np.eye(3), -geometry.hat(turned)))
        residual = W @ (problem.points_xy[:, i] - (x / z, y / z))
        np.testing.assert_allclose(system[:6, :, i], J.T, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(system[6, :, i], residual, rtol=1e-10)
        assert squared[i] == pytest.approx(residual @ residual)
