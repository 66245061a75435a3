"""Play a recorded bag through pose_node and end with it; without arguments, the demo's drill.

ros2 launch pose_node replay.launch.py rviz:=true
ros2 launch pose_node replay.launch.py bag:=/data/my_bag image:=/camera/color/image_raw
"""

from __future__ import annotations

import os
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

# mypy takes this folder for the package `launch`
from launch import (  # type: ignore[attr-defined]
    LaunchContext,
    LaunchDescription,
    LaunchDescriptionEntity,
)
from pose_node.ros.environment import process_environment, share_folder

# name, default, meaning
ARGUMENTS = (
    ('bag', str(share_folder() / 'demo' / 'drill_bag'), 'folder of the bag'),
    ('rate', '1.0', 'speed of the replay'),
    ('delay', '3.0', 'seconds before the bag starts, for the node to come up'),
    ('image', '/camera/image_raw', 'topic of the pictures, without /compressed'),
    ('camera_info', '/camera/camera_info', 'topic of their CameraInfo'),
    ('image_transport', 'compressed', 'raw or compressed, as in the bag'),
    ('deterministic', 'true', 'every picture in order; false: the newest wins'),
    ('bundle', '', "folder of the bundle; empty: the demo's drill"),
    ('rviz', 'false', 'open rviz too'),
    ('fixed_frame', 'camera_optical_frame', 'frame that rviz shows things in'),
)
# those that pose_node.launch.py has too
PASSED_ON = (
    'image',
    'camera_info',
    'image_transport',
    'deterministic',
    'bundle',
    'rviz',
    'fixed_frame',
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


def actions(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node, the player a little later, and the end when the bag is over."""
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    if not Path(given['bag']).exists():
        raise FileNotFoundError(f'There is no bag at {given["bag"]}; give one with bag:=FOLDER.')
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_folder() / 'launch' / 'pose_node.launch.py')),
        launch_arguments=[
            ('use_sim_time', 'true'),
            *((name, given[name]) for name in PASSED_ON),
        ],
    )
    player = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', given['bag'], '--clock', '100', '--rate', given['rate']],
        env=process_environment(os.environ),
        output='screen',
    )
    over = EmitEvent(event=Shutdown(reason='the bag is over'))
    # The last pictures are still on their way when the player ends.
    end = OnProcessExit(target_action=player, on_exit=[TimerAction(period=3.0, actions=[over])])
    return [
        node,
        RegisterEventHandler(end),
        TimerAction(period=float(given['delay']), actions=[player]),
    ]
