"""Depth maps of triangle meshes, without a graphics library: for metrics, not for running.

A z-buffer over many triangles at once (Pineda, "A parallel algorithm for polygon rasterization",
SIGGRAPH 1988): a pixel is inside where all three edge functions have one sign, and 1 / z is linear
in the picture.
"""

from __future__ import annotations

import numpy as np

from .geometry import apply

_AT_ONCE = 1 << 19  # pixels of triangles' boxes that are looked at together
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
    nearness = np.zeros(width * height)
    points = apply(T_cam_obj, vertices_m)
    z = points[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = (points @ K.T)[:, :2] / z[:, None]
    faces = faces[(z[faces] > _NEAREST_M).all(axis=1)]
    corners = pixels[faces]
    low = np.clip(np.ceil(corners.min(axis=1)), 0, None).astype(int)
    sides = np.clip(np.floor(corners.max(axis=1)) + 1, None, size).astype(int) - low
    across = corners[:, 1:] - corners[:, :1]
    double_area = across[:, 0, 0] * across[:, 1, 1] - across[:, 0, 1] * across[:, 1, 0]
    seen = np.flatnonzero((sides > 0).all(axis=1) & (np.abs(double_area) > 1e-12))
    ends = np.cumsum(sides[seen].prod(axis=1))
    cuts = np.searchsorted(ends, np.arange(_AT_ONCE, ends[-1:].sum(), _AT_ONCE))
    near = 1.0 / z[faces]
    for part in np.split(seen, cuts):
        areas = sides[part].prod(axis=1)
        i = np.repeat(part, areas)
        at = np.arange(len(i)) - np.repeat(np.cumsum(areas) - areas, areas)  # in its own box
        x, y = low[i, 0] + at % sides[i, 0], low[i, 1] + at // sides[i, 0]
        dx, dy = x - corners[i, 0, 0], y - corners[i, 0, 1]
        second = (dx * across[i, 1, 1] - dy * across[i, 1, 0]) / double_area[i]
        third = (across[i, 0, 0] * dy - across[i, 0, 1] * dx) / double_area[i]
        inside = (second >= -1e-9) & (third >= -1e-9) & (second + third <= 1.0 + 1e-9)
        first = 1.0 - second - third
        here = first * near[i, 0] + second * near[i, 1] + third * near[i, 2]
        np.maximum.at(nearness, (y * width + x)[inside], here[inside])
    depth = np.divide(1.0, nearness, out=np.zeros_like(nearness), where=nearness > 0.0)
    return depth.reshape(height, width)
