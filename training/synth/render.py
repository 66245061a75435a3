"""Rasteriser: instances of meshes -> picture, and in a second pass object coordinates without any
blending.

The only file with a GL context. On a machine without a GPU Mesa's llvmpipe runs the same code
through EGL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

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

# Lambert under three lights and a two-coloured sky, a highlight of the first light; a solid
# texture may hide the paint. Square and square root stand for the sRGB curve, exp2 for
# Blinn-Phong's power: half the time on a CPU.
_SHADE = """
#version 330
uniform vec3 light_dir[3]; uniform vec3 light_color[3];
uniform vec3 sky; uniform vec3 ground; uniform vec3 up_cam;
uniform float gloss; uniform float shininess;
uniform vec4 texture_freq; uniform vec3 texture_color; uniform float texture_mix;
in vec3 p_obj; in vec3 p_cam; in vec3 n_cam; in vec3 albedo;
out vec4 fragment;
float hash(vec3 p) { return fract(sin(dot(p, vec3(12.9898, 78.233, 37.719))) * 43758.5453); }
void main() {
    vec3 view = normalize(-p_cam);
    vec3 n = normalize(n_cam);
    if (dot(n, view) < 0.0) n = -n;
    vec3 base = albedo;
    if (texture_mix > 0.0) {
        vec3 q = p_obj * texture_freq.xyz;
        float wave = 0.5 + 0.5 * sin(q.x + q.y + q.z + 2.0 * sin(q.y * 0.7));
        float stripe = texture_freq.w > 0.5 ? hash(floor(q)) : wave;
        base = mix(base, texture_color, texture_mix * stripe);
    }
    base = clamp(base, 0.0, 1.0);
    vec3 light = mix(ground, sky, 0.5 + 0.5 * dot(n, up_cam));
    for (int i = 0; i < 3; i++) light += light_color[i] * max(dot(n, light_dir[i]), 0.0);
    float h = max(dot(n, normalize(light_dir[0] + view)), 0.0);
    vec3 shine = gloss * light_color[0] * exp2(1.44 * shininess * (h - 1.0));
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

NEAR_M, FAR_M = 0.02, 20.0


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


class Renderer:
    """Holds a GL context and the uploaded meshes. One per process."""

    def __init__(self, supersample: float = 1.5):
        os.environ.setdefault('LP_NUM_THREADS', '0')  # one process a core is fastest on llvmpipe
        self.context = moderngl.create_standalone_context(backend='egl')
        self.context.enable(moderngl.DEPTH_TEST)
        self.supersample = supersample
        self.programs = {
            name: self.context.program(vertex_shader=_VERTEX, fragment_shader=fragment)
            for name, fragment in (('shade', _SHADE), ('shadow', _SHADOW), ('target', _TARGET))
        }
        self.arrays: dict[tuple[str, str], moderngl.VertexArray] = {}
        self.buffers: dict[tuple[tuple[int, int], str], moderngl.Framebuffer] = {}

    def upload(self, name: str, mesh: Mesh) -> None:
        """Make `mesh` known under `name`."""
        data = np.hstack((mesh.vertices_m, mesh.normals, mesh.colors)).astype('f4')
        vertices = self.context.buffer(data.tobytes())
        indices = self.context.buffer(mesh.faces.astype('i4').tobytes())
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

    def picture(
        self,
        instances: list[Instance],
        lights: Lights,
        K: np.ndarray,
        size: tuple[int, int],
        shadow: Shadow | None = None,
    ) -> np.ndarray:
        """(H, W, 4) uint8: colour premultiplied with the coverage, and the coverage."""
        # Anti-aliased by rendering larger and averaging: llvmpipe's multisampling costs four times
        # as much.
        large = (round(size[0] * self.supersample), round(size[1] * self.supersample))
        buffer = self._framebuffer(large, 'f1')
        program = self.programs['shade']
        program['light_dir'].write(lights.directions.astype('f4').tobytes())
        program['light_color'].write(lights.colors.astype('f4').tobytes())
        for name in ('sky', 'ground', 'up_cam'):
            program[name].write(getattr(lights, name).astype('f4').tobytes())
        project = clip_from_cam(K, size)
        for index, instance in enumerate(instances):
            material = instance.material
            program['gloss'].value = material.gloss
            program['shininess'].value = material.shininess
            program['texture_freq'].value = material.texture_freq
            program['texture_color'].value = material.texture_color
            program['texture_mix'].value = material.texture_mix
            self._draw('shade', instance, project, material)
            if index == 0 and shadow is not None:
                self._shadow(instance, project, shadow)
        rendered = np.frombuffer(buffer.read(components=4), np.uint8).reshape(
            large[1], large[0], 4
        )
        return cv2.resize(rendered, size, interpolation=cv2.INTER_AREA)

    def _shadow(self, instance: Instance, project: np.ndarray, shadow: Shadow) -> None:
        self.programs['shadow']['darkness'].value = shadow.darkness
        flat = Instance(instance.mesh, shadow.T_cam_shadow)
        self._draw('shadow', flat, project, instance.material)

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
        self.arrays[instance.mesh, name].render()
