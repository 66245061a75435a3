"""Writes pictures with their ground truth in the BOP layout (bop_toolkit,
docs/bop_datasets_format.md): millimetres, one folder a scene.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pose_node.core.camera import Camera
from pose_node.core.symmetry import Symmetries
from training.objects.ply import write_ply
from training.synth.mesh import Mesh, simplified

from .bag_writer import BagFrame

_MM = 1000.0
_EVAL_FACES = 8000  # as decimated as the challenge's own models_eval
DEPTH_SCALE_MM = 0.1  # what one step of a depth picture is
LEAST_VISIBLE = 0.1  # of an instance that is to be found


@dataclass(frozen=True)
class Seen:
    """One instance in one picture; boxes are x, y, width, height in px."""

    object: int
    T_cam_obj: np.ndarray
    visible: float
    box_px: tuple[float, ...]
    box_visible_px: tuple[float, ...] | None = None
    pixels: int = -1  # of the whole silhouette; -1 where nobody counted
    pixels_visible: int = -1
    wanted: bool = True  # among the targets, where enough of it is seen


def write_json(path: Path, content: Any) -> None:
    """All at once: a file that is there is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix('.part')
    unfinished.write_text(json.dumps(content, indent=1), encoding='utf-8')
    unfinished.replace(path)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """(H, W, 3) uint8 RGB as PNG, all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.stem + '.part.png')
    cv2.imwrite(str(unfinished), picture[..., ::-1])
    unfinished.replace(path)


def write_depth(path: Path, depth_m: np.ndarray) -> None:
    """(H, W) z, m, as PNG of 16 bits in tenths of a millimetre: 6.5 m at most, 0 is unknown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.rint(_MM / DEPTH_SCALE_MM * depth_m)
    steps[~(steps <= np.iinfo(np.uint16).max)] = 0
    unfinished = path.with_name(path.stem + '.part.png')
    cv2.imwrite(str(unfinished), steps.astype(np.uint16))
    unfinished.replace(path)


def write_scene(folder: Path, cameras: Sequence[np.ndarray], seen: Sequence[list[Seen]]) -> None:
    """scene_camera, scene_gt and scene_gt_info of the pictures 0, 1, ... with K (3, 3) each."""
    truth, infos = {}, {}
    for index, instances in enumerate(seen):
        truth[index] = [{
            'obj_id': each.object,
            'cam_R_m2c': each.T_cam_obj[:3, :3].ravel().tolist(),
            'cam_t_m2c': (_MM * each.T_cam_obj[:3, 3]).tolist(),
        } for each in instances]  # fmt: skip
        infos[index] = [_info(each) for each in instances]
    K = {
        i: {'cam_K': K.ravel().tolist(), 'depth_scale': DEPTH_SCALE_MM}
        for i, K in enumerate(cameras)
    }
    for name, content in (('scene_camera', K), ('scene_gt', truth), ('scene_gt_info', infos)):
        write_json(folder / f'{name}.json', content)


def _info(each: Seen) -> dict[str, Any]:
    info: dict[str, Any] = {'visib_fract': each.visible, 'bbox_obj': list(each.box_px)}
    if each.box_visible_px is not None:
        info['bbox_visib'] = list(each.box_visible_px)
    if each.pixels >= 0:
        info |= {'px_count_all': each.pixels, 'px_count_visib': each.pixels_visible}
    return info


def targets(scene: int, seen: Iterable[list[Seen]]) -> list[dict[str, int]]:
    """What is to be found in a scene's pictures 0, 1, ..."""
    found = []
    for index, instances in enumerate(seen):
        enough = [s.object for s in instances if s.wanted and s.visible >= LEAST_VISIBLE]
        for number in sorted(set(enough)):
            count = enough.count(number)
            found.append(
                {'im_id': index, 'inst_count': count, 'obj_id': number, 'scene_id': scene}
            )
    return found


def write_models(folder: Path, models: Mapping[int, tuple[Mesh, Symmetries]]) -> None:
    """obj_NNNNNN.ply, decimated, and models_info.json with the whole mesh's diameter and box."""
    infos = {}
    for number, (mesh, symmetries) in models.items():
        small = simplified(mesh, _EVAL_FACES)
        write_ply(
            folder / f'obj_{number:06d}.ply',
            dataclasses.replace(small, vertices_m=_MM * small.vertices_m),
        )
        low, high = _MM * mesh.bounds_m
        info: dict[str, Any] = {'diameter': _MM * mesh.diameter_m}
        for k, axis in enumerate('xyz'):
            info[f'min_{axis}'], info[f'size_{axis}'] = float(low[k]), float((high - low)[k])
        infos[str(number)] = info | symmetries.to_bop()
    write_json(folder / 'models_info.json', infos)


def write_bop(folder: Path, frames: Sequence[BagFrame], camera: Camera, mesh: Mesh) -> None:
    """One scene of one object, number 1: pictures, truth, models and targets."""
    scene = folder / 'test' / '000001'
    seen = []
    for index, frame in enumerate(frames):
        write_picture(scene / 'rgb' / f'{index:06d}.png', frame.picture)
        low, high = _box(mesh, frame.T_cam_obj, camera)
        box = (*low.tolist(), *(high - low).tolist())
        seen.append([Seen(1, frame.T_cam_obj, frame.visible, box)])
    write_scene(scene, [camera.K] * len(frames), seen)
    write_json(folder / 'test_targets_bop19.json', targets(1, seen))
    write_models(folder / 'models', {1: (mesh, Symmetries.none())})


def _box(mesh: Mesh, T_cam_obj: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (px) of the whole projected mesh."""
    px = camera.project(mesh.vertices_m @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3])
    return np.nanmin(px, axis=0), np.nanmax(px, axis=0)
