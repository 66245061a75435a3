"""Choosing keypoints and finding them in pictures: known corners, known surfaces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import apply, make_pose
from training.synth import corner_points
from training.synth.keypoints import clustered, corners, farthest_points, nearest_pixels
from training.synth.mesh import Mesh, primitive
from training.synth.render import Instance, Lights, Renderer
from training.synth.scene import random_rotation
from training.synth.things import ObjectOptions, keypoints_of

K = np.array([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1]])
SIZE = (128, 128)
# Half edges of the box, and its eight corners.
HALF = np.array([0.5, 0.35, 0.25])
CORNERS = np.array(np.meshgrid(*np.stack((-HALF, HALF), axis=1))).reshape(3, 8).T
SIDE = Lights(np.eye(3), np.eye(3) * 0.9, np.full(3, 0.1), np.full(3, 0.1), np.array([0, -1.0, 0]))


@pytest.fixture(scope='module')
def renderer() -> Renderer:
    renderer = Renderer()
    renderer.upload('box', primitive('box'))
    return renderer


def shot(renderer: Renderer, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Picture, coordinates, where the box is, and its pose."""
    T = make_pose(random_rotation(rng), np.array([*rng.uniform(-0.05, 0.05, 2), 5.0]))
    box = Instance('box', T)
    picture = renderer.picture([box], SIDE, K, SIZE)[..., :3]
    coordinates, identity = renderer.targets([box], K, SIZE)
    return picture, coordinates, identity == 1, T


def test_corners_of_a_box_are_its_corners(renderer: Renderer, rng: np.random.Generator) -> None:
    """What a tracker finds on a plain box, lifted and clustered, are its eight corners."""
    found = [corners(*shot(renderer, rng)[:3]) for _ in range(150)]
    every = np.concatenate(found)
    assert len(every) > 400
    # All are surface points, and most lie at a corner (a pixel is 1.7 cm of this metre-long box).
    on_surface = np.abs(np.abs(every) / HALF - 1.0).min(axis=1)
    assert on_surface.max() < 1e-3
    away = np.linalg.norm(every[:, None] - CORNERS, axis=2).min(axis=1)
    assert np.median(away) < 0.06
    centers = clustered(found, 8, rng)
    assert np.linalg.norm(centers[:, None] - CORNERS, axis=2).min(axis=0).max() < 0.12


def test_too_few_corners_are_a_sentence(rng: np.random.Generator) -> None:
    with pytest.raises(PoseNodeError, match='3 corners were found, wanted 32'):
        clustered([np.zeros((3, 3))], 8, rng)
    assert corners(
        np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 3)), np.zeros((32, 32), bool)
    ).shape == (0, 3)


def test_the_nearest_pixel_is_the_projection_where_it_is_seen(
    renderer: Renderer, rng: np.random.Generator
) -> None:
    """Both labels agree to a pixel for points in view; points behind have no nearest pixel."""
    compared = hidden = 0
    for _ in range(20):
        _, coordinates, shown, T = shot(renderer, rng)
        # Points in the middle of the faces: a face is seen or it is not.
        points = np.vstack((np.diag(HALF), -np.diag(HALF)))
        pixels, known = nearest_pixels(coordinates, shown, points, 0.03)
        seen = cv2.projectPoints(apply(T, points), np.zeros(3), np.zeros(3), K, None)[0][:, 0]
        normals_cam = np.sign(points) @ T[:3, :3].T
        facing = (normals_cam * apply(T, points)).sum(axis=1) / np.linalg.norm(
            apply(T, points), axis=1
        )
        np.testing.assert_array_equal(known[facing < -0.2], True)
        np.testing.assert_array_equal(known[facing > 0.2], False)
        clear = facing < -0.2
        assert np.abs(pixels[clear] - seen[clear]).max(initial=0.0) < 1.5
        compared, hidden = compared + clear.sum(), hidden + (facing > 0.2).sum()
    assert compared > 30 and hidden > 30


def test_a_picture_without_the_object_has_no_labels() -> None:
    pixels, known = nearest_pixels(np.zeros((8, 8, 3)), np.zeros((8, 8), bool), CORNERS, 0.1)
    assert pixels.shape == (8, 2) and not known.any()


def test_an_object_says_how_its_keypoints_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corners of a box, kept when they were chosen once; by default the farthest vertices."""
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path))
    monkeypatch.setattr(corner_points, '_PICTURES', 60)
    box = primitive('box')
    options = ObjectOptions('box', tmp_path / 'box.ply')
    np.testing.assert_array_equal(keypoints_of(options, box, 8), farthest_points(box, 8))
    options = ObjectOptions('box', tmp_path / 'box.ply', keypoint_selection='corners')
    points = keypoints_of(options, box, 8)
    box_corners = box.bounds_m[np.indices((2, 2, 2)).reshape(3, -1).T, np.arange(3)]
    away = np.linalg.norm(points[:, None] - box_corners, axis=2)
    assert away.min(axis=0).max() < 0.1 * box.diameter_m

    def never(mesh: Mesh, count: int, pictures: int) -> np.ndarray:
        raise AssertionError('chosen twice')

    monkeypatch.setattr(corner_points, 'chosen', never)
    np.testing.assert_array_equal(keypoints_of(options, box, 8), points)
    with pytest.raises(AssertionError, match='chosen twice'):
        keypoints_of(options, box, 9)
    with pytest.raises(PoseNodeError, match="'best', wanted one of farthest, corners"):
        ObjectOptions('box', tmp_path / 'box.ply', keypoint_selection='best')
