"""Meshes as plain arrays, in metres, with a colour at every vertex."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fast_simplification
import numpy as np
import trimesh
from scipy.spatial import cKDTree

from pose_node.core.errors import PoseNodeError

_OPEN_EDGES = 1e-3  # share of a mesh's edges that may be open
# Largest extent at which a mesh is simplified. What may go in an early round is an absolute size
# there: of a mesh in metres everything may, the corners first.
_SIMPLIFIED_SIZE = 200.0


@dataclass(frozen=True)
class Mesh:
    """vertices_m (V, 3), normals (V, 3), colors (V, 3) in 0..1 (sRGB), faces (F, 3)."""

    vertices_m: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    faces: np.ndarray

    @property
    def bounds_m(self) -> np.ndarray:
        """(2, 3) lowest and highest corner."""
        return np.stack((self.vertices_m.min(axis=0), self.vertices_m.max(axis=0)))

    @cached_property
    def diameter_m(self) -> float:
        """Largest distance between two vertices (the BOP diameter)."""
        hull = trimesh.convex.convex_hull(self.vertices_m).vertices
        return float(max(np.linalg.norm(hull - v, axis=1).max() for v in hull))

    @cached_property
    def is_closed(self) -> bool:
        """Whether nothing but outer sides can be seen: nearly every edge (a scan may have a
        pinhole) is passed once in each direction, and the volume inside is positive.
        """
        corners, which = np.unique(self.vertices_m, axis=0, return_inverse=True)
        a, b, c = which.ravel()[self.faces].T
        edges = np.stack((np.concatenate((a, b, c)), np.concatenate((b, c, a))))
        edges = edges[:, edges[0] != edges[1]]
        there, back = edges[0] * len(corners) + edges[1], edges[1] * len(corners) + edges[0]
        open_edges = len(np.setxor1d(there, back)) / 2
        volume = np.einsum('ij,ij->', corners[a], np.cross(corners[b], corners[c])) / 6.0
        return bool(open_edges <= _OPEN_EDGES * edges.shape[1] and volume > 0.0)


def load_mesh(path: Path, unit_m: float = 1.0) -> Mesh:
    """Read ply, obj, stl or glb; `unit_m` is the length of the file's unit in metres (0.001 for
    millimetres).
    """
    if not path.is_file():
        raise PoseNodeError(
            f'mesh {path} does not exist: give the path of a ply, obj, stl or glb file'
        )
    loaded = trimesh.load(path, process=False, force='mesh')
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.faces) == 0:
        raise PoseNodeError(f'mesh {path} holds no triangles: export it as a triangle mesh')
    vertices = np.asarray(loaded.vertices, dtype=np.float64) * unit_m
    if not np.isfinite(vertices).all():
        raise PoseNodeError(f'mesh {path} has vertices that are not finite: repair it first')
    size = float(np.ptp(vertices, axis=0).max())
    if not 0.005 < size < 5.0:
        raise PoseNodeError(
            f'mesh {path} is {size:.4g} m large, wanted 0.005 to 5 m: '
            'set mesh_unit_m (0.001 for millimetres)'
        )
    return Mesh(
        vertices, np.asarray(loaded.vertex_normals), _colors(loaded), np.asarray(loaded.faces)
    )


def _colors(mesh: trimesh.Trimesh) -> np.ndarray:
    visual: Any = mesh.visual
    if visual.kind == 'texture':
        visual = visual.to_color()
    if visual.kind is None:
        return np.full((len(mesh.vertices), 3), 0.6)
    return np.asarray(visual.vertex_colors)[:, :3] / 255.0


def simplified(mesh: Mesh, faces: int) -> Mesh:
    """At most about `faces` triangles (quadric edge collapse); paint and normals from the nearest
    old vertex.

    Vertices in one place are one: else seams of textures, and all of an STL, would open.
    """
    if len(mesh.faces) <= faces:
        return mesh
    places, which = np.unique(mesh.vertices_m, axis=0, return_inverse=True)
    scale = _SIMPLIFIED_SIZE / float(np.ptp(places, axis=0).max())
    vertices, triangles = fast_simplification.simplify(
        (scale * places).astype(np.float32),
        which.ravel()[mesh.faces].astype(np.int32),
        1.0 - faces / len(mesh.faces),
    )
    vertices_m = vertices.astype(np.float64) / scale
    nearest = cKDTree(mesh.vertices_m).query(vertices_m)[1]
    return Mesh(vertices_m, mesh.normals[nearest], mesh.colors[nearest], triangles)


def primitive(kind: str) -> Mesh:
    """A grey distractor about 1 m large, to be scaled: 'box', 'cylinder', 'ball', 'cone', 'tube'
    or 'bar'.
    """
    shapes = {
        'box': lambda: trimesh.creation.box((1.0, 0.7, 0.5)),
        'cylinder': lambda: trimesh.creation.cylinder(0.3, 1.0, sections=24),
        'ball': lambda: trimesh.creation.icosphere(2, 0.5),
        'cone': lambda: trimesh.creation.cone(0.4, 1.0, sections=20),
        'tube': lambda: trimesh.creation.annulus(0.2, 0.35, 0.5, sections=20),
        'bar': lambda: trimesh.creation.box((1.0, 0.16, 0.12)),
    }
    shape = shapes[kind]()
    shape.apply_translation(-shape.bounds.mean(axis=0))
    if kind != 'ball':
        shape = trimesh.graph.smooth_shade(shape, angle=0.6)
    return Mesh(
        np.asarray(shape.vertices),
        np.asarray(shape.vertex_normals),
        np.full((len(shape.vertices), 3), 0.6),
        np.asarray(shape.faces),
    )


PRIMITIVES = ('box', 'cylinder', 'ball', 'cone', 'tube', 'bar')
