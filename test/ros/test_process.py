"""The node as a process: pictures in over DDS, poses out, bad input, signals and exit codes."""

from __future__ import annotations

import array
import math
import signal
import time

import cv2
import numpy as np
import pytest
from ros_peer import CAMERA, FRAME, T_CAM_OBJ, camera_info

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_robot import DETECTIONS, EMPTY, PICTURE, assert_near_truth, connected, level
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2D, Detection2DArray, Detection3DArray
from visualization_msgs.msg import Marker

from pose_node.ros.messages import matrix_of
from pose_node.ros.pictures import decode_image, encode_image


@pytest.fixture(scope='module')
def nodes(start_node, known_bundle_folder, tmp_path_factory):
    """All processes of this file, started at once: most of the time is their imports."""
    bad = tmp_path_factory.mktemp('bad')
    (bad / 'bundle.json').write_text('{"schema": 99}')
    bundle = ('-p', f'bundle:={known_bundle_folder}')
    return {
        'usual': start_node(*bundle),
        'bad': start_node('-p', f'bundle:={bad}'),
        'every': start_node(
            *bundle, '-r', '__node:=every', '-r', 'image:=/cam/image',
            '-r', 'camera_info:=/cam/camera_info', '-r', 'detections_2d:=/cam/boxes',
            '-p', 'deterministic:=true', '-p', 'image_transport:=compressed',
        ),
    }  # fmt: skip


@pytest.fixture(scope='module')
def robot(peer, nodes):
    return connected(nodes['usual'], peer)


def test_a_pose_on_every_topic(robot):
    message = robot.answer()
    header = message.header
    assert header.frame_id == FRAME
    (detection,) = message.detections
    (result,) = detection.results
    assert result.hypothesis.class_id == 'dots'
    assert 0.5 < result.hypothesis.score <= 1.0
    T = matrix_of(result.pose.pose)
    assert_near_truth(T)
    covariance = np.array(result.pose.covariance).reshape(6, 6)
    np.testing.assert_allclose(covariance, covariance.T)
    assert (np.linalg.eigvalsh(covariance) > 0.0).all()
    # At half a metre the error is real, and not larger than a few sigma.
    assert np.sqrt(np.diag(covariance))[:3].max() < 0.02
    np.testing.assert_allclose(
        np.linalg.norm(matrix_of(detection.bbox.center)[:3, 3] - T[:3, 3]), 0.0, atol=0.05
    )

    assert detection.id == 'dots'
    twist = robot.heard('/pose_node/dots/twist', header).twist
    assert np.isfinite([twist.twist.linear.x, twist.twist.angular.z]).all()
    assert (np.diag(np.array(twist.covariance).reshape(6, 6)) > 0.0).all()
    assert robot.heard('/pose_node/dots/pose', header).pose == result.pose.pose
    assert robot.heard('/pose_node/dots/pose_with_covariance', header).pose == result.pose
    (transform,) = robot.heard_list('/tf', 'transforms', header)
    assert (transform.header.frame_id, transform.child_frame_id) == (FRAME, 'dots')
    np.testing.assert_allclose(matrix_of(transform.transform), T, atol=1e-12)


def test_markers_show_the_mesh_and_go_with_the_object(robot, known_bundle_folder):
    message = robot.answer()
    body, axes = robot.heard_list('/pose_node/markers', 'markers', message.header)
    assert (body.ns, body.id, body.type) == ('dots', 0, Marker.MESH_RESOURCE)
    assert body.mesh_resource == (known_bundle_folder / 'dots.ply').as_uri()
    assert body.pose == message.detections[0].results[0].pose.pose
    assert body.color.a > 0.0
    assert (axes.ns, axes.type, len(axes.points)) == ('dots/axes', Marker.LINE_LIST, 6)
    assert {marker.action for marker in (body, axes)} == {Marker.ADD}
    assert body.lifetime.sec == 1

    empty = robot.answer(picture=EMPTY)
    assert empty.detections == []
    gone = robot.heard_list('/pose_node/markers', 'markers', empty.header)
    assert {(marker.ns, marker.id, marker.action) for marker in gone} == {
        ('dots', 0, Marker.DELETE),
        ('dots/axes', 0, Marker.DELETE),
    }


def test_a_cloud_while_it_is_asked_for(robot):
    """Round the pose, none before and none after."""
    topic = '/pose_node/dots/pose_cloud'
    assert not robot.peer.heard[topic]
    robot.node_parameter('pose_distribution', 'amis')
    header = robot.answer().header
    cloud = robot.heard(topic, header)
    assert cloud.header == header
    spread = np.std([matrix_of(each)[:3, 3] for each in cloud.poses], axis=0)
    assert_near_truth(np.mean([matrix_of(each) for each in cloud.poses], axis=0))
    assert (spread > 1e-6).all() and (spread < 0.02).all()
    robot.node_parameter('pose_distribution', 'gaussian')
    told = len(robot.peer.heard[topic])
    robot.answer()
    robot.peer.spin_for(0.3)
    assert len(robot.peer.heard[topic]) == told


