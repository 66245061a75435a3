"""Fixtures of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from pose_node.cli import main


@pytest.fixture(scope='session')
def bundle(tmp_path_factory) -> Path:
    """The bundle whose networks need no training."""
    from known_bundle import make_bundle

    return Path(make_bundle(tmp_path_factory.mktemp('bundle') / 'dots').folder)


@pytest.fixture
def pose(capsys):
    """The command `pose` in this process: (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as end:  # argparse
            status = end.code
        said = capsys.readouterr()
        assert 'Traceback' not in said.err
        return status, said.out, said.err

    return run
