"""Path tracer: another renderer than the training's, for demonstration and validation pictures.

Mitsuba 3 follows rays through every pixel as the *distorted* camera sees it, so a picture
obeys its CameraInfo exactly: nothing is rendered straight and bent afterwards. Mitsuba is imported
lazily; only those who render pictures need it, with LLVM 16 or newer (Debian: libllvm19).
"""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError

from .mesh import Mesh

_GUIDE_SAMPLES = 2
_LLVM = ('/usr/lib/x86_64-linux-gnu/libLLVM*.so*', '/usr/lib/llvm-*/lib/libLLVM*.so*')
_QUAD = (np.array(((-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0))) / 2, ((0, 1, 2), (0, 2, 3)))


@dataclass(frozen=True)
class Item:
    """A mesh with its place in the world; `metal` (V,) in 0..1 says where it is bare metal."""

    mesh: Mesh
    T_world_obj: np.ndarray
    roughness: float = 0.4
    metal: np.ndarray | None = None


@dataclass(frozen=True)
class Panel:
    """A rectangle of (width, height) across its z axis: a picture (H, W, 3) sRGB, or a light."""

    T_world_panel: np.ndarray
    size_m: tuple[float, float]
    picture: np.ndarray | None = None
    radiance: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class World:
    """items[0] is the object that is searched, unless the world has none."""

    items: Sequence[Item]
    panels: Sequence[Panel]
    has_object: bool = True


@dataclass(frozen=True)
class Frame:
    """linear (H, W, 3) radiance as the distorted camera sees it; visible share of the object."""

    linear: np.ndarray
    visible: float


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
    mitsuba.set_variant('llvm_ad_rgb')
    if not drjit.has_backend(drjit.JitBackend.LLVM):
        raise PoseNodeError('mitsuba found no LLVM: install libllvm19 or set DRJIT_LIBLLVM_PATH')
    return mitsuba


def _llvm_version(path: str) -> float:
    name = os.path.basename(path).removeprefix('libLLVM').lstrip('-').removeprefix('.so.')
    digits = name.split('.')[0]
    return float(digits) if digits.isdigit() else 0.0


