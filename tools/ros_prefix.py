"""Make the virtual environment a ROS 2 prefix that can generate messages, and generate ours into it.

The ROS wheels bring headers, CMake files and generators under sys.prefix, but the CMake files name the Python
of the machine that built them. After `repair` they name this one; after `generate` the packages of interfaces/
import like any other message package. Run by tools/environment.py with the environment's own Python.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from progress import Progress

PREFIX = Path(sys.prefix)
BUILD_MACHINE = re.compile(r'/opt/python/cp\d+-cp\d+')


def repair(prefix: Path = PREFIX) -> int:
    """Point the wheels' CMake files at this Python and this NumPy; how many files had to be changed."""
    import numpy

    here = [
        (re.compile(BUILD_MACHINE.pattern + r'/include/python3\.\d+'), sysconfig.get_paths()['include']),
        (re.compile(BUILD_MACHINE.pattern + r'/lib/python3\.\d+/site-packages/numpy/(_core|core)/include'),
         numpy.get_include()),
    ]
    changed = 0
    for path in sorted((prefix / 'share').rglob('*.cmake')):
        old = new = path.read_text()
        for there, this in here:
            new = there.sub(this, new)
        if new != old:
            path.write_text(new)
            changed += 1
    return changed


def build_environment(prefix: Path = PREFIX) -> dict[str, str]:
    """The variables under which CMake finds the prefix's packages and nothing of another ROS."""
    environment = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'CMAKE_GENERATOR')}
    return environment | {
        'AMENT_PREFIX_PATH': str(prefix),
        'CMAKE_PREFIX_PATH': str(prefix),
        'LD_LIBRARY_PATH': str(prefix / 'lib'),
        'PATH': f'{prefix / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}',
        'VIRTUAL_ENV': str(prefix),
    }


def generate(source: Path, prefix: Path = PREFIX) -> None:
    """Build the interface package in `source` and install it into the prefix."""
    environment = build_environment(prefix)
    progress = Progress(f'generating {source.name}')
    with tempfile.TemporaryDirectory(prefix='pose_node_') as build:
        _run([
            'cmake', '-S', source, '-B', build, '-G', 'Ninja', '-Wno-dev', '-DBUILD_TESTING=OFF',
            '-DCMAKE_BUILD_TYPE=Release', '-DCMAKE_CXX_FLAGS_RELEASE=-O1', '-DCMAKE_C_FLAGS_RELEASE=-O1',
            f'-DCMAKE_INSTALL_PREFIX={prefix}', f'-DPython3_EXECUTABLE={prefix / "bin" / "python"}',
            '-DPython3_FIND_VIRTUALENV=ONLY',
        ], environment, progress)
        _run(['ninja', '-C', build, 'install'], environment, progress)
    progress.done()


def _run(command: list, environment: dict[str, str], progress: Progress) -> None:
    """Run one build command; its output is shown only when it fails."""
    lines = []
    program = shutil.which(command[0], path=environment['PATH'])
    if program is None:
        progress.broken()
        raise SystemExit(f'{command[0]} is not in {PREFIX / "bin"}: run `make clean-venv` and try again.')
    with subprocess.Popen([program, *map(str, command[1:])], env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            step = re.match(r'\[(\d+)/(\d+)\]', line)
            progress.show(int(step[1]) / int(step[2]) if step else None, command[0])
    if process.returncode != 0:
        progress.broken()
        sys.stderr.writelines(lines[-40:])
        raise SystemExit(f'{command[0]} failed (its last words are above). A C++ compiler is needed: '
                         'on Debian and Ubuntu `sudo apt-get install build-essential`.')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('interfaces', nargs='+', type=Path, help='folders of interface packages')
    repair()
    for source in parser.parse_args().interfaces:
        generate(source.resolve())


if __name__ == '__main__':
    main()
