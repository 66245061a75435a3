"""Poses moved to outlines: known pictures, things in front, borders, and slow twins."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh

from pose_node.core.camera import Camera
from pose_node.core.contour import ContourOptions, align, displacement_px, find_edges, log_odds
from pose_node.core.geometry import angle_between, apply, exp_so3, make_pose
from pose_node.core.outline import Shape, outline
from pose_node.core.pnp import solve_pnp

K = np.array([[600.0, 0, 320.0], [0, 600.0, 240.0], [0, 0, 1]])
PLAIN = Camera(K, (640, 480))
BENT = Camera(K, (640, 480), 'plumb_bob', (-0.25, 0.1, 0.001, -0.001, 0.0))


def _thing() -> trimesh.Trimesh:
    """A hammer: no symmetry but the mirror's, 17 cm long."""
    handle = trimesh.creation.box((0.03, 0.15, 0.025))
    head = trimesh.creation.box((0.1, 0.04, 0.04))
    head.apply_translation((0.02, 0.08, 0.0))
    return trimesh.util.concatenate(handle, head)


MESH = _thing()
SHAPE = Shape.from_mesh(np.asarray(MESH.vertices), np.asarray(MESH.faces))
POINTS_OBJ = np.array(
    [[x, y, z] for x in (-0.015, 0.07) for y in (-0.07, 0.1) for z in (-0.02, 0.02)]
)
OPTIONS = ContourOptions()


def pose(rng, z_m=(0.6, 0.9)) -> np.ndarray:
    t = np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(*z_m)])
    return make_pose(exp_so3(rng.uniform(-0.5, 0.5, 3)), t)


def drawn(rng, T: np.ndarray, camera: Camera, paint=(200, 60, 40)) -> np.ndarray:
    """One colour before many greyish ones; drawn four times as large, so that edges are soft."""
    patches = rng.integers(40, 160, (12, 16, 3)).astype(np.uint8)
    picture = cv2.resize(patches, camera.size, interpolation=cv2.INTER_NEAREST)
    width, height = camera.size
    large = camera.resized(4 * width, 4 * height)
    corners_px = large.project(apply(T, np.asarray(MESH.vertices)))
    mask = np.zeros((4 * height, 4 * width), np.uint8)
    for face in MESH.faces:
        cv2.fillConvexPoly(mask, np.round(corners_px[face] * 16).astype(np.int32), 255, 8, 4)
    share = cv2.resize(mask, camera.size, interpolation=cv2.INTER_AREA)[..., None] / 255.0
    picture = share * np.array(paint) + (1.0 - share) * picture
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def keypoints(rng, T: np.ndarray, camera: Camera, std_px: float):
    """Where a network would see them, and the pose that they give."""
    points_px = camera.project(apply(T, POINTS_OBJ)) + rng.normal(0, std_px, (len(POINTS_OBJ), 2))
    covariances_px = np.tile(std_px**2 * np.eye(2), (len(POINTS_OBJ), 1, 1))
    seen = POINTS_OBJ, points_px, covariances_px
    return seen, solve_pnp(*seen, camera)


def off_m(T: np.ndarray, T_true: np.ndarray) -> float:
    return float(np.linalg.norm(apply(T, POINTS_OBJ) - apply(T_true, POINTS_OBJ), axis=1).mean())


@pytest.mark.parametrize('camera', [PLAIN, BENT], ids=['pinhole', 'bent'])
def test_an_outline_mends_what_keypoints_get_wrong(rng, camera):
    """Keypoints of 3 px, an edge that is sharp: a fraction of the error is left."""
    before, after = [], []
    for _ in range(12):
        T = pose(rng)
        picture = drawn(rng, T, camera)
        seen, found = keypoints(rng, T, camera, 3.0)
        aligned = align(picture, SHAPE, *seen, found.T_cam_obj, found.covariance, camera)
        before.append(off_m(found.T_cam_obj, T))
        after.append(off_m(aligned.T_cam_obj, T))
        assert aligned.agreement > 0.5
    assert np.median(after) < 0.35 * np.median(before)
    assert max(after) < 0.012


