"""Set up .venv, as far as the given purpose needs it: `environment.py demo|test|pathtrace`.

Runs on the system's Python with the standard library only. Every step leaves a stamp with the
hash of what it was made from, so that a second run does nothing and a changed list is noticed.
Where a ROS 2 is sourced the environment sees it; elsewhere the ROS wheels of PyPI serve.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import system
from progress import Progress, watch

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
REQUIREMENTS = ROOT / 'requirements'
PURPOSES = ('demo', 'test', 'pathtrace')
SUPPORTED = ((3, 10), (3, 11), (3, 12))
TORCH = '2.13.0'
TORCH_CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
ROS_MODULES = (
    'rclpy', 'sensor_msgs.msg', 'geometry_msgs.msg', 'visualization_msgs.msg',
    'diagnostic_msgs.msg', 'std_srvs.srv', 'lifecycle_msgs.msg', 'tf2_msgs.msg', 'vision_msgs.msg',
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description='Set up .venv for a purpose.')
    parser.add_argument('purpose', choices=PURPOSES)
    purpose = parser.parse_args().purpose
    use_supported_python()
    distribution = sourced_ros()
    create_venv(distribution)
    if distribution is None:
        install('run.txt')
        install('ros.txt')
        generate_interfaces()
    else:
        install('beside_ros.txt')
        check_sourced_ros(distribution)
    install_package()
    if purpose == 'demo':
        return
    if purpose == 'pathtrace':
        install('pathtrace.txt')
        return
    install('test.txt')
    install('cluster.txt')
    install_torch()
    step('egl', [], lambda: system.need_egl(PYTHON))


def use_supported_python() -> None:
    """Start again with a Python this project supports when the one at hand is not."""
    if sys.version_info[:2] in SUPPORTED:
        return
    for major, minor in reversed(SUPPORTED):
        other = shutil.which(f'python{major}.{minor}')
        if other:
            os.execv(other, [other, *sys.argv])
    raise SystemExit(
        f'This is Python {sys.version.split()[0]}; pose_node runs on 3.10, 3.11 and 3.12. '
        'Install one of them (Debian and Ubuntu: python3.12 and python3.12-venv).'
    )


def sourced_ros() -> str | None:
    """The name of the ROS 2 that is sourced in this shell and imports; None when there is none."""
    distribution = os.environ.get('ROS_DISTRO')
    if not distribution or not os.environ.get('AMENT_PREFIX_PATH'):
        return None
    if system.succeeds([sys.executable, '-c', 'import rclpy']):
        return distribution
    # Another Python's ROS: its modules and libraries must not be found before those of .venv.
    for name in ('PYTHONPATH', 'LD_LIBRARY_PATH', 'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH'):
        os.environ.pop(name, None)
    return None


def create_venv(distribution: str | None) -> None:
    """Make .venv when it is missing or was made for another kind of ROS or another Python."""
    kind = f'{distribution or "wheels"} python{sys.version_info[0]}.{sys.version_info[1]} {VENV}'
    mark = VENV / '.kind'
    if PYTHON.exists() and (not mark.exists() or mark.read_text() == kind):
        mark.write_text(kind)
        return
    progress = Progress('creating .venv')
    options = ['--clear'] + (['--system-site-packages'] if distribution else [])
    status, output = watch([sys.executable, '-m', 'venv', *options, VENV], progress, _nothing)
    if status != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        progress.broken()
        version = f'{sys.version_info[0]}.{sys.version_info[1]}'
        system.install([f'python{version}-venv'], 'to make a virtual environment')
        status, output = watch([sys.executable, '-m', 'venv', *options, VENV], progress, _nothing)
    if status != 0:
        raise SystemExit(''.join(output[-20:]) + 'python3 -m venv failed; its words are above.')
    mark.write_text(kind)
    progress.done()


def install(name: str) -> None:
    """Install one complete, pinned list; nothing is resolved, so nothing can drift."""
    path = REQUIREMENTS / name
    lines = [line for line in path.read_text().splitlines() if line and line[0] != '#']
    step(
        name.removesuffix('.txt'),
        [path],
        lambda: pip(f'installing {name}', ['--no-deps', '-r', path], len(lines)),
    )


def install_torch() -> None:
    """The CPU build of torch: as the configured index has it, then from PyTorch's own index."""

    def action() -> None:
        build = f'torch=={TORCH}+cpu'
        tries = (
            [build],
            [build, '--index-url', TORCH_CPU_INDEX, '--retries', '1', '--timeout', '15'],
        )
        for options in tries:
            if try_pip('installing torch (CPU)', ['--no-deps', *options], 1)[0] == 0:
                return
        print(f'No CPU build of torch {TORCH} within reach: PyPI has the CUDA build (gigabytes).')
        pip('installing torch', [f'torch=={TORCH}'], 30)

    step('torch', [], action, TORCH)


