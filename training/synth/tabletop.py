"""A table with a pile on it, in a room, from a generator: what objects are validated in.

World frame: z up, the table's top is z = 0, the pile is round the origin. Metres.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pose_node.core.geometry import apply, inverse, make_pose

from . import bench
from .background import SUFFIXES, procedural
from .mesh import PRIMITIVES, Mesh, primitive
from .pathtrace_world import Item, Panel, World, linear_from_srgb
from .pile import Body, Pile, PileOptions, make_body
from .scene import SceneOptions, sample_camera, sample_pose

_FLOOR_M = -0.75
_ABOVE_TABLE_DEG = 6.0  # lowest elevation of a camera


@dataclass(frozen=True)
class TableOptions:
    """Ranges of what is drawn; pairs are (lowest, highest)."""

    clutter: tuple[int, int] = (4, 12)  # things that are not searched
    spread_m: tuple[float, float] = (0.05, 0.14)  # standard deviation of the tried places
    far: float = 0.35  # share of the clutter that stands apart
    wall_m: tuple[float, float] = (0.5, 3.0)  # from the middle of the table
    lights: tuple[int, int] = (1, 3)
    sky: tuple[float, float] = (0.15, 1.5)  # radiance beside the lights'


class Pictures:
    """Pictures to paper tables and walls with: a folder's, where one is given, and made ones."""

    def __init__(self, folder: Path | None = None):
        found = folder.rglob('*') if folder else ()
        self.paths = sorted(p for p in found if p.suffix.lower() in SUFFIXES)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8, of any size up to about 1000 px."""
        if self.paths and rng.random() < 0.5:
            path = self.paths[rng.integers(len(self.paths))]
            picture = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2)
            if picture is not None:
                scale = min(1.0, 1000 / max(picture.shape[:2]))
                size = None if scale == 1.0 else (0, 0)
                if size:
                    picture = cv2.resize(
                        picture, size, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
                    )
                return np.ascontiguousarray(picture[..., ::-1])
        return procedural(rng, 512)


def tilt_limit_rad(options: SceneOptions) -> float:
    """How far an object's z axis may lean before a camera's views of it leave the recipe's."""
    free = min(-options.roll_deg[0], options.roll_deg[1])
    if free < 180.0:
        return float(np.radians(max(5.0, free / 2)))
    return np.pi if options.elevation_deg[0] <= -80.0 else float(np.radians(45.0))


@dataclass(frozen=True)
class Table:
    """A world whose first items are the objects that found a place: items[k] is objects[things[k]]
    of those asked for.
    """

    world: World
    things: tuple[int, ...]
    room_m: np.ndarray  # (2, 2) lowest and highest x, y between the walls


def make_table(
    rng: np.random.Generator,
    objects: Sequence[tuple[Mesh, Body]],
    clutter: Sequence[Mesh],
    pictures: Pictures,
    options: TableOptions,
    scene: SceneOptions,
) -> Table:
    """The objects and the clutter in one pile, all in random materials."""
    room_m = rng.uniform(*options.wall_m, (2, 2)) * ((-1.0,), (1.0,))
    top = _top(rng, pictures)
    middle, half = top[0].T_world_panel[:2, 3], np.array(top[0].size_m) / 2
    table_m = np.maximum(middle - half, room_m[0]), np.minimum(middle + half, room_m[1])
    poses = _pile(
        rng, [body for _, body in objects], clutter, options, scene, np.concatenate(table_m)
    )
    things = tuple(k for k in range(len(objects)) if k in poses)
    items = [_material(rng, objects[k][0], poses[k]) for k in things]
    for k, mesh in enumerate(clutter, start=len(objects)):
        if k in poses:
            items.append(_material(rng, mesh, poses[k]))
    panels = [*top, *_room(rng, pictures, room_m)]
    panels += _lights(rng, options, room_m, scene.distance_m[1])
    sky = _sky(rng, pictures, options)
    return Table(World(items, panels, has_object=False, sky=sky), things, room_m)


