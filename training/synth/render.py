"""Rasteriser: instances of meshes -> picture, and in a second pass object coordinates without any
blending.

The only file with a GL context. On a machine without a GPU Mesa's llvmpipe runs the same code
through EGL.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import cv2
import moderngl
import numpy as np

from .mesh import Mesh
from .shaders import COVERS, PROGRAMS, SHADES

_Method = TypeVar('_Method', bound=Callable[..., Any])

NEAR_M, FAR_M = 0.02, 20.0
_SHADOW_MAP_PX = 192


@dataclass(frozen=True)
class Material:
    """How an instance looks: paint' = color_mix @ paint + color_add, gloss, and a solid texture
    over it.
    """

    color_mix: np.ndarray = field(default_factory=lambda: np.eye(3))
    color_add: np.ndarray = field(default_factory=lambda: np.zeros(3))
    gloss: float = 0.1
    shininess: float = 20.0
    texture_freq: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    texture_color: tuple[float, float, float] = (0.5, 0.5, 0.5)
    texture_mix: float = 0.0
    print: str = ''  # an uploaded picture in the paint's place
    print_m: float = 1.0  # how large it is, round the mesh's origin and in the mesh's own units

    @property
    def cover(self) -> str:
        """What lies over the paint."""
        return 'PRINTED' if self.print else 'TEXTURED' if self.texture_mix > 0.0 else ''


@dataclass(frozen=True)
class Instance:
    """A mesh by name with T_cam_obj (4, 4; its upper block may scale) and a material."""

    mesh: str
    T_cam_obj: np.ndarray
    material: Material = field(default_factory=Material)


@dataclass(frozen=True)
class Lights:
    """directions (3, 3) towards the light in the camera frame, colors (3, 3), sky and ground (3,),
    up_cam (3,).
    """

    directions: np.ndarray
    colors: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    up_cam: np.ndarray


@dataclass(frozen=True)
class ShadowMap:
    """What the first light does not reach, within `radius_m` round a point of the camera frame.

    depth: 0 is no shadow, 1 a black one; softness_m: width of its edge.
    """

    center_cam: np.ndarray
    radius_m: float
    depth: float
    softness_m: float


@dataclass(frozen=True)
class Shadow:
    """Shadow of instance 0 on a plane: T_cam_shadow (4, 4) flattens the object onto it; darkness
    in 0..1.
    """

    T_cam_shadow: np.ndarray
    darkness: float


def clip_from_cam(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """GL projection of a pinhole camera whose pixel centres are integers; picture row 0 comes out
    first.
    """
    width, height = size
    (fx, skew, cx), (_, fy, cy), _ = K
    a = (FAR_M + NEAR_M) / (FAR_M - NEAR_M)
    b = -2.0 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    return np.array(
        [
            [2 * fx / width, 2 * skew / width, (2 * cx + 1) / width - 1, 0],
            [0, 2 * fy / height, (2 * cy + 1) / height - 1, 0],
            [0, 0, a, b],
            [0, 0, 1, 0],
        ]
    )


def clip_from_light(direction_cam: np.ndarray, shadow_map: ShadowMap) -> np.ndarray:
    """GL projection (4, 4) of a light that shines along parallel rays: towards it is nearer."""
    z = -direction_cam / np.linalg.norm(direction_cam)
    x = np.cross(z, (0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0))
    x /= np.linalg.norm(x)
    clip = np.eye(4)
    clip[:3, :3] = np.stack((x, np.cross(z, x), z)) / shadow_map.radius_m
    clip[:3, 3] = -clip[:3, :3] @ shadow_map.center_cam
    return clip


def _current(method: _Method) -> _Method:
    """GL draws into the context that is current, whoever is asked: make it the asked one's."""

    @functools.wraps(method)
    def wrapped(self: Renderer, *arguments: Any) -> Any:
        with self.context:
            return method(self, *arguments)

    return cast(_Method, wrapped)


