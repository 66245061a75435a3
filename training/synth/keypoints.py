"""Keypoints on the surface by farthest-point sampling (Peng et al., PVNet, CVPR 2019, section
3.1).
"""

from __future__ import annotations

import numpy as np

from .mesh import Mesh


def farthest_points(mesh: Mesh, count: int) -> np.ndarray:
    """(count, 3) vertices in metres: the first is farthest from the box's centre, each next one
    farthest from all before.
    """
    vertices = mesh.vertices_m
    center = mesh.bounds_m.mean(axis=0)
    chosen = [int(np.linalg.norm(vertices - center, axis=1).argmax())]
    distance = np.linalg.norm(vertices - vertices[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
    return vertices[chosen]
