"""Binary PLY with positions, normals and colours: the same mesh always gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.synth.mesh import Mesh

_HEADER = """ply
format binary_little_endian 1.0
element vertex {vertices}
property float x
property float y
property float z
property float nx
property float ny
property float nz
property uchar red
property uchar green
property uchar blue
element face {faces}
property list uchar int vertex_indices
end_header
"""


def write_ply(path: Path, mesh: Mesh) -> None:
    """The file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ply_bytes(mesh))


def ply_bytes(mesh: Mesh) -> bytes:
    """Positions and normals as float32, colours as bytes."""
    vertices = np.zeros(len(mesh.vertices_m), dtype=[('place', '<f4', 6), ('color', 'u1', 3)])
    vertices['place'] = np.hstack((mesh.vertices_m, mesh.normals))
    vertices['color'] = np.round(mesh.colors * 255)
    faces = np.zeros(len(mesh.faces), dtype=[('count', 'u1'), ('corners', '<i4', 3)])
    faces['count'], faces['corners'] = 3, mesh.faces
    header = _HEADER.format(vertices=len(vertices), faces=len(faces))
    return header.encode('ascii') + vertices.tobytes() + faces.tobytes()
