"""The mesh in a bundle: metres, colours, a moderate size, whatever the recipe's file was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('fast_simplification', reason='meshes are simplified with it: run `make test`')

import trimesh
from PIL import Image

from training.objects.ply import ply_bytes, write_ply
from training.steps.shipped import MOST_BYTES, MOST_FACES, shipped_mesh
from training.synth.mesh import Mesh, load_mesh, simplified
from training.synth.things import ObjectOptions


def shipped(path: Path, unit_m: float = 1.0) -> Mesh:
    """What a bundle's reader makes of it, from the bytes alone."""
    data = shipped_mesh(ObjectOptions('thing', path, unit_m))
    assert len(data) <= MOST_BYTES
    assert data.startswith(b'ply\n')
    copy = path.with_name('shipped.ply')
    copy.write_bytes(data)
    loaded = trimesh.load(copy, process=False)
    assert loaded.visual.kind == 'vertex'
    assert len(loaded.faces) <= 1.02 * MOST_FACES
    return load_mesh(copy)


@pytest.mark.parametrize('suffix', ['obj', 'stl', 'glb', 'ply'])
def test_a_cube_in_millimetres_becomes_metres(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'cube.{suffix}'
    trimesh.creation.box((200.0, 100.0, 50.0)).export(path)
    mesh = shipped(path, 0.001)
    np.testing.assert_allclose(mesh.bounds_m[1], (0.1, 0.05, 0.025), atol=1e-7)
    np.testing.assert_allclose(mesh.bounds_m[0], (-0.1, -0.05, -0.025), atol=1e-7)
    assert len(mesh.faces) == 12


def test_a_texture_becomes_colours(tmp_path: Path) -> None:
    """One half of the picture is red, the other blue."""
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4, 0] = picture[:, 4:, 2] = 250
    quad = trimesh.Trimesh(
        [(0, 0, 0), (0.1, 0, 0), (0.1, 0.1, 0), (0, 0.1, 0)], [(0, 1, 2), (0, 2, 3)], process=False
    )
    uv = np.array([(0.1, 0.5), (0.9, 0.5), (0.9, 0.5), (0.1, 0.5)])
    quad.visual = trimesh.visual.TextureVisuals(uv, image=Image.fromarray(picture))
    quad.export(tmp_path / 'quad.obj')
    mesh = shipped(tmp_path / 'quad.obj')
    red = mesh.vertices_m[:, 0] < 0.05
    assert (mesh.colors[red, 0] > 0.9).all()
    assert (mesh.colors[~red, 2] > 0.9).all()
    assert (mesh.colors[red, 2] < 0.1).all()


def test_a_good_ply_is_taken_as_it_is(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(3, 0.1)
    grey = np.full((len(ball.vertices), 3), 0.5)
    mesh = Mesh(ball.vertices, ball.vertex_normals, grey, ball.faces)
    write_ply(tmp_path / 'ball.ply', mesh)
    source = ObjectOptions('ball', tmp_path / 'ball.ply')
    assert shipped_mesh(source) == (tmp_path / 'ball.ply').read_bytes() == ply_bytes(mesh)


@pytest.mark.parametrize('suffix', ['stl', 'obj'])
def test_a_large_mesh_becomes_small_and_stays_closed(tmp_path: Path, suffix: str) -> None:
    """STL stores every triangle apart: simplified one by one, they would leave gaps."""
    ball = trimesh.creation.icosphere(6, 0.1)
    assert len(ball.faces) > 3 * MOST_FACES
    ball.export(tmp_path / f'ball.{suffix}')
    mesh = shipped(tmp_path / f'ball.{suffix}')
    welded = trimesh.Trimesh(mesh.vertices_m, mesh.faces)  # merges equal places
    assert welded.is_watertight
    assert abs(welded.volume / ball.volume - 1.0) < 0.01


def test_seams_do_not_open(rng: np.random.Generator) -> None:
    """Two vertices in one place, as textures need them, move together."""
    ball = trimesh.creation.icosphere(4, 0.1)
    corners = ball.faces.ravel()
    order = rng.permutation(len(ball.faces))
    apart = Mesh(
        ball.vertices[corners], ball.vertex_normals[corners], rng.random((len(corners), 3)),
        np.arange(len(corners)).reshape(-1, 3)[order],
    )  # fmt: skip
    small = simplified(apart, 800)
    assert len(small.faces) <= 820
    assert trimesh.Trimesh(small.vertices_m, small.faces).is_watertight
