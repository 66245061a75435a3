# ruff: noqa: E402 (the workshop's libraries are looked for first)
"""Rendering and labels: known cameras, known colours, the same seed twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

moderngl = pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

import cv2
import trimesh

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import apply, make_pose
from pose_node.runtime.preprocess import Region
from pose_node.runtime.preprocess import crop as runtime_crop
from pose_node.runtime.preprocess import letterbox as runtime_letterbox
from training.recipe import load_recipe
from training.steps.feed import locator_targets, pose_targets
from training.synth.dataset import Dataset
from training.synth.keypoints import farthest_points
from training.synth.mesh import PRIMITIVES, Mesh, load_mesh, primitive, simplified
from training.synth.region import letterbox, square_region
from training.synth.render import Instance, Lights, Renderer, ShadowMap
from training.synth.scene import (
    SceneOptions,
    look_at,
    random_rotation,
    sample_camera,
    sample_pose,
    sample_scene,
)

RECIPES = Path(__file__).parents[2] / 'config' / 'recipes'
K = np.array([[310.0, 0, 64.7], [0, 305.0, 47.2], [0, 0, 1]])
SIZE = (128, 96)


@pytest.fixture(scope='module')
def renderer() -> Renderer:
    """One GL context for all."""
    renderer = Renderer()
    for kind in PRIMITIVES:
        renderer.upload(kind, primitive(kind))
    return renderer


@pytest.fixture(scope='module')
def dataset() -> Dataset:
    """The tiny recipe's samples."""
    recipe = load_recipe(RECIPES / 'tiny.toml')
    return Dataset(recipe.dataset, recipe.objects, recipe.keypoints, 5)


def test_coordinates_hit_the_pixel_they_are_drawn_in(
    renderer: Renderer, rng: np.random.Generator
) -> None:
    """No pixel is interpolated: every coordinate is a surface point that projects to its pixel."""
    for _ in range(10):
        T = make_pose(random_rotation(rng) * 0.2, np.array([*rng.uniform(-0.05, 0.05, 2), 0.8]))
        coordinates, identity = renderer.targets([Instance('box', T)], K, SIZE)
        rows, columns = np.nonzero(identity == 1)
        assert len(rows) > 200
        points = coordinates[rows, columns].astype(np.float64)
        # On the box's surface: one coordinate is at its bound.
        on_face = np.abs(np.abs(points) / (0.5, 0.35, 0.25) - 1.0).min(axis=1)
        assert on_face.max() < 1e-4
        seen = Camera(K, SIZE).project(apply(T, points))
        assert np.abs(seen - np.stack((columns, rows), axis=1)).max() < 0.1


def test_two_renderers_in_one_process_do_not_mix() -> None:
    """Each draws into its own context, whichever was made or used last."""
    first, second = Renderer(), Renderer()
    first.upload('thing', primitive('ball'))
    second.upload('thing', primitive('box'))
    thing = [Instance('thing', make_pose(0.2 * np.eye(3), np.array([0, 0, 0.8])))]
    shown = [r.targets(thing, K, SIZE)[1].sum() for r in (first, second, first, second)]
    assert shown[:2] == shown[2:] and shown[0] != shown[1]


def test_nearer_instance_hides_the_farther(renderer: Renderer) -> None:
    """The depth buffer works in both passes."""
    near = Instance('ball', make_pose(0.1 * np.eye(3), np.array([0, 0, 0.5])))
    far = Instance('box', make_pose(0.4 * np.eye(3), np.array([0, 0, 1.0])))
    for order in ([near, far], [far, near]):
        _, identity = renderer.targets(order, K, SIZE)
        assert identity[47, 65] == 1 + order.index(near)
        assert (identity == 1 + order.index(far)).any()


@pytest.mark.parametrize('kind', PRIMITIVES)
def test_inner_sides_of_closed_meshes_need_not_be_drawn(
    rng: np.random.Generator, renderer: Renderer, kind: str
) -> None:
    """The slow twin knows no closed mesh. On an outline a sliver seen from behind may win."""
    assert primitive(kind).is_closed
    slow = Renderer()
    slow.upload(kind, primitive(kind))
    slow.closed.clear()
    for _ in range(5):
        scene = [Instance(kind, make_pose(0.2 * random_rotation(rng), np.array([0.0, 0.0, 0.8])))]
        (fast, fast_identity), (full, identity) = (
            each.targets(scene, K, SIZE) for each in (renderer, slow)
        )
        assert (fast_identity != identity).sum() <= 2
        away = np.abs(fast - full)[(fast_identity > 0) & (identity > 0)].max(axis=1)
        assert (away > 1e-3).sum() <= 2
        assert identity.sum() > 500


