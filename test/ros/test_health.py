"""Counts, complaints and what is said when no pictures come."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pose_node.ros import health as module
from pose_node.ros.health import Health, Level, supply_complaint


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock[0] is the time in seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    return now


def test_rates_are_over_the_last_seconds(clock):
    health = Health()
    for _ in range(100):
        clock[0] += 0.1
        health.arrived()
    for _ in range(10):
        clock[0] += 0.5
        health.processed({'network': 1.0})
    snapshot = health.snapshot()
    assert snapshot.arrived == 100
    assert snapshot.processed_hz == pytest.approx(2.0, abs=0.21)
    assert snapshot.arrived_hz == pytest.approx(0.0, abs=0.21)
    assert snapshot.since_arrival_s == pytest.approx(5.0)


def test_percentiles_of_stages(clock, rng):
    health = Health()
    times = rng.uniform(1.0, 9.0, 300)
    for each in times:
        health.processed({'pnp': float(each)})
    p50, p99 = health.snapshot().stages_ms['pnp']
    assert p50 == pytest.approx(np.median(times))
    assert p99 == pytest.approx(np.quantile(times, 0.99))


def test_a_complaint_is_logged_once_in_a_while(clock):
    health = Health()
    logged = []
    for i in range(40):
        clock[0] += 0.5
        if health.complain('pictures', f'{i} bytes are missing', log_period_s=10.0):
            logged.append(i)
    assert logged == [0, 20]
    assert health.complain('pictures', 'something else', log_period_s=10.0)
    assert not health.complain('pictures', 'never logged', log_period_s=None)


def test_a_complaint_stands_until_things_are_well_for_a_while(clock):
    health = Health()
    health.complain('camera_info', 'K is zero', Level.ERROR)
    clock[0] += 1.0
    assert health.snapshot().standing['camera_info'].level == Level.ERROR
    clock[0] += 5.0
    snapshot = health.snapshot()
    assert not snapshot.standing
    assert snapshot.last is not None
    assert snapshot.last.sentence == 'K is zero'


def supply(**changes):
    facts = {
        'topic': '/camera/image',
        'publishers': 1,
        'transport': 'raw',
        'other_topic': '/camera/image/compressed',
        'other_publishers': 0,
        'arrived': 0,
        'silent_s': 6.0,
        'timeout_s': 5.0,
    }
    return supply_complaint(**{**facts, **changes})


def test_silence_is_explained():
    assert supply(silent_s=4.0) is None
    announced = supply()
    assert announced.level == Level.ERROR
    for word in ('/camera/image', 'fastdds.xml', 'compressed', 'reliability'):
        assert word in announced.sentence
    paused = supply(arrived=9)
    assert paused.level == Level.WARN
    assert 'camera driver' in paused.sentence
    nobody = supply(publishers=0)
    assert nobody.level == Level.WARN
    assert 'remap image' in nobody.sentence
    other = supply(publishers=0, other_publishers=1)
    assert 'set image_transport to compressed' in other.sentence
    assert (
        'set image_transport to raw'
        in supply(publishers=0, other_publishers=1, transport='compressed').sentence
    )


_HOLD = """
import numpy as np
from pose_node.ros.health import memory_mb
before = memory_mb()
held = np.ones(50_000_000, np.uint8)
print(memory_mb() - before, held.all())
"""


def test_memory_grows_with_what_is_held():
    """In a process of its own: this one's other threads give memory back when they like."""
    said = subprocess.run(
        [sys.executable, '-c', _HOLD], capture_output=True, text=True, check=True
    )
    grown_mb, held = said.stdout.split()
    assert 45.0 < float(grown_mb) < 60.0
    assert held == 'True'
