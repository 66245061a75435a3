"""Scenes on a table: what stands there stands on it, is told where it is, and shows its print."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import apply
from training.recipe import load_recipe
from training.synth.dataset import Dataset
from training.synth.mesh import PRIMITIVES, Mesh, primitive
from training.synth.piled import table_mesh
from training.synth.render import Instance, Lights, Material, Renderer
from training.synth.scene import Scene

RECIPES = Path(__file__).parents[2] / 'config' / 'recipes'


@pytest.fixture(scope='module')
def dataset() -> Dataset:
    """The tiny recipe's object three times over, always in a pile."""
    recipe = load_recipe(RECIPES / 'tiny.toml')
    scene = dataclasses.replace(
        recipe.dataset.scene, piled=1.0, negatives=0.0, occlusion=0.0, elevation_deg=(20.0, 80.0)
    )
    options = dataclasses.replace(
        recipe.dataset, scene=scene, others=(0, 1), ramp=0, input_size=(96, 96)
    )
    (only,) = recipe.objects
    objects = [dataclasses.replace(only, name=name) for name in ('first', 'second', 'third')]
    return Dataset(options, objects, recipe.keypoints, 5)


def _vertices_m(dataset: Dataset, mesh: str) -> np.ndarray:
    if mesh in PRIMITIVES:
        return primitive(mesh).vertices_m
    return dataset.things[0].mesh.vertices_m


def _on_table_m(dataset: Dataset, scene: Scene) -> list[np.ndarray]:
    """Vertices (V, 3) of all but the table, z over it."""
    *others, table = scene.instances
    assert table.mesh == 'table'
    T_cam_table = table.T_cam_obj.copy()
    T_cam_table[:3, :3] /= np.linalg.norm(T_cam_table[:3, :3], axis=0)
    return [
        apply(np.linalg.inv(T_cam_table) @ each.T_cam_obj, _vertices_m(dataset, each.mesh))
        for each in others
    ]


def test_all_stand_on_the_table_or_on_each_other(dataset: Dataset) -> None:
    """Nothing reaches through the table, the lowest is on it, and upright things are many."""
    heights = []
    for number in range(30):
        scene = dataset.crop(number).scene
        assert len(scene.instances) > 1 and scene.shadow is None
        lows = [vertices[:, 2].min() for vertices in _on_table_m(dataset, scene)]
        assert min(lows) > -1e-6 and min(lows) < 2e-3
        heights += lows
    assert np.mean(np.array(heights) < 2e-3) > 0.6


def test_labels_are_where_the_object_is_drawn(dataset: Dataset) -> None:
    """What is left of the object in the target pass lies under its projected vertices."""
    seen = 0
    for number in range(30):
        sample = dataset.crop(number)
        np.testing.assert_array_equal(sample.T_cam_obj, sample.scene.instances[0].T_cam_obj)
        surface, identity = dataset.renderer.targets(sample.scene.instances, sample.K, (96, 96))
        rows, columns = np.nonzero(identity == 1)
        if len(rows) == 0:
            continue
        points = apply(sample.T_cam_obj, surface[rows, columns]) @ sample.K.T
        pixels = points[:, :2] / points[:, 2:]
        assert np.abs(pixels - np.column_stack((columns, rows))).max() < 0.6
        seen += 1
    assert seen > 20


def test_samples_depend_on_their_number_alone(dataset: Dataset) -> None:
    recipe = load_recipe(RECIPES / 'tiny.toml')
    again = Dataset(dataset.options, [
        dataclasses.replace(recipe.objects[0], name=name) for name in ('first', 'second', 'third')
    ], recipe.keypoints, 5)  # fmt: skip
    for number in (11, 3):
        np.testing.assert_array_equal(again.crop(number).picture, dataset.crop(number).picture)


def test_who_looks_for_objects_sees_none_without_a_label(dataset: Dataset) -> None:
    """As many of the recipe's objects as `others` allows, each with its box."""
    company = 0
    own = set(dataset.coarse)
    for number in range(20):
        view = dataset.whole(number)
        drawn = [each for each in view.scene.instances if each.mesh in own]
        assert len(drawn) == 1 + len(view.scene.company) <= 2
        for thing, place in view.scene.company:
            assert thing != view.thing
            assert view.scene.instances[place].mesh == f'{dataset.things[thing].name}, fair'
        company += len(view.scene.company)
    assert company > 5


def test_a_print_lies_on_the_table_unmirrored_and_repeats() -> None:
    """From above, the left half of a picture is left of the table's middle; beyond its edges it
    comes mirrored, so that they meet.
    """
    renderer = Renderer()
    renderer.upload('table', table_mesh())
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = (255, 0, 0)
    picture[:, 32:] = (0, 0, 255)
    renderer.upload_print('halves', picture)
    even = Lights(np.eye(3), np.zeros((3, 3)), np.ones(3), np.ones(3), np.array((0.0, 0, -1)))
    T_cam_table = np.diag((1.0, -1.0, -1.0, 1.0))  # looking down on it, x to the right
    T_cam_table[2, 3] = 1.0
    K = np.array(((100.0, 0, 49.5), (0, 100.0, 49.5), (0, 0, 1)))

    def red(print_m: float) -> np.ndarray:
        material = Material(gloss=0.0, print='halves', print_m=print_m)
        instances = [Instance('table', T_cam_table, material)]
        rendered = renderer.picture(instances, even, K, (100, 100))[50, 2:-2]
        colors = rendered[:, :3].astype(int)
        assert (rendered[:, 3] == 255).all() and (colors[:, 1] == 0).all()
        return np.asarray(colors[:, 0] > colors[:, 2])

    where = np.arange(2, 98)
    np.testing.assert_array_equal(red(1.0), where < 50)
    np.testing.assert_array_equal(red(0.25), (where < 25) ^ (where >= 50) ^ (where >= 75) ^ True)


def test_an_object_for_which_no_pile_has_room_is_named(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dataset.piles is not None
    monkeypatch.setattr(dataset.piles, '_pile', lambda number: [])
    with pytest.raises(PoseNodeError, match=r'first, fair stands in none .* set piled to 0'):
        dataset.crop(0)


def test_the_table_is_square_and_flat() -> None:
    mesh: Mesh = table_mesh()
    np.testing.assert_array_equal(mesh.bounds_m, ((-0.5, -0.5, 0.0), (0.5, 0.5, 0.0)))
