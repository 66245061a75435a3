"""Make the virtual environment a ROS 2 prefix that can generate messages, and generate ours.

The ROS wheels bring headers, CMake files and generators under sys.prefix, but the CMake files
name the Python of the machine that built them. After `repair` they name this one; after
`generate` the packages of interfaces/ import like any other message package. Run with the
environment's own Python, by tools/environment.py.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

from progress import Progress, watch

PREFIX = Path(sys.prefix)
BUILD_PYTHON = r'/opt/python/cp\d+-cp\d+'


def repair(prefix: Path = PREFIX) -> int:
    """Point the wheels' CMake files at this Python and NumPy; returns how many were changed."""
    import numpy as np

    packages = BUILD_PYTHON + r'/lib/python3\.\d+/site-packages'
    here = {
        BUILD_PYTHON + r'/include/python3\.\d+': sysconfig.get_paths()['include'],
        packages + r'/numpy/_?core/include': np.get_include(),
    }
    changed = 0
    for path in sorted((prefix / 'share').rglob('*.cmake')):
        old = new = path.read_text()
        for there, this in here.items():
            new = re.sub(there, this, new)
        if new != old:
            path.write_text(new)
            changed += 1
    return changed


def build_environment(prefix: Path = PREFIX) -> dict[str, str]:
    """The variables under which CMake finds the prefix's packages and nothing of another ROS."""
    return os.environ | {
        'AMENT_PREFIX_PATH': str(prefix),
        'CMAKE_PREFIX_PATH': str(prefix),
        'LD_LIBRARY_PATH': str(prefix / 'lib'),
        'PATH': f'{prefix / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}',
        'PYTHONPATH': '',
        'VIRTUAL_ENV': str(prefix),
    }


def generate(source: Path, prefix: Path = PREFIX) -> None:
    """Build the interface package in `source` and install it into the prefix."""
    progress = Progress(f'generating {source.name}')
    with tempfile.TemporaryDirectory(prefix='pose_node_') as build:
        options = {
            'BUILD_TESTING': 'OFF',
            'CMAKE_BUILD_TYPE': 'Release',
            'CMAKE_C_FLAGS_RELEASE': '-O1',  # messages this small gain nothing from more
            'CMAKE_CXX_FLAGS_RELEASE': '-O1',
            'CMAKE_INSTALL_PREFIX': prefix,
            'CMAKE_MAKE_PROGRAM': prefix / 'bin' / 'ninja',
            'Python3_EXECUTABLE': prefix / 'bin' / 'python',
            'Python3_FIND_VIRTUALENV': 'ONLY',
        }
        defined = [f'-D{name}={value}' for name, value in options.items()]
        cmake, ninja = prefix / 'bin' / 'cmake', prefix / 'bin' / 'ninja'
        configure = [cmake, '-S', source, '-B', build, '-G', 'Ninja', '-Wno-dev', *defined]
        for command in (configure, [ninja, '-C', build, 'install']):
            status, output = watch(command, progress, _ninja_step, build_environment(prefix))
            if status != 0:
                progress.broken()
                sys.stderr.writelines(output[-40:])
                raise SystemExit(f'{source.name} was not generated; the last words are above.')
    progress.done()


def _ninja_step(line: str) -> tuple[float, str] | None:
    step = re.match(r'\[(\d+)/(\d+)\]', line)
    return (int(step[1]) / int(step[2]), f'{step[1]} of {step[2]}') if step else None


def main() -> None:
    parser = argparse.ArgumentParser(description='Generate message packages into this prefix.')
    parser.add_argument('interfaces', nargs='+', type=Path, help='folders of interface packages')
    sources = parser.parse_args().interfaces
    repair()
    for source in sources:
        generate(source.resolve())


if __name__ == '__main__':
    main()
