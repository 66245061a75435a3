"""A random scene: where the object, its occluders and distractors stand, how they look and how
they are lit.

Everything comes from one random generator, so that a seed names a picture. Ranges and switches:
SceneOptions.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from pose_node.core.geometry import exp_so3, make_pose

from .mesh import PRIMITIVES
from .render import Instance, Lights, Material, Shadow, ShadowMap


@dataclass(frozen=True)
class SceneOptions:
    """Ranges of the randomisation; pairs are (lowest, highest)."""

    picture_size: tuple[int, int] = (640, 480)  # px, of the camera that is imitated
    focal_px: tuple[float, float] = (520.0, 680.0)
    distance_m: tuple[float, float] = (0.4, 1.2)
    elevation_deg: tuple[float, float] = (-5.0, 85.0)  # of the camera over the object's xy plane
    azimuth_deg: tuple[float, float] = (0.0, 360.0)
    roll_deg: tuple[float, float] = (-30.0, 30.0)
    margin: float = 0.05  # share of the picture by which the object's centre may lie outside
    occluders: tuple[int, int] = (0, 2)
    occlusion: float = 0.6  # share of pictures with occluders
    distractors: tuple[int, int] = (0, 5)
    negatives: float = 0.06  # share of pictures without the object
    tint: float = 0.35  # how far the object's colours stray from its paint; log scale
    repaint: float = 0.08  # share of pictures with the object's paint replaced by a random one
    shadow: float = 0.5  # share of pictures with a shadow on the ground below the object
    shadow_map: float = 0.0  # share of pictures in which things shade each other and themselves
    piled: float = 0.0  # share of pictures in which the object stands in a pile, on a table


@dataclass(frozen=True)
class Scene:
    """What is rendered. `instances[0]` is the object when `present`; K is that of the whole
    picture.
    """

    K: np.ndarray
    T_cam_obj: np.ndarray
    present: bool
    instances: list[Instance]
    lights: Lights
    shadow: Shadow | None
    shadow_map: ShadowMap | None = None
    # Further labelled objects: index in the data set, and index in `instances`.
    company: tuple[tuple[int, int], ...] = ()


def narrowed(options: SceneOptions, share: float) -> SceneOptions:
    """The same with only this share of its views, about the middle of each range of angles."""
    if share == 1.0:
        return options

    def about_middle(bounds: tuple[float, float]) -> tuple[float, float]:
        middle, half = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
        return middle - share * half, middle + share * half

    return dataclasses.replace(
        options,
        elevation_deg=about_middle(options.elevation_deg),
        azimuth_deg=about_middle(options.azimuth_deg),
        roll_deg=about_middle(options.roll_deg),
    )


def sample_camera(rng: np.random.Generator, options: SceneOptions) -> np.ndarray:
    """K (3, 3) of a camera with nearly square pixels and its principal point near the middle."""
    width, height = options.picture_size
    f = rng.uniform(*options.focal_px)
    cx, cy = (width - 1) / 2 + rng.normal(0, 5), (height - 1) / 2 + rng.normal(0, 5)
    return np.array([[f, 0, cx], [0, f * rng.normal(1.0, 0.002), cy], [0, 0, 1]])


def sample_pose(rng: np.random.Generator, options: SceneOptions, K: np.ndarray) -> np.ndarray:
    """T_cam_mid: the camera on a sphere round the object's middle, which lies anywhere in the
    picture; axes as the object's.
    """
    low, high = np.sin(np.radians(options.elevation_deg))
    elevation = np.arcsin(rng.uniform(low, high))
    azimuth = np.radians(rng.uniform(*options.azimuth_deg))
    roll = np.radians(rng.uniform(*options.roll_deg))
    R = look_at(elevation, azimuth, roll)
    width, height = options.picture_size
    pixel = rng.uniform(-options.margin, 1 + options.margin, 2) * (width, height)
    ray = np.linalg.solve(K, (*pixel, 1.0))
    ray /= np.linalg.norm(ray)
    return make_pose(turn_z_onto(ray) @ R, rng.uniform(*options.distance_m) * ray)


def look_at(elevation_rad: float, azimuth_rad: float, roll_rad: float) -> np.ndarray:
    """R_cam_obj of a camera that looks at the object's origin, its y axis down, rolled about its z
    axis.
    """
    c, s = np.cos(elevation_rad), np.sin(elevation_rad)
    z = -np.array([c * np.cos(azimuth_rad), c * np.sin(azimuth_rad), s])
    x = np.array([-np.sin(azimuth_rad), np.cos(azimuth_rad), 0.0])
    return exp_so3(np.array([0.0, 0.0, roll_rad])) @ np.stack((x, np.cross(z, x), z))


def turn_z_onto(ray: np.ndarray) -> np.ndarray:
    """The shortest rotation that takes the z axis to `ray` (unit length)."""
    axis = np.cross((0.0, 0.0, 1.0), ray)
    sine = np.linalg.norm(axis)
    return np.eye(3) if sine < 1e-9 else exp_so3(axis / sine * np.arctan2(sine, ray[2]))


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform on SO(3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def sample_scene(
    rng: np.random.Generator,
    options: SceneOptions,
    *,
    object_name: str,
    bounds_m: np.ndarray,
    extra_meshes: dict[str, float],
    difficulty: float = 1.0,
) -> Scene:
    """A scene; `extra_meshes` are names and diameters (m) of further distractors, difficulty in
    0..1 scales the occlusion.
    """
    K = sample_camera(rng, options)
    # Where a mesh has its origin is nobody's choice: views are of its middle.
    T_cam_mid = sample_pose(rng, options, K)
    T_cam_obj = T_cam_mid @ make_pose(np.eye(3), -bounds_m.mean(axis=0))
    present = rng.random() >= options.negatives
    size_m = float(np.linalg.norm(np.ptp(bounds_m, axis=0)))
    instances = [Instance(object_name, T_cam_obj, paint(rng, options))] if present else []
    if options.occluders[1] and rng.random() < options.occlusion * difficulty:
        for _ in range(rng.integers(max(1, options.occluders[0]), options.occluders[1] + 1)):
            instances.append(occluder(rng, T_cam_mid, size_m, extra_meshes))
    for _ in range(rng.integers(options.distractors[0], options.distractors[1] + 1)):
        instances.append(_distractor(rng, options, K, T_cam_mid, size_m, extra_meshes))
    lights = _lights(rng, T_cam_obj)
    shadow = None
    if present and rng.random() < options.shadow:
        shadow = _shadow(rng, T_cam_obj, lights, bounds_m[0, 2])
    shadow_map = None
    if options.shadow_map > 0.0 and rng.random() < options.shadow_map:
        shadow_map = ShadowMap(
            T_cam_mid[:3, 3],
            1.5 * size_m,
            depth=float(rng.uniform(0.4, 1.0)),
            softness_m=float(rng.uniform(0.0, 0.12)) * size_m,
        )
    return Scene(K, T_cam_obj, present, instances, lights, shadow, shadow_map)


def _any_mesh(rng: np.random.Generator, extra_meshes: dict[str, float]) -> tuple[str, float]:
    if extra_meshes and rng.random() < 0.5:
        name = str(rng.choice(sorted(extra_meshes)))
        return name, extra_meshes[name]
    return str(rng.choice(PRIMITIVES)), 1.0


def _placed(
    rng: np.random.Generator, center: np.ndarray, size_m: float, extra_meshes: dict[str, float]
) -> Instance:
    name, diameter = _any_mesh(rng, extra_meshes)
    scale = size_m / diameter
    stretch = rng.uniform(0.6, 1.4, 3) if diameter == 1.0 else np.ones(3)
    T = make_pose(random_rotation(rng) * (scale * stretch), center)
    own_paint = diameter != 1.0 and rng.random() < 0.6
    return Instance(name, T, _tint(rng, 0.3) if own_paint else any_paint(rng))


def occluder(
    rng: np.random.Generator, T_cam_mid: np.ndarray, size_m: float, extra_meshes: dict[str, float]
) -> Instance:
    """Something smaller between the camera and a thing of `size_m` with its middle there."""
    center = T_cam_mid[:3, 3]
    sideways = np.array([*rng.normal(size=2), 0.0])
    sideways *= rng.uniform(0.1, 0.7) * size_m / np.linalg.norm(sideways)
    toward = rng.uniform(0.35, 0.9) * min(size_m, 0.5 * center[2])
    ray = center / np.linalg.norm(center)
    return _placed(
        rng, center + sideways - toward * ray, size_m * rng.uniform(0.2, 0.7), extra_meshes
    )


def _distractor(
    rng: np.random.Generator,
    options: SceneOptions,
    K: np.ndarray,
    T_cam_mid: np.ndarray,
    size_m: float,
    extra_meshes: dict[str, float],
) -> Instance:
    if rng.random() < 0.5:  # beside or behind the object
        sideways = np.array([*rng.normal(size=2), 0.0])
        sideways *= rng.uniform(0.7, 1.6) * size_m / np.linalg.norm(sideways)
        center = T_cam_mid[:3, 3] + sideways + (0, 0, rng.uniform(0.0, 1.5) * size_m)
    else:
        ray = np.linalg.solve(K, (*(rng.random(2) * options.picture_size), 1.0))
        center = ray * (T_cam_mid[2, 3] + rng.uniform(0.3, 1.5))
    return _placed(rng, center, size_m * rng.uniform(0.3, 1.3), extra_meshes)


def _tint(rng: np.random.Generator, strength: float) -> Material:
    """The mesh's own paint: brightness, contrast, saturation and hue shifted."""
    luma = np.full((3, 3), 1 / 3)
    saturation = np.exp(rng.normal(0, strength))
    gain = np.exp(rng.normal(0, strength)) * np.exp(rng.normal(0, 0.3 * strength, 3))
    axis = np.full(3, 1 / np.sqrt(3))
    hue = exp_so3(axis * rng.normal(0, 0.5 * strength))
    mix = gain[:, None] * (hue @ (luma + saturation * (np.eye(3) - luma)))
    texture = rng.random() < 0.3
    return Material(
        color_mix=mix,
        color_add=np.full(3, rng.normal(0, 0.1 * strength)),
        gloss=float(rng.choice((0.0, 0.15, 0.4, 0.9)) * rng.random()),
        shininess=float(np.exp(rng.uniform(1.5, 4.5))),
        texture_freq=(*rng.uniform(-90, 90, 3), float(rng.random() < 0.5)),
        texture_color=tuple(rng.random(3)),
        texture_mix=float(rng.uniform(0, 0.25)) if texture else 0.0,
    )


