"""Triangle meshes out of PLY files: what drawing and the metrics need, and no more.

The format is G. Turk's (Stanford, 1994). Read are ascii and binary little endian files with
vertices, their colours, and faces; other elements and properties are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from .errors import PoseNodeError

_TYPES = {
    'char': 'i1',
    'int8': 'i1',
    'uchar': 'u1',
    'uint8': 'u1',
    'short': 'i2',
    'int16': 'i2',
    'ushort': 'u2',
    'uint16': 'u2',
    'int': 'i4',
    'int32': 'i4',
    'uint': 'u4',
    'uint32': 'u4',
    'float': 'f4',
    'float32': 'f4',
    'double': 'f8',
    'float64': 'f8',
}


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh in its own frame, in the unit of its file (metres in a bundle)."""

    vertices: np.ndarray  # (V, 3) float64
    faces: np.ndarray  # (F, 3) int32; polygons are cut into fans
    colors: np.ndarray | None  # (V, 3) uint8 RGB


@dataclass
class _Element:
    name: str
    count: int
    # (name, type) of a scalar, (name, type, type of the count) of a list
    properties: list[tuple[str, ...]]


def read_ply(source: bytes | str | Path) -> Mesh:
    """Read a PLY file, from its bytes or its path. Raises PoseNodeError for what is none."""
    name = 'the mesh' if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    elements, ascii_text, start = _header(data, name)
    read = _read_ascii if ascii_text else _read_binary
    try:
        tables = read(data[start:], elements)
    except (ValueError, IndexError, UnicodeDecodeError):
        _fail(name, 'ends early or holds what its header does not announce')
    return _mesh(tables, name)


def _fail(name: str, what: str) -> NoReturn:
    raise PoseNodeError(f'{name} {what}; export the mesh again as PLY, ascii or little endian.')


def _header(data: bytes, name: str) -> tuple[list[_Element], bool, int]:
    """Elements, whether the body is text, and where the body starts."""
    end = data.find(b'end_header')
    start = data.find(b'\n', end) + 1
    if not data.startswith(b'ply') or end < 0 or start == 0:
        _fail(name, 'is no PLY file')
    elements: list[_Element] = []
    body = ''
    for line in data[:end].decode('ascii', 'replace').splitlines():
        words = line.split()
        if words[:1] == ['format']:
            body = words[1]
        elif words[:1] == ['element'] and len(words) == 3 and words[2].isdigit():
            elements.append(_Element(words[1], int(words[2]), []))
        elif words[:1] == ['property'] and elements:
            kinds = words[2:-1] if words[1] == 'list' else words[1:-1]
            if len(kinds) != (2 if words[1] == 'list' else 1) or not set(kinds) <= set(_TYPES):
                _fail(name, f'has a header line {line!r} that no PLY has')
            elements[-1].properties.append((words[-1], *(_TYPES[kind] for kind in kinds[::-1])))
    if body not in ('ascii', 'binary_little_endian'):
        _fail(name, f'has format {body!r}')
    return elements, body == 'ascii', start


def _read_ascii(body: bytes, elements: list[_Element]) -> dict[str, dict]:
    lines = [line.split() for line in body.decode('ascii').splitlines() if line.strip()]
    tables: dict[str, dict] = {}
    at = 0
    for element in elements:
        rows = lines[at : at + element.count]
        at += element.count
        if len(rows) < element.count:
            raise IndexError
        columns: dict[str, list] = {each[0]: [] for each in element.properties}
        for row in rows:
            word = 0
            for name, _, *count_type in element.properties:
                size = int(row[word]) if count_type else 1
                word += bool(count_type)
                values = [float(text) for text in row[word : word + size]]
                if len(values) < size:
                    raise IndexError
                columns[name].append(values if count_type else values[0])
                word += size
        tables[element.name] = columns
    return tables


def _read_binary(body: bytes, elements: list[_Element]) -> dict[str, dict]:
    tables: dict[str, dict] = {}
    at = 0
    for element in elements:
        lists = [each for each in element.properties if len(each) == 3]
        if not lists:
            row = np.dtype([(name, '<' + kind) for name, kind in element.properties])
            table = np.frombuffer(body, row, element.count, at)
            at += table.nbytes
            tables[element.name] = {name: table[name] for name in row.names or ()}
            continue
        tables[element.name], at = _read_lists(body, element, at)
    return tables


def _read_lists(body: bytes, element: _Element, at: int) -> tuple[dict, int]:
    """An element with lists. Nearly always all have one length, so the first row's is tried."""
    row, end = _row(body, element, at)
    table = np.frombuffer(body, row, min(element.count, (len(body) - at) // row.itemsize), at)
    counts = [name for name in row.names or () if name.startswith('#')]
    same = len(table) == element.count and all(
        (table[name] == table[name][:1]).all() for name in counts
    )
    if same or element.count == 0:
        names = [each[0] for each in element.properties]
        return {name: table[name] for name in names}, at + table.nbytes
    columns: dict[str, list] = {each[0]: [] for each in element.properties}
    for _ in range(element.count):
        row, end = _row(body, element, at)
        values = np.frombuffer(body, row, 1, at)[0]
        for name, column in columns.items():
            column.append(values[name])
        at = end
    return columns, at


def _row(body: bytes, element: _Element, at: int) -> tuple[np.dtype, int]:
    """The layout of the row that starts at `at`, and its end; '#x' is the length of list x."""
    fields: list[tuple] = []
    start = at
    for name, kind, *count_type in element.properties:
        if not count_type:
            fields.append((name, '<' + kind))
        elif element.count:
            size = int(np.frombuffer(body, '<' + count_type[0], 1, at)[0])
            fields += [('#' + name, '<' + count_type[0]), (name, '<' + kind, (max(size, 0),))]
        else:
            fields += [('#' + name, '<' + count_type[0]), (name, '<' + kind, (0,))]
        at = start + np.dtype(fields).itemsize
    return np.dtype(fields), at


def _mesh(tables: dict[str, dict], name: str) -> Mesh:
    vertex = tables.get('vertex', {})
    if not {'x', 'y', 'z'} <= set(vertex):
        _fail(name, 'has no vertices')
    vertices = np.stack([np.asarray(vertex[axis], np.float64) for axis in 'xyz'], axis=1)
    if not len(vertices) or not np.isfinite(vertices).all():
        _fail(name, 'has no vertices, or some that are not finite')
    colors = None
    if {'red', 'green', 'blue'} <= set(vertex):
        colors = np.stack(
            [np.asarray(vertex[channel]) for channel in ('red', 'green', 'blue')], axis=1
        ).astype(np.uint8)
    face = tables.get('face', {})
    polygons = face.get('vertex_indices', face.get('vertex_index', ()))
    faces = _triangles(polygons)
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        _fail(name, 'has a face with a corner that is no vertex')
    return Mesh(vertices, faces, colors)


def _triangles(polygons: np.ndarray | list) -> np.ndarray:
    """(F, 3) fans of polygons."""
    if isinstance(polygons, np.ndarray) and polygons.ndim == 2:
        corners = polygons.astype(np.int32)
        fans = [corners[:, [0, i, i + 1]] for i in range(1, corners.shape[1] - 1)]
        return np.concatenate(fans) if fans else np.zeros((0, 3), np.int32)
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, dtype=np.int32).reshape(-1, 3)
