"""Painted solids: closed shapes joined and cut exactly; every face keeps its shape's colour.

The booleans are manifold3d's, whose results are closed by construction. Lengths are millimetres.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import manifold3d as m3
import numpy as np

from training.synth.mesh import Mesh

CREASE_RAD = 0.6
Axis = Literal['x', 'y', 'z']
Paint = tuple[int, int, int]
_TO_AXIS: dict[Axis, tuple[float, float, float]] = {
    'z': (0.0, 0.0, 0.0),
    'x': (90.0, 0.0, 90.0),
    'y': (-90.0, 0.0, 0.0),
}


@dataclass(frozen=True)
class Ring:
    """Superellipse |u/a|^p + |v/b|^p = 1 across an axis, at a place, with centre u, v."""

    at: float
    a: float
    b: float
    u: float = 0.0
    v: float = 0.0
    power: float = 2.0


def loft(axis: Axis, rings: Sequence[Ring], *, grow: float = 0.0, count: int = 28) -> m3.Manifold:
    """Skin over `rings` along 'x' (u, v = y, z) or 'z' (u, v = x, y), widened by `grow` (mm)."""
    angles = 2 * np.pi * np.arange(count) / count
    slabs = []
    points = []
    for ring in rings:
        c, s = np.cos(angles), np.sin(angles)
        u = ring.u + (ring.a + grow) * np.sign(c) * np.abs(c) ** (2 / ring.power)
        v = ring.v + (ring.b + grow) * np.sign(s) * np.abs(s) ** (2 / ring.power)
        at = np.full(count, ring.at)
        points.append(np.stack((at, u, v) if axis == 'x' else (u, v, at), axis=1))
    for low, high in itertools.pairwise(points):
        slabs.append(m3.Manifold.hull_points(np.concatenate((low, high))))
    return m3.Manifold.batch_boolean(slabs, m3.OpType.Add)


def prism(
    polygon: Sequence[tuple[float, float]], low: float, high: float, *, axis: Axis = 'y'
) -> m3.Manifold:
    """Polygon pulled along an axis: it lies in (x, z) for 'y', (y, z) for 'x', (x, y) for 'z'."""
    points = np.asarray(polygon, dtype=float)
    if axis == 'y':
        # Seen along y the frame (x, z) is left handed: pull along -y, then mirror the depth.
        shape = _extrude(points, high - low).rotate((90.0, 0.0, 0.0))
        return shape.translate((0.0, high, 0.0))
    shape = _extrude(points, high - low).translate((0.0, 0.0, low))
    return shape.rotate(_TO_AXIS[axis])


def _extrude(points: np.ndarray, height: float, **options: float) -> m3.Manifold:
    x, y = points.T
    if np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) < 0:
        points = points[::-1]
    return m3.Manifold.extrude(m3.CrossSection([points]), height, **options)


def lathe(
    profile: Sequence[tuple[float, float]], *, flutes: int = 0, depth: float = 0.0, count: int = 32
) -> m3.Manifold:
    """Body turned about x from (x, radius) pairs; grooves are `depth` (share of radius) deep."""
    if not flutes:
        points = [(0.0, profile[0][0]), *((r, x) for x, r in profile), (0.0, profile[-1][0])]
        section = m3.CrossSection([np.asarray(points, dtype=float)])
        return m3.Manifold.revolve(section, count).rotate(_TO_AXIS['x'])
    count = 4 * flutes
    angles = 2 * np.pi * np.arange(count) / count
    star = 1 - depth * (np.arange(count) % 4 >= 2)
    star = np.stack((np.zeros(count), star * np.cos(angles), star * np.sin(angles)), axis=1)
    vertices = [np.array([x, 0, 0]) + r * star for x, r in profile]
    vertices += [np.array([[profile[0][0], 0.0, 0.0], [profile[-1][0], 0.0, 0.0]])]
    here = np.arange(count)
    turn = np.roll(here, -1)
    last = count * (len(profile) - 1)
    faces = [np.stack((np.full(count, last + count), turn, here), axis=1)]
    for start in range(0, last, count):
        low, high = start + here, start + count + here
        faces += [np.stack((low, start + turn, high), axis=1)]
        faces += [np.stack((start + turn, start + count + turn, high), axis=1)]
    faces += [np.stack((np.full(count, last + count + 1), last + here, last + turn), axis=1)]
    return m3.Manifold(
        m3.Mesh(
            np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.uint32)
        )
    )


def twist(
    polygon: Sequence[tuple[float, float]], low: float, high: float, turn_deg: float, steps: int
) -> m3.Manifold:
    """Polygon (y, z) pulled along x while it turns."""
    shape = _extrude(
        np.asarray(polygon, dtype=float), high - low, n_divisions=steps, twist_degrees=turn_deg
    )
    return shape.translate((0.0, 0.0, low)).rotate(_TO_AXIS['x'])


def rod(
    center: tuple[float, float, float],
    radius: float,
    length: float,
    *,
    axis: Axis,
    count: int = 20,
) -> m3.Manifold:
    """Cylinder about `axis`, centred."""
    shape = m3.Manifold.cylinder(length, radius, radius, count, True)
    return shape.rotate(_TO_AXIS[axis]).translate(center)


def block(
    low: tuple[float, float, float], high: tuple[float, float, float], *, chamfer: float = 0.0
) -> m3.Manifold:
    """Box between two corners, its edges cut by `chamfer` (mm)."""
    low_, high_ = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    points = []
    for axis in range(3):
        inset = np.full(3, chamfer)
        inset[axis] = 0.0
        corners = np.stack((low_ + inset, high_ - inset))
        points += [
            [corners[i, 0], corners[j, 1], corners[k, 2]]
            for i in (0, 1)
            for j in (0, 1)
            for k in (0, 1)
        ]
    return m3.Manifold.hull_points(np.asarray(points))


@dataclass
class Workpiece:
    """Grows by join and cut; remembers which colour each joined or cutting shape brought."""

    shape: m3.Manifold = field(default_factory=m3.Manifold)
    paints: dict[int, Paint] = field(default_factory=dict)

    def join(self, shape: m3.Manifold, paint: Paint) -> None:
        """Union; the new shape's own surface is `paint` (sRGB 0..255)."""
        self.shape = self.shape + self._painted(shape, paint)

    def cut(self, shape: m3.Manifold, paint: Paint) -> None:
        """Difference; the walls of the hole are `paint`."""
        self.shape = self.shape - self._painted(shape, paint)

    def inlay(self, shape: m3.Manifold, paint: Paint) -> None:
        """The part of `shape` is replaced by another material."""
        shape = self._painted(shape, paint)
        self.shape = (self.shape - shape) + shape

    def _painted(self, shape: m3.Manifold, paint: Paint) -> m3.Manifold:
        shape = shape.as_original()
        self.paints[shape.original_id()] = paint
        return shape

    def mesh(self) -> Mesh:
        """Metres, centred on the bounding box; split at creases and where the colour changes."""
        raw = self.shape.simplify(0.01).to_mesh()
        vertices = np.asarray(raw.vert_properties, dtype=np.float64)[:, :3]
        faces = np.asarray(raw.tri_verts, dtype=np.int64)
        ends = np.asarray(raw.run_index, dtype=np.int64) // 3
        paint = np.zeros((len(faces), 3))
        for low, high, name in zip(ends[:-1], ends[1:], raw.run_original_id):
            paint[low:high] = self.paints[name]
        vertices = (vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2) / 1000.0
        # The file holds single precision: round now, so that normals and file agree.
        return split_creases(vertices.astype(np.float32).astype(np.float64), faces, paint / 255.0)


