"""The prior that makes held-out depths right."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('torch', reason='the workshop is not installed here')

from pose_node.core import heatmap
from pose_node.core.geometry import apply, exp_so3, make_pose
from training.steps.depth_prior import depth_prior
from training.steps.judge import decoded

K = np.array([[600.0, 0.0, 63.5], [0.0, 600.0, 63.5], [0.0, 0.0, 1.0]])
SIGMA_PX = 1.5


def _views(rng, spread_px: float, prior_px: float, count: int = 24):
    """Maps of a network that doubts each keypoint by `spread_px` and believes in a prior."""
    keypoints = rng.uniform(-0.03, 0.03, (12, 3))
    views, maps = [], []
    for _ in range(count):
        T = make_pose(
            exp_so3(rng.normal(0.0, 1.0, 3)), np.array([0.0, 0.0, rng.uniform(0.5, 0.9)])
        )
        points = apply(T, keypoints) @ K.T
        points_px = points[:, :2] / points[:, 2:]
        map_px = (points_px + 0.5) / 4 - 0.5
        pulled = 15.5 + (1.0 - spread_px**2 / prior_px**2) * (map_px - 15.5)
        maps.append(heatmap.encode(pulled, (32, 32), np.hypot(spread_px, SIGMA_PX)))
        picture = np.zeros((128, 128, 3), np.uint8)
        views.append(SimpleNamespace(present=True, visible=1.0, picture=picture, K=K, T_cam_obj=T))
    return SimpleNamespace(keypoints_obj=keypoints), views, np.stack(maps)


def test_the_prior_is_found(rng):
    thing, views, maps = _views(rng, spread_px=1.5, prior_px=6.0)
    assert depth_prior(thing, views, decoded(maps, SIGMA_PX)) == pytest.approx(6.0, rel=0.1)


def test_right_depths_need_none(rng):
    thing, views, maps = _views(rng, spread_px=0.3, prior_px=1e6)
    assert depth_prior(thing, views, decoded(maps, SIGMA_PX)) > 8.0


def test_nothing_to_learn_from_is_no_prior(rng):
    thing, views, maps = _views(rng, spread_px=1.5, prior_px=6.0, count=3)
    for view in views:
        view.present = False
    assert depth_prior(thing, views, decoded(maps, SIGMA_PX)) == np.inf
