"""What is published of a picture: everything that somebody hears, and nothing else is made."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from known_bundle import make_bundle
from rclpy.qos import DurabilityPolicy
from std_msgs.msg import Header

from pose_node.core.amis import Hypothesis
from pose_node.core.geometry import make_pose
from pose_node.core.pnp import PnpStatus
from pose_node.ros.markers import Markers
from pose_node.ros.outputs import Outputs
from pose_node.ros.parameters import Parameters
from pose_node.runtime.preprocess import Region
from pose_node.runtime.results import Distribution, ObjectPose, nothing


class Publisher:
    def __init__(self, topic: str, listeners: int, durability: DurabilityPolicy):
        self.topic, self.listeners, self.sent = topic, listeners, []
        self.qos_profile = SimpleNamespace(durability=durability)

    def get_subscription_count(self) -> int:
        return self.listeners

    def publish(self, message) -> None:
        self.sent.append(message)


def published(
    folder, listeners: int, durability=DurabilityPolicy.VOLATILE, distribution=None
) -> dict[str, int]:
    made = []

    def create(kind, topic, qos, **_):
        made.append(Publisher(topic, listeners, durability))
        return made[-1]

    node = SimpleNamespace(create_lifecycle_publisher=create)
    outputs = Outputs(node, make_bundle(folder / 'dots'), keep_all=False)
    outputs.publish(
        Header(frame_id='camera'), [replace(pose(0.1), distribution=distribution)], Parameters()
    )
    return {each.topic: len(each.sent) for each in made}


def pose(x: float, instance: int = 0) -> ObjectPose:
    values = vars(nothing(Region('dots', (0.0, 0.0), (2.0, 2.0)), 4))
    T = make_pose(np.eye(3), np.array([x, 0.0, 1.0]))
    values |= {'T_cam_obj': T, 'covariance': np.eye(6), 'status': PnpStatus.OK}
    return ObjectPose(**{**values, 'instance': instance})


def test_what_nobody_hears_is_not_sent(tmp_path):
    """But for the answer itself and the transforms, which every picture gets."""
    alone = {'~/dots/pose', '~/dots/pose_with_covariance', '~/markers'}
    heard, unheard = published(tmp_path, 1), published(tmp_path, 0)
    for topic in ('~/detections', '/tf'):
        assert heard[topic] == unheard[topic] == 1
    assert {topic for topic in heard if heard[topic] != unheard[topic]} == alone
    # Kept for those who come later.
    assert published(tmp_path, 0, DurabilityPolicy.TRANSIENT_LOCAL) == heard


def test_a_cloud_is_sent_where_there_is_one(tmp_path):
    T = pose(0.1).T_cam_obj
    cloud = Distribution(T[None], (Hypothesis(T, np.eye(6), 1.0),))
    assert published(tmp_path, 1)['~/dots/pose_cloud'] == 0
    assert published(tmp_path, 1, distribution=cloud)['~/dots/pose_cloud'] == 1
    assert published(tmp_path, 0, distribution=cloud)['~/dots/pose_cloud'] == 0


def test_markers_made_once_are_right_every_time(tmp_path):
    """The tenth picture of one maker against the first of another."""
    bundle = make_bundle(tmp_path / 'dots')
    markers = Markers(bundle)
    for k in range(10):
        header = Header(frame_id='camera')
        header.stamp.sec = k
        poses = [pose(0.1 * k), pose(-0.2 * k, 1)]
        again = markers.update(header, poses, 0.5 * k)
        fresh = Markers(bundle).update(header, poses, 0.5 * k)
        assert again == fresh and len(again.markers) == 4
