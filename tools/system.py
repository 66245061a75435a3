"""What must come from the system, and the one command that brings it (Debian and Ubuntu names)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from progress import Progress, watch

COMPILER = ('build-essential',)
EGL = ('libegl1', 'libgl1-mesa-dri', 'libegl-mesa0')  # OpenGL without a screen, on any CPU


def need_compiler() -> None:
    """A C++ compiler and Python's headers, without which no message can be generated."""
    missing = [] if shutil.which('c++') or shutil.which('g++') else list(COMPILER)
    if not Path(sysconfig.get_paths()['include'], 'Python.h').is_file():
        missing.append('python3-dev')
    if missing:
        install(missing, 'to generate ROS messages')


def need_egl(python: Path) -> None:
    """An OpenGL context without a screen, tried as the workshop opens it."""
    if not opens_egl(python):
        install(EGL, 'to render training pictures')
        if not opens_egl(python):
            raise SystemExit(f'{" ".join(EGL)} are installed, but EGL still opens no context.')


def opens_egl(python: Path) -> bool:
    program = "import moderngl; moderngl.create_standalone_context(backend='egl', require=330)"
    return succeeds([python, '-c', program])


def succeeds(command: list) -> bool:
    """Whether a command exits with 0; what it prints is dropped."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def install(packages, reason: str) -> None:
    """Install Debian packages when we may without asking; otherwise say what to type."""
    command = ['apt-get', 'install', '--yes', '--no-install-recommends', *packages]
    right = _right_to_install()
    if right is None:
        wanted = ' '.join(packages)
        raise SystemExit(
            f'{wanted}: needed {reason}, and only root may install them. Please type\n'
            f'    sudo apt-get install {wanted}\n'
            'and start again (on another distribution: the packages of the same content).'
        )
    progress = Progress(f'installing {" ".join(packages)}')
    environment = os.environ | {'DEBIAN_FRONTEND': 'noninteractive'}
    # Lists may be missing (containers) or old: refresh them only when the first try fails.
    for step in (command, ['apt-get', 'update'], command):
        status, output = watch([*right, *step], progress, _apt_step, environment)
        if status == 0 and step is command:
            progress.done()
            return
    progress.broken()
    raise SystemExit(''.join(output[-20:]) + f'apt-get could not install {" ".join(packages)}.')


def _right_to_install() -> list[str] | None:
    """[] as root, ['sudo', '-n'] where sudo asks nothing, None otherwise."""
    if shutil.which('apt-get') is None:
        return None
    if os.geteuid() == 0:
        return []
    sudo = shutil.which('sudo')
    if sudo and succeeds([sudo, '-n', 'true']):
        return [sudo, '-n']
    return None


def _apt_step(line: str) -> tuple[None, str]:
    return None, line.strip()[:40]
