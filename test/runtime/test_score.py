"""The score's features by hand, and that they say what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pose_node.core.pose_spec import ScoreSpec
from pose_node.runtime.score import score, score_features

FOUR = np.ones(4, bool)


def covariances(variance: float, count: int = 4) -> np.ndarray:
    return np.tile(variance * np.eye(2), (count, 1, 1))


def test_features_by_hand():
    confidences = np.array([0.1, 0.4, 0.2, 0.05])
    inliers = np.array([True, True, False, True])
    residuals = np.array([[2.0, 0.0], [0.0, 0.0], [50.0, 50.0], [0.0, 2.0]])
    features = score_features(confidences, inliers, residuals, covariances(4.0))
    assert features['confidence'] == pytest.approx((math.log(0.4) + math.log(0.2)) / 2)
    assert features['inlier_share'] == 0.75
    # Squares in sigmas 1, 0, 1 over three points of two coordinates.
    assert features['rms'] == pytest.approx(math.sqrt((1 + 0 + 1) / (2 * 3)))


def test_rms_is_one_when_residuals_are_what_was_predicted(rng):
    C = np.array([[4.0, 1.5], [1.5, 1.0]])
    residuals = rng.multivariate_normal([0, 0], C, 4000)
    every = np.ones(4000, bool)
    features = score_features(np.ones(4000), every, residuals, np.tile(C, (4000, 1, 1)))
    assert features['rms'] == pytest.approx(1.0, abs=0.03)


def test_odd_counts_take_the_larger_half():
    features = score_features(
        np.array([1.0, math.e, 0.001]), FOUR[:3], np.zeros((3, 2)), covariances(1.0, 3)
    )
    assert features['confidence'] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ('inliers', 'residual'), [(~FOUR, 0.0), (FOUR, 1e6), (FOUR, np.nan), (FOUR, np.inf)]
)
def test_the_worst_is_finite(inliers, residual):
    features = score_features(
        np.full(4, np.nan), inliers, np.full((4, 2), residual), covariances(1.0)
    )
    assert features['rms'] == 10.0
    assert features['confidence'] == pytest.approx(math.log(1e-6))


def test_score_is_a_sigmoid():
    features = {'confidence': -2.0, 'inlier_share': 0.5, 'rms': 1.0}
    spec = ScoreSpec(bias=1.0, weights={'confidence': 0.5, 'inlier_share': 2.0, 'rms': -1.0})
    assert score(features, spec) == pytest.approx(0.5)
    assert score(features, ScoreSpec(bias=0.0, weights={})) == 0.5
    assert score(features, ScoreSpec(bias=1e9, weights={})) == pytest.approx(1.0)
    assert score(features, ScoreSpec(bias=-1e9, weights={})) == pytest.approx(0.0, abs=1e-20)


def test_better_poses_score_higher():
    spec = ScoreSpec(bias=0.0, weights={'confidence': 1.0, 'inlier_share': 4.0, 'rms': -1.0})

    def of(confidence: float, inliers: int, residual: float) -> float:
        features = score_features(
            np.full(4, confidence),
            np.arange(4) < inliers,
            np.full((4, 2), residual),
            covariances(1.0),
        )
        return score(features, spec)

    assert of(0.5, 4, 1.0) > of(0.1, 4, 1.0)
    assert of(0.5, 4, 1.0) > of(0.5, 2, 1.0)
    assert of(0.5, 4, 1.0) > of(0.5, 4, 3.0)
