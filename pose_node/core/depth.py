"""Depth maps of triangle meshes, without a graphics library: for metrics, not for running.

A z-buffer over one triangle after another (Pineda, "A parallel algorithm for polygon
rasterization", SIGGRAPH 1988): a pixel is inside where all three edge functions have one sign, and
1 / z is linear in the picture.
"""

from __future__ import annotations

import numpy as np

from .geometry import apply

_NEAREST_M = 1e-3  # a triangle with a corner nearer than this is left out, not clipped


def draw_depth(
    vertices_m: np.ndarray,
    faces: np.ndarray,
    T_cam_obj: np.ndarray,
    K: np.ndarray,
    size: tuple[int, int],
) -> np.ndarray:
    """(H, W) z in metres at the centres of the pixels, 0 where the mesh is not.

    vertices_m (V, 3), faces (F, 3), both sides of which are drawn; K (3, 3) of a pinhole camera.
    """
    width, height = size
    nearness = np.zeros((height, width))
    points = apply(T_cam_obj, vertices_m)
    z = points[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = (points @ K.T)[:, :2] / z[:, None]
    faces = faces[(z[faces] > _NEAREST_M).all(axis=1)]
    corners = pixels[faces]
    low = np.clip(np.ceil(corners.min(axis=1)), 0, None).astype(int)
    high = np.clip(np.floor(corners.max(axis=1)) + 1, None, size).astype(int)
    first, across = corners[:, 0], corners[:, 1:] - corners[:, :1]
    double_area = across[:, 0, 0] * across[:, 1, 1] - across[:, 0, 1] * across[:, 1, 0]
    seen = (low < high).all(axis=1) & (np.abs(double_area) > 1e-12)
    for i in np.flatnonzero(seen):
        (x0, y0), (x1, y1) = low[i].tolist(), high[i].tolist()
        x = np.arange(x0, x1) - first[i, 0]
        y = np.arange(y0, y1)[:, None] - first[i, 1]
        (ax, ay), (bx, by) = across[i]
        second = (x * by - y * bx) / double_area[i]
        third = (ax * y - ay * x) / double_area[i]
        inside = (second >= -1e-9) & (third >= -1e-9) & (second + third <= 1.0 + 1e-9)
        near0, near1, near2 = 1.0 / z[faces[i]]
        near = near0 + second * (near1 - near0) + third * (near2 - near0)
        part = nearness[y0:y1, x0:x1]
        np.maximum(part, np.where(inside, near, 0.0), out=part)
    return np.divide(1.0, nearness, out=np.zeros_like(nearness), where=nearness > 0.0)
