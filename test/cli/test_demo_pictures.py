"""The shipped drill on pictures of the demo's bag, each for itself: seen where it is, and nowhere
else, though a spray can of its colours stands on the bench.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed here')

from pose_node.cli.truth import read_frames
from pose_node.core import metrics
from pose_node.core.camera import Camera
from pose_node.core.mesh import read_ply
from pose_node.ros.bagfile import BagReader
from pose_node.runtime.estimator import PoseEstimator

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def film():
    with BagReader(CHECKOUT / 'demo' / 'drill_bag') as bag:
        frames = read_frames(bag)
        files = [message for _, message in bag.messages(['/camera/image_raw/compressed'])]
        info = next(message for _, message in bag.messages(['/camera/camera_info']))
    K, size = np.array(info.k).reshape(3, 3), (info.width, info.height)
    camera = Camera(K, size, info.distortion_model, tuple(info.d))
    return frames, files, camera


def read(file) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.asarray(file.data, np.uint8), 1), cv2.COLOR_BGR2RGB)


def test_seen_where_it_is_and_nowhere_else(film):
    frames, files, camera = film
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
