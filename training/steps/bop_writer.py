"""Writes pictures with their ground truth in the BOP layout: millimetres, one scene and object."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pose_node.core.camera import Camera
from training.objects.ply import write_ply
from training.synth.mesh import Mesh

from .bag_writer import BagFrame

OBJECT_ID = 1


def write_bop(folder: Path, frames: Sequence[BagFrame], camera: Camera, mesh: Mesh) -> None:
    """test/000001 with rgb, scene_camera, scene_gt, scene_gt_info; models; the list of targets."""
    scene = folder / 'test' / '000001'
    (scene / 'rgb').mkdir(parents=True, exist_ok=True)
    cameras, truth, info, targets = {}, {}, {}, []
    for index, frame in enumerate(frames):
        cv2.imwrite(str(scene / 'rgb' / f'{index:06d}.png'), frame.picture[..., ::-1])
        T = frame.T_cam_obj
        cameras[index] = {'cam_K': camera.K.ravel().tolist(), 'depth_scale': 1.0}
        truth[index] = [{
            'obj_id': OBJECT_ID,
            'cam_R_m2c': T[:3, :3].ravel().tolist(),
            'cam_t_m2c': (1000.0 * T[:3, 3]).tolist(),
        }]  # fmt: skip
        low, high = _box(mesh, T, camera)
        box = [*low.tolist(), *(high - low).tolist()]
        info[index] = [{'visib_fract': frame.visible, 'bbox_obj': box}]
        if frame.visible > 0.1:
            targets.append({'im_id': index, 'inst_count': 1, 'obj_id': OBJECT_ID, 'scene_id': 1})
    for name, content in (('scene_camera', cameras), ('scene_gt', truth), ('scene_gt_info', info)):
        (scene / f'{name}.json').write_text(json.dumps(content, indent=1))
    (folder / 'test_targets_bop19.json').write_text(json.dumps(targets))
    _models(folder / 'models', mesh)


def _box(mesh: Mesh, T_cam_obj: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (px) of the whole projected mesh."""
    px = camera.project(mesh.vertices_m @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3])
    return np.nanmin(px, axis=0), np.nanmax(px, axis=0)


def _models(folder: Path, mesh: Mesh) -> None:
    write_ply(
        folder / f'obj_{OBJECT_ID:06d}.ply',
        dataclasses.replace(mesh, vertices_m=1000 * mesh.vertices_m),
    )
    low, high = 1000 * mesh.bounds_m
    size = high - low
    values = {'diameter': 1000 * mesh.diameter_m}
    for k, axis in enumerate('xyz'):
        values[f'min_{axis}'], values[f'size_{axis}'] = float(low[k]), float(size[k])
    (folder / 'models_info.json').write_text(json.dumps({str(OBJECT_ID): values}, indent=1))
