"""Path tracer: another renderer than the training's, for demonstration and validation pictures.

Mitsuba 3 follows rays through every pixel as the *distorted* camera sees it, so a picture
obeys its CameraInfo exactly: nothing is rendered straight and bent afterwards. Mitsuba is imported
lazily; only those who render pictures need it, with LLVM 16 or newer (Debian: libllvm19).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from pose_node.core.camera import Camera

from .pathtrace_world import (
    Item,
    Panel,
    World,
    items_shape,
    light_shape,
    linear_from_srgb,
    load_mitsuba,
    pictures_shape,
    sky_emitter,
)

__all__ = [
    'Frame', 'Item', 'Panel', 'PathTracer', 'World', 'auto_exposure', 'develop',
    'linear_from_srgb', 'load_mitsuba',
]  # fmt: skip

_GUIDE_SAMPLES = 2


@dataclass(frozen=True)
class Frame:
    """linear (H, W, 3) radiance as the distorted camera sees it; visible share of the object."""

    linear: np.ndarray
    visible: float


@dataclass
class PathTracer:
    """Holds the compiled scene of one world."""

    world: World
    depth: int = 4
    mi: Any = field(default_factory=load_mitsuba)

    def __post_init__(self) -> None:
        mi, world = self.mi, self.world
        self.things = items_shape(mi, world.items) if world.items else None
        parts = [light_shape(mi, panel) for panel in world.panels if panel.radiance is not None]
        papered = [panel for panel in world.panels if panel.radiance is None]
        parts += [pictures_shape(mi, papered)] if papered else []
        parts += [self.things] if self.things else []
        parts += [] if world.sky is None else [sky_emitter(mi, world.sky)]
        self.scene = mi.load_dict(
            {'type': 'scene', **{f'part{k}': part for k, part in enumerate(parts)}}
        )
        counts = [len(item.mesh.faces) for item in world.items]
        self.item_of_face = mi.UInt32(np.repeat(np.arange(1, len(counts) + 1), counts))
        self.alone: dict[int, Any] = {}
        self.integrator = mi.load_dict({'type': 'path', 'max_depth': self.depth, 'rr_depth': 3})

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

    def identities(self, T_cam_world: np.ndarray, camera: Camera) -> np.ndarray:
        """(H, W): 0, or k + 1 where a ray through the pixel's centre meets items[k] first."""
        import drjit as dr

        mi = self.mi
        if self.things is None:
            return np.zeros(camera.size[::-1], np.uint32)
        rays = self._rays(T_cam_world, camera, 1, mi.Point2f(0.5, 0.5))
        hit = self.scene.ray_intersect_preliminary(rays)
        ours = hit.is_valid() & (hit.shape == mi.ShapePtr(self.things))
        found = dr.gather(mi.UInt32, self.item_of_face, hit.prim_index, ours)
        return np.array(found).reshape(camera.size[::-1])

    def depths_m(self, T_cam_world: np.ndarray, camera: Camera) -> np.ndarray:
        """(H, W) z, m, of what a ray through the pixel's centre meets first; 0 where it meets
        nothing.
        """
        mi = self.mi
        rays = self._rays(T_cam_world, camera, 1, mi.Point2f(0.5, 0.5))
        hit = self.scene.ray_intersect_preliminary(rays)
        far = np.where(np.array(hit.is_valid()), np.array(hit.t), 0.0)
        width, height = camera.size
        u, v = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
        xy = camera.unproject(np.stack((u.ravel(), v.ravel()), axis=1))
        z = far / np.sqrt(1.0 + (xy**2).sum(axis=1))
        return np.asarray(z.reshape(height, width))

    def silhouette(self, index: int, T_cam_world: np.ndarray, camera: Camera) -> np.ndarray:
        """(H, W) bool, where items[index] would be seen were it alone."""
        mi = self.mi
        if index not in self.alone:
            shape = items_shape(mi, self.world.items[index : index + 1])
            self.alone[index] = mi.load_dict({'type': 'scene', 'item': shape})
        rays = self._rays(T_cam_world, camera, 1, mi.Point2f(0.5, 0.5))
        return np.array(self.alone[index].ray_test(rays)).reshape(camera.size[::-1])

    def mask(self, T_cam_world: np.ndarray, camera: Camera) -> np.ndarray:
        """(H, W) bool, where the object is seen."""
        return self.identities(T_cam_world, camera) == 1

    def visible_share(self, T_cam_world: np.ndarray, camera: Camera) -> float:
        """Share of the whole object that is seen: not hidden, and inside the camera's picture.

        Counted in straight pictures that reach half a picture further, at half the resolution.
        """
        if not self.world.has_object:
            return 0.0
        wide = _wide(camera)
        whole = int(self.silhouette(0, T_cam_world, wide).sum())
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


def auto_exposure(linear: np.ndarray) -> float:
    """Brings the mean of the logarithm to a middle grey."""
    return float(0.17 / np.exp(np.mean(np.log(linear.mean(axis=2) + 1e-3))))
