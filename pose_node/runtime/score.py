"""One number for "is this pose right", from what the pose itself shows.

A logistic model of a few features: its weights are fitted on renders by the workshop, which calls
the same functions, and stand in the bundle. Poses that are aligned to outlines have a model of
their own, which knows how sure they are of their place, too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pose_node.core.pose_spec import ScoreSpec

# A map's maximum below this is as good as none; a residual above this many sigmas as bad as any.
_LEAST_CONFIDENCE = 1e-6
_MOST_SIGMAS = 10.0


def score_features(
    confidences: np.ndarray,
    inliers: np.ndarray,
    residuals_px: np.ndarray,
    covariances_px: np.ndarray,
) -> dict[str, float]:
    """The features of one pose, by the names that the bundle's weights use.

    confidences (K,) maxima of the maps; inliers (K,) bool, false too for keypoints that did not
    count; residuals_px (K, 2) projected minus seen keypoints; covariances_px (K, 2, 2) the
    predicted ones.

    - confidence: mean logarithm of the better half of the confidences, so that a half-hidden
    object
      is judged by what is seen of it.
    - inlier_share: inliers over all keypoints of the object.
    - rms: residuals of the inliers in units of their predicted sigmas; 1 when they are what the
      network said, 10 at worst or without inliers.
    """
    better = np.sort(np.nan_to_num(confidences, nan=0.0))[-((len(confidences) + 1) // 2) :]
    rms = _MOST_SIGMAS
    if inliers.any():
        x, y = residuals_px[inliers].T
        (a, b), (_, c) = covariances_px[inliers].transpose(1, 2, 0)
        # r^T C⁻¹ r, written out
        with np.errstate(invalid='ignore'):
            squared = (c * x * x - 2.0 * b * x * y + a * y * y) / (a * c - b * b)
        mean_square = 0.5 * float(squared.sum()) / len(squared)
        # A NaN compares false and stays the worst.
        rms = math.sqrt(mean_square) if 0.0 <= mean_square < _MOST_SIGMAS**2 else _MOST_SIGMAS
    return {
        'confidence': float(np.mean(np.log(np.maximum(better, _LEAST_CONFIDENCE)))),
        'inlier_share': np.count_nonzero(inliers) / len(inliers),
        'rms': rms,
    }


def aligned_features(
    features: Mapping[str, float], covariance: np.ndarray, diameter_m: float
) -> dict[str, float]:
    """The features of a pose that was aligned to its outline; `features` are its keypoints'.

    - spread: logarithm of the position's standard deviation, over the object's diameter, by the
      pose's calibrated covariance (6, 6).

    How well the outline was found is not among them: a thing of the object's colours has one, too.
    """
    variance_m2 = float(np.trace(covariance[:3, :3]))
    spread = 0.5 * math.log(max(variance_m2, 1e-20)) - math.log(diameter_m)
    return {**features, 'spread': spread}


def score(features: Mapping[str, float], spec: ScoreSpec) -> float:
    """sigmoid(bias + weights . features), in 0..1."""
    x = spec.bias + sum(weight * features[name] for name, weight in spec.weights.items())
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, x))))