def test_frame_stats_name_every_stage(robot):
    stages = ('decode', 'locate', 'preprocess', 'network', 'heatmaps', 'pnp', 'publish')
    unexplained = []
    for _ in range(5):  # between two stages the machine may have something else to do
        header = robot.answer().header
        (status,) = robot.heard('/pose_node/frame_stats', header).status
        values = {each.key: float(each.value) for each in status.values}
        assert all(values[stage] >= 0.0 for stage in stages)
        unexplained.append(1.0 - sum(values[stage] for stage in stages) / values['total_ms'])
        assert values['latency_ms'] >= values['total_ms']
        assert values['age_ms'] > 1e9  # the picture's stamp lies years back
    assert -0.01 < min(unexplained) < 0.25


def test_diagnostics_are_well(robot):
    robot.answer()
    for task in ('pictures', 'camera_info', 'estimator'):
        status = robot.status(task, lambda status: level(status) == 0)
        values = {each.key: each.value for each in status.values}
        if task == 'pictures':
            assert values['topic'] == '/image'
            assert int(values['processed']) > 0
        elif task == 'camera_info':
            assert values['frames'] == FRAME
        else:
            assert (values['state'], values['bundle'], values['backend']) == (
                'active',
                'dots',
                'onnx',
            )
            assert 'network p50/p99 ms' in values
            assert 20 < int(values['memory MB']) < 2000


def test_the_overlay_is_drawn_when_somebody_listens(robot):
    robot.peer.listen(Image, '/pose_node/overlay')
    deadline = time.monotonic() + 20.0
    while not robot.peer.heard['/pose_node/overlay'] and time.monotonic() < deadline:
        robot.answer()
        robot.peer.spin_for(0.1)
    overlay = decode_image(robot.peer.heard['/pose_node/overlay'][-1])
    assert overlay.shape == PICTURE.shape
    changed = (overlay != PICTURE).any(axis=2).mean()
    assert 0.005 < changed < 0.5


