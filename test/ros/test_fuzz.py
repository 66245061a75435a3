"""A short run of the fuzzer; the long one is a command (BENCHMARKS.md)."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

import fuzz_intake


def test_two_thousand_messages_are_all_answered(capfd):
    fuzz_intake.random_run(2000, seed=7)
    assert 'no exception, no traceback' in capfd.readouterr().out
    assert sum(world.pictures for world in fuzz_intake.WORLDS.values()) > 50