def generate_interfaces() -> None:
    """tf2_msgs and vision_msgs, which the wheels lack."""
    sources = sorted(path.parent for path in (ROOT / 'interfaces').glob('*/package.xml'))
    files = sorted(path for source in sources for path in source.rglob('*') if path.is_file())

    script = ROOT / 'tools' / 'ros_prefix.py'

    def action() -> None:
        system.need_compiler()
        status = subprocess.run([PYTHON, script, *sources], check=False).returncode
        if status != 0:
            raise SystemExit(status)

    step('interfaces', [*files, REQUIREMENTS / 'ros.txt', script], action)


def check_sourced_ros(distribution: str) -> None:
    """Everything the node imports from ROS is there, or the one command that brings it is said."""

    def action() -> None:
        missing = [
            name for name in ROS_MODULES if not system.succeeds([PYTHON, '-c', f'import {name}'])
        ]
        if missing:
            packages = sorted({name.split('.')[0].replace('_', '-') for name in missing})
            wanted = ' '.join(f'ros-{distribution}-{package}' for package in packages)
            raise SystemExit(
                f'The sourced ROS 2 {distribution} lacks {", ".join(missing)}. Please type\n'
                f'    sudo apt-get install {wanted}\n'
                'and start again, or use a shell where no ROS is sourced.'
            )

    step('ros', [], action, os.environ.get('AMENT_PREFIX_PATH', ''))


def install_package() -> None:
    """The commands `pose` and `pose_node`, running from this checkout."""
    options = ['--no-deps', '--no-build-isolation', '--editable', ROOT]
    step(
        'package',
        [ROOT / 'setup.py', ROOT / 'setup.cfg'],
        lambda: pip('installing pose_node', options, 1),
    )


def step(name: str, inputs: list[Path], action: Callable[[], None], version: str = '') -> None:
    """Do `action` unless its stamp says that it was done from these very inputs."""
    digest = hashlib.sha256(version.encode())
    for path in inputs:
        digest.update(path.name.encode() + path.read_bytes())
    stamp = VENV / '.stamps' / name
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    action()
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest.hexdigest())


def pip(title: str, arguments: list, expected: int) -> None:
    status, output = try_pip(title, arguments, expected)
    if status != 0:
        sys.stderr.writelines([line for line in output if 'is ignored' not in line][-30:])
        raise SystemExit(f"{title} failed; pip's words are above. Is the network there?")


def try_pip(title: str, arguments: list, expected: int) -> tuple[int, list[str]]:
    """Run pip under a bar; `expected` is the number of packages that it will name."""
    progress = Progress(title)
    before, seen, unpacking = installed_packages(), 0, False

    def read_line(line: str) -> tuple[float | None, str] | None:
        nonlocal seen, unpacking
        found = re.match(r'\s*(?:Collecting|Requirement already satisfied:|Obtaining) (\S+)', line)
        if found:
            seen += 1
            return 0.5 * seen / max(expected, seen), found[1].split('==')[0]
        unpacking = unpacking or line.startswith('Installing collected packages')
        if unpacking:
            ready = installed_packages() - before
            return 0.5 + 0.5 * ready / max(expected, ready), f'{ready} unpacked'
        return None

    # Modules are compiled when they are first imported: most never are.
    options = ['--no-compile', '--disable-pip-version-check']
    command = [PYTHON, '-m', 'pip', 'install', *options, *arguments]
    status, output = watch(command, progress, read_line)
    progress.done() if status == 0 else progress.broken()
    return status, output


def installed_packages() -> int:
    return sum(1 for _ in VENV.glob('lib/python3*/site-packages/*.dist-info'))


def _nothing(_: str) -> None:
    return None


if __name__ == '__main__':
    main()
