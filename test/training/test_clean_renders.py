"""Sub-pixel truth of the shipped network: clean renders of the demo's drill, whose keypoints are
known exactly.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from pose_node.core import heatmap
from pose_node.core.bundle import Bundle
from pose_node.runtime.backends import open_backend
from pose_node.runtime.preprocess import to_tensor
from training.recipe import load_recipe
from training.synth.augment import AugmentOptions
from training.synth.dataset import Dataset, Sample

ROOT = Path(__file__).parents[2]
PICTURES = 96
_SAME_M = 0.01


@pytest.fixture(scope='module')
def clean(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The drill's views with nothing in front, its own paint, and a perfect camera."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('POSE_NODE_BACKGROUNDS', str(tmp_path_factory.mktemp('none')))
        recipe = load_recipe(ROOT / 'config' / 'recipes' / 'drill.toml')
    scene = dataclasses.replace(
        recipe.dataset.scene, occlusion=0.0, distractors=(0, 0), negatives=0.0, tint=0.0,
        repaint=0.0, shadow=0.0, shadow_map=0.0, margin=-0.3,
    )  # fmt: skip
    options = dataclasses.replace(
        recipe.dataset, scene=scene, ramp=0, backgrounds=None, box_shift=0.02, box_scale=0.02,
        augment=AugmentOptions(
            color=0.0, blur=0.0, resolution=0.0, noise=0.0, jpeg=0.0, cutout=0.0
        ),
    )  # fmt: skip
    return Dataset(options, recipe.objects, recipe.keypoints, 99)


def in_sight(dataset: Dataset, view: Sample) -> np.ndarray:
    """(K,) whether the surface at a keypoint's pixel is that of the keypoint."""
    size = dataset.options.input_size
    surface_obj, identity = dataset.renderer.targets(view.scene.instances, view.K, size)
    inside = ((view.keypoints_px > -0.5) & (view.keypoints_px < np.array(size) - 0.5)).all(axis=1)
    x, y = np.where(inside[:, None], view.keypoints_px, 0.0).round().astype(int).T
    off_m = np.linalg.norm(surface_obj[y, x] - dataset.things[0].keypoints_obj, axis=1)
    return np.asarray(inside & (identity[y, x] == 1) & (off_m < _SAME_M))


def test_keypoints_of_clean_renders_are_right_to_a_pixel(clean: Dataset) -> None:
    """The median of what is in sight is below one pixel of the network's picture, and nothing is
    shifted.
    """
    bundle = Bundle.load(ROOT / 'bundles' / 'drill')
    spec = bundle.pose_network
    assert spec.input_size == clean.options.input_size
    views = [clean.crop(number) for number in range(PICTURES)]
    network = open_backend('onnx', bundle.read(spec.file), 1)
    pictures = to_tensor(np.stack([view.picture for view in views]), spec.mean, spec.std)
    maps = network({spec.input: pictures})[spec.output]
    found = heatmap.decode(maps, spec.sigma_px)
    points_px = (found.points_px + 0.5) * spec.stride - 0.5
    errors_px = points_px - np.stack([view.keypoints_px for view in views])
    seen = np.stack([in_sight(clean, view) for view in views])
    assert 0.3 < seen.mean() < 0.7
    assert np.median(np.linalg.norm(errors_px[seen], axis=-1)) < 1.0
    assert np.abs(np.median(errors_px, axis=(0, 1))).max() < 0.25
