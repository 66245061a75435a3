"""`colcon build` of the checkout works, and what it installs starts from there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ('package.xml', 'setup.py', 'setup.cfg', 'resource', 'pose_node', 'launch', 'config')

# No other test's: the graph remembers for a while what a process that was killed had there.
NAME = 'pose_node_of_colcon'

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec('colcon_core') is None, reason='colcon is not installed'
)


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """The folder that colcon installed the package into, built from a copy of the checkout."""
    workspace = tmp_path_factory.mktemp('workspace')
    source = workspace / 'src' / 'pose_node'
    source.mkdir(parents=True)
    ignore = shutil.ignore_patterns('__pycache__')
    for name in (*NEEDED, 'bundles', 'interfaces'):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, '-m', 'colcon', 'build', '--event-handlers', 'console_direct+']
    built = subprocess.run(
        command, cwd=workspace, capture_output=True, text=True, check=False, timeout=300
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert 'pose_node' in built.stdout
    assert not (workspace / 'install' / 'vision_msgs').exists(), 'interfaces/ is not for colcon'
    return workspace / 'install' / 'pose_node'


def environment_of(prefix: Path) -> dict[str, str]:
    """What `source install/setup.bash` would leave, seen from outside the checkout."""
    packages = next(prefix.glob('lib/python3*/site-packages'))
    others = os.environ.get('AMENT_PREFIX_PATH', sys.prefix)
    return os.environ | {
        'AMENT_PREFIX_PATH': os.pathsep.join((str(prefix), others)),
        'PYTHONPATH': os.pathsep.join((str(packages), os.environ.get('PYTHONPATH', ''))),
    }


def test_everything_a_robot_needs_is_installed(installed):
    share = installed / 'share' / 'pose_node'
    index = installed / 'share' / 'ament_index' / 'resource_index' / 'packages'
    assert (index / 'pose_node').is_file()
    for top in ('launch', 'config', 'bundles'):
        ours = {
            path.relative_to(ROOT)
            for path in (ROOT / top).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        }
        theirs = {path.relative_to(share) for path in (share / top).rglob('*') if path.is_file()}
        assert ours == theirs
    packages = next(installed.glob('lib/python3*/site-packages'))
    assert (packages / 'pose_node' / 'core' / 'geometry.py').is_file()
    assert not (packages / 'training').exists(), 'a robot needs no workshop'
    assert sorted(path.name for path in (installed / 'lib' / 'pose_node').iterdir()) == [
        'pose',
        'pose_node',
    ]


def test_installed_command_starts(installed, tmp_path):
    command = [installed / 'lib' / 'pose_node' / 'pose', '--help']
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment_of(installed),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert 'demo' in ran.stdout


def test_installed_node_starts(installed, tmp_path):
    """As `ros2 run pose_node pose_node`: unconfigured it waits, and an interrupt ends it well."""
    pytest.importorskip('rclpy')
    log = tmp_path / 'log.txt'
    program = installed / 'lib' / 'pose_node' / 'pose_node'
    node = subprocess.Popen(
        [program, '--ros-args', '-p', 'autostart:=false', '-r', f'__node:={NAME}'],
        cwd=tmp_path,
        env=environment_of(installed) | {'ROS_LOG_DIR': str(tmp_path)},
        stdout=log.open('w'),
        stderr=subprocess.STDOUT,
    )
    try:
        assert _appears(node), log.read_text()
        node.send_signal(signal.SIGINT)
        assert node.wait(timeout=60) == 0, log.read_text()
    finally:
        node.kill()
        node.wait()


def _appears(process: subprocess.Popen, timeout_s: float = 120.0) -> bool:
    """Whether its node shows up on the graph while the process lives."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    watcher = rclpy.create_node('colcon_test', context=context)
    try:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and process.poll() is None:
            if NAME in watcher.get_node_names():
                return True
            time.sleep(0.2)
        return False
    finally:
        watcher.destroy_node()
        context.try_shutdown()