def test_the_true_pose_stays(rng):
    T = pose(rng)
    seen, _ = keypoints(rng, T, PLAIN, 1e-3)
    seen = seen[0], seen[1], np.tile(np.eye(2), (len(POINTS_OBJ), 1, 1))
    found = align(drawn(rng, T, PLAIN), SHAPE, *seen, T, 1e-5 * np.eye(6), PLAIN)
    assert off_m(found.T_cam_obj, T) < 0.001
    assert angle_between(found.T_cam_obj[:3, :3], T[:3, :3]) < 0.01
    np.testing.assert_allclose(found.covariance, found.covariance.T)
    assert (np.linalg.eigvalsh(found.covariance) > 0.0).all()


def test_a_larger_picture_gives_the_same_pose(rng):
    """Sizes are the object's own: three times as many pixels are reduced to as many again."""
    T = pose(rng, (0.55, 0.56))
    picture = drawn(rng, T, PLAIN)
    seen, found = keypoints(rng, T, PLAIN, 2.0)
    small = align(picture, SHAPE, *seen, found.T_cam_obj, found.covariance, PLAIN)
    camera = PLAIN.resized(1920, 1440)
    picture = cv2.resize(picture, camera.size, interpolation=cv2.INTER_NEAREST)
    seen = seen[0], 3.0 * seen[1] + 1.0, 9.0 * seen[2]
    large = align(picture, SHAPE, *seen, found.T_cam_obj, found.covariance, camera)
    assert off_m(large.T_cam_obj, small.T_cam_obj) < 0.0015


def test_something_in_front_does_not_pull_the_pose_away(rng):
    """A third of the object behind a bar of another colour: no worse than the keypoints alone."""
    before, after = [], []
    for _ in range(12):
        T = pose(rng)
        picture = drawn(rng, T, PLAIN)
        x, y = PLAIN.project(apply(T, np.array([[0.0, -0.04, 0.0]])))[0].astype(int)
        cv2.rectangle(picture, (x - 60, y - 20), (x + 60, y + 20), (40, 90, 180), -1)
        seen, found = keypoints(rng, T, PLAIN, 2.0)
        aligned = align(picture, SHAPE, *seen, found.T_cam_obj, found.covariance, PLAIN)
        before.append(off_m(found.T_cam_obj, T))
        after.append(off_m(aligned.T_cam_obj, T))
    assert np.median(after) < 0.8 * np.median(before)


def test_a_picture_without_an_edge_says_nothing(rng):
    """What is left is what the keypoints say, and an agreement like that of any other place."""
    T = pose(rng)
    seen, found = keypoints(rng, T, PLAIN, 2.0)
    grey = np.full((480, 640, 3), 128, np.uint8)
    first = found.T_cam_obj, found.covariance, PLAIN
    aligned = align(grey, SHAPE, *seen, *first)
    alone = align(grey, SHAPE, *seen, *first, ContourOptions(lines_share=1e-9))
    assert off_m(aligned.T_cam_obj, alone.T_cam_obj) < 0.2 * off_m(alone.T_cam_obj, T)
    assert aligned.agreement == pytest.approx(3 / (2 * OPTIONS.samples + 1), abs=0.01)


@pytest.mark.parametrize('place', [(-0.36, 0.0), (0.0, 0.29), (5.0, 5.0)], ids=str)
def test_at_the_border_and_beyond(rng, place):
    """Half of it outside is aligned by the other half; where nothing is seen, nothing is said."""
    T = make_pose(exp_so3(rng.uniform(-0.3, 0.3, 3)), np.array([*place, 0.7]))
    picture = drawn(rng, T, PLAIN)
    seen, found = keypoints(rng, T, PLAIN, 2.0)
    aligned = align(picture, SHAPE, *seen, found.T_cam_obj, found.covariance, PLAIN)
    if place[0] == 5.0:
        assert aligned is None
    else:
        assert off_m(aligned.T_cam_obj, T) < 1.2 * off_m(found.T_cam_obj, T)


def test_behind_the_camera_or_in_it(rng):
    picture = rng.integers(0, 255, (480, 640, 3)).astype(np.uint8)
    seen, found = keypoints(rng, pose(rng), PLAIN, 1.0)
    for z_m in (-0.7, 0.0, 0.05):
        T = make_pose(np.eye(3), np.array([0.0, 0.0, z_m]))
        assert align(picture, SHAPE, *seen, T, found.covariance, PLAIN) is None


