"""Paint that strays: colours alone, as far as is asked, and no farther than white."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip('trimesh', reason='trimesh is not installed: run `make test`')

from training.synth.mesh import Mesh, primitive
from training.synth.stray import strayed


@pytest.fixture
def mesh(rng: np.random.Generator) -> Mesh:
    """A ball of many colours."""
    ball = primitive('ball')
    return dataclasses.replace(ball, colors=rng.uniform(0.1, 0.6, ball.colors.shape))


def test_nothing_but_the_colours_strays(rng: np.random.Generator, mesh: Mesh) -> None:
    before = mesh.colors.copy()
    other = strayed(rng, mesh, 0.4)
    assert other.vertices_m is mesh.vertices_m and other.faces is mesh.faces
    assert np.array_equal(mesh.colors, before) and not np.allclose(other.colors, before, atol=0.02)
    assert other.colors.min() >= 0.0 and other.colors.max() <= 1.0
    assert strayed(rng, mesh, 0.0) is mesh


def test_it_strays_as_far_as_is_asked(rng: np.random.Generator, mesh: Mesh) -> None:
    """The mean brightness is a log normal about as wide as exposure, gamma and stains together."""
    gains = {
        strength: [
            np.log(strayed(rng, mesh, strength).colors.mean() / mesh.colors.mean())
            for _ in range(300)
        ]
        for strength in (0.05, 0.2)
    }
    small, large = np.std(gains[0.05]), np.std(gains[0.2])
    assert large == pytest.approx(4.0 * small, rel=0.25)
    # Exposure alone is 0.05 wide; gamma, at colours of a third, as much again.
    assert 0.05 < small < 0.1
    assert abs(np.mean(gains[0.05])) < 0.02


def test_grey_stays_grey_but_for_the_white_balance(rng: np.random.Generator, mesh: Mesh) -> None:
    """Saturation has nothing to act on: all of a grey mesh's vertices get one hue."""
    grey = dataclasses.replace(mesh, colors=np.repeat(mesh.colors[:, :1], 3, axis=1))
    colors = strayed(rng, grey, 0.1).colors
    share = colors / colors.sum(axis=1, keepdims=True)
    assert np.ptp(share, axis=0).max() < 1e-9