def test_a_mesh_with_a_hole_or_inside_out_shows_its_inner_sides() -> None:
    """Then nothing may be left undrawn."""
    ball = primitive('ball')
    assert ball.is_closed
    assert not dataclasses.replace(ball, faces=ball.faces[:-20]).is_closed
    assert not dataclasses.replace(ball, faces=ball.faces[:, ::-1]).is_closed


def test_samples_depend_on_seed_and_number_alone(dataset: Dataset) -> None:
    """Made in any order, the same pixels and labels; another number, another picture."""
    first = dataset.crop(17)
    dataset.crop(3), dataset.whole(4)
    again = dataset.crop(17)
    np.testing.assert_array_equal(first.picture, again.picture)
    np.testing.assert_array_equal(first.keypoints_px, again.keypoints_px)
    assert (dataset.crop(18).picture != first.picture).any()


def test_keypoints_lie_where_the_camera_sees_them(dataset: Dataset) -> None:
    """Labels are projections of the mesh's own vertices through K and the crop."""
    for number in range(20):
        sample = dataset.crop(number)
        points = apply(sample.scene.T_cam_obj, dataset.things[0].keypoints_obj)
        seen, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), sample.scene.K, None)
        in_crop = seen[:, 0] @ sample.T_net_px[:2, :2].T + sample.T_net_px[:2, 2]
        np.testing.assert_allclose(sample.keypoints_px, in_crop, atol=1e-6)


def test_crops_are_those_of_the_run_time(rng: np.random.Generator) -> None:
    """Training and robot cut pictures alike, to the half pixel."""
    picture = np.zeros((480, 640, 3), np.uint8)
    for _ in range(20):
        center, side = rng.uniform(100, 400, 2), rng.uniform(40, 400)
        region = Region('drill', tuple(center), (side, 0.5 * side))
        _, A = runtime_crop(picture, region, (128, 128), 1.3)
        back = np.linalg.inv(square_region(center, 1.3 * side, (128, 128)))
        np.testing.assert_allclose(back[:2], A, atol=1e-9)
    _, A = runtime_letterbox(picture, (160, 128))
    np.testing.assert_allclose(np.linalg.inv(letterbox((640, 480), (160, 128)))[:2], A, atol=1e-9)


def test_targets_are_distributions(dataset: Dataset) -> None:
    """Every map sums to one; where nothing is to be found, it is flat."""
    samples = [dataset.crop(n) for n in range(40)]
    assert {s.present for s in samples} == {True, False}
    for sample in samples:
        maps = pose_targets(sample, 4, 1.0)
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1.0, atol=1e-5)
        if not sample.present:
            assert np.ptp(maps) < 1e-7


def test_locator_targets_say_where_the_box_is(dataset: Dataset) -> None:
    """Decoding the labels gives the box back."""
    for number in range(10):
        sample = dataset.whole(number)
        centers, boxes, mask = locator_targets(sample, 8, 1)
        assert centers.max() == (1.0 if sample.present else 0.0)
        for row, column in np.argwhere(mask[0] > 0):
            dx, dy, log_w, log_h = boxes[:, row, column]
            center = (np.array((column + dx, row + dy)) + 0.5) * 8 - 0.5
            np.testing.assert_allclose(center, sample.box_center_px, atol=1e-3)
            np.testing.assert_allclose(np.exp((log_w, log_h)), sample.box_size_px, rtol=1e-5)


def test_poses_keep_to_their_ranges(rng: np.random.Generator) -> None:
    """Distance and elevation as asked; the camera looks at the object's middle."""
    options = SceneOptions(distance_m=(0.5, 0.9), elevation_deg=(10.0, 40.0), margin=0.0)
    for _ in range(50):
        camera = sample_camera(rng, options)
        T = sample_pose(rng, options, camera)
        assert 0.5 <= np.linalg.norm(T[:3, 3]) <= 0.9
        eye = -T[:3, :3].T @ T[:3, 3]
        elevation = np.degrees(np.arcsin(eye[2] / np.linalg.norm(eye)))
        assert 9.999 <= elevation <= 40.001
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(look_at(0.0, 0.0, 0.0) @ (0, 0, 1), (0, -1, 0), atol=1e-12)


def test_views_are_of_the_middle_wherever_the_origin_is(rng: np.random.Generator) -> None:
    """The same box with its origin far off stands in the same places."""
    options = SceneOptions(distance_m=(0.5, 0.9), margin=0.0)
    bounds = np.array([[-0.1, -0.05, -0.02], [0.1, 0.05, 0.02]])
    for seed in range(20):
        here, there = (
            sample_scene(
                np.random.default_rng(seed), options,
                object_name='box', bounds_m=bounds + offset, extra_meshes={},
            )
            for offset in (np.zeros(3), np.array((0.3, -0.2, 0.5)))
        )  # fmt: skip
        middle = apply(there.T_cam_obj, np.array([(0.3, -0.2, 0.5)]))[0]
        np.testing.assert_allclose(middle, here.T_cam_obj[:3, 3], atol=1e-12)
        assert 0.5 <= np.linalg.norm(middle) <= 0.9
        for one, other in zip(here.instances[1:], there.instances[1:], strict=True):
            np.testing.assert_allclose(one.T_cam_obj, other.T_cam_obj, atol=1e-12)


