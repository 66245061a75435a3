"""The scripts behind BENCHMARKS.md start as it says, from any folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(
    path.name for path in HERE.glob('[!t]*.py') if "__name__ == '__main__'" in path.read_text()
)


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_measurement_says_how_it_is_used(name, tmp_path):
    pytest.importorskip('torch', reason='most measure the workshop: run `make test`')
    said = subprocess.run(
        [sys.executable, HERE / name, '--help'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f'usage: {name}')
