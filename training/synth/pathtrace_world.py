"""What a path-traced world is made of, and its translation into Mitsuba's shapes."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pose_node.core.errors import PoseNodeError

from .mesh import Mesh

_LLVM = ('/usr/lib/x86_64-linux-gnu/libLLVM*.so*', '/usr/lib/llvm-*/lib/libLLVM*.so*')
_QUAD = (np.array(((-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0))) / 2, ((0, 1, 2), (0, 2, 3)))
# Mitsuba's skies have their zenith along +y; ours along +z.
_UPRIGHT = np.array(((1.0, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)))


@dataclass(frozen=True)
class Item:
    """A mesh with its place in the world; `metal` (V,) in 0..1 says where it is bare metal, `coat`
    in 0..1 how much clear varnish lies over it.
    """

    mesh: Mesh
    T_world_obj: np.ndarray
    roughness: float = 0.4
    metal: np.ndarray | None = None
    coat: float = 0.0


@dataclass(frozen=True)
class Panel:
    """A rectangle of (width, height) across its z axis: a picture (H, W, 3) sRGB, or a light."""

    T_world_panel: np.ndarray
    size_m: tuple[float, float]
    picture: np.ndarray | None = None
    radiance: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class World:
    """items[0] is the object that is searched, unless the world has none.

    sky (H, 2 H, 3): linear radiance from all directions by longitude and latitude, zenith first.
    """

    items: Sequence[Item]
    panels: Sequence[Panel]
    has_object: bool = True
    sky: np.ndarray | None = None


def load_mitsuba() -> Any:
    """The mitsuba module with its LLVM variant set; raises PoseNodeError with the remedy."""
    try:
        import drjit
        import mitsuba
    except ImportError:
        raise PoseNodeError('mitsuba is not installed: pip install mitsuba mitsuba-oidn') from None
    if 'DRJIT_LIBLLVM_PATH' not in os.environ:
        # Dr.Jit takes the first LLVM it meets, and crashes with versions before 16.
        found = [path for pattern in _LLVM for path in glob.glob(pattern)]
        fresh = sorted((path for path in found if _llvm_version(path) >= 16), key=_llvm_version)
        if fresh:
            os.environ['DRJIT_LIBLLVM_PATH'] = fresh[-1]
        elif found:
            raise PoseNodeError(
                'mitsuba needs LLVM 16 or newer, the newest here is '
                f'{max(found, key=_llvm_version)}; '
                'install libllvm19 or set DRJIT_LIBLLVM_PATH'
            )
    mitsuba.set_variant('llvm_ad_rgb')
    if not drjit.has_backend(drjit.JitBackend.LLVM):
        raise PoseNodeError('mitsuba found no LLVM: install libllvm19 or set DRJIT_LIBLLVM_PATH')
    return mitsuba


def _llvm_version(path: str) -> float:
    name = os.path.basename(path).removeprefix('libLLVM').lstrip('-').removeprefix('.so.')
    digits = name.split('.')[0]
    return float(digits) if digits.isdigit() else 0.0


def linear_from_srgb(values: np.ndarray) -> np.ndarray:
    """sRGB 0..1 -> linear (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def items_shape(mi: Any, items: Sequence[Item]) -> Any:
    """All items as one mesh, their triangles in the items' order: fewer branches for the rays to
    part at.
    """
    properties = mi.Properties()
    paint = {
        'base_color': 'vertex_color', 'metallic': 'vertex_metal', 'roughness': 'vertex_rough',
        'clearcoat': 'vertex_coat',
    }  # fmt: skip
    properties['bsdf'] = mi.load_dict({
        'type': 'principled', 'specular': 0.45, 'clearcoat_gloss': 0.85,
        **{key: {'type': 'mesh_attribute', 'name': name} for key, name in paint.items()},
    })  # fmt: skip
    places, normals, faces = [], [], []
    attributes: dict[str, list[np.ndarray]] = {name: [] for name in paint.values()}
    start = 0
    for item in items:
        mesh, (R, t) = item.mesh, (item.T_world_obj[:3, :3], item.T_world_obj[:3, 3])
        count = len(mesh.vertices_m)
        places.append(mesh.vertices_m @ R.T + t)
        normals.append(mesh.normals @ R.T)
        faces.append(mesh.faces + start)
        attributes['vertex_color'].append(linear_from_srgb(mesh.colors))
        attributes['vertex_metal'].append(np.zeros(count) if item.metal is None else item.metal)
        attributes['vertex_rough'].append(np.full(count, item.roughness))
        attributes['vertex_coat'].append(np.full(count, item.coat))
        start += count
    shape = _mesh(mi, places, faces, properties, normals)
    for name, parts in attributes.items():
        shape.add_attribute(name, 3 if parts[0].ndim == 2 else 1, _flat(parts))
    return shape


def light_shape(mi: Any, panel: Panel) -> Any:
    """A rectangle that shines along its z axis."""
    assert panel.radiance is not None
    half = np.diag([0.5 * panel.size_m[0], 0.5 * panel.size_m[1], 1.0, 1.0])
    rgb = {'type': 'rgb', 'value': list(panel.radiance)}
    return mi.load_dict({
        'type': 'rectangle', 'to_world': mi.ScalarTransform4f(panel.T_world_panel @ half),
        'emitter': {'type': 'area', 'radiance': rgb},
    })  # fmt: skip


def pictures_shape(mi: Any, panels: Sequence[Panel]) -> Any:
    """All panels with pictures as one mesh, their pictures below each other in one texture."""
    pictures = [panel.picture for panel in panels if panel.picture is not None]
    wide, high = max(p.shape[1] for p in pictures), sum(p.shape[0] for p in pictures)
    atlas = np.zeros((high, wide, 3), np.uint8)
    corners, faces = _QUAD
    places, uv, top = [], [], 0
    for panel, picture in zip(panels, pictures):
        height, width = picture.shape[:2]
        atlas[top : top + height, :width] = picture
        T = panel.T_world_panel @ np.diag([*panel.size_m, 1.0, 1.0])
        places.append(corners @ T[:3, :3].T + T[:3, 3])
        # From the centre of the first pixel to that of the last: nothing of the neighbours.
        px = 0.5 + (corners[:, :2] + 0.5) * (width - 1, height - 1)
        uv.append((px + (0, top)) / (wide, high))
        top += height
    properties = mi.Properties()
    texture = {'type': 'bitmap', 'bitmap': mi.Bitmap(atlas), 'raw': False}
    properties['bsdf'] = mi.load_dict({'type': 'diffuse', 'reflectance': texture})
    quads = [np.array(faces) + 4 * k for k in range(len(panels))]
    return _mesh(mi, places, quads, properties, uv=uv)


def sky_emitter(mi: Any, sky: np.ndarray) -> Any:
    """Light from all directions."""
    bitmap = mi.Bitmap(np.ascontiguousarray(sky, dtype=np.float32))
    return mi.load_dict(
        {'type': 'envmap', 'bitmap': bitmap, 'to_world': mi.ScalarTransform4f(_UPRIGHT)}
    )


def _mesh(
    mi: Any,
    places: list,
    faces: list,
    properties: Any,
    normals: list | None = None,
    uv: Any = None,
) -> Any:
    count, triangles = sum(map(len, places)), sum(map(len, faces))
    shape = mi.Mesh(
        'mesh', count, triangles, has_vertex_normals=normals is not None,
        has_vertex_texcoords=uv is not None, props=properties,
    )  # fmt: skip
    parameters = mi.traverse(shape)
    parameters['vertex_positions'] = _flat(places)
    parameters['faces'] = _flat(faces, np.uint32)
    if normals is not None:
        parameters['vertex_normals'] = _flat(normals)
    if uv is not None:
        parameters['vertex_texcoords'] = _flat(uv)
    parameters.update()
    return shape


def _flat(parts: Any, dtype: type = np.float32) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in parts]).astype(dtype)
