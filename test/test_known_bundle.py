"""The known bundle itself: quick to make, the same every time, and what it says it is."""

from __future__ import annotations

import time

import numpy as np
from known_bundle import BALL_RADIUS_M, COLORS, KEYPOINTS_OBJ_M, draw_scene, make_bundle

from pose_node.core.camera import Camera
from pose_node.core.mesh import read_ply

CAMERA = Camera(
    K=np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]]), size=(640, 480), model='none', D=()
)


def test_it_is_made_within_a_second_and_the_same_each_time(tmp_path):
    start = time.perf_counter()
    one = make_bundle(tmp_path / 'one')
    assert time.perf_counter() - start < 1.0
    assert one.manifest.files == make_bundle(tmp_path / 'two').manifest.files


def test_no_turn_makes_the_dots_look_the_same():
    """Keypoints are well apart, colours too, and no two distances from the rest are alike."""
    apart = np.linalg.norm(KEYPOINTS_OBJ_M[:, None] - KEYPOINTS_OBJ_M[None], axis=2)
    assert apart[~np.eye(12, dtype=bool)].min() > 0.03
    np.testing.assert_allclose(np.linalg.norm(KEYPOINTS_OBJ_M, axis=1), BALL_RADIUS_M)
    hues = COLORS - COLORS.mean(axis=1, keepdims=True)
    hues /= np.linalg.norm(hues, axis=1, keepdims=True)
    likeness = hues @ hues.T - 2.0 * np.eye(12)
    assert likeness.max() < np.cos(np.radians(29))
    assert (COLORS >= 0).all() and (COLORS <= 255).all()


def test_the_mesh_has_a_closed_surface_round_every_dot(tmp_path):
    mesh = read_ply(make_bundle(tmp_path / 'b').read('dots.ply'))
    assert len(mesh.vertices) == 13 * 6 and len(mesh.faces) == 13 * 8
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    volume = np.einsum('fi,fi->f', a, np.cross(b, c)).sum() / 6.0
    # An octahedron of radius r has 4/3 r³; outward faces make the sum positive.
    np.testing.assert_allclose(volume, 4 / 3 * (0.016**3 + 12 * 0.007**3), rtol=1e-3)
    np.testing.assert_array_equal(mesh.colors[6], COLORS[0])


def test_dots_are_painted_where_they_project():
    T = np.eye(4)
    T[2, 3] = 0.5
    picture = draw_scene(CAMERA, T)
    places = np.rint(CAMERA.project(KEYPOINTS_OBJ_M + T[:3, 3])).astype(int)
    seen = [(picture[y, x] == color).all() for (x, y), color in zip(places, COLORS)]
    assert sum(seen) >= 8
    assert tuple(draw_scene(CAMERA, None)[0, 0]) == (96, 96, 96)
