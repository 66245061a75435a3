"""The committed demonstration bag, read with rosbags alone, and the writer that made it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from scipy.spatial.transform import Rotation

from pose_node.core.camera import Camera
from training.steps.bag_writer import TOPICS, BagFrame, typestore, write_bag

BAG = Path(__file__).parents[2] / 'demo' / 'drill_bag'


def messages(folder):
    """{topic: [(stamp ns, message)]}."""
    store = typestore()
    found = {topic: [] for topic, _ in TOPICS.values()}
    with Reader(folder) as reader:
        for connection, stamp_ns, raw in reader.messages():
            found[connection.topic].append(
                (stamp_ns, store.deserialize_cdr(raw, connection.msgtype))
            )
    return found


@pytest.fixture(scope='module')
def bag():
    return messages(BAG)


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def matrix(pose):
    T = np.eye(4)
    q = pose.orientation
    T[:3, :3] = Rotation.from_quat((q.x, q.y, q.z, q.w)).as_matrix()
    T[:3, 3] = (pose.position.x, pose.position.y, pose.position.z)
    return T


def visible(bag):
    """(N,) visible share in every frame, 0 where the object is absent."""
    arrays = [message for _, message in bag['/ground_truth/detections']]
    return np.array(
        [a.detections[0].results[0].hypothesis.score if a.detections else 0.0 for a in arrays]
    )


def test_files():
    assert sorted(path.suffix for path in BAG.iterdir()) == ['.mcap', '.yaml']
    assert sum(path.stat().st_size for path in BAG.iterdir()) < 8_000_000


def test_every_frame_is_complete(bag):
    pictures = bag['/camera/image_raw/compressed']
    assert len(pictures) >= 150
    stamps = [stamp_of(message) for _, message in pictures]
    assert np.ptp(np.diff(stamps)) <= 2, 'evenly at the rate of the camera'
    for topic in ('/camera/camera_info', '/ground_truth/detections'):
        assert [stamp_of(message) for _, message in bag[topic]] == stamps
    assert {stamp_of(message) for _, message in bag['/ground_truth/pose']} == {
        stamp for stamp, share in zip(stamps, visible(bag)) if share > 0
    }
    for topic in bag:
        assert {message.header.frame_id for _, message in bag[topic]} == {'camera_optical_frame'}


def test_pictures(bag):
    for _, message in bag['/camera/image_raw/compressed']:
        assert message.format == 'rgb8; jpeg compressed bgr8'
        picture = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
        assert picture.shape == (480, 640, 3)
        assert picture.std() > 15, 'not an empty picture'


def test_camera_is_distorted(bag):
    infos = [message for _, message in bag['/camera/camera_info']]
    assert {(info.width, info.height, info.distortion_model) for info in infos} == {
        (640, 480, 'plumb_bob')
    }
    info = infos[0]
    camera = Camera(np.reshape(info.k, (3, 3)), (640, 480), info.distortion_model, tuple(info.d))
    straight = Camera(camera.K, (640, 480))
    corner = camera.unproject(np.array([[0.0, 0.0]]))
    seen = straight.project(np.column_stack((corner, [1.0])))
    assert np.linalg.norm(seen) > 15, 'the corner is bent by many pixels'


def test_presence_and_occlusion(bag):
    share = visible(bag)
    assert ((share >= 0) & (share <= 1)).all()
    assert (share == 0).sum() >= 25
    assert (share > 0.9).sum() >= 60
    assert ((share >= 0.5) & (share < 0.9)).sum() >= 20
    assert ((share > 0) & (share < 0.5)).sum() >= 10


def test_truth_agrees_with_itself_and_moves_smoothly(bag):
    poses = {stamp_of(message): message.pose for _, message in bag['/ground_truth/pose']}
    stamps, T = [], []
    for _, array in bag['/ground_truth/detections']:
        for detection in array.detections:
            assert detection.results[0].hypothesis.class_id == 'drill'
            T.append(matrix(detection.results[0].pose.pose))
            stamps.append(stamp_of(array))
            np.testing.assert_allclose(T[-1], matrix(poses[stamps[-1]]), atol=1e-9)
            # The origin is the middle of the box; the drill is 0.4 to 1.2 m away.
            np.testing.assert_allclose(matrix(detection.bbox.center), T[-1], atol=1e-6)
            assert 0.4 < np.linalg.norm(T[-1][:3, 3]) < 1.2
    T, next_to = np.array(T), np.diff(stamps) < 2e8
    step = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)[next_to]
    turn = Rotation.from_matrix(T[1:, :3, :3] @ T[:-1, :3, :3].transpose(0, 2, 1)).magnitude()[
        next_to
    ]
    assert step.max() < 0.15
    assert np.degrees(turn.max()) < 12


def test_all_sides_are_shown(bag):
    T = np.array([matrix(message.pose) for _, message in bag['/ground_truth/pose']])
    eye = -np.einsum(
        'nij,ni->nj', T[:, :3, :3], T[:, :3, 3]
    )  # the camera's place in the drill's frame
    azimuth = np.degrees(np.arctan2(eye[:, 1], eye[:, 0])) % 360
    assert len(np.unique(azimuth // 45)) == 8
    elevation = np.degrees(np.arcsin(eye[:, 2] / np.linalg.norm(eye, axis=1)))
    assert elevation.min() > 5
    assert np.ptp(elevation) > 35


def test_writer_keeps_what_it_is_given(tmp_path, rng):
    camera = Camera(
        np.array([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]]),
        (64, 48),
        'plumb_bob',
        (-0.1, 0, 0, 0, 0),
    )
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    T[:3, 3] = (0.1, -0.2, 0.7)
    picture = np.full((48, 64, 3), (200, 30, 30), np.uint8)
    frames = [BagFrame(picture, T, 0.6), BagFrame(picture, T, 0.0)]
    write_bag(tmp_path / 'bag', frames, camera, np.array(((-1.0, -1, -1), (1, 1, 3))), rate_hz=10)
    found = messages(tmp_path / 'bag')
    np.testing.assert_allclose(visible(found), (0.6, 0.0))
    ((_, pose),) = found['/ground_truth/pose']
    np.testing.assert_allclose(matrix(pose.pose), T, atol=1e-9)
    box = found['/ground_truth/detections'][0][1].detections[0].bbox
    middle = T.copy()
    middle[:3, 3] += T[:3, :3] @ (0, 0, 1)
    np.testing.assert_allclose(matrix(box.center), middle, atol=1e-9)
    assert (box.size.x, box.size.y, box.size.z) == (2, 2, 4)
    back = cv2.imdecode(found['/camera/image_raw/compressed'][0][1].data, cv2.IMREAD_COLOR)[
        ..., ::-1
    ]
    np.testing.assert_allclose(back.mean(axis=(0, 1)), (200, 30, 30), atol=4)