@dataclass
class PathTracer:
    """Holds the compiled scene of one world."""

    world: World
    depth: int = 4
    mi: Any = field(default_factory=load_mitsuba)

    def __post_init__(self) -> None:
        world = self.world
        thing = world.items[0] if world.has_object else None
        # One mesh for all the rest: fewer branches for the rays to part at.
        rest = world.items[1:] if thing else world.items
        shapes = [self._shape(rest)] if rest else []
        shapes += [self._panel(panel) for panel in world.panels]
        self.object = None
        if thing:
            self.object = self._shape([thing])
            self.alone = self.mi.load_dict({'type': 'scene', 'object': self._shape([thing])})
            shapes.append(self.object)
        named = {f'shape{k}': shape for k, shape in enumerate(shapes)}
        self.scene = self.mi.load_dict({'type': 'scene', **named})
        self.integrator = self.mi.load_dict(
            {'type': 'path', 'max_depth': self.depth, 'rr_depth': 3}
        )

    def _shape(self, items: Sequence[Item]) -> Any:
        mi = self.mi
        properties = mi.Properties()
        paint = {
            'base_color': 'vertex_color',
            'metallic': 'vertex_metal',
            'roughness': 'vertex_rough',
        }
        properties['bsdf'] = mi.load_dict({
            'type': 'principled', 'specular': 0.45,
            **{key: {'type': 'mesh_attribute', 'name': name} for key, name in paint.items()},
        })  # fmt: skip
        places, normals, faces, colors, metals, roughs = [], [], [], [], [], []
        start = 0
        for item in items:
            mesh, (R, t) = item.mesh, (item.T_world_obj[:3, :3], item.T_world_obj[:3, 3])
            count = len(mesh.vertices_m)
            places.append(mesh.vertices_m @ R.T + t)
            normals.append(mesh.normals @ R.T)
            faces.append(mesh.faces + start)
            colors.append(linear_from_srgb(mesh.colors))
            metals.append(np.zeros(count) if item.metal is None else item.metal)
            roughs.append(np.full(count, item.roughness))
            start += count
        shape = self._mesh(places, faces, properties, normals)
        for name, width, parts in (
            ('color', 3, colors),
            ('metal', 1, metals),
            ('rough', 1, roughs),
        ):
            shape.add_attribute(f'vertex_{name}', width, _flat(parts))
        return shape

    def _mesh(
        self,
        places: list,
        faces: list,
        properties: Any,
        normals: list | None = None,
        uv: Any = None,
    ) -> Any:
        count, triangles = sum(map(len, places)), sum(map(len, faces))
        shape = self.mi.Mesh(
            'mesh', count, triangles, has_vertex_normals=normals is not None,
            has_vertex_texcoords=uv is not None, props=properties,
        )  # fmt: skip
        parameters = self.mi.traverse(shape)
        parameters['vertex_positions'] = _flat(places)
        parameters['faces'] = _flat(faces, np.uint32)
        if normals is not None:
            parameters['vertex_normals'] = _flat(normals)
        if uv is not None:
            parameters['vertex_texcoords'] = _flat(uv)
        parameters.update()
        return shape

    def _panel(self, panel: Panel) -> Any:
        mi = self.mi
        T = panel.T_world_panel @ np.diag([*panel.size_m, 1.0, 1.0])
        if panel.radiance is not None:
            half = np.diag([0.5, 0.5, 1.0, 1.0])  # mitsuba's rectangle reaches from -1 to 1
            rgb = {'type': 'rgb', 'value': list(panel.radiance)}
            return mi.load_dict({
                'type': 'rectangle', 'to_world': mi.ScalarTransform4f(T @ half),
                'emitter': {'type': 'area', 'radiance': rgb},
            })  # fmt: skip
        assert panel.picture is not None
        bitmap = mi.Bitmap(np.ascontiguousarray(panel.picture))
        properties = mi.Properties()
        texture = {'type': 'bitmap', 'bitmap': bitmap, 'raw': False}
        properties['bsdf'] = mi.load_dict({'type': 'diffuse', 'reflectance': texture})
        corners, faces = _QUAD
        uv = [corners[:, :2] + 0.5]
        return self._mesh([corners @ T[:3, :3].T + T[:3, 3]], [np.array(faces)], properties, uv=uv)

    def render(self, T_cam_world: np.ndarray, camera: Camera, *, samples: int, seed: int) -> Frame:
        """One picture; the noise differs by `seed`."""
        import drjit as dr
        import mitsuba_oidn

        mi = self.mi
        sampler = self._sampler(seed, camera, samples)
        rays = self._rays(T_cam_world, camera, samples, sampler.next_2d())
        color, _, _ = self.integrator.sample(self.scene, sampler, mi.RayDifferential3f(rays))
        planes = self._pixels(camera, samples, color)
        # What the denoiser sees beside it: colour and direction of the first surface.
        sampler = self._sampler(seed, camera, _GUIDE_SAMPLES)
        rays = self._rays(T_cam_world, camera, _GUIDE_SAMPLES, sampler.next_2d())
        hit = self.scene.ray_intersect(rays)
        valid = hit.is_valid()
        albedo = dr.select(valid, hit.bsdf().eval_diffuse_reflectance(hit), 0.0)
        normal = dr.select(valid, hit.sh_frame.n, 0.0)
        guides = self._pixels(camera, _GUIDE_SAMPLES, (*albedo, *normal))
        clean = mitsuba_oidn.denoise(
            planes, albedo=np.ascontiguousarray(guides[..., :3]),
            normal=np.ascontiguousarray(guides[..., 3:]), hdr=True,
            quality=mitsuba_oidn.Quality.Balanced,
        )  # fmt: skip
        return Frame(np.asarray(clean), self.visible_share(T_cam_world, camera))

    def _sampler(self, seed: int, camera: Camera, samples: int) -> Any:
        sampler = self.mi.load_dict({'type': 'independent'})
        sampler.seed(seed, camera.size[0] * camera.size[1] * samples)
        return sampler

    def _pixels(self, camera: Camera, samples: int, values: Any) -> np.ndarray:
        """(H, W, C) float32 means of `samples` neighbours each."""
        import drjit as dr

        dr.eval(*values)  # all at once: one run of the kernel
        planes = [np.array(dr.block_sum(value, samples)) / samples for value in values]
        return (
            np.stack(planes, axis=-1)
            .reshape(camera.size[1], camera.size[0], -1)
            .astype(np.float32)
        )

    def _rays(self, T_cam_world: np.ndarray, camera: Camera, samples: int, jitter: Any) -> Any:
        """`samples` rays a pixel at `jitter` (0..1) of it, between the rays of its corners."""
        import drjit as dr

        mi = self.mi
        width, height = camera.size
        index = dr.arange(mi.UInt32, width * height * samples) // samples
        row, column = index // width, index % width
        first = row * (width + 1) + column
        x, y = (mi.Float(plane) for plane in _lattice(camera))

        def between(plane: Any) -> Any:
            at = lambda corner: dr.gather(mi.Float, plane, corner)
            upper = dr.lerp(at(first), at(first + 1), jitter.x)
            lower = dr.lerp(at(first + width + 1), at(first + width + 2), jitter.x)
            return dr.lerp(upper, lower, jitter.y)

        T_world_cam = np.linalg.inv(T_cam_world)
        R = mi.Matrix3f(T_world_cam[:3, :3].tolist())
        origin = mi.Point3f(T_world_cam[:3, 3].tolist())
        # Numbers that change with the picture stay out of the code: it is compiled once.
        dr.make_opaque(R, origin)
        return mi.Ray3f(origin, R @ dr.normalize(mi.Vector3f(between(x), between(y), 1.0)))

    def mask(self, T_cam_world: np.ndarray, camera: Camera) -> np.ndarray:
        """(H, W) bool, where a ray through the pixel's centre meets the object first."""
        mi = self.mi
        rays = self._rays(T_cam_world, camera, 1, mi.Point2f(0.5, 0.5))
        hit = self.scene.ray_intersect_preliminary(rays)
        seen = np.array(hit.is_valid() & (hit.shape == mi.ShapePtr(self.object)))
        return seen.reshape(camera.size[::-1])

    def visible_share(self, T_cam_world: np.ndarray, camera: Camera) -> float:
        """Share of the whole object that is seen: not hidden, and inside the camera's picture.

        Counted in straight pictures that reach half a picture further, at half the resolution.
        """
        if self.object is None:
            return 0.0
        wide = _wide(camera)
        rays = self._rays(T_cam_world, wide, 1, self.mi.Point2f(0.5, 0.5))
        whole = int(np.array(self.alone.ray_test(rays)).sum())
        if not whole:
            return 0.0
        rows, columns = np.nonzero(self.mask(T_cam_world, wide))
        xy = wide.unproject(np.stack((columns, rows), axis=1).astype(float))
        px = camera.project(np.column_stack((xy, np.ones(len(xy)))))
        inside = ((px > -0.5) & (px < np.array(camera.size) - 0.5)).all(axis=1)
        return float(inside.sum() / whole)