def _pile(
    rng: np.random.Generator,
    bodies: Sequence[Body],
    clutter: Sequence[Mesh],
    options: TableOptions,
    scene: SceneOptions,
    table_m: np.ndarray,
) -> dict[int, np.ndarray]:
    """T_world_obj of what found a place, by its number: the objects first, then the clutter.

    table_m (4,): lowest x, y and highest x, y of where things may stand.
    """
    spread_m = rng.uniform(*options.spread_m)
    free_deg = scene.azimuth_deg[1] - scene.azimuth_deg[0]
    half = np.pi if free_deg >= 360.0 else np.radians(free_deg / 4)
    held = tuple(table_m.tolist())
    pile = Pile(rng, PileOptions(spread_m, yaw_rad=(-half, half), table_m=held))
    near = [k for k in range(len(clutter)) if rng.random() >= options.far]
    everything = [*bodies, *(make_body(mesh) for mesh in clutter)]
    close = [*range(len(bodies)), *(len(bodies) + k for k in near)]
    poses = {int(k): pile.add(everything[k]) for k in rng.permutation(close)}
    pile.options = PileOptions(spread_m, apart=True, table_m=held)
    apart = [k for k in range(len(everything)) if k not in poses]
    poses |= {k: pile.add(everything[k]) for k in apart}
    return {k: pose for k, pose in poses.items() if pose is not None}


def _material(rng: np.random.Generator, mesh: Mesh, T_world_obj: np.ndarray) -> Item:
    coat = rng.uniform(0.1, 1.0) if rng.random() < 0.3 else 0.0
    metal = bench.metal_of(mesh)
    return Item(mesh, T_world_obj, float(rng.uniform(0.25, 0.9)), metal, float(coat))


def random_primitive(rng: np.random.Generator) -> Mesh:
    """A painted solid of 4 to 16 cm."""
    mesh = primitive(str(rng.choice(PRIMITIVES)))
    paint = np.tile(rng.random(3) ** rng.uniform(0.5, 2.0), (len(mesh.colors), 1))
    return dataclasses.replace(
        mesh, vertices_m=mesh.vertices_m * rng.uniform(0.04, 0.16), colors=paint
    )


def _surface(rng: np.random.Generator, pictures: Pictures) -> np.ndarray:
    kind = rng.random()
    if kind < 0.3:
        return bench.wood(rng, (900, 640), int(rng.integers(3, 9)))
    if kind < 0.55:
        grey = rng.uniform(30, 235)
        return bench.plaster(rng, (512, 384), np.clip(grey + rng.normal(0, 25, 3), 5, 250))
    if kind < 0.62:
        return bench.mat(rng, (960, 720))
    return pictures.draw(rng)


def _top(rng: np.random.Generator, pictures: Pictures) -> list[Panel]:
    """The table's top and papers on it."""
    size = (float(rng.uniform(0.9, 2.0)), float(rng.uniform(0.8, 1.5)))
    x, y = rng.normal(0, 0.05, 2)
    panels = [Panel(bench.standing(x, y, 0.0, 0.0), size, _surface(rng, pictures))]
    for k in range(int(rng.integers(0, 5))):
        x, y = rng.normal(0, 0.25, 2)
        place = bench.standing(x, y, 0.00005 * (k + 1), rng.uniform(0, 6.3))
        if rng.random() < 0.6:
            panels.append(Panel(place, (0.21, 0.297), bench.sheet(rng, (420, 594))))
        else:
            paper = (float(rng.uniform(0.2, 0.7)), float(rng.uniform(0.2, 0.6)))
            panels.append(Panel(place, paper, _surface(rng, pictures)))
    return panels


def _room(rng: np.random.Generator, pictures: Pictures, room_m: np.ndarray) -> list[Panel]:
    """Four walls and a floor; the sky is the ceiling."""
    (x0, y0), (x1, y1) = room_m
    high = float(rng.uniform(1.2, 2.6))
    mid = _FLOOR_M + high / 2
    wide, deep = x1 - x0, y1 - y0
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    floor = bench._pose((1, 0, 0), (0, 0, 1), (cx, cy, _FLOOR_M))
    sides = [((1, 0, 0), (0, -1, 0), (cx, y1, mid), wide),
             ((-1, 0, 0), (0, 1, 0), (cx, y0, mid), wide),
             ((0, -1, 0), (1, 0, 0), (x0, cy, mid), deep),
             ((0, 1, 0), (-1, 0, 0), (x1, cy, mid), deep)]  # fmt: skip
    panels = [Panel(floor, (wide, deep), _surface(rng, pictures))]
    return panels + [
        Panel(bench._pose(x, z, o), (w, high), _surface(rng, pictures)) for x, z, o, w in sides
    ]


