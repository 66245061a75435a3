"""Faults of whoever is round the node: senders of files and boxes, operators, clocks, crashes."""

from __future__ import annotations

import array
import math
import random
import signal
import time
import zlib

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_peer import camera_info
from ros_robot import PICTURE, Robot, assert_near_truth
from sensor_msgs.msg import CameraInfo, CompressedImage
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3DArray,
    ObjectHypothesisWithPose,
)

from pose_node.ros.messages import matrix_of

_, JPEG = cv2.imencode('.jpg', PICTURE[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
_, PNG16 = cv2.imencode('.png', PICTURE[..., ::-1].astype(np.uint16) * 257)
CENTER = (178.0, 108.0)


class Compressed(Robot):
    """A node that takes compressed pictures and boxes."""

    def send_file(self, data: bytes, *boxes, form='jpeg', header=None, boxes_header=None):
        header = header or self.peer.header()
        self.peer.publisher(CameraInfo, '/camera_info').publish(camera_info(header))
        self.peer.publisher(Detection2DArray, '/detections_2d').publish(
            Detection2DArray(header=boxes_header or header, detections=list(boxes or [box()]))
        )
        self.peer.publisher(CompressedImage, '/image/compressed').publish(
            CompressedImage(header=header, format=form, data=array.array('B', data))
        )
        return header

    def answer_to(self, data: bytes = JPEG.tobytes(), *boxes, **sent):
        for _ in range(10):
            header = self.send_file(data, *boxes, **sent)
            if message := self.peer.wait_for('/pose_node/detections', header, 2.0):
                return message
        pytest.fail(f'no answer\n{self.node.log}')

    def is_well(self) -> None:
        """It finds the object within some seconds, whatever came before."""
        assert self.node.process.poll() is None, self.node.log
        deadline = time.monotonic() + 10.0
        while not (found := self.answer_to().detections):
            assert time.monotonic() < deadline, self.node.log
        assert_near_truth(matrix_of(found[0].results[0].pose.pose))
        assert 'Traceback' not in self.node.log


def box(x=CENTER[0], y=CENTER[1], width=130.0, height=130.0, name=None, score=0.9, theta=0.0):
    made = Detection2D()
    made.bbox.center.position.x, made.bbox.center.position.y = x, y
    made.bbox.size_x, made.bbox.size_y, made.bbox.center.theta = width, height, theta
    if name is not None:
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = name, score
        made.results.append(result)
    return made


ARGUMENTS = ('-p', 'image_transport:=compressed', '-p', 'use_detections:=true')


@pytest.fixture(scope='module')
def robot(peer, start_node, known_bundle_folder):
    node = start_node('-p', f'bundle:={known_bundle_folder}', *ARGUMENTS)
    peer.listen(Detection3DArray, '/pose_node/detections')
    node.wait_for('Active')
    robot = Compressed(node, peer)
    robot.is_well()
    return robot


def huge_jpeg() -> bytes:
    """A file of a few bytes that claims 65,500 x 65,500 pixels."""
    data = bytearray(JPEG.tobytes())
    at = data.find(b'\xff\xc0') + 5
    data[at : at + 4] = (65500).to_bytes(2, 'big') * 2
    return bytes(data)


def huge_png() -> bytes:
    """Another such claim, below what OpenCV refuses by itself."""
    data = bytearray(PNG16.tobytes())
    data[16:24] = (30000).to_bytes(4, 'big') * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
    return bytes(data)


FILES = {
    'empty': b'',
    'not a picture': b'hello' * 100,
    'cut off': JPEG.tobytes()[: len(JPEG) // 2],
    'only an end': b'\xff\xd8\xff\xd9',
    'garbage inside': JPEG.tobytes()[:300] + bytes(500) + JPEG.tobytes()[800:],
    '65,500 x 65,500 pixels': huge_jpeg(),
    'a PNG of 30,000 x 30,000 pixels': huge_png(),
    'all ones': b'\xff' * 5000,
}


@pytest.mark.parametrize('name', FILES)
def test_files_that_are_no_pictures(robot, name):
    """Answered with nothing, or, where OpenCV mends it, with finite numbers."""
    for each in robot.answer_to(FILES[name]).detections:
        assert np.isfinite(each.results[0].pose.covariance).all()
    robot.is_well()


def test_pictures_of_16_bits_are_used(robot):
    (detection,) = robot.answer_to(PNG16.tobytes(), form='rgb16; png compressed bgr16').detections
    assert_near_truth(matrix_of(detection.results[0].pose.pose))


def test_a_depth_picture_is_refused(robot):
    assert not robot.answer_to(PNG16.tobytes(), form='16UC1; compressedDepth png').detections
    assert 'depth image' in robot.node.log
    robot.is_well()


INF, NAN = math.inf, math.nan
BOXES = {
    'NaN': [box(NAN)],
    'infinite': [box(width=INF)],
    'without size': [box(width=0.0, height=0.0)],
    'negative': [box(width=-50.0)],
    'as large as the world': [box(width=1e30, height=1e30)],
    'far outside': [box(1e7, -1e7)],
    'a tenth of a pixel': [box(width=0.1, height=0.1)],
    'of an unknown class': [box(name='elephant')],
    'with a NaN score': [box(name='dots', score=NAN)],
    'turned by NaN': [box(theta=NAN)],
}


@pytest.mark.parametrize('name', BOXES)
def test_boxes_that_are_no_good_find_nothing(robot, name):
    assert robot.answer_to(JPEG.tobytes(), *BOXES[name]).detections == []
    robot.is_well()


def test_bad_boxes_do_no_harm_to_a_good_one(robot):
    every = [each for boxes in BOXES.values() for each in boxes]
    (detection,) = robot.answer_to(JPEG.tobytes(), *every, box()).detections
    assert_near_truth(matrix_of(detection.results[0].pose.pose))


def test_a_thousand_boxes_are_cut_to_max_objects(robot):
    rng = np.random.default_rng(1)
    boxes = [box(*rng.uniform(0, 240, 2), name='dots', score=0.5) for _ in range(1000)]
    answer = robot.answer_to(JPEG.tobytes(), *boxes)
    assert len(answer.detections) <= 8
    robot.is_well()


def test_boxes_of_another_picture_are_not_taken(robot):
    header = robot.send_file(JPEG.tobytes(), boxes_header=robot.peer.header())
    assert robot.peer.wait_for('/pose_node/detections', header, 0.5) is None
    robot.is_well()


STAMPS = [(0, 0), (2**31 - 1, 999_999_999), (-5, 0), (5, 2_000_000_000), (5, 0), (5, 0), (4, 0)]


def test_stamps_at_their_worst(robot):
    """Zero, the last one, negative, more than a second of nanoseconds, twice, and back."""
    for sec, nanosec in STAMPS:
        header = robot.peer.header()
        header.stamp.sec, header.stamp.nanosec = sec, nanosec
        robot.send_file(JPEG.tobytes(), header=header)
        robot.peer.spin_for(0.15)
    robot.is_well()


def test_a_storm_of_parameters(robot):
    """Some good, some not; each is answered, the others with a sentence."""
    rng = random.Random(3)
    values = [('min_score', 0.3), ('min_score', 7.0), ('max_objects', 8), ('max_objects', -1)]
    values += [('threads', 4), ('min_score', 'high'), ('publish_tf', True), ('bundle', '/nowhere')]
    values += [('child_frame', 'x'), ('log_period', 0.0), ('acceleration', NAN), ('nothing', 1)]
    client = robot.client(SetParameters, '/pose_node/set_parameters')
    asked = []
    for k in range(200):
        name, value = rng.choice(values)
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        asked.append((name, value, client.call_async(request)))
        robot.send_file(JPEG.tobytes())
        if k % 5 == 4:  # a service keeps ten requests, and loses more than that
            assert robot.peer.spin_until(lambda: all(each.done() for *_, each in asked), 30.0)
    good = {('min_score', 0.3), ('max_objects', 8), ('publish_tf', True)}
    for name, value, each in asked:
        (result,) = each.result().results
        assert result.successful == ((name, value) in good), (name, value, result)
        assert result.successful or result.reason
    robot.is_well()


def test_a_storm_of_transitions(robot):
    """Allowed and not, with pictures coming in: at the end it is active again."""
    rng = random.Random(4)
    numbers = [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP]
    numbers += [Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE, 77]
    client = robot.client(ChangeState, '/pose_node/change_state')

    def change(number: int) -> bool:
        asked = client.call_async(ChangeState.Request(transition=Transition(id=number)))
        assert robot.peer.spin_until(asked.done, 30.0), robot.node.log
        return asked.result().success

    for _ in range(40):
        change(rng.choice(numbers))
        robot.send_file(JPEG.tobytes())
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        change(number)
    robot.is_well()


def test_a_camera_that_dies_and_comes_back(robot):
    peer = robot.peer
    for topic in ('/image/compressed', '/camera_info', '/detections_2d'):
        peer.node.destroy_publisher(peer._publishers.pop(topic))
    peer.spin_for(0.3)
    robot.is_well()


def test_killed_and_started_again(peer, start_node, known_bundle_folder, robot):
    """The last test of this file: the new process takes the dead one's place."""
    robot.node.process.send_signal(signal.SIGKILL)
    robot.node.process.wait()
    node = start_node('-p', f'bundle:={known_bundle_folder}', *ARGUMENTS)
    node.wait_for('Active')
    Compressed(node, peer).is_well()
    assert node.stop()[0] == 0