def any_paint(rng: np.random.Generator) -> Material:
    """A paint of any colour, with any texture."""
    return Material(
        color_mix=np.zeros((3, 3)),
        color_add=rng.random(3) ** rng.uniform(0.5, 2.0),
        gloss=float(rng.choice((0.0, 0.2, 0.8)) * rng.random()),
        shininess=float(np.exp(rng.uniform(1.5, 4.5))),
        texture_freq=(*rng.normal(0, 12, 3), float(rng.random() < 0.5)),
        texture_color=tuple(rng.random(3)),
        texture_mix=float(rng.random() * (rng.random() < 0.6)),
    )


def paint(rng: np.random.Generator, options: SceneOptions) -> Material:
    """How an object of the recipe looks: mostly its own paint, not quite as it is."""
    if rng.random() >= options.repaint:
        return _tint(rng, options.tint)
    other = any_paint(rng)
    share = rng.uniform(0.0, 0.5)
    return Material(
        share * np.eye(3), (1 - share) * other.color_add, other.gloss, other.shininess,
        tuple(3.0 * f for f in other.texture_freq[:3]) + (other.texture_freq[3],),  # type: ignore[arg-type]
        other.texture_color, 0.7 * other.texture_mix,
    )  # fmt: skip


def _lights(rng: np.random.Generator, T_cam_obj: np.ndarray) -> Lights:
    up_cam = T_cam_obj[:3, :3] @ (0.0, 0.0, 1.0)
    directions = rng.normal(size=(3, 3)) + 0.8 * up_cam - (0.0, 0.0, 0.4)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    power = rng.random(3) * (1.0, 0.6, 0.3) * (1, rng.random() < 0.6, rng.random() < 0.4)
    warmth = 1.0 + rng.normal(0, 0.12, (3, 3))
    sky = rng.uniform(0.15, 0.8) * (1.0 + rng.normal(0, 0.08, 3))
    return Lights(directions, power[:, None] * warmth, sky, sky * rng.uniform(0.2, 1.0), up_cam)


def _shadow(
    rng: np.random.Generator, T_cam_obj: np.ndarray, lights: Lights, floor_m: float
) -> Shadow | None:
    """The first light's shadow on the plane z = floor of the object; none when that light comes
    from below.
    """
    light = T_cam_obj[:3, :3].T @ lights.directions[0]
    if light[2] < 0.25:
        return None
    flatten = np.eye(4)
    flatten[:3, 2] -= light / light[2]
    flatten[:3, 3] += light / light[2] * floor_m
    return Shadow(T_cam_obj @ flatten, float(rng.uniform(0.15, 0.7)))
