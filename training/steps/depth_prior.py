"""How strong the prior is that pulls an unsure network's keypoints to the middle of the picture.

Shrunk keypoints are an object farther away, so held-out renders tell: the prior that is kept makes
the median depth right. (Taken off point by point by the keypoints' own spread, the pull is undone
only in half, since what a network is unsure of moves all keypoints together.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize

from pose_node.core.heatmap import Keypoints

from ..synth.dataset import View
from ..synth.things import Thing
from .judge import solve

_STRONGEST_PX = 3.0  # map pixels
_TOLERANCE = 2e-4  # of 1 / px²: 0.02 px where it is 6 px
_ENOUGH = 512  # views
_CLEAR = 0.5  # visible share: what is hidden more is drawn in more, and would speak for all
_WIDEST_PX = 100.0  # farther than any keypoint: no prior at all


def depth_prior(thing: Thing, views: Sequence[View], found: Sequence[Keypoints]) -> float:
    """The standard deviation, map pixels, for heatmap.without_prior; infinite where depths need no
    mending.
    """

    pairs = [pair for pair in zip(views, found, strict=True) if pair[0].present]
    clear = [pair for pair in pairs if pair[0].visible >= _CLEAR]
    shown = (clear or pairs)[:_ENOUGH]

    def bias(pull: float) -> float:
        """Median log of depth over true depth under a prior of variance 1 / pull."""
        prior_std_px = pull**-0.5 if pull > 0.0 else np.inf
        logs = []
        for view, keypoints in shown:
            estimate = solve(view, thing, keypoints, prior_std_px=prior_std_px).estimate
            if estimate.ok:
                logs.append(np.log(estimate.T_cam_obj[2, 3] / view.T_cam_obj[2, 3]))
        return float(np.median(logs)) if logs else 0.0

    strongest = _STRONGEST_PX**-2
    if bias(0.0) <= 0.0:
        return np.inf
    if bias(strongest) >= 0.0:
        return _STRONGEST_PX
    pull = optimize.brentq(bias, 0.0, strongest, xtol=_TOLERANCE)
    return float(pull**-0.5) if pull > _WIDEST_PX**-2 else np.inf
