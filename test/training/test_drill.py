"""The modelled drill: a closed surface of the right size, always the same, no mirror image."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from training.objects.ply import write_ply
from training.synth.mesh import load_mesh


def model():
    """The module that models the drill."""
    pytest.importorskip(
        'manifold3d', reason='manifold3d is not installed: the drill is modelled with it'
    )
    from training.objects import drill

    return drill


@pytest.fixture(scope='module')
def mesh():
    return model().drill()


def welded(mesh):
    """The surface alone: vertices that were split at creases and colours are joined again."""
    places, joined = np.unique(mesh.vertices_m, axis=0, return_inverse=True)
    return trimesh.Trimesh(places, joined.reshape(-1)[mesh.faces], process=False)


def areas(mesh):
    a, b, c = (mesh.vertices_m[mesh.faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def test_one_closed_surface(mesh):
    surface = welded(mesh)
    assert surface.is_watertight
    assert surface.is_winding_consistent
    assert surface.body_count == 1
    assert 5e-4 < surface.volume < 2e-3  # positive: the faces look outwards
    assert 5_000 <= len(mesh.faces) <= 15_000


def test_size_and_frame(mesh):
    low, high = mesh.bounds_m
    np.testing.assert_allclose(low + high, 0.0, atol=1e-6)
    length, width, height = high - low
    assert abs(height - 0.22) < 0.015
    assert 0.18 < length < 0.24
    assert 0.06 < width < 0.10
    # The bit's tip is the foremost point and lies high; the battery is the widest part.
    tip = mesh.vertices_m[mesh.vertices_m[:, 0].argmax()]
    assert tip[2] > 0.05
    foot = mesh.vertices_m[mesh.vertices_m[:, 2] < low[2] + 0.03]
    assert np.ptp(foot[:, 1]) > 0.07


def test_normals_look_outwards(mesh):
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-5)
    a, b, c = (mesh.vertices_m[mesh.faces[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    agree = np.einsum('fkd,fd->fk', mesh.normals[mesh.faces], flat)
    # Creases are kept: averaged normals stay near their faces', weighted by what is seen of them.
    assert np.average(agree.min(axis=1) > 0.7, weights=areas(mesh)) > 0.995


def test_colours(mesh):
    face_colors = np.round(mesh.colors[mesh.faces].mean(axis=1) * 255).astype(int)
    spread = np.ptp(mesh.colors[mesh.faces], axis=1).max()
    assert spread == 0.0, 'a face has one colour: borders of markings are sharp'
    assert len(np.unique(face_colors, axis=0)) >= 9
    share = {
        name: areas(mesh)[(face_colors == paint).all(axis=1)].sum() / areas(mesh).sum()
        for name, paint in (('teal', model().TEAL), ('red', model().RED))
    }
    assert 0.2 < share['teal'] < 0.6
    assert 0.005 < share['red'] < 0.1


def test_is_not_its_own_mirror_image(mesh):
    mirrored = mesh.vertices_m * (1, -1, 1)
    distance, nearest = cKDTree(mesh.vertices_m).query(mirrored)
    assert distance.max() > 0.008, 'the belt clip is on one side'
    other = np.abs(mesh.colors[nearest] - mesh.colors).max(axis=1) > 0.2
    housing = np.abs(mesh.vertices_m[:, 2] - 0.075) < 0.03
    assert other[housing].mean() > 0.1, 'the labels differ'


def test_same_bytes_every_time(mesh, tmp_path):
    write_ply(tmp_path / 'one.ply', mesh)
    write_ply(tmp_path / 'two.ply', model().drill())
    assert (tmp_path / 'one.ply').read_bytes() == (tmp_path / 'two.ply').read_bytes()


def test_file_holds_what_was_modelled(mesh, tmp_path):
    write_ply(tmp_path / 'drill.ply', mesh)
    loaded = load_mesh(tmp_path / 'drill.ply')
    np.testing.assert_allclose(loaded.vertices_m, mesh.vertices_m, atol=1e-8)
    np.testing.assert_allclose(loaded.colors, mesh.colors, atol=1e-6)
    np.testing.assert_array_equal(loaded.faces, mesh.faces)
    # The normals by hand: not every reader takes a file's own.
    data = (tmp_path / 'drill.ply').read_bytes()
    body = data[data.index(b'end_header\n') + len(b'end_header\n') :]
    kind = np.dtype([('place', '<f4', 3), ('normal', '<f4', 3), ('color', 'u1', 3)])
    written = np.frombuffer(body, kind, count=len(mesh.vertices_m))
    np.testing.assert_allclose(written['normal'], mesh.normals, atol=1e-6)
