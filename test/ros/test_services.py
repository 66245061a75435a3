"""What can be asked of the running node: to pause, and to look once."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from ros_robot import DETECTIONS, connected, level
from std_srvs.srv import SetBool, Trigger


@pytest.fixture(scope='module')
def robot(peer, start_node, known_bundle_folder):
    return connected(start_node('-p', f'bundle:={known_bundle_folder}'), peer)


def test_paused_it_is_silent_until_a_picture_is_asked_for(robot):
    """Trigger lets one picture through and tells what was found; SetBool lets all through."""
    assert robot.call(SetBool, '/pose_node/pause', SetBool.Request(data=True)).success
    status = robot.status('estimator', lambda status: status.message == 'paused')
    assert level(status) == 0
    header = robot.send()
    assert robot.peer.wait_for(DETECTIONS, header, 0.5) is None
    asked = robot.client(Trigger, '/pose_node/localize_once').call_async(Trigger.Request())
    headers = []

    def done():
        headers.append(robot.send())
        robot.peer.spin_for(0.1)
        return asked.done()

    assert robot.peer.spin_until(done, 10.0)
    response = asked.result()
    assert response.success and response.message.startswith('dots at '), response
    robot.peer.spin_for(0.3)
    answered = [each.header for each in robot.peer.heard[DETECTIONS] if each.header in headers]
    assert len(answered) == 1
    assert robot.call(SetBool, '/pose_node/pause', SetBool.Request(data=False)).success
    assert robot.answer().detections
    assert 'dropped: paused' in {
        entry.key for entry in robot.status('pictures', lambda status: True).values
    }


def test_a_picture_that_does_not_come_is_said_to_be_missing(robot):
    robot.node_parameter('picture_timeout', 0.5)
    response = robot.call(Trigger, '/pose_node/localize_once', Trigger.Request())
    assert not response.success
    assert 'No picture was answered within 0.5 s' in response.message
