"""The SROS 2 policy: it allows what the node does, and nothing that it does not."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

import rclpy
from rclpy.parameter import Parameter

from pose_node.ros.node import PoseNode

POLICY = Path(__file__).resolve().parents[2] / 'config' / 'sros2_policy.xml'
# rclpy's: transforms by tf2_ros, the clock by use_sim_time, and parameter_events by tf2_ros too.
NOT_SUBSCRIBED_HERE = {'/tf', '/tf_static', '/clock', '/parameter_events', '/image'}


def allowed(kind: str, direction: str) -> set[str]:
    """Full names, with stars, as the policy has them for a node /pose_node."""
    names = set()
    for group in ET.parse(POLICY).iterfind(f'.//{kind}s'):
        if group.get(direction) == 'ALLOW':
            names |= {entry.text for entry in group.iterfind(kind)}
    return {
        name.replace('~', '/pose_node') if name.startswith('~') else f'/{name}' for name in names
    }


@pytest.fixture
def node(known_bundle_folder):
    """An active node that does all that a node can."""
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {
        'bundle': str(known_bundle_folder), 'image_transport': 'compressed',
        'use_detections': True,
    }  # fmt: skip
    node = PoseNode(
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.close()
    node.destroy_node()
    rclpy.shutdown(context=context)


def covers(patterns: set[str], names: set[str]) -> tuple[set[str], set[str]]:
    """Names that no pattern allows, and patterns that no name needs."""
    forbidden = {name for name in names if not any(fnmatchcase(name, p) for p in patterns)}
    idle = {p for p in patterns if not any(fnmatchcase(name, p) for name in names)}
    return forbidden, idle


def test_the_policy_is_what_the_node_does(node):
    name, space = node.get_name(), node.get_namespace()
    published = {topic for topic, _ in node.get_publisher_names_and_types_by_node(name, space)}
    assert covers(allowed('topic', 'publish'), published) == (set(), set())

    heard = {topic for topic, _ in node.get_subscriber_names_and_types_by_node(name, space)}
    forbidden, idle = covers(allowed('topic', 'subscribe'), heard)
    assert not forbidden
    assert idle <= NOT_SUBSCRIBED_HERE

    served = {service for service, _ in node.get_service_names_and_types_by_node(name, space)}
    assert covers(allowed('service', 'reply'), served) == (set(), set())
    assert not allowed('service', 'request')
