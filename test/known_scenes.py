"""The known bundle's object on disk, as commands read it: a BOP data set, and a bag with truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from known_bundle import OBJECT, _mesh_points, draw_scene
from scipy.spatial import ConvexHull

from pose_node.core.camera import Camera
from pose_node.core.geometry import apply, exp_so3, make_pose
from training.steps.bag_writer import BagFrame
from training.steps.bag_writer import write_bag as write_frames

CAMERA = Camera(np.array([[600.0, 0, 321.0], [0, 605.0, 238.0], [0, 0, 1]]), (640, 480))
DISTORTED = Camera(CAMERA.K, CAMERA.size, 'plumb_bob', (-0.2, 0.05, 0.001, -0.0008, 0.0))
NUMBER, OTHER = 5, 9  # of the known object in BOP files, and of one that is not in the bundle

# {scene: {picture: poses}}: one object each, and two in the last picture.
Scenes = Mapping[int, Mapping[int, Sequence[np.ndarray]]]


def path(count: int) -> list[np.ndarray]:
    """Poses (4, 4) of the object as it crosses the picture and turns, at 0.6 m."""
    return [
        make_pose(exp_so3(np.array([0.3, 2.0 + s, -0.4 * s])), np.array([0.1 * s, -0.05 * s, 0.6]))
        for s in np.linspace(-1.0, 1.0, count)
    ]


def scenes() -> dict[int, dict[int, list[np.ndarray]]]:
    """What `write_bop` is given when no test needs others."""
    left, middle, right = path(3)
    left[:3, 3], right[:3, 3] = (-0.13, -0.02, 0.6), (0.14, 0.03, 0.65)
    return {1: {0: [middle], 3: [left]}, 2: {7: [left, right]}}


def write_bop(folder: Path, content: Scenes) -> Path:
    """A data set in the BOP layout; every picture's truth begins with another object's."""
    targets = []
    for scene, pictures in content.items():
        files: dict[str, dict] = {'scene_camera': {}, 'scene_gt': {}, 'scene_gt_info': {}}
        place = folder / 'test' / f'{scene:06d}'
        (place / 'rgb').mkdir(parents=True)
        for image, poses in pictures.items():
            picture = draw_scene(CAMERA, np.array(poses))
            cv2.imwrite(str(place / 'rgb' / f'{image:06d}.png'), picture[..., ::-1])
            files['scene_camera'][image] = {'cam_K': CAMERA.K.ravel().tolist(), 'depth_scale': 1}
            both = [(OTHER, poses[0]), *((NUMBER, T) for T in poses)]
            files['scene_gt'][image] = [_truth(*each) for each in both]
            files['scene_gt_info'][image] = [
                {'bbox_visib': box_of(T), 'visib_fract': 0.5 + 0.125 * i}
                for i, (_, T) in enumerate(both)
            ]
            for number, count in ((OTHER, 1), (NUMBER, len(poses))):
                targets.append(
                    {'scene_id': scene, 'im_id': image, 'obj_id': number, 'inst_count': count}
                )
        for name, entries in files.items():
            (place / f'{name}.json').write_text(json.dumps(entries))
    (folder / 'test_targets_bop19.json').write_text(json.dumps(targets))
    _write_models(folder / 'models_eval')
    return folder


def box_of(T_cam_obj: np.ndarray) -> list[int]:
    """x, y, width, height of the object in the data set's pictures."""
    px = CAMERA.project(apply(T_cam_obj, _mesh_points().reshape(-1, 3)))
    low = np.floor(px.min(axis=0)).astype(int)
    return [*low.tolist(), *(np.ceil(px.max(axis=0)).astype(int) - low + 1).tolist()]


def write_bag(folder: Path, poses: Sequence[np.ndarray | None], *, shift_m: float = 0.0) -> Path:
    """A bag with ground truth, distorted pictures as JPEG; None is a picture of nothing.

    shift_m: how far the truth written down is beside the one drawn.
    """
    points = _mesh_points().reshape(-1, 3)
    aside = make_pose(np.eye(3), np.array([shift_m, 0.0, 0.0]))
    frames = [
        BagFrame(
            draw_scene(DISTORTED, T),
            np.eye(4) if T is None else aside @ T,
            0.0 if T is None else 1.0,
        )
        for T in poses
    ]
    bounds_m = np.stack((points.min(axis=0), points.max(axis=0)))
    write_frames(folder, frames, DISTORTED, bounds_m, rate_hz=10.0, name=OBJECT, jpeg_quality=95)
    return folder


def diameter_m() -> float:
    """The largest distance of two points of the object's mesh."""
    points = _mesh_points().reshape(-1, 3)
    return float(np.linalg.norm(points[:, None] - points[None], axis=2).max())


def _truth(number: int, T_cam_obj: np.ndarray) -> dict:
    return {
        'obj_id': number,
        'cam_R_m2c': T_cam_obj[:3, :3].ravel().tolist(),
        'cam_t_m2c': (1000.0 * T_cam_obj[:3, 3]).tolist(),
    }


def _write_models(folder: Path) -> None:
    folder.mkdir()
    points_mm = 1000.0 * _mesh_points().reshape(-1, 3)
    hull = ConvexHull(points_mm).simplices
    header = ['ply\nformat ascii 1.0', f'element vertex {len(points_mm)}']
    header += [f'property float {axis}' for axis in 'xyz']
    header += [f'element face {len(hull)}', 'property list uchar int vertex_indices', 'end_header']
    lines = header + [' '.join(map(str, point)) for point in points_mm.tolist()]
    lines += [' '.join(map(str, (3, *corners))) for corners in hull.tolist()]
    (folder / f'obj_{NUMBER:06d}.ply').write_text('\n'.join(lines) + '\n')
    (folder / 'models_info.json').write_text(
        json.dumps({NUMBER: {'diameter': 1000.0 * diameter_m()}})
    )
