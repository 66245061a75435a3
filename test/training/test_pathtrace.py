"""The path tracer against projection by hand; needs mitsuba."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from training.synth.mesh import primitive
from training.synth.pathtrace import (
    Item,
    Panel,
    PathTracer,
    World,
    develop,
    linear_from_srgb,
    load_mitsuba,
)

CAMERA = Camera(
    np.array([[120.0, 0, 78], [0, 121.0, 61], [0, 0, 1]]),
    (160, 120), 'plumb_bob', (-0.25, 0.06, 0.002, -0.001, 0),
)  # fmt: skip


@pytest.fixture(scope='module')
def mitsuba():
    try:
        return load_mitsuba()
    except PoseNodeError as error:
        pytest.skip(str(error))


def placed(kind, scale, position):
    T = np.diag([scale, scale, scale, 1.0])
    T[:3, 3] = position
    mesh = primitive(kind)
    return Item(mesh, T), (mesh.vertices_m * scale) + position


def light():
    T = np.diag([1.0, -1.0, -1.0, 1.0])  # faces -z, towards the camera's things
    T[:3, 3] = (0, 0, 4.0)
    return Panel(T, (4.0, 4.0), radiance=(3.0, 3.0, 3.0))


def test_mask_is_the_distorted_projection(mitsuba, rng):
    """A convex body's silhouette is the hull of its projected corners; edges bend little."""
    for _ in range(4):
        item, corners = placed('box', 0.25, rng.uniform((-0.4, -0.3, 0.9), (0.4, 0.3, 1.4)))
        tracer = PathTracer(World([item], []), mi=mitsuba)
        mask = tracer.mask(np.eye(4), CAMERA)
        px = cv2.projectPoints(corners, np.zeros(3), np.zeros(3), CAMERA.K, np.array(CAMERA.D))[0][
            :, 0
        ]
        hull = cv2.convexHull(np.round(px * 16).astype(np.int32))
        expected = np.zeros(mask.shape, np.uint8)
        cv2.fillConvexPoly(expected, hull, 1, lineType=cv2.LINE_8, shift=4)
        rim = cv2.morphologyEx(expected, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        assert mask.sum() > 200
        np.testing.assert_array_equal(mask[~rim], expected[~rim] > 0)


def test_depths_are_those_of_a_plane(mitsuba):
    """A wall straight ahead is equally deep everywhere, through a lens that bends."""
    wall, _ = placed('box', 8.0, (0.0, 0.0, 4.0))
    depths_m = PathTracer(World([wall], []), mi=mitsuba).depths_m(np.eye(4), CAMERA)
    np.testing.assert_allclose(depths_m, 2.0, atol=1e-3)
    behind = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert not PathTracer(World([wall], []), mi=mitsuba).depths_m(behind, CAMERA).any()


def test_visible_share(mitsuba):
    ball, _ = placed('ball', 0.3, (0.0, 0.0, 1.0))
    alone = PathTracer(World([ball], []), mi=mitsuba)
    assert alone.visible_share(np.eye(4), CAMERA) == 1.0
    # Something in front covers the half at x < 0.
    cover, _ = placed('box', 0.4, (-0.2, 0.0, 0.6))
    covered = PathTracer(World([ball, cover], []), mi=mitsuba)
    assert abs(covered.visible_share(np.eye(4), CAMERA) - 0.5) < 0.02
    # Turned until the ball's centre lies on the picture's border; the outer half is drawn larger.
    xy = CAMERA.unproject(np.array([[159.5, 61.0]]))[0]
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.0, np.arctan(xy[0]), 0.0]))[0]
    x, y = np.meshgrid(np.linspace(-0.5, 2.0, 800), np.linspace(-0.8, 0.8, 500))
    rays = np.stack((x.ravel(), y.ravel(), np.ones(x.size)), axis=1)
    offset = np.linalg.norm(np.cross(rays, T[:3, 2]), axis=1) / np.linalg.norm(rays, axis=1)
    ball_px = cv2.projectPoints(
        rays[offset < 0.15], *np.zeros((2, 3)), CAMERA.K, np.array(CAMERA.D)
    )[0]
    assert abs(alone.visible_share(T, CAMERA) - (ball_px[:, 0, 0] < 159.5).mean()) < 0.02
    T[:3, :3] = cv2.Rodrigues(np.array([0.0, 2.0, 0.0]))[0]
    assert alone.visible_share(T, CAMERA) == 0.0
    assert (
        PathTracer(World([ball], [], has_object=False), mi=mitsuba).visible_share(
            np.eye(4), CAMERA
        )
        == 0
    )


@pytest.mark.slow
def test_picture_shows_lit_things_and_repeats(mitsuba):
    pytest.importorskip('mitsuba_oidn', reason='mitsuba-oidn is not installed')
    camera = Camera(np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), (64, 48))
    item, _ = placed('ball', 0.5, (0.0, 0.0, 1.5))
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    behind = np.diag([1.0, -1.0, -1.0, 1.0])
    behind[:3, 3] = (0, 0, 2.5)
    lamp = np.eye(4)
    lamp[:3, 3] = (0, 0, -1.0)
    world = World(
        [item],
        [Panel(behind, (9.0, 9.0), picture=red), Panel(lamp, (2.0, 2.0), radiance=(5.0,) * 3)],
    )
    tracer = PathTracer(world, mi=mitsuba)
    one, two = (tracer.render(np.eye(4), camera, samples=16, seed=3) for _ in range(2))
    np.testing.assert_allclose(one.linear, two.linear, rtol=1e-3, atol=1e-4)
    r, g, b = one.linear[2, 2]
    assert r > 0.05 and g < 0.1 * r and b < 0.1 * r
    middle = one.linear[24, 32]
    assert np.ptp(middle) < 0.1 * middle.mean(), 'the ball is grey'
    assert one.visible == 1.0


def test_develop_keeps_order_and_known_greys(rng):
    greys = np.array([0.05, 0.18, 0.4, 0.6])
    linear = np.tile(np.repeat(greys, 40)[None, :, None], (40, 1, 3)).astype(np.float32)
    picture = develop(linear, exposure=1.0, blur_px=0.5, noise=0.0, rng=rng)
    seen = picture[20, 20::40, 0] / 255.0
    np.testing.assert_allclose(linear_from_srgb(seen), greys, rtol=0.02)
    bright = develop(linear * 10, exposure=1.0, blur_px=0.5, noise=0.0, rng=rng)
    assert bright.max() <= 255 and (np.diff(bright[20, 20::40, 0].astype(int)) >= 0).all()
