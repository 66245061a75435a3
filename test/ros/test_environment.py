"""Environment variables of processes that exchange pictures."""

from __future__ import annotations

import os

import pytest

from pose_node.ros.environment import (
    dds_settings,
    default_bundle,
    process_environment,
    share_folder,
)


@pytest.mark.parametrize(
    ('base', 'name', 'other'),
    [
        ({}, 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        (
            {'ROS_DISTRO': 'kilted'},
            'FASTDDS_DEFAULT_PROFILES_FILE',
            'FASTRTPS_DEFAULT_PROFILES_FILE',
        ),
        (
            {'ROS_DISTRO': 'humble'},
            'FASTRTPS_DEFAULT_PROFILES_FILE',
            'FASTDDS_DEFAULT_PROFILES_FILE',
        ),
    ],
)
def test_the_profile_has_the_name_that_the_release_reads(base, name, other):
    environment = process_environment(base)
    assert os.path.isfile(environment[name])
    assert other not in environment


def test_the_allocator_is_set():
    environment = process_environment({'PATH': '/bin'})
    assert int(environment['MALLOC_MMAP_THRESHOLD_']) >= 8_000_000  # a 1080p picture and more
    assert environment['PATH'] == '/bin'
    assert 'ROS_DOMAIN_ID' not in environment


def test_what_the_user_set_stays():
    base = {'FASTRTPS_DEFAULT_PROFILES_FILE': '/my.xml', 'MALLOC_TOP_PAD_': '1'}
    environment = process_environment(base)
    assert environment['FASTRTPS_DEFAULT_PROFILES_FILE'] == '/my.xml'
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' not in environment
    assert environment['MALLOC_TOP_PAD_'] == '1'
    assert dds_settings(environment) == {}
    assert process_environment(base, dds_profile=False) == base


def test_base_is_not_changed_and_isolation_is_asked_for():
    base: dict[str, str] = {}
    environment = process_environment(base, discovery_range='LOCALHOST', domain_id=7)
    assert base == {}
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert environment['ROS_DOMAIN_ID'] == '7'
    assert process_environment()['PATH'] == os.environ['PATH']


def test_default_bundle_is_in_the_share_folder():
    assert default_bundle().parent.parent == share_folder()
