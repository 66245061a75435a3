"""VSD: how far two poses differ in what a depth camera sees of them.

Hodan et al., "BOP Challenge 2020", sec. 2.2; bop_toolkit pose_error.py (vsd) and visibility.py,
version of 2019 (step cost). Depth maps (H, W) are z in metres; 0 where nothing is drawn or
measured. Symmetric objects need no special care: equal depth is no error.
"""

from __future__ import annotations

import numpy as np

from .errors import PoseNodeError

# Misalignment tolerances as shares of the diameter, thresholds of the error, and how far behind
# the measured surface a rendered one still counts as visible.
VSD_TAUS = np.arange(0.05, 0.51, 0.05)
VSD_THRESHOLDS = np.arange(0.05, 0.51, 0.05)
VSD_DELTA_M = 0.015


def vsd(
    depth_est: np.ndarray,
    depth_gt: np.ndarray,
    depth_scene: np.ndarray,
    rays: np.ndarray,
    taus_m: np.ndarray,
    delta_m: float = VSD_DELTA_M,
) -> np.ndarray:
    """(len(taus_m),) errors in 0..1: of the pixels where either pose is visible, the share that
    only one is, or where the distances differ by tau or more. 1 where neither is to be seen.

    rays (H, W): length of the ray of a pixel at z = 1, sqrt(1 + x² + y²), since the challenge
    compares distances from the camera's centre.
    """
    shapes = {np.shape(each) for each in (depth_est, depth_gt, depth_scene, rays)}
    if len(shapes) > 1:
        raise PoseNodeError(
            f'The depth maps have the shapes {sorted(shapes)}; give maps of one picture.'
        )
    far_est, far_gt, far_scene = (depth * rays for depth in (depth_est, depth_gt, depth_scene))
    visible_gt = _visible(far_gt, far_scene, delta_m)
    # Where the true object is seen, an estimate behind it is hidden by nothing else.
    visible_est = _visible(far_est, far_scene, delta_m) | (visible_gt & (far_est > 0.0))
    union = np.count_nonzero(visible_est | visible_gt)
    if union == 0:
        return np.ones(len(taus_m))
    both = visible_est & visible_gt
    differences = np.abs(far_est[both] - far_gt[both])
    wrong = (differences >= np.asarray(taus_m)[:, None]).sum(axis=1)
    return np.asarray((wrong + union - len(differences)) / union)


def ray_lengths(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) lengths of the rays through the pixels of a pinhole camera, at z = 1."""
    x = (np.arange(size[0]) - K[0, 2]) / K[0, 0]
    y = (np.arange(size[1]) - K[1, 2]) / K[1, 1]
    return np.sqrt(1.0 + x[None] ** 2 + y[:, None] ** 2)


def average_recall_vsd(errors: np.ndarray) -> float:
    """AR VSD of errors (N, len(VSD_TAUS)): mean recall over tolerances and thresholds."""
    if not len(errors):
        raise PoseNodeError(
            'There are no errors to take the recall of; give one for every target.'
        )
    return float(np.mean(errors[..., None] < VSD_THRESHOLDS))


def _visible(far: np.ndarray, far_scene: np.ndarray, delta_m: float) -> np.ndarray:
    """Drawn, and not more than delta behind what was measured; unmeasured hides nothing."""
    return (far > 0.0) & ((far_scene == 0.0) | (far - far_scene <= delta_m))
