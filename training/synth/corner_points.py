"""Keypoints where a tracker would find corners: many renders of the object alone, the corners of
each lifted to the surface by its coordinate map, and k-means over all of them (Alexandra
Institute, "A pipeline for learned pose estimation with no real data").

Another graphics driver may shade a pixel otherwise and so move a centre: what was chosen once is
kept beside the checkpoints that learn it.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np

from pose_node.core.geometry import make_pose

from .cache import cache_root
from .keypoints import clustered, corners
from .mesh import Mesh, simplified
from .render import Instance, Lights, Renderer
from .scene import random_rotation

_PICTURES = 1000
_SIZE = (128, 128)
_FOCAL_PX = 320.0  # a normal lens: what stands out is seen from a little aside, too
_FILL = 0.85  # of the picture's width, by the object's diameter
_FACES = 12000  # of what is rendered
_SEED = 32


def corner_points(mesh: Mesh, count: int) -> np.ndarray:
    """(count, 3) in metres, from the cache where they were chosen before.

    Raises PoseNodeError when the object shows too few corners. A point may lie inside the object;
    on an object with two equal sides the points of both are there and look alike: the source names
    both weaknesses.
    """
    path = cache_root() / 'keypoints' / f'{_fingerprint(mesh, count)}.npy'
    if path.is_file():
        return np.asarray(np.load(path))
    points = chosen(mesh, count, _PICTURES)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f'.{os.getpid()}.partial')
    with partial.open('wb') as file:
        np.save(file, points)
    partial.replace(path)
    return points


def chosen(mesh: Mesh, count: int, pictures: int) -> np.ndarray:
    """(count, 3) m, out of so many pictures from all sides, each lit in its own way."""
    rng = np.random.default_rng(_SEED)
    renderer = Renderer()
    renderer.upload('object', simplified(mesh, _FACES))
    middle = mesh.bounds_m.mean(axis=0)
    distance_m = _FOCAL_PX * mesh.diameter_m / (_FILL * _SIZE[0])
    (cx, cy) = ((n - 1) / 2 for n in _SIZE)
    K = np.array([[_FOCAL_PX, 0, cx], [0, _FOCAL_PX, cy], [0, 0, 1]])
    found = []
    for _ in range(pictures):
        R = random_rotation(rng)
        instance = Instance('object', make_pose(R, np.array((0, 0, distance_m)) - R @ middle))
        picture = renderer.picture([instance], _lights(rng), K, _SIZE)[..., :3]
        coordinates, identity = renderer.targets([instance], K, _SIZE)
        found.append(corners(picture, coordinates, identity == 1))
    return clustered(found, count, rng)


def _lights(rng: np.random.Generator) -> Lights:
    """One light from the camera's side, two weaker ones from anywhere, a grey sky."""
    directions = rng.normal(size=(3, 3))
    directions[0, 2] = -abs(directions[0, 2]) - 0.5
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    power = rng.uniform(0.2, 1.0, (3, 1)) * ((1.0,), (0.5,), (0.3,))
    grey = rng.uniform(0.1, 0.5)
    up_cam = np.array((0.0, -1.0, 0.0))
    return Lights(directions, power * np.ones(3), np.full(3, grey), np.full(3, grey / 2), up_cam)


def _fingerprint(mesh: Mesh, count: int) -> str:
    """Of all that the points follow from, but for the code."""
    options = (count, _PICTURES, _SIZE, _FOCAL_PX, _FILL, _FACES, _SEED)
    digest = hashlib.sha256(repr(options).encode())
    for each in (mesh.vertices_m, mesh.colors, mesh.faces):
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()[:16]
