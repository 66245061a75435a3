"""PLY files: all forms we read, against the same mesh written by hand and by trimesh."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pose_node.core.errors import PoseNodeError
from pose_node.core.mesh import read_ply

ASCII = """ply
format ascii 1.0
comment two triangles and a square
element vertex 5
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property float quality
element face 2
property list uchar int vertex_indices
end_header
0 0 0 255 0 0 0.5
1 0 0 0 255 0 0.5
1 1 0 0 0 255 0.5
0 1 0 1 2 3 0.5
0 0 2.5 4 5 6 0.5
4 0 1 2 3
3 0 1 4
"""


def binary(text: str, double: bool = False) -> bytes:
    """The same mesh as ASCII, little endian; with double coordinates if asked."""
    header, body = text.split('end_header\n')
    header = header.replace('ascii', 'binary_little_endian')
    if double:
        for axis in 'xyz':
            header = header.replace(f'property float {axis}', f'property double {axis}')
    data = header.encode() + b'end_header\n'
    for line in body.splitlines()[:5]:
        x, y, z, r, g, b, q = line.split()
        data += struct.pack('<3d' if double else '<3f', float(x), float(y), float(z))
        data += struct.pack('<3Bf', int(r), int(g), int(b), float(q))
    for line in body.splitlines()[5:]:
        count, *corners = map(int, line.split())
        data += struct.pack(f'<B{count}i', count, *corners)
    return data


@pytest.mark.parametrize('source', [ASCII.encode(), binary(ASCII), binary(ASCII, double=True)])
def test_hand_written(source):
    mesh = read_ply(source)
    np.testing.assert_array_equal(
        mesh.vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 2.5]]
    )
    assert {tuple(face) for face in mesh.faces} == {(0, 1, 2), (0, 2, 3), (0, 1, 4)}
    assert mesh.colors is not None and mesh.colors.dtype == np.uint8
    np.testing.assert_array_equal(mesh.colors[:3], 255 * np.eye(3))


def test_dos_line_ends_and_a_path(tmp_path):
    file = tmp_path / 'mesh.ply'
    file.write_bytes(ASCII.replace('\n', '\r\n').encode())
    assert len(read_ply(file).vertices) == 5


@pytest.mark.parametrize('encoding', ['ascii', 'binary_little_endian'])
def test_against_trimesh(encoding):
    trimesh = pytest.importorskip('trimesh')
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    ball.visual.vertex_colors = np.arange(len(ball.vertices) * 4).reshape(-1, 4) % 256
    source = trimesh.exchange.ply.export_ply(ball, encoding=encoding)
    mesh = read_ply(source)
    np.testing.assert_allclose(mesh.vertices, ball.vertices, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, ball.faces)
    np.testing.assert_array_equal(mesh.colors, ball.visual.vertex_colors[:, :3])


@pytest.mark.parametrize('encode', [str.encode, binary])
def test_points_without_faces_or_colours(encode):
    text = ASCII.replace('element face 2\nproperty list uchar int vertex_indices\n', '')
    for channel in ('red', 'green', 'blue'):
        text = text.replace(f' {channel}\n', f' not_{channel}\n')
    source = encode(text)
    mesh = read_ply(source)
    assert mesh.colors is None and mesh.faces.shape == (0, 3) and len(mesh.vertices) == 5


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        (b'solid drill', 'is no PLY file'),
        (b'ply\nformat ascii 1.0\n', 'is no PLY file'),
        (ASCII.replace('ascii', 'binary_big_endian').encode(), 'big_endian'),
        (ASCII.replace('float x', 'half x').encode(), 'header line'),
        (ASCII.replace('property float x\n', '').encode(), 'no vertices'),
        (ASCII.replace('2.5', 'nan').encode(), 'not finite'),
        (ASCII.replace('2.5', 'up').encode(), 'ends early or holds'),
        (ASCII.replace('3 0 1 4', '3 0 1 9').encode(), 'no vertex'),
        (ASCII.replace('3 0 1 4', '3 0 1').encode(), 'ends early or holds'),
        (ASCII.encode()[:-20], 'ends early or holds'),
        (binary(ASCII)[:-3], 'ends early or holds'),
        (binary(ASCII)[:-60], 'ends early or holds'),
        (ASCII.replace('vertex 5', 'vertex 5000000000').encode(), 'ends early or holds'),
        (binary(ASCII.replace('vertex 5', 'vertex 5000000000')), 'ends early or holds'),
    ],
)
def test_what_is_no_mesh_is_refused(source, words):
    with pytest.raises(PoseNodeError, match=words) as info:
        read_ply(source)
    assert 'export the mesh again' in str(info.value)
