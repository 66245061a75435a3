"""The filter on SE(3): laws of a Kalman filter, with SciPy's chi-square as the judge."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm

from pose_node.core import metrics
from pose_node.core.geometry import exp_so3, hat, log_so3, make_pose
from pose_node.core.motion import (
    Motion,
    MotionOptions,
    _left_jacobian,
    corrected,
    distance_squared,
    first_seen,
    nearest_twin,
    predicted,
)
from pose_node.core.symmetry import Symmetries

STRAIGHT = MotionOptions(correlation=0.0)
C = np.diag((0.002, 0.002, 0.008, 0.02, 0.02, 0.01)) ** 2


def pose(rng):
    return make_pose(exp_so3(rng.normal(size=3)), rng.uniform((-0.3, -0.3, 0.5), (0.3, 0.3, 1.2)))


def measured(rng, T, covariance=C):
    error = rng.multivariate_normal(np.zeros(6), covariance)
    return make_pose(exp_so3(error[3:]) @ T[:3, :3], T[:3, 3] + error[:3])


def test_left_jacobian_is_the_integral_of_the_exponential(rng):
    """Van Loan: the upper right block of expm([[W, I], [0, 0]])."""
    for turn in (rng.normal(size=3), np.zeros(3), 1e-5 * rng.normal(size=3)):
        block = np.zeros((6, 6))
        block[:3, :3], block[:3, 3:] = hat(turn), np.eye(3)
        np.testing.assert_allclose(_left_jacobian(turn), expm(block)[:3, 3:], atol=1e-9)


def test_prediction_moves_as_the_twist_says(rng):
    """Two steps are one long one, for the mean and for the covariance."""
    motion = Motion(pose(rng), rng.normal(size=6), np.diag(rng.uniform(0.1, 1.0, 12)))
    once = predicted(motion, 0.5, STRAIGHT)
    twice = predicted(predicted(motion, 0.2, STRAIGHT), 0.3, STRAIGHT)
    np.testing.assert_allclose(once.T_ref_obj, twice.T_ref_obj, atol=1e-12)
    turn = log_so3(once.T_ref_obj[:3, :3] @ motion.T_ref_obj[:3, :3].T)
    np.testing.assert_allclose(turn, 0.5 * motion.twist[3:], atol=1e-12)
    # Process noise that came in before a turn is turned with it: only the places agree to the bit.
    np.testing.assert_allclose(once.covariance[:3, :3], twice.covariance[:3, :3], atol=1e-12)


def test_a_measurement_of_infinite_doubt_changes_nothing(rng):
    motion = first_seen(pose(rng), C, STRAIGHT)
    after = corrected(motion, pose(rng), 1e12 * np.eye(6), STRAIGHT)
    np.testing.assert_allclose(after.T_ref_obj, motion.T_ref_obj, atol=1e-9)
    np.testing.assert_allclose(after.covariance, motion.covariance, atol=1e-9)


def test_two_measurements_of_a_still_thing_are_their_mean(rng):
    """With equal covariances half way, and half as uncertain."""
    T = make_pose(np.eye(3), np.array([0.0, 0.0, 1.0]))
    other = make_pose(np.eye(3), np.array([0.004, 0.0, 1.0]))
    still = MotionOptions(acceleration=0.0, angular_acceleration=0.0, speed=0.0, angular_speed=0.0,
                          correlation=0.0)  # fmt: skip
    after = corrected(first_seen(T, C, still), other, C, still)
    np.testing.assert_allclose(after.T_ref_obj[:3, 3], (0.002, 0.0, 1.0), atol=1e-12)
    np.testing.assert_allclose(after.pose_covariance, C / 2, rtol=1e-9)


def test_what_the_filter_claims_is_true(rng):
    """Objects whose twist does a random walk: the squared errors follow chi-square(6)."""
    options, seconds = STRAIGHT, 1.0 / 15.0
    nees, inside = [], []
    for _ in range(60):
        T, twist = pose(rng), rng.normal(0.0, (0.5, 0.5, 0.5, 1.0, 1.0, 1.0))
        motion = first_seen(measured(rng, T), C, options)
        for _ in range(20):
            # The acceleration is white: drawn with the covariance that the filter assumes.
            true = predicted(Motion(T, twist, np.zeros((12, 12))), seconds, options)
            noise = rng.multivariate_normal(np.zeros(12), true.covariance)
            T = make_pose(
                exp_so3(noise[3:6]) @ true.T_ref_obj[:3, :3], true.T_ref_obj[:3, 3] + noise[:3]
            )
            twist = true.twist + noise[6:]
            motion = predicted(motion, seconds, options)
            seen = measured(rng, T)
            inside.append(distance_squared(motion, seen, C) < options.gate_squared)
            motion = corrected(motion, seen, C, options)
        nees.append(metrics.nees(motion.T_ref_obj, T, motion.pose_covariance))
    low, high = stats.chi2(6 * len(nees)).ppf((0.001, 0.999)) / len(nees)
    assert low < np.mean(nees) < high
    assert np.mean(inside) > 0.995


def test_errors_that_last_are_not_averaged_away(rng):
    """An autoregression of errors: the filter that is told so claims no more than is true, the
    other one lies.
    """
    claims = {}
    for correlation in (0.0, 0.8):
        # Of measurements a tenth of a second apart; these are half as far.
        options = MotionOptions(0.05, 0.1, correlation=correlation**2)
        generator, nees = np.random.default_rng(3), []
        for _ in range(80):
            T = pose(generator)
            error = generator.multivariate_normal(np.zeros(6), C)
            motion = None
            for _ in range(25):
                fresh = generator.multivariate_normal(np.zeros(6), C)
                error = 0.8 * error + np.sqrt(1 - 0.8**2) * fresh
                seen = make_pose(exp_so3(error[3:]) @ T[:3, :3], T[:3, 3] + error[:3])
                if motion is None:
                    motion = first_seen(seen, C, options)
                else:
                    motion = corrected(predicted(motion, 0.05, options), seen, C, options)
            nees.append(metrics.nees(motion.T_ref_obj, T, motion.pose_covariance))
        claims[correlation] = np.mean(nees)
    assert claims[0.0] > 9.0
    assert 1.5 < claims[0.8] < 6.0


def test_more_pictures_a_second_of_the_same_errors_are_no_more_news():
    """Four times the pictures halve the sigma of errors that are fresh, and not of these."""
    T = make_pose(np.eye(3), np.array([0.0, 0.0, 1.0]))

    def sigma_m(rate_hz, correlation):
        options = MotionOptions(0.01, 0.03, correlation=correlation)
        motion = first_seen(T, C, options)
        for _ in range(3 * rate_hz):
            motion = corrected(predicted(motion, 1.0 / rate_hz, options), T, C, options)
        return np.sqrt(motion.pose_covariance[2, 2])

    assert 0.9 < sigma_m(15, 0.5) / sigma_m(60, 0.5) < 1.1
    assert sigma_m(15, 0.0) / sigma_m(60, 0.0) > 1.5


def test_twins_of_symmetric_objects(rng):
    """The nearest of the poses that look the same; the covariance goes along, as sampled."""
    half_turn = make_pose(exp_so3(np.array([0.0, 0.0, np.pi])), np.array([0.02, 0.0, 0.0]))
    symmetries = Symmetries(half_turn[None])
    T = pose(rng)
    flipped = T @ half_turn
    twin, covariance = nearest_twin(flipped, C, T, symmetries)
    np.testing.assert_allclose(twin[:3, :3], T[:3, :3], atol=1e-9)
    samples = np.array([measured(rng, flipped) for _ in range(4000)]) @ half_turn
    places = samples[:, :3, 3]
    np.testing.assert_allclose(np.cov(places.T), covariance[:3, :3], rtol=0.2, atol=2e-6)
    same, untouched = nearest_twin(T, C, T, Symmetries.none())
    assert same == pytest.approx(T) and untouched == pytest.approx(C)
