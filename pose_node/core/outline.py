"""Where the picture of an object ends: points of its mesh, and which way is out.

On the outline a surface turns away from the viewer: on a mesh that is an edge between a triangle
that is seen from outside and one that is seen from inside, or an edge with one triangle alone.
Many such edges have other parts of the object behind them; a drawn mask tells those that have not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .geometry import apply

if TYPE_CHECKING:
    from .camera import Camera

_SPACING_PX = 2.0
_MASK_PX = 160  # longer side of the drawn mask
_BESIDE_PX = 1.5  # of the mask: here it must be inside on one hand and outside on the other
_CLEAR_PX = (3.0, 5.0)  # of the picture: and still outside here
_NEAREST_M = 1e-3
_SHIFT = 4  # bits after the point that OpenCV draws with


@dataclass(frozen=True, eq=False)
class Shape:
    """A mesh with its edges: a thousand triangles are enough for an object of 200 pixels."""

    vertices_m: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    edges: np.ndarray  # (E, 2) vertices
    sides: np.ndarray  # (E, 2) triangles; the same one twice where an edge has one alone

    @classmethod
    def from_mesh(cls, vertices_m: np.ndarray, faces: np.ndarray) -> Shape:
        """Neighbouring triangles must be wound alike; vertices in one place are one."""
        vertices_m, which = np.unique(vertices_m, axis=0, return_inverse=True)
        faces = which.ravel()[faces]
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        owner = np.repeat(np.arange(len(faces)), 3)
        order = np.lexsort(edges.T)
        edges, owner = edges[order], owner[order]
        first = np.append(True, (edges[1:] != edges[:-1]).any(axis=1))
        last = np.append(first[1:], True)
        sides = np.column_stack((owner[first], owner[last]))
        return cls(vertices_m.astype(np.float64), faces, edges[first], sides)

    @cached_property
    def closed(self) -> bool:
        """Whether every edge has two triangles."""
        return bool((self.sides[:, 0] != self.sides[:, 1]).all())


@dataclass(frozen=True, eq=False)
class Outline:
    """Points about two pixels apart, and the mask they go round."""

    points_obj: np.ndarray  # (N, 3) m
    points_px: np.ndarray  # (N, 2)
    outward: np.ndarray  # (N, 2) unit vectors across the outline
    mask: np.ndarray  # (h, w) uint8, 1 where the object is
    mask_from_px: np.ndarray  # (2, 3) from pixels to those of the mask


def extent_px(shape: Shape, T_cam_obj: np.ndarray, camera: Camera) -> np.ndarray | None:
    """(2, 2) lowest and highest corner of its box in the picture; None where part of it is not in
    front of the camera.
    """
    points_px = camera.project(apply(T_cam_obj, shape.vertices_m))
    if not np.isfinite(points_px).all():
        return None
    return np.array((points_px.min(axis=0), points_px.max(axis=0)))


def outline(shape: Shape, T_cam_obj: np.ndarray, camera: Camera) -> Outline | None:
    """None where part of the object is not in front of the camera, or it is a speck."""
    points_cam = apply(T_cam_obj, shape.vertices_m)
    if points_cam[:, 2].min() < _NEAREST_M:
        return None
    points_px = camera.project(points_cam)
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    side = float((high - low).max())
    if not 2.0 < side < 1e5:
        return None
    corners = points_px[shape.faces]
    across, down = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    outside = across[:, 0] * down[:, 1] > across[:, 1] * down[:, 0]
    mask, mask_from_px = _mask(shape, points_px, outside, low, high)

    a, b = shape.sides.T
    turns = shape.edges[(a == b) | (outside[a] != outside[b])]
    which, along = _spread(points_px[turns])
    if not len(which):
        return None
    ends_obj, ends_px = shape.vertices_m[turns[which]], points_px[turns[which]]
    points_obj = ends_obj[:, 0] + along[:, None] * (ends_obj[:, 1] - ends_obj[:, 0])
    seen_px = camera.project(apply(T_cam_obj, points_obj))
    direction = ends_px[:, 1] - ends_px[:, 0]
    normals = np.column_stack((direction[:, 1], -direction[:, 0]))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)

    def inside(*along_px: float) -> np.ndarray:
        """(len(along_px), N): so many pixels along the normals."""
        points_px = seen_px + np.multiply.outer(along_px, normals)
        at = np.round(points_px @ mask_from_px[:, :2].T + mask_from_px[:, 2]).astype(int)
        within = ((at >= 0) & (at < mask.shape[::-1])).all(axis=-1)
        x, y = np.where(within[..., None], at, 0).transpose(2, 0, 1)
        return within & (mask[y, x] > 0)

    beside_px = _BESIDE_PX / mask_from_px[0, 0]
    ahead, behind = inside(beside_px, -beside_px)
    normals[ahead] *= -1.0
    keep = (ahead != behind) & ~inside(*_CLEAR_PX).any(axis=0)
    return Outline(points_obj[keep], seen_px[keep], normals[keep], mask, mask_from_px)


def _mask(
    shape: Shape, points_px: np.ndarray, outside: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    scale = _MASK_PX / float((high - low).max())
    width, height = np.ceil((high - low) * scale).astype(int) + 1
    mask = np.zeros((height, width), np.uint8)
    # All that is seen from outside covers a closed mesh; so does all that is seen from inside.
    faces = shape.faces[outside] if shape.closed else shape.faces
    drawn = np.round((points_px - low) * (scale * (1 << _SHIFT))).astype(np.int32)
    for corners in drawn[faces]:
        cv2.fillConvexPoly(mask, corners, 1, cv2.LINE_8, _SHIFT)
    return mask, scale * np.column_stack((np.eye(2), -low))


def _spread(ends_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places equally far apart on edges (E, 2, 2), one after the other: which edge, how far along
    it.
    """
    lengths = np.linalg.norm(ends_px[:, 1] - ends_px[:, 0], axis=1)
    ends = np.cumsum(lengths)
    at = np.arange(0.5 * _SPACING_PX, ends[-1:].sum(), _SPACING_PX)
    which = np.searchsorted(ends, at, side='right')
    return which, 1.0 - (ends[which] - at) / lengths[which]