@functools.lru_cache(maxsize=8)
def _wide(camera: Camera) -> Camera:
    """Pinhole camera of twice the angle and half the resolution."""
    width, height = camera.size
    f = camera.K[0, 0] / 2
    K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
    return Camera(K, (width, height), 'none', ())


@functools.lru_cache(maxsize=8)
def _lattice(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """x/z and y/z through the pixels' corners, (H + 1)(W + 1) each."""
    width, height = camera.size
    u, v = np.meshgrid(np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5)
    xy = camera.unproject(np.stack((u.ravel(), v.ravel()), axis=1)).astype(np.float32)
    return np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1])


def _flat(parts: Any, dtype: type = np.float32) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in parts]).astype(dtype)


def linear_from_srgb(values: np.ndarray) -> np.ndarray:
    """sRGB 0..1 -> linear (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def develop(
    linear: np.ndarray, *, exposure: float, blur_px: float, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Radiance -> (H, W, 3) uint8 as a camera does: lens blur, noise, soft highlights, sRGB."""
    light = cv2.GaussianBlur(np.asarray(linear, dtype=np.float32), (0, 0), blur_px) * exposure
    light = light + noise * np.sqrt(np.maximum(light, 0) + 0.02) * rng.standard_normal(light.shape)
    light = np.maximum(light, 0.0)
    # Straight up to 0.7, then bent towards 1.
    light = np.where(light < 0.7, light, 1.0 - 0.3 * np.exp(-(light - 0.7) / 0.3))
    srgb = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-8) ** (1 / 2.4) - 0.055
    )
    return np.clip(srgb * 255 + 0.5, 0, 255).astype(np.uint8)
