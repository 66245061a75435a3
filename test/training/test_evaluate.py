"""Calibration figures as a bundle carries them."""

from __future__ import annotations

import pytest

pytest.importorskip('torch', reason='torch is not installed: run `make test`')
pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from training.steps.evaluate import _significant


@pytest.mark.parametrize(
    ('scale', 'kept'), [(8.05234567, 8.0523), (1.23456789e-7, 1.2346e-7), (123456.7, 123460.0)]
)
def test_no_scale_is_rounded_to_nothing(scale: float, kept: float) -> None:
    """A network whose weights fell to nothing has covariances a million times too wide."""
    assert _significant(scale) == kept
