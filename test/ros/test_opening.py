"""Something slow in a thread of its own, and a node that is told to stop while it lasts."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from pose_node.ros.opening import Opening, opening_goes_on

SLOW_NODE = """
import sys, time
from pose_node.ros import main, node
def open_for_ever(*_):
    print('opening', flush=True)
    time.sleep(100.0)
node.PoseEstimator = open_for_ever
sys.exit(main.main([]))
"""


def test_what_it_returns_and_what_it_raises():
    opening = Opening(lambda: 7)
    assert opening.done(5.0)
    assert opening.result() == 7

    def fail():
        raise ValueError('no such file')

    opening = Opening(fail)
    assert opening.done(5.0)
    with pytest.raises(ValueError, match='no such file'):
        opening.result()


def test_who_waits_is_not_held_up():
    gate = threading.Event()
    opening = Opening(gate.wait)
    begin = time.monotonic()
    assert not opening.done(0.05)
    assert opening_goes_on()
    assert time.monotonic() - begin < 2.0
    assert opening.age_s >= 0.05
    gate.set()
    assert opening.done(5.0)
    assert opening.result() is True
    assert not opening_goes_on()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_that_is_being_configured(number):
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    process = subprocess.Popen(
        [sys.executable, '-c', SLOW_NODE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == 'opening\n'
        process.send_signal(number)
        begin = time.monotonic()
        rest, _ = process.communicate(timeout=20.0)
    finally:
        process.kill()
    assert process.returncode == 0, rest
    assert time.monotonic() - begin < 2.0 + 2.0  # promised: 2 s; the rest is for a busy machine
    assert 'told to stop' in rest
    assert 'Traceback' not in rest
