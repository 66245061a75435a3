"""The meshes that a bundle carries: PLYs in metres with a colour at every vertex.

Whatever an object was made from (OBJ with a texture, STL in millimetres, a scan of a million
triangles), the robot needs it for markers and overlays, a mesh of few triangles for outlines, and
reads one format.
"""

from __future__ import annotations

from typing import Any

import trimesh

from training.objects.ply import ply_bytes

from ..synth.mesh import load_mesh, simplified
from ..synth.things import ObjectOptions, Thing

MOST_FACES = 20_000
MOST_BYTES = 1_000_000


def shipped_mesh(source: ObjectOptions) -> bytes:
    """The recipe's file as it is, where it is such a PLY already; else one made from it."""
    if _is_fit(source):
        return source.mesh.read_bytes()
    mesh = simplified(load_mesh(source.mesh, source.mesh_unit_m), MOST_FACES)
    data = ply_bytes(mesh)
    while len(data) > MOST_BYTES:  # triangles that share no vertices take more
        mesh = simplified(mesh, int(0.8 * len(mesh.faces)))
        data = ply_bytes(mesh)
    return data


def shipped_shape(thing: Thing) -> bytes:
    """What core/outline.py draws."""
    return ply_bytes(thing.coarse)


def _is_fit(source: ObjectOptions) -> bool:
    if source.mesh.suffix.lower() != '.ply' or source.mesh_unit_m != 1.0:
        return False
    if source.mesh.stat().st_size > MOST_BYTES:
        return False
    loaded: Any = trimesh.load(source.mesh, process=False, force='mesh')
    return bool(loaded.visual.kind == 'vertex' and len(loaded.faces) <= MOST_FACES)
