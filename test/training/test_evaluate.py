"""Calibration figures as a bundle carries them."""

from __future__ import annotations

import pytest

pytest.importorskip('torch', reason='torch is not installed: run `make test`')
pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

import numpy as np

from pose_node.core.pose_spec import ALIGNED_FEATURES
from training.steps.evaluate import _fit_score, significant


@pytest.mark.parametrize(
    ('scale', 'kept'), [(8.05234567, 8.0523), (1.23456789e-7, 1.2346e-7), (123456.7, 123460.0)]
)
def test_no_scale_is_rounded_to_nothing(scale: float, kept: float) -> None:
    """A network whose weights fell to nothing has covariances a million times too wide."""
    assert significant(scale) == kept


def test_a_score_is_no_surer_of_worse_poses() -> None:
    """Features speak for a pose or against it; one whose sign is an accident weighs nothing."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, len(ALIGNED_FEATURES)))
    truth = {'confidence': 2.0, 'inlier_share': -0.5, 'rms': 0.0, 'spread': -1.0}
    chance = 1.0 / (1.0 + np.exp(-(0.3 + X @ [truth[name] for name in ALIGNED_FEATURES])))
    right = rng.uniform(size=len(X)) < chance
    rows = [dict(zip(ALIGNED_FEATURES, row.tolist(), strict=True)) for row in X]
    bias, weights = _fit_score(rows, right, ALIGNED_FEATURES)
    assert weights['inlier_share'] == 0.0 and weights['rms'] <= 0.0
    assert weights['confidence'] == pytest.approx(2.0, rel=0.15)
    assert weights['spread'] == pytest.approx(-1.0, rel=0.15)
    assert bias == pytest.approx(0.3, abs=0.15)