K = list(CAMERA.K.ravel())
# what is sent, which task complains, and words of the sentence
BAD = {
    'uncalibrated': ({'info': {'k': [0.0] * 9}}, 'camera_info', 'not calibrated'),
    'nan': ({'info': {'k': [math.nan, *K[1:]]}}, 'camera_info', 'nan'),
    'size': ({'info': {'width': 333}}, 'camera_info', '333'),
    'model': ({'info': {'distortion_model': 'banana'}}, 'camera_info', "'banana'"),
    'frame': ({'frame_id': 'rear_camera', 'info': {'header': None}}, 'camera_info', 'rear_camera'),
    'encoding': ({'encoding': 'cmyk'}, 'pictures', "'cmyk'"),
    'cut off': ({'data': array.array('B', bytes(1000))}, 'pictures', 'cut off'),
    'nothing': ({'width': 0, 'height': 0, 'step': 0}, 'pictures', 'nothing in it'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_gets_an_empty_answer_one_log_line_and_a_bad_status(robot, case):
    sent, task, words = BAD[case]
    if case == 'frame':  # its CameraInfo is of the usual frame
        sent = {'frame_id': 'rear_camera', 'info': {'header': robot.peer.header()}}
    answers = [robot.answer(**sent) for _ in range(4)]
    assert not any(answer.detections for answer in answers)
    status = robot.status(task, lambda status: level(status) > 0)
    assert words in status.message
    said = [line.partition('[pose_node]: ')[2] for line in robot.node.log.splitlines()]
    lines = [line for line in said if words in line]
    assert len(lines) == 1, lines
    assert robot.node.process.poll() is None
    assert len(robot.answer().detections) == 1  # it lives on
    for answer in answers:
        assert robot.peer.with_stamp('/pose_node/dots/pose', answer.header) is None


def test_nothing_comes_from_an_inactive_node(robot):
    def change(transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert robot.peer.call(ChangeState, '/pose_node/change_state', request).success

    robot.answer()
    change(Transition.TRANSITION_DEACTIVATE)
    robot.peer.spin_for(0.3)
    robot.peer.heard[DETECTIONS].clear()
    robot.peer.heard['/tf'].clear()
    for _ in range(3):
        robot.send()
        robot.peer.spin_for(0.1)
    assert not robot.peer.heard[DETECTIONS]
    assert not robot.peer.heard['/tf']
    robot.status('estimator', lambda status: status.message == 'inactive')
    change(Transition.TRANSITION_ACTIVATE)
    assert len(robot.answer().detections) == 1


def test_sigint_ends_it_cleanly(robot):
    robot.answer()
    robot.send()
    code, seconds = robot.node.stop(signal.SIGINT)
    assert code == 0, robot.node.log
    assert seconds < 5.0  # under two on a machine that is not busy
    assert 'Traceback' not in robot.node.log


def test_a_bundle_that_cannot_be_used_ends_the_process(nodes):
    node = nodes['bad']
    assert node.process.wait(60.0) == 1
    assert 'is 99' in node.log
    assert 'Traceback' not in node.log


@pytest.fixture(scope='module')
def every(peer, nodes):
    """The other node, set to process every compressed picture."""
    peer.listen(Detection3DArray, '/every/detections')
    node = nodes['every']
    node.wait_for('Active: every picture in order of /cam/image/compressed')
    assert peer.spin_until(lambda: peer.node.count_publishers('/every/detections'))
    return node


def test_compressed_pictures_all_in_order_and_the_same_twice(peer, every):
    """A film played twice, as a bag that loops, has the same answers to the last bit."""
    pictures = peer.publisher(CompressedImage, '/cam/image/compressed')
    infos = peer.publisher(CameraInfo, '/cam/camera_info')
    assert peer.spin_until(
        lambda: pictures.get_subscription_count() and infos.get_subscription_count()
    )
    peer.spin_for(0.5)
    headers = [peer.header() for _ in range(30)]
    _, jpeg = cv2.imencode('.jpg', PICTURE[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    heard = peer.heard['/every/detections']
    runs = []
    for _ in range(2):
        heard.clear()
        for header in headers:  # the picture first, and all at once
            pictures.publish(
                CompressedImage(
                    header=header,
                    format='rgb8; jpeg compressed bgr8',
                    data=array.array('B', jpeg.tobytes()),
                )
            )
        for header in headers:
            infos.publish(camera_info(header))
        assert peer.spin_until(lambda: len(heard) >= 30, 30.0), every.log
        runs.append(list(heard))
    answers = runs[0]
    assert runs[1] == answers
    assert [each.header.stamp for each in answers] == [header.stamp for header in headers]
    for each in answers:
        (detection,) = each.detections
        assert detection.id == 'dots'
        assert_near_truth(matrix_of(detection.results[0].pose.pose))


def test_a_publisher_that_does_not_fit_is_named_with_the_remedy(peer, every):
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    topic = '/cam/image/compressed'
    publisher = peer.node.create_publisher(CompressedImage, topic, best_effort)
    every.wait_for(f'qos_overrides.{topic}.subscription.reliability', 10.0)
    peer.node.destroy_publisher(publisher)


def test_set_up_anew_for_boxes_from_outside_then_sigterm(peer, every):
    def change(*transitions: int) -> None:
        for transition in transitions:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert peer.call(ChangeState, '/every/change_state', request).success

    change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    values = {'deterministic': False, 'image_transport': 'raw', 'use_detections': True}
    request = SetParameters.Request(
        parameters=[
            Parameter(name, value=each).to_parameter_msg() for name, each in values.items()
        ]
    )
    answer = peer.call(SetParameters, '/every/set_parameters', request)
    assert all(result.successful for result in answer.results)
    change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    pictures = peer.publisher(Image, '/cam/image')
    infos = peer.publisher(CameraInfo, '/cam/camera_info')
    boxes = peer.publisher(Detection2DArray, '/cam/boxes')
    # Without them, the first picture would rightly be answered as one without boxes.
    publishers = (pictures, infos, boxes)
    assert peer.spin_until(lambda: all(each.get_subscription_count() for each in publishers))
    peer.spin_for(0.5)

    def poses(*found: Detection2D):
        for _ in range(10):
            header = peer.header()
            infos.publish(camera_info(header))
            peer.spin_for(0.1)
            pictures.publish(encode_image(PICTURE, Image(header=header)))
            boxes.publish(Detection2DArray(header=header, detections=list(found)))
            if message := peer.wait_for('/every/detections', header, 2.0):
                return message.detections
        pytest.fail(every.log)

    box = Detection2D()
    center = CAMERA.project(T_CAM_OBJ[None, :3, 3])[0]
    box.bbox.center.position.x, box.bbox.center.position.y = float(center[0]), float(center[1])
    box.bbox.size_x = box.bbox.size_y = 115.0
    (detection,) = poses(box)
    assert_near_truth(matrix_of(detection.results[0].pose.pose))
    assert poses() == []  # the detector saw nothing, so nothing is looked for
    assert every.stop(signal.SIGTERM)[0] == 0
