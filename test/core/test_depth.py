"""Depth of a plane and of a ball, which geometry knows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from pose_node.core.depth import draw_depth
from pose_node.core.geometry import exp_so3, make_pose

K = np.array([[100.0, 0, 40], [0, 110.0, 30], [0, 0, 1]])
SIZE = (80, 60)
RAYS = np.stack(
    (*np.meshgrid((np.arange(80) - 40) / 100.0, (np.arange(60) - 30) / 110.0), np.ones((60, 80))),
    axis=-1,
)


def test_a_tilted_plane():
    """n · z ray = n · center, exactly, wherever the square is."""
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    T = make_pose(exp_so3(np.array([0.7, 0.4, 0.2])), np.array([0.1, 0.0, 2.0]))
    drawn = draw_depth(square, np.array([[0, 1, 2], [0, 2, 3]]), T, K, SIZE)
    normal, center = T[:3, 2], T[:3, 3]
    true = normal @ center / (RAYS @ normal)
    inside = (np.abs((true[..., None] * RAYS - center) @ T[:3, :2]) <= 1.0).all(axis=-1)
    np.testing.assert_array_equal(drawn > 0, inside)
    assert 500 < inside.sum() < inside.size
    np.testing.assert_allclose(drawn[inside], true[inside], rtol=1e-9)


def test_a_ball(rng):
    """Its nearer side; facets of 4,000 points are less than 2 mm off the ball of 0.5 m."""
    points = rng.normal(size=(4000, 3))
    points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True)
    center = np.array([0.1, -0.1, 2.0])
    T = make_pose(np.eye(3), center)
    drawn = draw_depth(points, ConvexHull(points).simplices, T, K, SIZE)
    a, b, c = (RAYS**2).sum(-1), RAYS @ center, center @ center - 0.25
    under = b**2 - a * c
    well_inside = under > 0.05
    true = (b - np.sqrt(np.maximum(under, 0))) / a
    assert well_inside.sum() > 1000
    np.testing.assert_allclose(drawn[well_inside], true[well_inside], atol=0.006)
    assert not drawn[under < 0].any()


@pytest.mark.parametrize('shift', [(9.0, 0.0, 2.0), (0.0, 0.0, -2.0)])
def test_beside_and_behind_there_is_nothing(shift):
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    T = make_pose(np.eye(3), np.array(shift))
    assert not draw_depth(triangle, np.array([[0, 1, 2]]), T, K, SIZE).any()


def test_the_nearer_triangle_hides_the_other():
    """In either order of the faces."""
    one = np.array([[-5.0, -5, 2], [5, -5, 2], [0, 9, 2]])
    both = np.concatenate((one, one + (0.0, 0.0, 1.0)))
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        drawn = draw_depth(both, np.array(faces), np.eye(4), K, SIZE)
        np.testing.assert_allclose(drawn, 2.0)


def test_many_at_once_are_as_one_by_one(rng, monkeypatch):
    """Whatever the number of pixels looked at together."""
    points = rng.normal(size=(60, 3)) * (0.6, 0.5, 0.3)
    T = make_pose(exp_so3(rng.normal(size=3)), np.array([0.1, 0.0, 2.0]))
    faces = rng.integers(0, 60, (80, 3))
    whole = draw_depth(points, faces, T, K, SIZE)
    assert (whole > 0).sum() > 500
    alone = [draw_depth(points, face[None], T, K, SIZE) for face in faces]
    nearest = np.min([np.where(each > 0, each, np.inf) for each in alone], axis=0)
    np.testing.assert_allclose(whole, np.where(np.isfinite(nearest), nearest, 0.0), rtol=1e-12)
    for few in (1, 50, 3000):
        monkeypatch.setattr('pose_node.core.depth._AT_ONCE', few)
        np.testing.assert_array_equal(draw_depth(points, faces, T, K, SIZE), whole)
