"""TF policy: names, one parent each, inverted, held, and told in another frame."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import exp_so3, inverse, make_pose
from pose_node.ros import messages
from pose_node.ros.frames import Frames, TargetFrame, moved
from pose_node.ros.names import check_template, frame_name
from pose_node.ros.parameters import Parameters
from pose_node.runtime.preprocess import Region
from pose_node.runtime.results import nothing

T = make_pose(exp_so3(np.array([0.3, -0.2, 0.1])), np.array([0.1, 0.2, 0.9]))


def found(name='mug', instance=0, T_cam_obj=T):
    pose = nothing(Region(name, (0.0, 0.0), (2.0, 2.0)), 4)
    return replace(
        pose, instance=instance, T_cam_obj=T_cam_obj, covariance=np.diag(np.arange(1.0, 7))
    )


def header(frame='camera', sec=10):
    return Header(frame_id=frame, stamp=Time(sec=sec))


def pairs(message):
    return [(each.header.frame_id, each.child_frame_id) for each in message.transforms]


@pytest.mark.parametrize(
    ('template', 'names'),
    [
        ('{class}', ['mug', 'mug_2']),
        ('obj/{class}', ['obj/mug', 'obj/mug_2']),
        ('{class}_{id}', ['mug_0', 'mug_2']),
    ],
)
def test_names_follow_the_template(template, names):
    check_template(template)
    assert [frame_name(found(instance=i), template) for i in (0, 2)] == names


@pytest.mark.parametrize('template', ['', 'thing', '/{class}', ' {class}', '{id}'])
def test_templates_without_a_class_are_refused(template):
    with pytest.raises(PoseNodeError, match='child_frame'):
        check_template(template)


def test_transforms_lead_from_the_camera_to_every_object():
    poses = [found(), found(instance=1), found('cup')]
    message, wrong = Frames().transforms(header(), poses, Parameters())
    assert pairs(message) == [('camera', 'mug'), ('camera', 'mug_1'), ('camera', 'cup')]
    assert not wrong
    np.testing.assert_allclose(messages.matrix_of(message.transforms[0].transform), T, atol=1e-12)
    for parameters, frame in ((Parameters(publish_tf=False), 'camera'), (Parameters(), '')):
        message, wrong = Frames().transforms(header(frame), poses, parameters)
        assert not message.transforms and not wrong


def test_a_frame_has_one_parent():
    """Until time begins anew, as a bag does."""
    frames = Frames()
    frames.transforms(header('left'), [found()], Parameters())
    message, wrong = frames.transforms(header('right'), [found(), found('cup')], Parameters())
    assert pairs(message) == [('right', 'cup')]
    assert 'mug hangs from left already' in wrong
    message, wrong = frames.transforms(header('right', sec=5), [found()], Parameters())
    assert pairs(message) == [('right', 'mug')] and not wrong


def test_inverted_the_camera_hangs_from_one_object():
    parameters = Parameters(invert_tf=True)
    message, wrong = Frames().transforms(header(), [found(), found('cup')], parameters)
    assert pairs(message) == [('mug', 'camera')]
    assert 'invert_tf for one object only' in wrong
    np.testing.assert_allclose(
        messages.matrix_of(message.transforms[0].transform), inverse(T), atol=1e-12
    )


@pytest.mark.parametrize('hold', [True, False])
def test_what_is_not_seen_is_held_or_dropped(hold):
    frames, parameters = Frames(), Parameters(hold_tf=hold)
    frames.transforms(header(), [found(), found('cup')], parameters)
    message, _ = frames.transforms(header(sec=11), [found('cup')], parameters)
    assert pairs(message) == [('camera', 'cup')] + [('camera', 'mug')] * hold
    assert {each.header.stamp.sec for each in message.transforms} == {11}


@pytest.fixture
def tf2(monkeypatch):
    """tf2_ros as far as we use it; `answer` is what is looked up."""
    fake = SimpleNamespace(asked=[], listening=0)

    class Buffer:
        def lookup_transform(self, target, source, stamp, timeout):
            fake.asked.append((target, source, stamp.nanoseconds, timeout.nanoseconds))
            if isinstance(fake.answer, Exception):
                raise fake.answer
            return SimpleNamespace(transform=fake.answer)

    class TransformListener:
        def __init__(self, buffer, node):
            fake.listening += 1

        def unregister(self):
            fake.listening -= 1

    module = SimpleNamespace(
        Buffer=Buffer, TransformListener=TransformListener, TransformException=LookupError
    )
    monkeypatch.setitem(sys.modules, 'tf2_ros', module)
    return fake


def test_poses_are_told_in_the_target_frame_at_the_stamp_of_the_picture(tf2):
    T_base_cam = make_pose(exp_so3(np.array([0.0, 1.0, 0.4])), np.array([1.0, -2.0, 0.5]))
    message, _ = Frames().transforms(header(), [found(T_cam_obj=T_base_cam)], Parameters())
    tf2.answer = message.transforms[0].transform
    target = TargetFrame(None, 'base')
    T_told_cam = target.T_told_cam(header())
    assert tf2.asked == [('base', 'camera', 10 * 10**9, 10**8)]
    np.testing.assert_allclose(T_told_cam, T_base_cam, atol=1e-12)
    told = target.header(header())
    assert (told.frame_id, told.stamp.sec) == ('base', 10)
    target.close()
    assert tf2.listening == 0


def test_poses_are_moved_with_their_covariances():
    T_base_cam = make_pose(exp_so3(np.array([0.0, 1.0, 0.4])), np.array([1.0, -2.0, 0.5]))
    (pose,) = moved([found()], T_base_cam)
    np.testing.assert_allclose(pose.T_cam_obj, T_base_cam @ T, atol=1e-12)
    # Each half of the covariance is turned; what lies between place and turn is not mixed.
    R = T_base_cam[:3, :3]
    np.testing.assert_allclose(pose.covariance[:3, :3], R @ np.diag((1.0, 2, 3)) @ R.T, atol=1e-12)
    np.testing.assert_allclose(pose.covariance[3:, 3:], R @ np.diag((4.0, 5, 6)) @ R.T, atol=1e-12)
    (back,) = moved([pose], inverse(T_base_cam))
    np.testing.assert_allclose(back.T_cam_obj, T, atol=1e-12)
    np.testing.assert_allclose(back.covariance, found().covariance, atol=1e-12)


def test_without_a_way_there_is_a_sentence(tf2):
    tf2.answer = LookupError('no base')
    with pytest.raises(PoseNodeError, match=r'no way from camera to target_frame base .*no base'):
        TargetFrame(None, 'base').T_told_cam(header())


def test_the_cameras_own_frame_needs_no_tf(tf2):
    for target in (TargetFrame(None, ''), TargetFrame(None, 'camera')):
        np.testing.assert_array_equal(target.T_told_cam(header()), np.eye(4))
        assert target.header(header()).frame_id == 'camera' and not tf2.asked


def test_without_tf2_ros_a_target_frame_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with pytest.raises(PoseNodeError, match='tf2_ros is not installed'):
        TargetFrame(None, 'base')