def split_creases(vertices: np.ndarray, faces: np.ndarray, face_colors: np.ndarray) -> Mesh:
    """One vertex for every (place, normal, colour).

    A corner's normal averages those faces round its vertex that lie within CREASE_RAD of its own.
    """
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1, keepdims=True)
    normals = cross / np.maximum(area, 1e-20)
    # All pairs of corners that share a vertex, by sorting the corners by vertex.
    flat = faces.ravel()
    order = np.argsort(flat, kind='stable')
    starts = np.searchsorted(flat[order], np.arange(len(vertices) + 1))
    smooth = np.zeros((len(flat), 3))
    angles = np.stack([_corner_angle(corners, k) for k in range(3)], axis=1).ravel()
    for first, last in itertools.pairwise(starts):
        here = order[first:last]
        n = normals[here // 3]
        close = (n @ n.T) > np.cos(CREASE_RAD)
        smooth[here] = close @ (n * (angles[here] * area[here // 3, 0])[:, None])
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-20)
    bad = np.linalg.norm(smooth, axis=1) < 0.5
    smooth[bad] = normals[np.nonzero(bad)[0] // 3]
    colors = np.repeat(face_colors, 3, axis=0)
    keys = np.column_stack((flat, np.round(smooth * 500), np.round(colors * 255))).astype(np.int64)
    _, keep, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return Mesh(vertices[flat[keep]], smooth[keep], colors[keep], inverse.reshape(-1, 3))


def _corner_angle(corners: np.ndarray, k: int) -> np.ndarray:
    a = corners[:, (k + 1) % 3] - corners[:, k]
    b = corners[:, (k + 2) % 3] - corners[:, k]
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), np.sum(a * b, axis=1))
