"""CameraInfo and pictures: matched by frame and size, by stamp where there is one."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from pose_node.core.errors import PoseNodeError
from pose_node.ros.cameras import Cameras


def info(frame_id: str, focal: float, size=(640, 480)):
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=frame_id),
        width=size[0],
        height=size[1],
        distortion_model='plumb_bob',
        d=[],
        k=[focal] * 9,
        r=[],
        p=[],
        binning_x=0,
        binning_y=0,
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    )


@pytest.fixture
def made():
    return []


@pytest.fixture
def cameras(made):
    def to_camera(message, size):
        made.append(message)
        return (message.k[0], size)

    return Cameras(to_camera, '/camera/camera_info', memory=10)


def test_the_newest_counts(cameras):
    cameras.put(0, info('a', 1.0))
    cameras.put(0, info('a', 2.0))
    assert cameras.find('a', 99, (640, 480)) == (2.0, (640, 480))


def test_one_of_the_same_stamp_is_preferred(cameras):
    for stamp in range(5):
        cameras.put(stamp, info('a', float(stamp)))
    assert cameras.find('a', 3, (640, 480)) == (3.0, (640, 480))


def test_size_decides_where_the_stamp_does_not(cameras):
    cameras.put(1, info('a', 1.0, (640, 480)))
    cameras.put(2, info('a', 2.0, (1280, 720)))
    assert cameras.find('a', 9, (640, 480))[0] == 1.0
    assert cameras.find('a', 9, (1280, 720))[0] == 2.0
    assert cameras.find('a', 9, (320, 180))[0] == 2.0  # whether it fits, the camera must say


def test_cameras_do_not_mix(cameras):
    cameras.put(1, info('left', 1.0))
    cameras.put(2, info('right', 2.0))
    assert cameras.find('left', 2, (640, 480))[0] == 1.0
    assert cameras.frames == ('left', 'right')
    with pytest.raises(PoseNodeError, match=r"frame 'middle'.*'left', 'right'"):
        cameras.find('middle', 2, (640, 480))


def test_without_any_the_topic_is_named(cameras):
    with pytest.raises(PoseNodeError, match='/camera/camera_info'):
        cameras.find('a', 1, (640, 480))


def test_an_unchanging_camera_is_made_once(cameras, made):
    for stamp in range(50):
        cameras.put(stamp, info('a', 5.0))
        cameras.find('a', stamp, (640, 480))
    assert len(made) == 1


def test_waiting_for_the_first(cameras):
    timer = threading.Timer(0.1, lambda: cameras.put(7, info('a', 1.0)))
    timer.start()
    begin = time.monotonic()
    cameras.wait('a', 8, patience_s=5.0)
    assert 0.05 < time.monotonic() - begin < 3.0
    assert cameras.find('a', 8, (640, 480))[0] == 1.0


def test_waiting_for_the_very_one_of_a_camera_that_sends_one_with_each(cameras):
    cameras.put(1, info('a', 1.0))
    cameras.wait('a', 1, patience_s=5.0)
    timer = threading.Timer(0.1, lambda: cameras.put(2, info('a', 2.0)))
    timer.start()
    cameras.wait('a', 2, patience_s=5.0)
    assert cameras.find('a', 2, (640, 480))[0] == 2.0


def test_patience_ends_and_is_not_tried_again(cameras):
    cameras.put(1, info('a', 1.0))
    cameras.wait('a', 1, patience_s=5.0)
    begin = time.monotonic()
    cameras.wait('a', 2, patience_s=0.2)
    assert 0.15 < time.monotonic() - begin < 2.0
    begin = time.monotonic()
    cameras.wait('a', 3, patience_s=5.0)  # there is one, if not the very one
    assert time.monotonic() - begin < 2.0


def test_a_sender_gone_wild_does_not_fill_the_memory(cameras):
    """Of ever new frames the last are kept; one that goes on sending stays among them."""
    for k in range(1000):
        cameras.put(k, info(f'frame {k}', 1.0))
        cameras.put(k, info('steady', 2.0))
    assert len(cameras.frames) == 64
    assert cameras.find('steady', 5, (640, 480)) == (2.0, (640, 480))
