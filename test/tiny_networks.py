"""Short trainings of the tiny recipe's drill, with another network, and what they come to.

Imported by tests that have made sure that the workshop is installed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pose_node.core import metrics
from pose_node.core.camera import Camera
from pose_node.runtime.estimator import PoseEstimator
from pose_node.runtime.preprocess import Region
from training.__main__ import main
from training.recipe import Recipe, load_recipe
from training.synth.background import Backgrounds
from training.synth.dataset import Dataset

CHECKOUT = Path(__file__).resolve().parents[1]
_TINY = CHECKOUT / 'config' / 'recipes' / 'tiny.toml'


def tiny_recipe(folder: Path, pose: str, keypoints: int = 10, side_px: int = 64) -> Recipe:
    """The tiny recipe's drill and views without a locator; `pose` is what [pose] says, in which
    {bundles} stands for the folder of the shipped ones.
    """
    bundles = str(CHECKOUT / 'bundles')
    text = _TINY.read_text().replace('../../bundles', bundles)
    text = text[: text.index('[pose]')].replace('[64, 64]', f'[{side_px}, {side_px}]')
    text = text.replace('keypoints = 10', f'keypoints = {keypoints}\nlocator = false')
    path = folder / f'{folder.name}.toml'
    path.write_text(f'{text}\n[pose]\n{pose.format(bundles=bundles)}')
    return load_recipe(path)


def made(recipe: Recipe, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """The bundle of a recipe: fitted, calibrated and exported, all of it in this process."""
    patch.setenv('POSE_NODE_CACHE', str(folder / 'cache'))
    patch.setattr(Backgrounds.__init__, '__defaults__', (None, 8))
    out = folder / 'bundle'
    work = ['--threads', '1', '--workers', '0']
    assert main(['all', str(recipe.path), '--out', str(out), *work]) == 0
    return out


def judged(recipe: Recipe, bundle: Path, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """ADD over the diameter and NEES of the poses in whole unseen renders, true boxes given."""
    options = recipe.locator_dataset
    size = options.scene.picture_size
    shown = dataclasses.replace(options, input_size=size)
    dataset = Dataset(shown, recipe.objects, recipe.keypoints, seed)
    mesh, errors = dataset.things[0].mesh, []
    with PoseEstimator(bundle) as estimator:
        for number in range(count):
            sample = dataset.whole(number)
            if not sample.scene.present:
                continue
            region = Region(
                'drill', tuple(sample.box_center_px.tolist()), tuple(sample.box_size_px.tolist())
            )
            found = estimator(sample.picture, Camera(sample.scene.K, size), regions=[region])
            pose = (*found.poses, *found.rejected)[0]
            T = sample.scene.T_cam_obj
            add_m = metrics.add(pose.T_cam_obj, T, mesh.vertices_m)
            errors.append(
                (add_m / mesh.diameter_m, metrics.nees(pose.T_cam_obj, T, pose.covariance))
            )
    adds, squared = np.array(errors).T
    print('ADD / diameter', np.round(np.percentile(adds, (25, 50, 75)), 3))
    print('squared error in covariances', np.round(np.nanmedian(squared), 1))
    return adds, squared