def _lights(
    rng: np.random.Generator, options: TableOptions, room_m: np.ndarray, cameras_m: float
) -> list[Panel]:
    """Lamps and windows all round, behind every camera, towards the table."""
    nearest_m = max(1.5, cameras_m + 0.2)
    panels = []
    for _ in range(int(rng.integers(options.lights[0], options.lights[1] + 1))):
        while True:
            away = rng.normal(size=3)
            away[2] = abs(away[2]) + 0.5
            away *= nearest_m * rng.uniform(1.0, 1.6) / np.linalg.norm(away)
            if ((away[:2] > room_m[0]) & (away[:2] < room_m[1])).all():
                break
        down = -away / np.linalg.norm(away)
        side = np.cross((0.0, 1.0, 0.1), down)
        side /= np.linalg.norm(side)
        size = rng.uniform(0.08, 0.9, 2) * rng.uniform(0.4, 1.0)
        warmth = np.array((1.0, rng.uniform(0.75, 1.0), rng.uniform(0.5, 1.1)))
        flux = rng.uniform(0.2, 1.6) * nearest_m**2 * warmth
        panels.append(Panel(
            bench._pose(tuple(side), tuple(down), tuple(away)), (float(size[0]), float(size[1])),
            radiance=tuple((flux / np.prod(size)).tolist()),
        ))  # fmt: skip
    return panels


def _sky(rng: np.random.Generator, pictures: Pictures, options: TableOptions) -> np.ndarray:
    """A soft picture all round, brighter above."""
    picture = cv2.resize(pictures.draw(rng), (64, 32), interpolation=cv2.INTER_AREA)
    sky = 0.15 + linear_from_srgb(np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5)) / 255.0)
    sky = 0.5 * sky + 0.5 * sky.mean(axis=2, keepdims=True)
    fall = np.linspace(1.0, 0.3, 32)[:, None, None]
    return (sky * fall * rng.uniform(*options.sky)).astype(np.float32)


def _elevations(scene: SceneOptions) -> tuple[float, float]:
    """Above the table, and as far from straight down as the things that stand aside need."""
    low, high = scene.elevation_deg
    return max(low, _ABOVE_TABLE_DEG), high if high >= 90.0 else max(high - 8.0, low + 1.0)


def draw_camera(
    rng: np.random.Generator, table: Table, scene: SceneOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(T_cam_world, K) of a camera within the recipe's views, in the room, towards the pile."""
    low, high = scene.distance_m
    squeeze = min(0.1, (high - low) / 4)
    roll = np.array(scene.roll_deg) * (0.6 if scene.roll_deg[1] < 180.0 else 1.0)
    options = dataclasses.replace(
        scene,
        distance_m=(low + squeeze, high - squeeze),
        elevation_deg=_elevations(scene),
        roll_deg=(float(roll[0]), float(roll[1])),
        margin=-0.33,
    )
    things = [
        apply(item.T_world_obj, item.mesh.bounds_m.mean(axis=0))[0]
        for item in table.world.items[: len(table.things)]
    ]
    for _ in range(1000):
        K = sample_camera(rng, options)
        aim = np.zeros(3)
        if things:  # between the middle of the objects and one of them
            one = things[int(rng.integers(len(things)))]
            aim = np.mean(things, axis=0) + rng.random() * (one - np.mean(things, axis=0))
        T_cam_world = sample_pose(rng, options, K) @ make_pose(np.eye(3), -aim)
        eye = inverse(T_cam_world)[:3, 3]
        inside = ((eye[:2] > table.room_m[0] + 0.1) & (eye[:2] < table.room_m[1] - 0.1)).all()
        if inside and eye[2] > 0.03:
            break
    return T_cam_world, K
