"""Turns that bring a mesh onto itself: bodies whose symmetries everybody knows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('trimesh', reason='trimesh is not installed: run `make test`')

import trimesh

from pose_node.core.symmetry import Symmetries
from training.steps.symmetries import report, to_toml
from training.synth.mesh import Mesh, load_mesh
from training.synth.turns import Surface, find_turns, symmetries_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DRILL = Path(__file__).resolve().parents[2] / 'bundles' / 'drill' / 'drill.ply'


def body(shape, paint=0.6) -> Mesh:
    """A mesh of a trimesh body, off the origin; paint: of each vertex, or of all."""
    colors = np.broadcast_to(np.reshape(paint, (-1, 1)), (len(shape.vertices), 3))
    return Mesh(
        np.asarray(shape.vertices) + (0.01, -0.02, 0.03),
        np.asarray(shape.vertex_normals), colors.astype(float), np.asarray(shape.faces),
    )  # fmt: skip


def proposed(mesh, rng) -> Symmetries:
    surface = Surface(mesh, rng)
    return symmetries_of(find_turns(surface), surface)


def angles_deg(found: Symmetries) -> list[float]:
    cosines = (np.trace(found.discrete[:, :3, :3], axis1=1, axis2=2) - 1.0) / 2.0
    return sorted(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))).round().tolist())


def test_a_brick_has_three_half_turns(rng):
    found = proposed(body(trimesh.creation.box((0.2, 0.1, 0.06))), rng)
    assert angles_deg(found) == [180.0] * 3 and not found.continuous
    # About its own middle, which the origin is not.
    center = np.array([0.01, -0.02, 0.03, 1.0])
    np.testing.assert_allclose(found.discrete @ center, [center] * 3, atol=1e-9)


def test_a_slender_square_bar_is_not_round(rng):
    """Between its quarters it is 0.06 diameters off, less than BOP would forgive."""
    found = proposed(body(trimesh.creation.box((0.05, 0.05, 0.15))), rng)
    assert not found.continuous and angles_deg(found) == [90.0] * 2 + [180.0] * 5


def test_a_cylinder_is_round_and_can_stand_on_its_head(rng):
    found = proposed(body(trimesh.creation.cylinder(0.04, 0.15, sections=48)), rng)
    assert angles_deg(found) == [180.0]
    (axis,) = found.continuous
    np.testing.assert_allclose(np.abs(axis.axis), (0, 0, 1), atol=0.02)
    assert abs(found.discrete[0, 2, 2] + 1.0) < 1e-3


def test_a_cube_has_24_turns_and_a_painted_side_leaves_four(rng):
    cube = trimesh.creation.box((0.1, 0.1, 0.1)).subdivide().subdivide().subdivide()
    assert len(proposed(body(cube), rng).discrete) == 23
    cube.unmerge_vertices()
    top = cube.vertices[:, 2].reshape(-1, 3).min(axis=1) > 0.049
    painted = body(cube, np.repeat(np.where(top, 0.1, 0.8), 3))
    assert angles_deg(proposed(painted, rng)) == [90.0, 90.0, 180.0]
    assert 'shape only' in report(painted, rng)


def test_the_drill_has_none(rng):
    assert not proposed(load_mesh(DRILL), rng)
    assert '# no symmetries' in report(load_mesh(DRILL), rng)


def test_what_is_to_be_pasted_says_the_same(rng):
    found = proposed(body(trimesh.creation.cylinder(0.04, 0.15, sections=48)), rng)
    info = tomllib.loads(to_toml(found))['symmetries']
    again = Symmetries.from_bop(info, scale=1.0)
    np.testing.assert_allclose(again.discrete, found.discrete, atol=1e-8)
    np.testing.assert_allclose(again.continuous[0].axis, found.continuous[0].axis, atol=1e-8)


@pytest.mark.parametrize('number', [10, 11])
def test_the_half_turns_of_linemod_occluded(rng, number):
    """Eggbox and glue: the one declared, to 5 degrees and 2 % of the diameter."""
    folder = Path(os.environ.get('POSE_NODE_REAL', '')) / 'lmo' / 'models'
    if not (folder / 'models_info.json').is_file():
        pytest.skip('no lmo/models in the folder POSE_NODE_REAL names')
    mesh = load_mesh(folder / f'obj_{number:06d}.ply', 0.001)
    info = json.loads((folder / 'models_info.json').read_text())[str(number)]
    (declared,) = Symmetries.from_bop(info).discrete
    (found,) = proposed(mesh, rng).discrete
    cosine = (np.trace(declared[:3, :3].T @ found[:3, :3]) - 1.0) / 2.0
    assert np.degrees(np.arccos(min(cosine, 1.0))) < 5.0
    assert np.linalg.norm(declared[:3, 3] - found[:3, 3]) < 0.02 * mesh.diameter_m
