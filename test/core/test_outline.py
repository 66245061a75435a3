"""Outlines: of bodies whose outline is known, of open meshes, and only where nothing is behind."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh

from pose_node.core.camera import Camera
from pose_node.core.geometry import exp_so3, make_pose
from pose_node.core.outline import Shape, extent_px, outline

CAMERA = Camera(np.array([[600.0, 0, 320.0], [0, 590.0, 240.0], [0, 0, 1]]), (640, 480))
BENT = Camera(CAMERA.K, CAMERA.size, 'plumb_bob', (-0.3, 0.12, 0.001, -0.002, 0.0))


def shape_of(mesh: trimesh.Trimesh) -> Shape:
    return Shape.from_mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def pose(rng, z=(0.5, 1.0)) -> np.ndarray:
    t = np.array([*rng.uniform(-0.08, 0.08, 2), rng.uniform(*z)])
    return make_pose(exp_so3(rng.normal(size=3) * 2.0), t)


def test_a_ball_ends_where_rays_touch_it(rng):
    """Rays to its outline make one angle with the ray to its middle: sin = radius / distance."""
    radius_m = 0.05
    ball = shape_of(trimesh.creation.icosphere(4, radius_m))
    for camera in (CAMERA, BENT):
        T = pose(rng)
        seen = outline(ball, T, camera)
        middle = T[:3, 3]
        rays = np.column_stack((camera.unproject(seen.points_px), np.ones(len(seen.points_px))))
        cosine = rays @ middle / np.linalg.norm(rays, axis=1) / np.linalg.norm(middle)
        angle_px = np.arccos(cosine) * 600.0
        wanted_px = np.arcsin(radius_m / np.linalg.norm(middle)) * 600.0
        np.testing.assert_allclose(angle_px, wanted_px, atol=0.25)
        assert len(seen.points_px) > 0.8 * 2 * np.pi * wanted_px / 2.0
        # Out is away from the middle.
        centre_px = camera.project(middle[None])[0]
        away = seen.points_px - centre_px
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        assert ((away * seen.outward).sum(axis=1) > 0.9).all()


@pytest.mark.parametrize('camera', [CAMERA, BENT], ids=['pinhole', 'bent'])
def test_a_convex_body_ends_at_the_hull_of_its_corners(rng, camera):
    box = trimesh.creation.box((0.12, 0.07, 0.05))
    shape = shape_of(box.subdivide().subdivide().subdivide())  # lines bend in a bent picture
    for _ in range(10):
        T = pose(rng)
        seen = outline(shape, T, camera)
        corners = camera.project(np.asarray(shape.vertices_m) @ T[:3, :3].T + T[:3, 3])
        hull = cv2.convexHull(corners.astype(np.float32))
        off_px = [
            abs(cv2.pointPolygonTest(hull, (float(x), float(y)), True)) for x, y in seen.points_px
        ]
        assert max(off_px) < 0.6
        length_px = cv2.arcLength(hull, True)
        assert 0.85 * length_px < 2.0 * len(seen.points_px) < 1.02 * length_px
        np.testing.assert_allclose(
            camera.project(seen.points_obj @ T[:3, :3].T + T[:3, 3]), seen.points_px, atol=1e-6
        )
        np.testing.assert_allclose(np.linalg.norm(seen.outward, axis=1), 1.0)


def test_what_lies_in_front_of_the_object_itself_is_no_end(rng):
    """A small box before a large one: seen together, the small one's edges are inside."""
    small = trimesh.creation.box((0.04, 0.04, 0.02))
    small.apply_translation((0.0, 0.0, -0.1))
    both = shape_of(trimesh.util.concatenate(trimesh.creation.box((0.2, 0.2, 0.02)), small))
    T = make_pose(np.eye(3), np.array([0.01, -0.02, 0.8]))
    seen = outline(both, T, CAMERA)
    assert (np.abs(seen.points_obj[:, :2]).max(axis=1) > 0.099).all()


def test_an_open_mesh_and_one_turned_inside_out(rng):
    sheet = Shape.from_mesh(
        np.array([[0, 0, 0], [0.1, 0, 0], [0.1, 0.08, 0], [0, 0.08, 0.0]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
    )
    assert not sheet.closed
    T = make_pose(exp_so3(np.array([0.4, -0.3, 0.2])), np.array([0.0, 0.0, 0.6]))
    flipped = make_pose(exp_so3(np.array([0.0, np.pi - 0.3, 0.2])), np.array([0.0, 0.0, 0.6]))
    for each in (T, flipped):
        x, y, _ = outline(sheet, each, CAMERA).points_obj.T
        assert (np.minimum.reduce([x, 0.1 - x, y, 0.08 - y]) < 1e-9).all()
    ball = trimesh.creation.icosphere(3, 0.05)
    turned = Shape.from_mesh(np.asarray(ball.vertices), np.asarray(ball.faces)[:, ::-1])
    T = pose(rng)
    a, b = outline(shape_of(ball), T, CAMERA), outline(turned, T, CAMERA)
    np.testing.assert_allclose(a.points_px, b.points_px, atol=1e-9)
    np.testing.assert_allclose(a.outward, b.outward, atol=1e-9)


def test_vertices_in_one_place_are_one(rng):
    """As in an STL, where no two triangles share any."""
    box = trimesh.creation.box((0.12, 0.07, 0.05))
    soup = Shape.from_mesh(np.asarray(box.triangles).reshape(-1, 3), np.arange(36).reshape(12, 3))
    assert soup.closed and len(soup.vertices_m) == 8 and len(soup.edges) == 18


def test_nothing_where_it_is_not_in_front_or_too_small():
    box = shape_of(trimesh.creation.box((0.1, 0.1, 0.1)))
    for z in (-0.5, 0.0, 0.04, 1e4):
        assert outline(box, make_pose(np.eye(3), np.array([0.0, 0.0, z])), CAMERA) is None
    assert extent_px(box, make_pose(np.eye(3), np.array([0.0, 0.0, 0.04])), CAMERA) is None
