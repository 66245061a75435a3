"""The shader programs of the rasteriser, GLSL 3.3: what is drawn of a triangle."""

from __future__ import annotations

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
# off where its shadow map says so; a solid texture may hide the paint, or a print, which runs
# slantwise through the solid so that no side shows it as stripes. Square and square root stand for
# the sRGB curve, exp2 for Blinn-Phong's power: half the time on a CPU. What an instance has not
# got is left out by the preprocessor: on a CPU both sides of an `if` are computed.
_SHADE = """
uniform vec3 light_dir[3]; uniform vec3 light_color[3];
uniform vec3 sky; uniform vec3 ground; uniform vec3 up_cam;
uniform float gloss; uniform float shininess;
uniform mat3 color_mix; uniform vec3 color_add;
uniform vec4 texture_freq; uniform vec3 texture_color; uniform float texture_mix;
uniform sampler2D print; uniform float print_m;
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
#ifdef PRINTED
    vec2 at = 0.5 * (p_obj.xy + 0.7 * p_obj.z) / print_m + 0.25;
    base = (color_mix * texture(print, at).rgb) + color_add;
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

# The shade programs: (with a shadow map, what lies over the paint) -> name.
COVERS = ('', 'TEXTURED', 'PRINTED')
SHADES = {
    (mapped, cover): 'shade' + ' mapped' * mapped + ' ' * bool(cover) + cover.lower()
    for mapped in (False, True)
    for cover in COVERS
}


def _shade(mapped: bool, cover: str) -> str:
    """The shading of an instance, with what it has."""
    has = '#define MAPPED\n' * mapped + (f'#define {cover}\n' if cover else '')
    return f'#version 330\n{has}{_SHADE}'


# Vertex and fragment shader of every program, by its name.
PROGRAMS = {
    name: (_VERTEX, fragment)
    for name, fragment in (
        *((name, _shade(*has)) for has, name in SHADES.items()),
        ('shadow', _SHADOW), ('target', _TARGET), ('depth', _DEPTH),
    )
}  # fmt: skip