def test_nothing_in_front_nor_beside_is_the_object_alone() -> None:
    options = SceneOptions(occlusion=1.0, occluders=(0, 0), distractors=(0, 0), negatives=0.0)
    bounds = np.array([[-0.1, -0.05, -0.02], [0.1, 0.05, 0.02]])
    for seed in range(20):
        scene = sample_scene(
            np.random.default_rng(seed), options,
            object_name='box', bounds_m=bounds, extra_meshes={},
        )  # fmt: skip
        assert [each.mesh for each in scene.instances] == ['box']


def test_farthest_points_spread() -> None:
    """The corners of a box come before anything else; no point comes twice."""
    points = farthest_points(primitive('box'), 8)
    assert len(np.unique(points, axis=0)) == 8
    np.testing.assert_allclose(np.abs(points), np.tile((0.5, 0.35, 0.25), (8, 1)))


def test_meshes_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    """With a sentence that says what to do."""
    with pytest.raises(PoseNodeError, match='does not exist'):
        load_mesh(tmp_path / 'none.ply')
    box = trimesh.creation.box((200.0, 100.0, 50.0))
    box.export(tmp_path / 'mm.ply')
    with pytest.raises(PoseNodeError, match='mesh_unit_m'):
        load_mesh(tmp_path / 'mm.ply')
    diagonal = np.linalg.norm((0.2, 0.1, 0.05))
    assert load_mesh(tmp_path / 'mm.ply', 0.001).diameter_m == pytest.approx(diagonal)


def test_simplified_keeps_the_shape() -> None:
    """Fewer triangles, the same bounds."""
    ball = primitive('ball')
    small = simplified(ball, 100)
    assert isinstance(small, Mesh) and len(small.faces) <= 120 < len(ball.faces)
    np.testing.assert_allclose(small.bounds_m, ball.bounds_m, atol=0.05)


@pytest.mark.parametrize('size_m', [0.01, 0.2, 30.0])
def test_simplified_keeps_to_the_surface_whatever_the_size(size_m: float) -> None:
    """Of a ring, whose surface has a formula: every vertex within 0.5 % of its size."""
    ring = trimesh.creation.torus(0.4 * size_m, 0.1 * size_m, 200, 60)
    vertices = np.asarray(ring.vertices)
    paint = np.zeros_like(vertices)
    x, y, z = simplified(Mesh(vertices, paint, paint, np.asarray(ring.faces)), 1000).vertices_m.T
    off_m = np.hypot(np.hypot(x, y) - 0.4 * size_m, z) - 0.1 * size_m
    assert np.abs(off_m).max() < 0.005 * size_m


def test_shadow_map_shades_what_the_light_does_not_reach(renderer: Renderer) -> None:
    """A ball over a plate: the plate is dark exactly where the ray to the light meets the ball."""
    plate = Instance('box', make_pose(np.diag([2.0, 2.0, 0.02]), np.array([0, 0, 1.0])))
    center, radius_m = np.array([0.02, -0.03, 0.85]), 0.05
    ball = Instance('ball', make_pose(2 * radius_m * np.eye(3), center))
    to_light = np.array([0.5, -0.3, -1.0]) / np.linalg.norm([0.5, -0.3, -1.0])
    lights = Lights(
        np.stack((to_light, to_light, to_light)), np.diag([1.0, 0, 0])[:, :1] * np.ones(3),
        np.full(3, 0.2), np.full(3, 0.2), np.array([0, 0, -1.0]),
    )  # fmt: skip
    shadow = ShadowMap(np.array([0, 0, 0.95]), 0.4, depth=1.0, softness_m=0.0)
    plain = renderer.picture([plate, ball], lights, K, SIZE)[..., 0].astype(int)
    shaded = renderer.picture([plate, ball], lights, K, SIZE, None, shadow)[..., 0].astype(int)
    coordinates, identity = renderer.targets([plate, ball], K, SIZE)
    rows, columns = np.nonzero(identity == 1)
    points = apply(plate.T_cam_obj, coordinates[rows, columns])
    along = (center - points) @ to_light
    distance = np.linalg.norm(points + along[:, None] * to_light - center, axis=1)
    dark = shaded[rows, columns] < 0.8 * plain[rows, columns]
    assert dark[distance < 0.8 * radius_m].all() and (distance < 0.8 * radius_m).sum() > 50
    assert not dark[distance > 1.25 * radius_m].any()
    without = renderer.picture([plate, ball], lights, K, SIZE)[..., 0]
    np.testing.assert_array_equal(without, plain)  # it is off again