@pytest.mark.filterwarnings('error')
def test_whatever_the_pose_there_is_an_answer_in_numbers_or_none(rng):
    """Near and far, beside the picture, tiny pictures, covariances of any size."""
    answered = 0
    for _ in range(300):
        width, height = rng.integers(8, 400, 2)
        camera = Camera(K, (int(width), int(height)))
        picture = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        z_m = float(np.exp(rng.uniform(np.log(0.02), np.log(50.0))))
        t = np.array([*rng.uniform(-0.6, 0.2, 2) * z_m, z_m])
        T = make_pose(exp_so3(rng.normal(size=3) * 2.0), t)
        points_px = rng.uniform(-50, 450, (8, 2))
        covariances_px = np.tile(np.exp(rng.uniform(-8, 12)) * np.eye(2), (8, 1, 1))
        covariance = np.exp(rng.uniform(-30, 5)) * np.eye(6)
        found = align(picture, SHAPE, POINTS_OBJ, points_px, covariances_px, T, covariance, camera)
        if found is not None:
            answered += 1
            assert np.isfinite(found.T_cam_obj).all() and np.isfinite(found.covariance).all()
            assert 0.0 <= found.agreement <= 1.0
    assert 30 < answered < 270


def test_edges_are_where_the_likelihood_says(rng):
    """Slow twin: for every place of an edge, the object's colours up to it and others beyond."""
    T = pose(rng)
    seen = outline(SHAPE, T, PLAIN)
    odds = log_odds(drawn(rng, T, PLAIN), seen, OPTIONS)
    step_px, reach = 1.3, OPTIONS.samples
    edges = find_edges(odds, seen, step_px, OPTIONS)
    assert len(edges.points_px) == len(seen.points_px)
    for i in range(0, len(seen.points_px), 17):
        places = seen.points_px[i] + np.outer(
            step_px * np.arange(-reach, reach + 1), seen.outward[i]
        )
        x, y = places.astype(np.float32).T
        own = 1.0 / (1.0 + np.exp(-cv2.remap(odds, x, y, cv2.INTER_LINEAR).ravel().astype(float)))
        likely = np.array([
            np.prod(own[:d]) * np.prod(1.0 - own[d + 1 :]) * np.sqrt(own[d] * (1.0 - own[d]))
            for d in range(2 * reach + 1)
        ])  # fmt: skip
        likely /= likely.sum()
        offsets_px = step_px * np.arange(-reach, reach + 1)
        mean = likely @ offsets_px
        variance = max(likely @ (offsets_px - mean) ** 2, (OPTIONS.least_std_px * step_px) ** 2)
        # A Gaussian that, times one as wide as the window about the middle, has these moments.
        known = 1.0 / variance - 1.0 / np.mean(offsets_px**2)
        outward = seen.outward[i]
        off_px = np.clip(mean / variance / known, offsets_px[0], offsets_px[-1])
        np.testing.assert_allclose(
            edges.points_px[i], seen.points_px[i] + off_px * outward, atol=5e-3
        )
        assert outward @ edges.covariances_px[i] @ outward == pytest.approx(1.0 / known, rel=5e-3)
        along = np.array([-outward[1], outward[0]])
        assert along @ edges.covariances_px[i] @ along > 1e5


def test_odds_are_those_of_the_histograms(rng):
    T = pose(rng)
    odds = log_odds(drawn(rng, T, PLAIN), outline(SHAPE, T, PLAIN), OPTIONS)
    inside = PLAIN.project(apply(T, np.array([[0.0, 0.0, 0.0], [0.03, 0.08, 0.0]]))).astype(int)
    surest = np.log((0.5 + OPTIONS.contrast) / (0.5 - OPTIONS.contrast))
    assert (odds[inside[:, 1], inside[:, 0]] > 0.9 * surest).all()
    assert np.abs(odds).max() <= surest * (1.0 + 1e-6)
    assert np.median(odds[:40, :40]) <= 0.0


def test_how_far_the_outline_may_be_off(rng):
    """Against poses drawn from the covariance."""
    T = pose(rng)
    A = rng.normal(size=(6, 6)) * np.repeat((0.004, 0.01), 3)[:, None]
    covariance = A @ A.T
    seen = outline(SHAPE, T, PLAIN)
    off = []
    for step in rng.multivariate_normal(np.zeros(6), covariance, 400):
        moved = make_pose(exp_so3(step[3:]) @ T[:3, :3], T[:3, 3] + step[:3])
        points_px = PLAIN.project(apply(moved, seen.points_obj))
        off.append(((points_px - seen.points_px) * seen.outward).sum(axis=1))
    wanted = np.median(np.std(off, axis=0))
    assert displacement_px(seen, T, covariance, PLAIN) == pytest.approx(wanted, rel=0.15)
