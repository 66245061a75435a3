"""A curriculum: samples begin easy and end as the recipe says; without one nothing changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from training.recipe import load_recipe
from training.synth.background import Backgrounds
from training.synth.dataset import Dataset, DatasetOptions
from training.synth.scene import SceneOptions, narrowed, sample_camera, sample_pose

RECIPE = load_recipe(Path(__file__).parents[2] / 'config' / 'recipes' / 'tiny.toml')
WHOLE = dataclasses.replace(
    RECIPE.dataset,
    object_faces=300,
    scene=dataclasses.replace(RECIPE.dataset.scene, occlusion=1.0, negatives=0.0),
    augment=dataclasses.replace(RECIPE.dataset.augment, blur=1.0),
)
GROWING = dataclasses.replace(WHOLE, ramp=10, ramp_views=0.2, ramp_blur=0.0)


@pytest.fixture(autouse=True)
def few_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backgrounds.__init__, '__defaults__', (None, 4))


def pictures(options: DatasetOptions, numbers: list[int]) -> list[np.ndarray]:
    dataset = Dataset(options, RECIPE.objects, RECIPE.keypoints, 5)
    return [view.picture for n in numbers for view in (dataset.crop(n), dataset.whole(n))]


def test_after_the_ramp_everything_is_whole() -> None:
    """Bit for bit the samples of the same recipe without a ramp."""
    np.testing.assert_equal(pictures(GROWING, [10, 31]), pictures(WHOLE, [10, 31]))


def test_a_ramp_of_occlusion_alone_is_what_it_was() -> None:
    """The options are off: views and blur are whole from the first sample."""
    plain = dataclasses.replace(WHOLE, ramp=10)
    dataset = Dataset(plain, RECIPE.objects, RECIPE.keypoints, 5)
    without = dataclasses.replace(plain.scene, occlusion=0.0)
    unoccluded = dataclasses.replace(plain, ramp=0, scene=without)
    start = Dataset(unoccluded, RECIPE.objects, RECIPE.keypoints, 5).crop(0)
    np.testing.assert_equal(dataset.crop(0).picture, start.picture)


def test_the_first_samples_are_sharp_and_seen_from_the_middle() -> None:
    """As a recipe says that has no blur, no occlusion and only the middle views."""
    easy = dataclasses.replace(
        WHOLE,
        scene=narrowed(dataclasses.replace(WHOLE.scene, occlusion=0.0), 0.2),
        augment=dataclasses.replace(WHOLE.augment, blur=0.0),
    )
    np.testing.assert_equal(pictures(GROWING, [0]), pictures(easy, [0]))
    assert (pictures(GROWING, [0])[0] != pictures(WHOLE, [0])[0]).any()


def test_narrowed_views_lie_about_the_middle(rng: np.random.Generator) -> None:
    """A quarter of each range of angles; distances keep theirs."""
    options = SceneOptions(elevation_deg=(0.0, 80.0), azimuth_deg=(0.0, 360.0), margin=-0.5)
    quarter = narrowed(options, 0.25)
    assert narrowed(options, 1.0) is options
    for _ in range(50):
        camera = sample_camera(rng, quarter)
        T = sample_pose(rng, quarter, camera)
        eye = -T[:3, :3].T @ T[:3, 3]
        elevation = np.degrees(np.arcsin(eye[2] / np.linalg.norm(eye)))
        azimuth = np.degrees(np.arctan2(eye[1], eye[0])) % 360
        assert 29.99 <= elevation <= 50.01
        assert 134.99 <= azimuth <= 225.01
    assert quarter.roll_deg == (-7.5, 7.5)
    assert quarter.distance_m == options.distance_m
