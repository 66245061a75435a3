"""Data sets in the BOP format: pictures, cameras, true poses and models; millimetres stay outside.

The format is that of the BOP challenge (bop_toolkit, docs/bop_datasets_format.md): `cam_R_m2c` and
`cam_t_m2c` are T_cam_obj, boxes are x, y, width, height.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import make_pose
from pose_node.core.mesh import read_ply
from pose_node.core.symmetry import Symmetries

_M_PER_MM = 0.001


@dataclass(frozen=True)
class Target:
    """So many instances of one object are to be found in one picture."""

    scene: int
    image: int
    object: int
    count: int


@dataclass(frozen=True, eq=False)
class Truth:
    """One instance in one picture."""

    object: int
    T_cam_obj: np.ndarray  # (4, 4) m
    # x, y, width, height of what is seen of it; of all of it where the data set says no more
    box_visible_px: tuple[float, ...] | None
    visible: float | None  # share of its pixels


@dataclass(frozen=True, eq=False)
class ObjectModel:
    """What errors are measured on."""

    vertices_m: np.ndarray  # (N, 3)
    faces: np.ndarray  # (F, 3)
    diameter_m: float
    symmetries: Symmetries


class BopDataset:
    """A folder in the BOP layout: its `split`, models_eval/ (or models/) and targets."""

    def __init__(self, folder: str | Path, split: str = 'test') -> None:
        self.folder = Path(folder).expanduser()
        self.split = split
        if not (self.folder / split).is_dir():
            raise PoseNodeError(
                f'{self.folder / split} does not exist; give the folder of a BOP data set, '
                f'the one that holds {split}/.'
            )

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """What is to be found: test_targets_bop19.json, else every instance of the split."""
        path = self.folder / 'test_targets_bop19.json'
        if path.is_file():
            with _as_bop(path):
                return tuple(
                    Target(t['scene_id'], t['im_id'], t['obj_id'], t.get('inst_count', 1))
                    for t in _read_json(path)
                )
        found: dict[tuple[int, int, int], int] = {}
        for scene_folder in sorted((self.folder / self.split).glob('[0-9]*')):
            scene = int(scene_folder.name)
            with _as_bop(scene_folder / 'scene_gt.json'):
                for image, entries in self._scene(scene, 'scene_gt.json').items():
                    for entry in entries:
                        key = (scene, int(image), entry['obj_id'])
                        found[key] = found.get(key, 0) + 1
        return tuple(Target(*key, count) for key, count in found.items())

    def picture(self, scene: int, image: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        for kind in ('rgb', 'gray'):
            for suffix in ('png', 'jpg', 'tif'):
                path = self._folder(scene) / kind / f'{image:06d}.{suffix}'
                if path.is_file():
                    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
                    if picture is None:
                        raise PoseNodeError(f'{path} is no picture; copy the data set again.')
                    return np.ascontiguousarray(picture[..., ::-1])
        raise PoseNodeError(
            f'{self._folder(scene)} holds no picture {image:06d}; copy the data set again.'
        )

    def depth_m(self, scene: int, image: int) -> np.ndarray | None:
        """(H, W) z, m, as a depth camera measured it, 0 where it did not; None without a file."""
        path = self._folder(scene) / 'depth' / f'{image:06d}.png'
        if not path.is_file():
            return None
        steps = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if steps is None or steps.ndim != 2:
            raise PoseNodeError(f'{path} is no picture of depths; copy the data set again.')
        with _as_bop(self._folder(scene) / 'scene_camera.json'):
            entry = self._scene(scene, 'scene_camera.json')[str(image)]
            return np.asarray(steps * (float(entry.get('depth_scale', 1.0)) * _M_PER_MM))

    def camera(self, scene: int, image: int, size: tuple[int, int]) -> Camera:
        """The camera of a picture of `size` (width, height); BOP has no distortion."""
        with _as_bop(self._folder(scene) / 'scene_camera.json'):
            entry = self._scene(scene, 'scene_camera.json')[str(image)]
            return Camera(np.array(entry['cam_K'], np.float64).reshape(3, 3), size)

    def size(self, scene: int, image: int) -> tuple[int, int]:
        """(width, height) of a picture."""
        picture = self.picture(scene, image)
        return picture.shape[1], picture.shape[0]

    def truths(self, scene: int, image: int) -> tuple[Truth, ...]:
        """All instances of a picture."""
        with _as_bop(self._folder(scene) / 'scene_gt_info.json'):
            infos = self._scene(scene, 'scene_gt_info.json', optional=True).get(str(image))
        found = []
        with _as_bop(self._folder(scene) / 'scene_gt.json'):
            for i, entry in enumerate(self._scene(scene, 'scene_gt.json')[str(image)]):
                R = np.array(entry['cam_R_m2c'], np.float64).reshape(3, 3)
                t = np.array(entry['cam_t_m2c'], np.float64).reshape(3) * _M_PER_MM
                info = infos[i] if infos else {}
                box = info.get('bbox_visib', info.get('bbox_obj'))
                T_cam_obj, xywh = make_pose(R, t), box and tuple(box)
                found.append(Truth(entry['obj_id'], T_cam_obj, xywh, info.get('visib_fract')))
        return tuple(found)

    @cache  # noqa: B019 (a data set lives as long as the program that reads it)
    def model(self, number: int) -> ObjectModel:
        """The model of object `number`."""
        folder = self.folder / 'models_eval'
        folder = folder if folder.is_dir() else self.folder / 'models'
        with _as_bop(folder / 'models_info.json'):
            info = _read_json(folder / 'models_info.json').get(str(number))
            if info is None:
                raise PoseNodeError(f'{folder}/models_info.json has no object {number}.')
            diameter_m = float(info['diameter']) * _M_PER_MM
            symmetries = Symmetries.from_bop(info)
        mesh = read_ply(folder / f'obj_{number:06d}.ply')
        vertices_m = np.asarray(mesh.vertices, np.float64) * _M_PER_MM
        return ObjectModel(vertices_m, np.asarray(mesh.faces), diameter_m, symmetries)

    def _folder(self, scene: int) -> Path:
        return self.folder / self.split / f'{scene:06d}'

    @cache  # noqa: B019
    def _scene(self, scene: int, name: str, optional: bool = False) -> dict[str, Any]:
        path = self._folder(scene) / name
        return {} if optional and not path.is_file() else _read_json(path)


@dataclass(frozen=True)
class Box:
    """A 2D detection, as COCO writes it."""

    scene: int
    image: int
    object: int
    score: float
    xywh_px: tuple[float, float, float, float]


def read_boxes(path: str | Path) -> tuple[Box, ...]:
    """Detections of a COCO-style list: image_id, category_id, bbox, score and scene_id."""
    detections = _read_json(Path(path).expanduser())
    try:
        return tuple(
            Box(
                int(d['scene_id']),
                int(d['image_id']),
                int(d['category_id']),
                float(d['score']),
                _four(d['bbox']),
            )
            for d in detections
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PoseNodeError(
            f'{path} is no list of detections ({error!r}); each needs scene_id, image_id, '
            'category_id, score and bbox [x, y, width, height].'
        ) from None


def _four(numbers: Any) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, numbers)
    return x, y, width, height


def csv_line(target: Target, score: float, T_cam_obj: np.ndarray, seconds: float) -> str:
    """One estimate as a line of a BOP result file: lengths in mm, R by rows."""
    R = ' '.join(repr(float(v)) for v in T_cam_obj[:3, :3].ravel())
    t = ' '.join(repr(float(v) / _M_PER_MM) for v in T_cam_obj[:3, 3])
    return f'{target.scene},{target.image},{target.object},{float(score)!r},{R},{t},{seconds:.6f}'


CSV_HEADER = 'scene_id,im_id,obj_id,score,R,t,time'


@contextmanager
def _as_bop(path: Path) -> Iterator[None]:
    """Whatever is missing or of another kind in the JSON file at `path` becomes a sentence."""
    try:
        yield
    except PoseNodeError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise PoseNodeError(
            f'{path} does not say what BOP files do ({error!r}); copy the data set again.'
        ) from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise PoseNodeError(f'{path} cannot be read: {error.strerror}.') from None
    except ValueError as error:
        raise PoseNodeError(f'{path} is not JSON: {error}.') from None
