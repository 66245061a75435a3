"""Which points of an object to learn, and where a rendered picture shows them.

Two ways to choose: farthest-point sampling (Peng et al., PVNet, CVPR 2019, section 3.1), and the
corners that a tracker would like, lifted to the surface and clustered (Alexandra Institute, "A
pipeline for learned pose estimation with no real data"). Two ways to label: projection through
the camera, whether hidden or not, and the pixel whose surface point is nearest (same source).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from scipy.cluster.vq import kmeans2

from pose_node.core.errors import PoseNodeError

from .mesh import Mesh

_CORNERS = 32  # of one picture
_QUALITY = 0.2  # share of the best corner's response
_STARTS = 10  # of k-means


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


def corners(picture: np.ndarray, coordinates: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(n, 3) surface points of the picture's corners (Shi and Tomasi, CVPR 1994), metres.

    picture (h, w, 3) uint8, coordinates (h, w, 3) of the surface, shown (h, w) bool: where the
    object is. The rest of the picture is made black, so that the outline is a corner's edge too;
    corners that fall beside the object have no coordinates and are left out.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grey[~shown] = 0
    found: Any = cv2.goodFeaturesToTrack(grey, _CORNERS, _QUALITY, np.sqrt(min(grey.shape)))
    if found is None:
        return np.zeros((0, 3))
    columns, rows = found[:, 0].round().astype(int).T
    on_it = shown[rows, columns]
    return coordinates[rows[on_it], columns[on_it]].astype(np.float64)


def clustered(points: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) centres of the corners of many pictures by k-means, the best of several starts.

    A centre is a mean, so it may lie inside the object. Raises PoseNodeError when there are too
    few corners.
    """
    every = np.concatenate([np.zeros((0, 3)), *points])
    if len(every) < 4 * count:
        raise PoseNodeError(
            f'{len(every)} corners were found, wanted {4 * count} for {count} keypoints: '
            'render more pictures, or choose the farthest points of this plain object.'
        )
    # One start in three ends with two centres at one corner and none at another.
    tries = [kmeans2(every, count, iter=50, minit='++', rng=rng) for _ in range(_STARTS)]
    off = [np.square(every - centers[nearest]).sum() for centers, nearest in tries]
    return np.asarray(tries[int(np.argmin(off))][0])


def nearest_pixels(
    coordinates: np.ndarray, shown: np.ndarray, keypoints_obj: np.ndarray, farthest_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (K, 2) whose surface point is nearest to each keypoint, and whether (K,) it is near.

    coordinates (h, w, 3) metres of every pixel, shown (h, w) where the object is. A keypoint with
    no surface within `farthest_m` is hidden, or inside the object: its label is to be ignored.
    """
    rows, columns = np.nonzero(shown)
    if len(rows) == 0:
        return np.zeros((len(keypoints_obj), 2)), np.zeros(len(keypoints_obj), bool)
    surface = coordinates[rows, columns].astype(np.float64)
    distances = np.linalg.norm(surface[None] - keypoints_obj[:, None], axis=2)
    nearest = distances.argmin(axis=1)
    pixels = np.stack((columns[nearest], rows[nearest]), axis=1).astype(np.float64)
    return pixels, distances.min(axis=1) <= farthest_m
