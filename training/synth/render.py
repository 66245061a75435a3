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

_VERTEX = """
#version 330
uniform mat4 clip_from_obj; uniform mat4 cam_from_obj;
uniform mat3 color_mix; uniform vec3 color_add;
in vec3 position; in vec3 normal; in vec3 color;
out vec3 p_obj; out vec3 p_cam; out vec3 n_cam; out vec3 albedo;
void main() {
    p_obj = position;
    p_cam = (cam_from_obj * vec4(position, 1.0)).xyz;
    n_cam = mat3(cam_from_obj) * normal;
    albedo = color_mix * color + color_add;
    gl_Position = clip_from_obj * vec4(position, 1.0);
}
"""

# Lambert under three lights and a two-coloured sky, a highlight of the first light, which is held
# off where its shadow map says so; a solid texture may hide the paint. Square and square root
# stand for the sRGB curve, exp2 for Blinn-Phong's power: half the time on a CPU. What an instance
# has not got is left out by the preprocessor: on a CPU both sides of an `if` are computed.
_SHADE = """
uniform vec3 light_dir[3]; uniform vec3 light_color[3];
uniform vec3 sky; uniform vec3 ground; uniform vec3 up_cam;
uniform float gloss; uniform float shininess;
uniform vec4 texture_freq; uniform vec3 texture_color; uniform float texture_mix;
uniform mat4 map_from_cam; uniform sampler2DShadow shadow_map;
uniform float shadow_depth; uniform float shadow_softness;
in vec3 p_obj; in vec3 p_cam; in vec3 n_cam; in vec3 albedo;
out vec4 fragment;
float hash(vec3 p) { return fract(sin(dot(p, vec3(12.9898, 78.233, 37.719))) * 43758.5453); }
#ifdef MAPPED
float lit(vec3 n) {
    // Where the surface is nearly along the light, its own map must not shade it: a step outwards.
    vec3 q = (map_from_cam * vec4(p_cam + 0.006 * n, 1.0)).xyz;
    if (any(lessThan(q, vec3(0.0))) || any(greaterThan(q, vec3(1.0)))) return 1.0;
    float sum = 0.0;
    for (int i = 0; i < 9; i++) {
        vec2 tap = 0.5 * vec2(i % 3, i / 3) - 0.5;
        sum += texture(shadow_map, vec3(q.xy + shadow_softness * tap, q.z));
    }
    return 1.0 - shadow_depth * (1.0 - sum / 9.0);
}
#else
float lit(vec3 n) { return 1.0; }
#endif
void main() {
    vec3 view = normalize(-p_cam);
    vec3 n = normalize(n_cam);
    if (dot(n, view) < 0.0) n = -n;
    vec3 base = albedo;
#ifdef TEXTURED
    vec3 q = p_obj * texture_freq.xyz;
    float wave = 0.5 + 0.5 * sin(q.x + q.y + q.z + 2.0 * sin(q.y * 0.7));
    float stripe = texture_freq.w > 0.5 ? hash(floor(q)) : wave;
    base = mix(base, texture_color, texture_mix * stripe);
#endif
    base = clamp(base, 0.0, 1.0);
    vec3 light = mix(ground, sky, 0.5 + 0.5 * dot(n, up_cam));
    vec3 first = light_color[0] * lit(n);
    light += first * max(dot(n, light_dir[0]), 0.0);
    for (int i = 1; i < 3; i++) light += light_color[i] * max(dot(n, light_dir[i]), 0.0);
    float h = max(dot(n, normalize(light_dir[0] + view)), 0.0);
    vec3 shine = gloss * first * exp2(1.44 * shininess * (h - 1.0));
    fragment = vec4(sqrt(clamp(base * base * light + shine, 0.0, 1.0)), 1.0);
}
"""

_SHADOW = """
#version 330
uniform float darkness;
in vec3 p_obj; in vec3 p_cam; in vec3 n_cam; in vec3 albedo;
out vec4 fragment;
void main() { fragment = vec4(0.0, 0.0, 0.0, darkness); }
"""

_TARGET = """
#version 330
uniform float identity;
in vec3 p_obj; in vec3 p_cam; in vec3 n_cam; in vec3 albedo;
out vec4 fragment;
void main() { fragment = vec4(p_obj, identity); }
"""

_DEPTH = """
#version 330
in vec3 p_obj; in vec3 p_cam; in vec3 n_cam; in vec3 albedo;
void main() {}
"""

# The shade programs: (with a shadow map, with a solid texture) -> name.
_SHADES = {
    (mapped, textured): 'shade' + ' mapped' * mapped + ' textured' * textured
    for mapped in (False, True)
    for textured in (False, True)
}

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


def _shade(mapped: bool, textured: bool) -> str:
    """The shading of an instance, with what it has."""
    has = '#define MAPPED\n' * mapped + '#define TEXTURED\n' * textured
    return f'#version 330\n{has}{_SHADE}'


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
            name: self.context.program(vertex_shader=_VERTEX, fragment_shader=fragment)
            for name, fragment in (
                *((name, _shade(*has)) for has, name in _SHADES.items()),
                ('shadow', _SHADOW), ('target', _TARGET), ('depth', _DEPTH),
            )
        }  # fmt: skip
        self.shadow_map = self.context.depth_texture((_SHADOW_MAP_PX, _SHADOW_MAP_PX))
        self.shadow_map.repeat_x = self.shadow_map.repeat_y = False
        self.shadow_buffer = self.context.framebuffer(depth_attachment=self.shadow_map)
        self.arrays: dict[tuple[str, str], moderngl.VertexArray] = {}
        self.closed: set[str] = set()  # meshes whose inner side nobody sees
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
        for textured in (False, True):
            program = self.programs[_SHADES[mapped, textured]]
            program['light_dir'].write(lights.directions.astype('f4').tobytes())
            program['light_color'].write(lights.colors.astype('f4').tobytes())
            for name in ('sky', 'ground', 'up_cam'):
                program[name].write(getattr(lights, name).astype('f4').tobytes())
        project = clip_from_cam(K, size)
        for index, instance in enumerate(instances):
            material = instance.material
            textured = material.texture_mix > 0.0
            name = _SHADES[mapped, textured]
            program = self.programs[name]
            program['gloss'].value = material.gloss
            program['shininess'].value = material.shininess
            if textured:
                program['texture_freq'].value = material.texture_freq
                program['texture_color'].value = material.texture_color
                program['texture_mix'].value = material.texture_mix
            self._draw(name, instance, project, material)
            if index == 0 and shadow is not None:
                self._shadow(instance, project, shadow)
        rendered = np.frombuffer(buffer.read(components=4), np.uint8).reshape(
            large[1], large[0], 4
        )
        return cv2.resize(rendered, size, interpolation=cv2.INTER_AREA)

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
        for textured in (False, True):
            program = self.programs[_SHADES[True, textured]]
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
