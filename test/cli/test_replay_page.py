"""The example of doc/replay.md, run as it is printed, but for the bag and the bundle."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from known_scenes import path, write_bag

PAGE = Path(__file__).resolve().parents[2] / 'doc' / 'replay.md'


def test_the_example_runs(bundle, tmp_path):
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    (example,) = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
    for name, folder in (
        ('my_bag', write_bag(tmp_path / 'bag', [*path(12), None])),
        ('bundles/my_object', bundle),
    ):
        assert f"Path('{name}')" in example
        example = example.replace(f"Path('{name}')", f'Path({str(folder)!r})')
    file = tmp_path / 'test_replay.py'
    file.write_text(example)
    ran = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', file],
        cwd=PAGE.parents[1], capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '2 passed' in ran.stdout
