"""Fixtures that every test may ask for, and the settings that make a test run repeatable.

A failure must come back when the same test is run again, alone or in another order: random
numbers come from a generator seeded by the test's own name, and hypothesis derives its examples
from the test, not from the clock.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    'repeatable',
    derandomize=True,
    deadline=None,  # a busy machine is no reason to fail
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile('repeatable')

# Before rclpy is first imported: tests talk to nobody but themselves.
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))


def seed_of(name: str) -> int:
    """The first eight bytes of the SHA-256 of `name`: the same on every machine, unlike hash()."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little')


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A random generator seeded by the id of the test that asks (file, name and parameters)."""
    return np.random.default_rng(seed_of(request.node.nodeid))


@pytest.fixture
def one_thread() -> None:
    """Threads of torch that wait for each other on a busy machine cost more than they give."""
    import torch

    torch.set_num_threads(1)
