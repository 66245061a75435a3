"""Faults injected into a running node: it answers as promised, and the next picture is fine."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from ros_faults import FAULTS, NOTHING, POSE, REFUSED
from ros_robot import assert_near_truth, connected, level

from pose_node.ros.messages import matrix_of


@pytest.fixture(scope='module')
def robot(peer, start_node, known_bundle_folder):
    return connected(
        start_node('-p', f'bundle:={known_bundle_folder}', '-p', 'track:=false'), peer
    )


def numbers(detection) -> np.ndarray:
    pose = detection.results[0].pose
    return np.concatenate((matrix_of(pose.pose).ravel(), pose.covariance))


@pytest.mark.parametrize('name', FAULTS)
def test_what_is_promised_of_a_fault_holds(robot, name):
    fault = FAULTS[name]
    info = dict(fault.info)
    if 'header' in info:  # its CameraInfo is of the usual frame
        info['header'] = robot.peer.header()
    said = len(robot.node.log)
    answer = robot.answer(picture=fault.picture, info=info or None, **fault.changes)
    if fault.promise in (REFUSED, NOTHING):
        assert answer.detections == []
    if fault.promise == POSE:
        (detection,) = answer.detections
        assert_near_truth(matrix_of(detection.results[0].pose.pose))
    for detection in answer.detections:
        assert np.isfinite(numbers(detection)).all()
    if fault.promise == REFUSED:
        status = robot.status(fault.task, lambda status: level(status) > 0)
        assert fault.words in status.message
        assert ';' in status.message, 'a remedy'
    assert 'Traceback' not in robot.node.log[said:]
    assert robot.node.process.poll() is None
    deadline = time.monotonic() + 10.0
    while not (healed := robot.answer(info={'header': robot.peer.header()}).detections):
        assert time.monotonic() < deadline, robot.node.log[said:]
    assert_near_truth(matrix_of(healed[0].results[0].pose.pose))


def test_the_page_lists_every_fault():
    page = (Path(__file__).parents[2] / 'doc' / 'faults.md').read_text()
    for name, fault in FAULTS.items():
        assert f'| {name} | {fault.promise} |' in page
    assert len(FAULTS) >= 40
