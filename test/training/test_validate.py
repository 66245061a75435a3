"""Validation sees what is right and what is wrong, on own renders and on a BOP data set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from torch import Tensor, nn

from pose_node.core.errors import PoseNodeError
from training.objects.ply import write_ply
from training.recipe import Recipe, load_recipe
from training.steps.feed import locator_targets, pose_targets
from training.steps.validate import Validation
from training.synth.background import Backgrounds
from training.synth.dataset import View
from training.synth.mesh import primitive
from training.synth.scene import SceneOptions, sample_camera, sample_pose

RECIPE = """
name = "box"
description = "x"
keypoints = 8
[[objects]]
name = "box"
mesh = "box.ply"
[dataset]
input_size = [128, 128]
[dataset.scene]
margin = -0.2
negatives = 0.2
[locator_dataset]
input_size = [160, 120]
[pose]
validate_on = 24
validation = "bop"
[locate]
validate_on = 24
"""
SIZE = (640, 480)


class Told(nn.Module):
    """Says the labels of the views it will be shown, in their order, as `say` makes them."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, answers: list[object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answers = iter(answers)

    def forward(self, x: Tensor, index: Tensor | None = None) -> object:
        if index is None:
            return next(self.answers)
        maps = np.stack([next(self.answers) for _ in range(len(x))])
        return torch.from_numpy(np.log(np.maximum(maps, 1e-12)))

    def maps(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return torch.exp(self(x, index))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A box 20 cm long."""
    monkeypatch.setattr(Backgrounds.__init__, '__defaults__', (None, 4))
    box = primitive('box')
    write_ply(tmp_path / 'box.ply', dataclasses.replace(box, vertices_m=0.2 * box.vertices_m))
    (tmp_path / 'box.toml').write_text(RECIPE)
    return load_recipe(tmp_path / 'box.toml')


def write_bop(folder: Path, rng: np.random.Generator, number: int = 5) -> list[dict[str, object]]:
    """Black pictures with known poses, as far as a reader needs them; millimetres."""
    scene = folder / 'val' / '000002'
    (scene / 'rgb').mkdir(parents=True)
    options = SceneOptions(margin=-0.3)
    cameras, truth = {}, {}
    for index in range(6):
        cv2.imwrite(str(scene / 'rgb' / f'{index:06d}.png'), np.zeros((*SIZE[::-1], 3), np.uint8))
        K = sample_camera(rng, options)
        T = sample_pose(rng, options, K)
        cameras[index] = {'cam_K': K.ravel().tolist()}
        truth[index] = [{
            'obj_id': number,
            'cam_R_m2c': T[:3, :3].ravel().tolist(),
            'cam_t_m2c': (1000 * T[:3, 3]).tolist(),
        }]  # fmt: skip
    (scene / 'scene_camera.json').write_text(json.dumps(cameras))
    (scene / 'scene_gt.json').write_text(json.dumps(truth))
    return [{'K': np.array(cameras[i]['cam_K']).reshape(3, 3), **truth[i][0]} for i in cameras]


def maps_of(view: View, shift_px: float = 0.0) -> np.ndarray:
    return pose_targets(dataclasses.replace(view, keypoints_px=view.keypoints_px + shift_px), 4, 1)


def test_poses_are_judged_on_both_sets(
    recipe: Recipe, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Who says the labels is right, who says them 12 px aside is not; the other set decides."""
    write_bop(tmp_path / 'bop', rng)
    validation = Validation(recipe, 'pose')
    assert validation.decides == 'other_ar_mssd'
    own = [view for view in validation.views['own'] if view.present]
    other = validation.views['other']
    assert 10 <= len(own) < 24 and len(other) == 6
    right = validation(Told([maps_of(v) for v in (*own, *other)]))
    assert right['own_ar_mssd'] > 0.9 and right['other_ar_mssd'] > 0.9
    assert right['own_add_01d'] > 0.95 and right['other_add_01d'] == 1.0
    assert right['own_keypoint_px'] < 0.2 and right['other_keypoint_px'] < 0.2
    aside = validation(Told([*map(maps_of, own), *(maps_of(v, 12.0) for v in other)]))
    assert aside['own_ar_mssd'] == right['own_ar_mssd']
    assert aside['other_ar_mssd'] < 0.7 < right['other_ar_mssd']
    assert aside['other_keypoint_px'] == pytest.approx(12 * np.sqrt(2), abs=0.5)


def test_crops_of_the_other_set_are_the_run_times(
    recipe: Recipe, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Keypoints of a crop, taken back to the whole picture, are where OpenCV projects them."""
    entries = write_bop(tmp_path / 'bop', rng)
    recipe = dataclasses.replace(recipe, locate=recipe.pose)
    for kind in ('pose', 'locator'):
        validation = Validation(recipe, kind)
        points_obj = validation.things[0].keypoints_obj
        for view, entry in zip(validation.views['other'], entries, strict=True):
            R = np.array(entry['cam_R_m2c']).reshape(3, 3)
            t = 0.001 * np.array(entry['cam_t_m2c'])
            K = np.array(entry['K'])
            px, _ = cv2.projectPoints(points_obj, cv2.Rodrigues(R)[0], t, K, None)
            T_net_px = view.K @ np.linalg.inv(K)
            seen = px[:, 0] @ T_net_px[:2, :2].T + T_net_px[:2, 2]
            np.testing.assert_allclose(view.keypoints_px, seen, atol=1e-4)
            height, width = view.picture.shape[:2]
            low, high = view.keypoints_px.min(axis=0), view.keypoints_px.max(axis=0)
            # The box's corners are among its keypoints.
            np.testing.assert_allclose(view.box_center_px, (low + high) / 2, atol=1e-3)
            np.testing.assert_allclose(view.box_size_px, high - low, atol=1e-3)
            if kind == 'pose':
                middle = ((width - 1) / 2, (height - 1) / 2)
                np.testing.assert_allclose(view.box_center_px, middle, atol=1e-6)
                assert view.box_size_px.max() == pytest.approx(width / 1.3)


def test_boxes_are_judged(recipe: Recipe) -> None:
    """The labels have average precision 1; boxes beside their objects have 0."""
    validation = Validation(recipe, 'locator')
    views = validation.views['own']
    assert {view.present for view in views} == {True, False}

    def say(view: View, aside: float) -> tuple[Tensor, Tensor]:
        centers, boxes, _ = locator_targets(view, 8, 1)
        boxes[0] += aside
        centers = centers.clip(1e-6, 1 - 1e-6)
        logits = np.log(centers / (1 - centers))
        return torch.from_numpy(logits)[None], torch.from_numpy(boxes)[None]

    assert validation(Told([say(v, 0.0) for v in views])) == {'own_ap': 1.0}
    assert validation(Told([say(v, 20.0) for v in views])) == {'own_ap': 0.0}


def test_what_is_no_data_set_is_said(
    recipe: Recipe, tmp_path: Path, rng: np.random.Generator
) -> None:
    """No folder; a folder without this object."""
    with pytest.raises(PoseNodeError, match='no BOP data set'):
        Validation(recipe, 'pose')
    write_bop(tmp_path / 'bop', rng)
    known = (dataclasses.replace(recipe.objects[0], bop_id=9),)
    with pytest.raises(PoseNodeError, match=r'bop_id .*\(5\)'):
        Validation(dataclasses.replace(recipe, objects=known), 'pose')
