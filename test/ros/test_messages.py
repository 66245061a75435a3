"""Poses to messages and messages to arrays."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pose_node.core.amis import Hypothesis
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import make_pose
from pose_node.runtime.results import Distribution

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from pose_node.ros import messages

rotation_vectors = st.tuples(*[st.floats(-4.0, 4.0)] * 3).map(np.array)


def found(T: np.ndarray, covariance: np.ndarray, name: str = 'mug', instance: int = 0):
    """An ObjectPose as far as messages look at it."""
    return SimpleNamespace(
        object=name,
        instance=instance,
        score=0.75,
        T_cam_obj=T,
        covariance=covariance,
        distribution=None,
    )


def bundle(*names: str):
    """A bundle as far as messages look at it."""
    bounds = np.array([[-0.1, -0.2, 0.0], [0.3, 0.2, 0.6]])
    objects = {name: SimpleNamespace(name=name, bounds_obj_m=bounds) for name in names}
    return SimpleNamespace(
        objects=tuple(objects.values()),
        object=objects.__getitem__,
        pose_network=SimpleNamespace(objects=names),
    )


@given(rotation_vectors)
def test_quaternions_are_those_of_scipy(rotvec):
    rotation = Rotation.from_rotvec(rotvec)
    message = messages.quaternion_message(rotation.as_matrix())
    ours = np.array([message.x, message.y, message.z, message.w])
    theirs = rotation.as_quat()  # xyzw, as ROS
    assert abs(abs(ours @ theirs) - 1.0) < 1e-9


@pytest.mark.parametrize(
    ('axis', 'angle', 'xyzw'),
    [
        ((1, 0, 0), 0.0, (0, 0, 0, 1)),
        ((1, 0, 0), math.pi, (1, 0, 0, 0)),
        ((0, 1, 0), math.pi / 2, (0, math.sqrt(0.5), 0, math.sqrt(0.5))),
        ((0, 0, 1), 1e-9, (0, 0, 5e-10, 1)),
    ],
)
def test_quaternions_by_hand(axis, angle, xyzw):
    message = messages.quaternion_message(
        Rotation.from_rotvec(angle * np.array(axis, float)).as_matrix()
    )
    np.testing.assert_allclose([message.x, message.y, message.z, message.w], xyzw, atol=1e-8)


@given(rotation_vectors)
def test_quaternions_are_those_of_tf_transformations(rotvec):
    theirs = pytest.importorskip(
        'tf_transformations', reason='tf_transformations is not installed here'
    )
    T = make_pose(Rotation.from_rotvec(rotvec).as_matrix(), np.zeros(3))
    message = messages.quaternion_message(T[:3, :3])
    expected = theirs.quaternion_from_matrix(T)
    assert abs(np.dot([message.x, message.y, message.z, message.w], expected)) > 1.0 - 1e-9


@given(rotation_vectors, st.tuples(*[st.floats(-5.0, 5.0)] * 3))
def test_pose_message_and_back(rotvec, place):
    T = make_pose(Rotation.from_rotvec(rotvec).as_matrix(), np.array(place))
    np.testing.assert_allclose(messages.matrix_of(messages.pose_message(T)), T, atol=1e-9)


def test_covariance_keeps_its_order():
    covariance = np.arange(36.0).reshape(6, 6)
    message = messages.pose_with_covariance(found(np.eye(4), covariance))
    # geometry_msgs: row by row, x, y, z, rotation about X, Y, Z
    assert list(message.covariance) == [float(i) for i in range(36)]


def test_detection_has_the_header_class_score_and_box():
    header = Header(frame_id='camera')
    header.stamp.sec = 12
    R = Rotation.from_euler('z', 90, degrees=True).as_matrix()
    T = make_pose(R, np.array([1.0, 2.0, 3.0]))
    message = messages.detections(header, [found(T, np.eye(6))], bundle('mug'))
    assert message.header == header
    (detection,) = message.detections
    assert detection.header == header
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('mug', 0.75)
    np.testing.assert_allclose(messages.matrix_of(result.pose.pose), T, atol=1e-12)
    # The box's centre (0.1, 0, 0.3) in the object is (0, 0.1, 0.3) after the quarter turn.
    center = messages.matrix_of(detection.bbox.center)
    np.testing.assert_allclose(center, make_pose(R, np.array([1.0, 2.1, 3.3])), atol=1e-12)
    size = detection.bbox.size
    np.testing.assert_allclose([size.x, size.y, size.z], [0.4, 0.4, 0.6])
    assert messages.detections(header, (), bundle('mug')).detections == []


def test_two_answers_are_two_results():
    """The pose itself stands for the first; scores are shared; the box is at the pose."""
    places = [make_pose(np.eye(3), np.array([x, 0.0, 1.0])) for x in (0.1, 0.2)]
    hypotheses = [Hypothesis(T, k * np.eye(6), s) for T, k, s in zip(places, (2, 3), (0.6, 0.4))]
    pose = found(make_pose(np.eye(3), np.array([0.11, 0.0, 1.0])), np.eye(6))
    pose.distribution = Distribution(np.stack(places), tuple(hypotheses))
    (detection,) = messages.detections(Header(), [pose], bundle('mug')).detections
    first, second = detection.results
    assert [r.hypothesis.class_id for r in (first, second)] == ['mug', 'mug']
    assert (first.hypothesis.score, second.hypothesis.score) == pytest.approx((0.45, 0.3))
    assert (first.pose.pose.position.x, second.pose.pose.position.x) == (0.11, 0.2)
    assert (first.pose.covariance[0], second.pose.covariance[0]) == (1.0, 3.0)
    assert detection.bbox.center.position.x == pytest.approx(0.21)
    cloud = messages.pose_cloud(Header(frame_id='room'), pose.distribution)
    assert cloud.header.frame_id == 'room'
    np.testing.assert_allclose([messages.matrix_of(each) for each in cloud.poses], places)


def info(**fields) -> CameraInfo:
    values = {
        'width': 640,
        'height': 480,
        'distortion_model': 'plumb_bob',
        'd': [0.1, -0.2, 0.001, 0.002, 0.05],
        'k': [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0],
        'p': [400.0, 0.0, 300.0, 0.0, 0.0, 400.0, 200.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    return CameraInfo(**{**values, **fields})


def test_camera_of_a_raw_and_of_a_rectified_picture():
    raw = messages.camera_of(info(), (640, 480), rectified=False)
    assert raw.K[0].tolist() == [500.0, 0.0, 320.0]
    assert raw.D == (0.1, -0.2, 0.001, 0.002, 0.05)
    rectified = messages.camera_of(info(), (640, 480), rectified=True)
    assert rectified.K[1].tolist() == [0.0, 400.0, 200.0]
    assert not any(rectified.D)


def test_camera_of_a_binned_window():
    message = info(binning_x=2, binning_y=2)
    message.roi.x_offset, message.roi.y_offset = 100, 60
    message.roi.width, message.roi.height = 400, 300
    camera = messages.camera_of(message, (200, 150), rectified=False)
    # a pixel's centre (u, v) becomes ((u - 100 + 0.5) / 2 - 0.5, ...)
    assert camera.K[0, 0] == pytest.approx(250.0)
    assert camera.K[0, 2] == pytest.approx((320 - 100 + 0.5) / 2 - 0.5)
    assert camera.size == (200, 150)


@pytest.mark.parametrize(
    'fields',
    [
        {'k': [0.0] * 9},
        {'k': [math.nan] + [0.0] * 8},
        {'distortion_model': 'pincushion'},
        {'d': [math.inf] * 5},
        {'width': 600},
        {'width': 0, 'height': 0},
    ],
)
def test_camera_info_that_is_no_good_is_refused(fields):
    with pytest.raises(PoseNodeError):
        messages.camera_of(info(**fields), (640, 480), rectified=False)


def box(name: str | None, x=50.0, y=40.0, width=30.0, height=20.0, theta=0.0, score=0.5):
    detection = Detection2D()
    if name is not None:
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = name, score
        detection.results = [result]
    detection.bbox.center.position.x, detection.bbox.center.position.y = x, y
    detection.bbox.center.theta = theta
    detection.bbox.size_x, detection.bbox.size_y = width, height
    return detection


def test_regions_of_boxes():
    message = Detection2DArray(
        detections=[
            box('mug', score=0.25),
            box(None),  # no class: the bundle's object
            box(''),
            box('person'),  # a detector may know more things than the bundle
            box('mug', x=math.nan),
            box('mug', height=0.0),
            box('mug', theta=math.inf),
            box('mug', theta=math.pi / 2),
        ]
    )
    regions, unusable = messages.regions_of(message, bundle('mug'))
    assert unusable == 3
    assert [region.object for region in regions] == ['mug'] * 4
    assert [region.score for region in regions] == [0.25, 1.0, 0.5, 0.5]
    assert regions[0].center_px == (50.0, 40.0)
    assert regions[0].size_px == (30.0, 20.0)
    np.testing.assert_allclose(regions[3].size_px, (20.0, 30.0))


def test_the_surest_class_of_a_box_counts():
    both = box('pot', score=0.2)
    both.results = [*both.results, *box('mug', score=0.9).results]
    regions, _ = messages.regions_of(Detection2DArray(detections=[both]), bundle('pot', 'mug'))
    assert [(region.object, region.score) for region in regions] == [('mug', 0.9)]


def test_stamp_in_nanoseconds():
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 1_700_000_000, 123_456_789
    assert messages.stamp_ns(header.stamp) == 1_700_000_000_123_456_789