class Renderer:
    """Holds a GL context and the uploaded meshes; made anew in every process."""

    def __init__(self, supersample: float = 1.5):
        os.environ.setdefault('LP_NUM_THREADS', '0')  # one process a core is fastest on llvmpipe
        self.context = moderngl.create_standalone_context(backend='egl')
        self.context.enable(moderngl.DEPTH_TEST)
        self.context.front_face = 'cw'  # seen from outside: row 0 of a picture is its top
        self.supersample = supersample
        self.programs = {
            name: self.context.program(vertex_shader=vertex, fragment_shader=fragment)
            for name, (vertex, fragment) in PROGRAMS.items()
        }
        self.shadow_map = self.context.depth_texture((_SHADOW_MAP_PX, _SHADOW_MAP_PX))
        self.shadow_map.repeat_x = self.shadow_map.repeat_y = False
        self.shadow_buffer = self.context.framebuffer(depth_attachment=self.shadow_map)
        self.arrays: dict[tuple[str, str], moderngl.VertexArray] = {}
        self.closed: set[str] = set()  # meshes whose inner side nobody sees
        self.prints: dict[str, moderngl.Texture] = {}
        self.buffers: dict[tuple[tuple[int, int], str], moderngl.Framebuffer] = {}

    @_current
    def upload(self, name: str, mesh: Mesh) -> None:
        """Make `mesh` known under `name`."""
        data = np.hstack((mesh.vertices_m, mesh.normals, mesh.colors)).astype('f4')
        vertices = self.context.buffer(data.tobytes())
        indices = self.context.buffer(mesh.faces.astype('i4').tobytes())
        if mesh.is_closed:
            self.closed.add(name)
        for program in self.programs:
            self.arrays[name, program] = self.context.vertex_array(
                self.programs[program],
                [(vertices, '3f 3f 3f', 'position', 'normal', 'color')],
                indices,
                skip_errors=True,
            )

    @_current
    def upload_print(self, name: str, picture: np.ndarray) -> None:
        """Make `picture` (h, w, 3) uint8 known as what materials may have printed on them; it
        repeats itself, mirrored so that no seam is seen.
        """
        wide = np.concatenate((picture, picture[:, ::-1]), axis=1)
        mirrored = np.concatenate((wide, wide[::-1]), axis=0)
        height, width = mirrored.shape[:2]
        data = mirrored.tobytes()
        self.prints[name] = self.context.texture((width, height), 3, data, alignment=1)
        self.prints[name].build_mipmaps()

    def _framebuffer(self, size: tuple[int, int], dtype: str) -> moderngl.Framebuffer:
        """A cleared framebuffer of 4 channels and depth, kept for the next use."""
        if (size, dtype) not in self.buffers:
            color = self.context.renderbuffer(size, 4, dtype=dtype)
            depth = self.context.depth_renderbuffer(size)
            self.buffers[size, dtype] = self.context.framebuffer([color], depth)
        buffer = self.buffers[size, dtype]
        buffer.use()
        buffer.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        return buffer

    @_current
    def picture(
        self,
        instances: list[Instance],
        lights: Lights,
        K: np.ndarray,
        size: tuple[int, int],
        shadow: Shadow | None = None,
        shadow_map: ShadowMap | None = None,
    ) -> np.ndarray:
        """(H, W, 4) uint8: colour premultiplied with the coverage, and the coverage."""
        self._light_up(instances, lights, shadow_map)
        # Anti-aliased by rendering larger and averaging: llvmpipe's multisampling costs four times
        # as much.
        large = (round(size[0] * self.supersample), round(size[1] * self.supersample))
        buffer = self._framebuffer(large, 'f1')
        mapped = shadow_map is not None
        for cover in COVERS:
            program = self.programs[SHADES[mapped, cover]]
            program['light_dir'].write(lights.directions.astype('f4').tobytes())
            program['light_color'].write(lights.colors.astype('f4').tobytes())
            for name in ('sky', 'ground', 'up_cam'):
                program[name].write(getattr(lights, name).astype('f4').tobytes())
        project = clip_from_cam(K, size)
        for index, instance in enumerate(instances):
            material = instance.material
            name = SHADES[mapped, material.cover]
            program = self.programs[name]
            program['gloss'].value = material.gloss
            program['shininess'].value = material.shininess
            if material.print:
                self.prints[material.print].use(1)
                program['print'].value = 1
                program['print_m'].value = material.print_m
            elif material.cover:
                program['texture_freq'].value = material.texture_freq
                program['texture_color'].value = material.texture_color
                program['texture_mix'].value = material.texture_mix
            self._draw(name, instance, project, material)
            if index == 0 and shadow is not None:
                self._shadow(instance, project, shadow)
        rendered = np.frombuffer(buffer.read(components=4), np.uint8).reshape(
            large[1], large[0], 4
        )
        # Of two by two pixels: up to twice as large none is passed over, and OpenCV needs seven
        # times as long for the mean of areas.
        return cv2.resize(rendered, size, interpolation=cv2.INTER_LINEAR)

    def _light_up(
        self, instances: list[Instance], lights: Lights, shadow_map: ShadowMap | None
    ) -> None:
        """Draw the depths that the first light sees, for `shade` to compare with."""
        if shadow_map is None:
            return
        clip_from_world = clip_from_light(lights.directions[0], shadow_map)
        self.shadow_buffer.use()
        self.shadow_buffer.clear(depth=1.0)
        for instance in instances:
            self._draw('depth', instance, clip_from_world, instance.material)
        map_from_clip = 0.5 * np.eye(4) + 0.5 * np.outer((1, 1, 1, 1), (0, 0, 0, 1))
        map_from_cam = (map_from_clip @ clip_from_world).T.astype('f4').tobytes()
        for cover in COVERS:
            program = self.programs[SHADES[True, cover]]
            program['map_from_cam'].write(map_from_cam)
            program['shadow_depth'].value = shadow_map.depth
            program['shadow_softness'].value = shadow_map.softness_m / (2 * shadow_map.radius_m)
        self.shadow_map.use(0)

    def _shadow(self, instance: Instance, project: np.ndarray, shadow: Shadow) -> None:
        self.programs['shadow']['darkness'].value = shadow.darkness
        flat = Instance(instance.mesh, shadow.T_cam_shadow)
        self._draw('shadow', flat, project, instance.material)

    @_current
    def targets(
        self, instances: list[Instance], K: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) float32 coordinates in each instance's own frame and (H, W) uint8 identity: 0
        is nothing, i + 1 instance i.

        No anti-aliasing and no blending: every value is one surface point.
        """
        target = self._framebuffer(size, 'f4')
        project = clip_from_cam(K, size)
        for index, instance in enumerate(instances):
            self.programs['target']['identity'].value = float(index + 1)
            self._draw('target', instance, project, instance.material)
        raw = np.frombuffer(target.read(components=4, dtype='f4'), np.float32)
        values = raw.reshape(size[1], size[0], 4)
        return values[..., :3], values[..., 3].astype(np.uint8)

    def _draw(
        self, name: str, instance: Instance, project: np.ndarray, material: Material
    ) -> None:
        program = self.programs[name]
        T = instance.T_cam_obj
        values = {
            'clip_from_obj': project @ T,
            'cam_from_obj': T,
            'color_mix': material.color_mix,
            'color_add': material.color_add,
        }
        for uniform, value in values.items():
            if uniform in program:
                # GL stores matrices by columns.
                program[uniform].write(np.ascontiguousarray(value.T, dtype='f4').tobytes())
        # Half of a closed mesh's triangles lie behind the others: they need not be drawn. The flat
        # and the light's view have no inside.
        if instance.mesh in self.closed and name not in ('shadow', 'depth'):
            self.context.enable(moderngl.CULL_FACE)
        else:
            self.context.disable(moderngl.CULL_FACE)
        self.arrays[instance.mesh, name].render()
