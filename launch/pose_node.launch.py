"""Start pose_node beside a camera driver.

ros2 launch pose_node pose_node.launch.py image:=/camera/image_raw rviz:=true
ros2 launch pose_node pose_node.launch.py --show-args
"""

from __future__ import annotations

import os
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

# mypy takes this folder for the package `launch`
from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]
from pose_node.ros.environment import dds_settings, share_folder

# name, default, meaning
ARGUMENTS = (
    ('name', 'pose_node', 'name of the node'),
    ('namespace', '', 'namespace of the node'),
    ('image', 'image', 'topic of the pictures, without /compressed'),
    ('camera_info', '', 'topic of their CameraInfo; empty: beside the pictures'),
    ('detections_2d', 'detections_2d', 'topic of 2D boxes, for use_detections'),
    ('params_file', str(share_folder() / 'config' / 'pose_node.yaml'), 'parameters of the node'),
    ('bundle', '', 'folder of the bundle; empty: as in params_file'),
    ('backend', '', 'what runs the networks; empty: as in params_file'),
    ('image_transport', '', 'raw or compressed; empty: as in params_file'),
    ('deterministic', '', 'true: every picture in order; empty: as in params_file'),
    ('autostart', 'true', 'configure and activate at start'),
    ('use_sim_time', 'false', 'take the time from /clock'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
    ('dds_profile', 'true', 'shared memory large enough for pictures (Fast DDS) and allocator'),
    ('rviz', 'false', 'open rviz too'),
    ('fixed_frame', 'camera_optical_frame', 'frame that rviz shows things in'),
)


def generate_launch_description() -> LaunchDescription:
    """The launch file's entry."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=meaning)
                for name, default, meaning in ARGUMENTS
            ),
            OpaqueFunction(function=actions),
        ]
    )


def actions(context: LaunchContext) -> list[Any]:
    """What the arguments, now known, ask for."""
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    environment = dds_settings(os.environ) if _is_true(given['dds_profile']) else {}
    started: list[Any] = [SetEnvironmentVariable(*pair) for pair in environment.items()]
    image = given['image']
    beside = '/'.join([*image.split('/')[:-1], 'camera_info'])
    parameters: dict[str, Any] = {
        'autostart': _is_true(given['autostart']),
        'use_sim_time': _is_true(given['use_sim_time']),
    }
    if given['deterministic']:
        parameters['deterministic'] = _is_true(given['deterministic'])
    for name in ('bundle', 'backend', 'image_transport'):
        if given[name]:
            parameters[name] = given[name]
    started.append(
        Node(
            package='pose_node',
            executable='pose_node',
            name=given['name'],
            namespace=given['namespace'],
            parameters=[given['params_file'], parameters],
            remappings=[
                ('image', image),
                ('camera_info', given['camera_info'] or beside),
                ('detections_2d', given['detections_2d']),
            ],
            ros_arguments=['--log-level', given['log_level']],
            output='screen',
            emulate_tty=True,
        )
    )
    if _is_true(given['rviz']):
        started.append(_rviz(given))
    return started


def _rviz(given: dict[str, str]) -> Node:
    """Rviz with our view of things, its topics those of this node."""
    own = '/'.join(part for part in ('', given['namespace'].strip('/'), given['name']) if part)
    topics = ('overlay', 'markers', 'detections', 'drill/pose_with_covariance')
    return Node(
        package='rviz2',
        executable='rviz2',
        arguments=[
            '-d',
            str(share_folder() / 'config' / 'pose_node.rviz'),
            '-f',
            given['fixed_frame'],
        ],
        parameters=[{'use_sim_time': _is_true(given['use_sim_time'])}],
        remappings=[
            ('/image', given['image']),
            *((f'/pose_node/{topic}', f'/{own}/{topic}') for topic in topics),
        ],
    )


def _is_true(text: str) -> bool:
    if text.lower() not in ('true', 'false', '1', '0'):
        raise ValueError(f'{text!r} is neither true nor false.')
    return text.lower() in ('true', '1')
