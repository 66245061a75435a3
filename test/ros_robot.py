"""A running node and its peer, connected: a picture in, its answer out."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import (
    PoseArray,
    PoseStamped,
    PoseWithCovarianceStamped,
    TwistWithCovarianceStamped,
)
from known_bundle import draw_scene
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_peer import CAMERA, FRAME, T_CAM_OBJ, camera_info
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from pose_node.core.metrics import rotation_error_rad, translation_error_m
from pose_node.ros.pictures import encode_image

DETECTIONS = '/pose_node/detections'
PICTURE = draw_scene(CAMERA, T_CAM_OBJ)
EMPTY = draw_scene(CAMERA, None)


class Robot:
    """The node and its peer, connected."""

    def __init__(self, node, peer) -> None:
        self.node, self.peer = node, peer

    def send(self, picture: np.ndarray = PICTURE, *, info=None, **changes):
        """Publish CameraInfo and a picture, its fields changed; returns the header."""
        header = self.peer.header(changes.pop('frame_id', FRAME))
        calibration = camera_info(**{'header': header, **(info or {})})
        self.peer.publisher(CameraInfo, '/camera_info').publish(calibration)
        if info:  # the picture would be taken with the last one if it came first
            self.peer.spin_for(0.1)
        message = encode_image(picture, Image(header=header))
        for name, value in changes.items():
            setattr(message, name, value)
        self.peer.publisher(Image, '/image').publish(message)
        return header

    def answer(self, **sent):
        """The detections for a picture; one lost on the way is sent again."""
        for _ in range(10):
            header = self.send(**sent)
            if message := self.peer.wait_for(DETECTIONS, header, 2.0):
                return message
        pytest.fail(f'no answer to a picture\n{self.node.log}')

    def heard(self, topic, header):
        message = self.peer.wait_for(topic, header)
        assert message is not None, topic
        return message

    def heard_list(self, topic, name, header):
        """The list `name` of the message on `topic` whose first entry has this header."""

        def find():
            lists = [getattr(message, name) for message in self.peer.heard[topic]]
            return next((each for each in lists if each[0].header == header), None)

        assert self.peer.spin_until(find, 5.0), topic
        return find()

    def client(self, kind, name):
        client = self.peer.node.create_client(kind, name)
        assert client.wait_for_service(10.0), name
        return client

    def call(self, kind, name, request):
        """The answer of a service."""
        asked = self.client(kind, name).call_async(request)
        assert self.peer.spin_until(asked.done, 10.0), name
        return asked.result()

    def node_parameter(self, name, value):
        """Set a live parameter of the node."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        (result,) = self.call(SetParameters, '/pose_node/set_parameters', request).results
        assert result.successful, result.reason

    def status(self, task: str, wanted) -> DiagnosticStatus:
        """The next status of `task` for which wanted(status)."""
        begin = len(self.peer.heard['/diagnostics'])

        def find():
            for array_message in self.peer.heard['/diagnostics'][begin:]:
                for status in array_message.status:
                    if status.name == f'pose_node: {task}' and wanted(status):
                        return status
            return None

        self.peer.spin_until(find, 10.0)
        status = find()
        assert status is not None, self.peer.heard['/diagnostics'][-1:]
        return status


def connected(node, peer) -> Robot:
    """Listen to all that the node says, and wait until it finds the object."""
    for kind, topic in (
        (Detection3DArray, DETECTIONS),
        (PoseStamped, '/pose_node/dots/pose'),
        (PoseWithCovarianceStamped, '/pose_node/dots/pose_with_covariance'),
        (TwistWithCovarianceStamped, '/pose_node/dots/twist'),
        (PoseArray, '/pose_node/dots/pose_cloud'),
        (MarkerArray, '/pose_node/markers'),
        (DiagnosticArray, '/diagnostics'),
        (DiagnosticArray, '/pose_node/frame_stats'),
        (TFMessage, '/tf'),
    ):
        peer.listen(kind, topic)
    node.wait_for('Active')
    robot = Robot(node, peer)
    deadline = time.monotonic() + 30.0
    while not robot.answer().detections:  # pictures may come before the first CameraInfo
        assert time.monotonic() < deadline, node.log
    return robot


def level(status: DiagnosticStatus) -> int:
    return status.level[0]


def assert_near_truth(T: np.ndarray) -> None:
    assert translation_error_m(T, T_CAM_OBJ) < 0.01
    assert rotation_error_rad(T, T_CAM_OBJ) < math.radians(3.0)
