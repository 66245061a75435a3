"""Drawing: the box and the axes are where the pose says, and nothing breaks it."""

from __future__ import annotations

import dataclasses
import time

import cv2
import numpy as np
import pytest
from known_bundle import draw_scene, make_bundle

from pose_node.core.camera import Camera
from pose_node.runtime.draw import AXES, BOX, box_edges, draw, sigma_text
from pose_node.runtime.estimator import PoseEstimator
from pose_node.runtime.preprocess import Region
from pose_node.runtime.results import FrameResult

CAMERA = Camera(
    K=np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]]), size=(640, 480), model='none', D=()
)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots')


@pytest.fixture(scope='module')
def seen(bundle) -> tuple[np.ndarray, FrameResult]:
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.3, -0.5, 0.2]))[0]
    T[:3, 3] = 0.05, 0.02, 0.7
    picture = draw_scene(CAMERA, T)
    with PoseEstimator(bundle) as estimator:
        return picture, estimator(picture, CAMERA)


def moved(result: FrameResult, **changes) -> FrameResult:
    return dataclasses.replace(result, poses=(dataclasses.replace(result.poses[0], **changes),))


def near(picture: np.ndarray, place: np.ndarray, color: tuple[int, int, int]) -> bool:
    """Whether a pixel within 2 px of the place has about this colour."""
    x, y = np.round(place).astype(int)
    patch = picture[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).astype(int)
    return bool((np.abs(patch - color).max(axis=1) < 60).any())


def test_box_edges_of_a_unit_cube():
    edges = box_edges(np.array([[0.0, 0, 0], [1, 1, 1]]))
    assert edges.shape == (12, 2, 3)
    np.testing.assert_array_equal(np.abs(edges[:, 0] - edges[:, 1]).sum(axis=1), 1.0)
    assert len({tuple(map(tuple, np.sort(edge, axis=0))) for edge in edges}) == 12
    assert len({tuple(corner) for corner in edges.reshape(-1, 3)}) == 8


def test_box_and_axes_are_where_the_pose_says(seen, bundle):
    picture, result = seen
    canvas = draw(picture, CAMERA, moved(result, keypoints_px=np.full((12, 2), np.nan)), bundle)
    T = result.poses[0].T_cam_obj
    spec = bundle.objects[0]
    for edge in box_edges(spec.bounds_obj_m):
        middle = CAMERA.project((edge.mean(axis=0) @ T[:3, :3].T + T[:3, 3])[None])[0]
        assert near(canvas, middle, BOX)
    for axis, color in zip(np.eye(3), AXES):
        point = T[:3, :3] @ (0.35 * spec.diameter_m * axis) + T[:3, 3]
        assert near(canvas, CAMERA.project(point[None])[0], color)


def test_edges_follow_the_distortion(bundle, seen):
    """Midpoints of edges project off the straight line between the corners: the drawing too."""
    picture, result = seen
    bent = Camera(K=CAMERA.K, size=(640, 480), model='plumb_bob', D=(-0.4, 0.15, 0, 0, 0))
    T = result.poses[0].T_cam_obj.copy()
    T[:3, 3] = 0.17, 0.1, 0.45
    canvas = draw(picture, bent, moved(result, T_cam_obj=T), bundle)
    for edge in box_edges(bundle.objects[0].bounds_obj_m):
        middle = bent.project((edge.mean(axis=0) @ T[:3, :3].T + T[:3, 3])[None])[0]
        if (middle > 3).all() and (middle < (636, 476)).all():
            assert near(canvas, middle, BOX)


def test_keypoints_are_drawn(seen, bundle):
    picture, result = seen
    places = np.full((12, 2), np.nan)
    places[0] = 20.0, 400.0
    confidences = np.zeros(12)
    confidences[0] = 0.15
    with_dot = draw(
        picture, CAMERA, moved(result, keypoints_px=places, confidences=confidences), bundle
    )
    assert near(with_dot, places[0], (255, 255, 160))


def test_the_callers_picture_is_not_touched(seen, bundle):
    picture, result = seen
    copy = picture.copy()
    picture.flags.writeable = False
    canvas = draw(picture, CAMERA, result, bundle)
    np.testing.assert_array_equal(picture, copy)
    assert (canvas != picture).any() and canvas.shape == picture.shape


def test_nothing_found_is_the_picture_itself(seen, bundle):
    picture, result = seen
    nothing = dataclasses.replace(result, poses=())
    np.testing.assert_array_equal(draw(picture, CAMERA, nothing, bundle), picture)


@pytest.mark.parametrize(
    'place', [(0, 0, -1.0), (0, 0, 0.0), (0, 0, 0.05), (50, 0, 0.1), (9, 9, 1)]
)
def test_what_is_behind_or_beside_the_camera_draws_no_lines_across(seen, bundle, place):
    picture, result = seen
    T = np.eye(4)
    T[:3, 3] = place
    canvas = draw(picture, CAMERA, moved(result, T_cam_obj=T), bundle)
    if place[2] <= 0 or place[0] > 1:
        boxes = (np.abs(canvas.astype(int) - BOX).max(axis=2) < 10).sum()
        assert boxes == 0


def test_labels_stay_inside(seen, bundle):
    picture, result = seen
    for center in ((-900.0, -900.0), (900.0, 900.0), (np.nan, 0.0)):
        region = Region('dots', center, (50.0, 50.0))
        canvas = draw(picture, CAMERA, moved(result, region=region), bundle)
        assert (canvas == 255).all(axis=2).sum() > 100  # white letters


def test_sigmas_by_hand(seen):
    """Seen along a slanted line: 2 mm across, 9 mm deep."""
    _, result = seen
    sight = np.array([0.6, 0.0, 0.8])
    T = np.eye(4)
    T[:3, 3] = 0.5 * sight
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = 0.002**2 * (np.eye(3) - np.outer(sight, sight))
    covariance[:3, :3] += 0.009**2 * np.outer(sight, sight)
    pose = dataclasses.replace(result.poses[0], T_cam_obj=T, covariance=covariance)
    assert sigma_text(pose) == '+-2.0 mm across, 9.0 mm deep'


def test_it_is_quick(seen, bundle):
    picture, result = seen
    best = np.inf
    for _ in range(10):
        start = time.perf_counter()
        draw(picture, CAMERA, result, bundle)
        best = min(best, time.perf_counter() - start)
    assert best < 0.005
