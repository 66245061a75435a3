"""The shipped drill on pictures of the demo's bag, each for itself: seen where it is, and nowhere
else, though a spray can of its colours stands on the bench.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed here')

from demo_film import demo_film, read

from pose_node.core import metrics
from pose_node.core.mesh import read_ply
from pose_node.runtime.estimator import PoseEstimator

CHECKOUT = Path(__file__).parents[2]


def test_seen_where_it_is_and_nowhere_else():
    frames, files, camera = demo_film()
    right, clear = 0, 0
    with PoseEstimator(CHECKOUT / 'bundles' / 'drill') as estimator:
        thing = estimator.bundle.object('drill')
        vertices_m = read_ply(estimator.bundle.read(thing.mesh)).vertices
        for frame, file in zip(frames, files, strict=True):
            if not frame.visible:
                assert not estimator(read(file), camera).poses, frame.stamp_ns
            elif frame.visible > 0.9 and clear < 15:
                clear += 1
                pose = estimator(read(file), camera).poses[0]
                add_m = metrics.add(pose.T_cam_obj, frame.T_cam_obj, vertices_m)
                right += add_m < 0.05 * thing.diameter_m
                assert 'agreement' in pose.features
    assert clear == 15 and right >= 13
