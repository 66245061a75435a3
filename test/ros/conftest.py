"""Fixtures for tests that touch DDS; they skip where ROS 2 is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ros_peer import Node, Peer

from pose_node.ros.environment import process_environment

# Read by Fast DDS when the first participant of this process starts.
os.environ.update(process_environment())


@pytest.fixture(scope='session')
def known_bundle_folder(tmp_path_factory) -> Path:
    """The bundle whose networks need no training."""
    from known_bundle import make_bundle

    return Path(make_bundle(tmp_path_factory.mktemp('bundle') / 'dots').folder)


@pytest.fixture(scope='module')
def peer():
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture(scope='module')
def start_node(tmp_path_factory):
    """Start pose_node processes; all are ended with the module."""
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    nodes = []

    def start(*arguments: str) -> Node:
        log = tmp_path_factory.mktemp('node') / 'log.txt'
        nodes.append(Node(log, *arguments))
        return nodes[-1]

    yield start
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
