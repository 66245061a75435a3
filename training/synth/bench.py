"""A workbench in a room, drawn from a generator: table, walls, lights, clutter, the object.

World frame: z up, the table's top is z = 0, the object stands at the origin. Metres.
All pictures are made of noise.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from .mesh import Mesh, primitive
from .pathtrace import Item, Panel, World

TABLE_M = (1.9, 1.3)
ROOM_M = (4.6, 4.0, 2.7)
FLOOR_M = -0.85


@dataclass(frozen=True)
class BenchOptions:
    """How full the table is."""

    tall: int = 7
    low: int = 16
    large: int = 2
    near_m: float = 0.17  # clutter keeps this far from the object's axis
    far_m: float = 0.62


def noise_picture(
    rng: np.random.Generator, size: tuple[int, int], cell_px: tuple[float, float], octaves: int = 4
) -> np.ndarray:
    """(H, W) smooth noise in about -1..1; `cell_px` (x, y) is the coarsest cell."""
    width, height = size
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        nx, ny = (max(2, round(n * 2**octave / c)) for n, c in zip(size, cell_px))
        grid = rng.standard_normal((ny, nx)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 2


def wood(rng: np.random.Generator, size: tuple[int, int], planks: int) -> np.ndarray:
    """(H, W, 3) uint8: planks along x with grain, knots of tone and dark joints."""
    width, height = size
    base = np.array((150, 108, 66)) * rng.uniform(0.75, 1.2) + rng.normal(0, 8, 3)
    picture = np.zeros((height, width, 3), dtype=np.float32)
    for k in range(planks):
        top, bottom = k * height // planks, (k + 1) * height // planks
        shape = (width, bottom - top)
        warp = noise_picture(rng, shape, (width / 3, 90), 3)
        rows = np.arange(bottom - top, dtype=np.float32)[:, None] / 5 + rng.uniform(0, 99)
        rings = 0.5 + 0.5 * np.sin(rows + 7 * warp)
        fine = noise_picture(rng, shape, (220, 3), 2)
        tone = rng.uniform(0.86, 1.1) * (1 - 0.16 * rings + 0.06 * fine)
        picture[top:bottom] = base * tone[..., None]
        picture[bottom - 3 : bottom] *= 0.35
    stains = noise_picture(rng, size, (width / 5, height / 4), 5)
    picture *= 1 - 0.10 * np.clip(stains, 0, 2)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def plaster(rng: np.random.Generator, size: tuple[int, int], color: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a painted wall."""
    tone = 1 + 0.05 * noise_picture(rng, size, (260, 260)) + 0.02 * rng.standard_normal(size[::-1])
    return np.clip(color * tone[..., None], 0, 255).astype(np.uint8)


def _muted(rng: np.random.Generator) -> np.ndarray:
    """A printer's colour: seldom at its strongest."""
    grey = rng.uniform(40, 220)
    return np.clip(grey + rng.uniform(0.2, 0.8) * (rng.uniform(0, 255, 3) - grey), 0, 255)


def sheet(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: a printed page or poster: a title, lines of 'text', blocks of colour."""
    width, height = size
    page = np.full((height, width, 3), rng.uniform(200, 245), dtype=np.float32)
    if rng.random() < 0.4:
        page[:] = _muted(rng)
    ink = rng.uniform(10, 80, 3)
    page[height // 16 : height // 9, width // 10 : int(width * rng.uniform(0.5, 0.9))] = _muted(
        rng
    )
    y = height // 6
    while y < height - 20:
        if rng.random() < 0.12:
            deep, right = int(rng.uniform(20, 90)), int(width * rng.uniform(0.4, 0.9))
            page[y : y + deep, width // 10 : right] = _muted(rng)
            y += deep + 10
        x = width // 10
        end = int(width * rng.uniform(0.6, 0.92))
        while x < end:
            word = int(rng.uniform(8, 40))
            page[y : y + 5, x : min(x + word, end)] = ink
            x += word + 6
        y += 12
    return np.clip(page, 0, 255).astype(np.uint8)


def mat(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: a cutting mat with a grid and scratches."""
    width, height = size
    base = np.array((30, 96, 70)) if rng.random() < 0.5 else np.array((44, 60, 92))
    page = np.full((height, width, 3), base, dtype=np.float32)
    for step, gain in ((width // 48, 1.25), (width // 12, 1.7)):
        page[::step], page[:, ::step] = base * gain, base * gain
    for _ in range(40):
        a, b = rng.uniform((0, 0), size, (2, 2)).astype(int)
        cv2.line(page, a.tolist(), (a + (b - a) // 4).tolist(), (base * 1.25).tolist(), 1)
    return np.clip(page, 0, 255).astype(np.uint8)


def _pose(x_axis: tuple, z_axis: tuple, origin: tuple) -> np.ndarray:
    x, z = np.asarray(x_axis, dtype=float), np.asarray(z_axis, dtype=float)
    T = np.eye(4)
    T[:3, :3] = np.stack((x, np.cross(z, x), z), axis=1)
    T[:3, 3] = origin
    return T


def standing(x_m: float, y_m: float, z_m: float, turn_rad: float) -> np.ndarray:
    """T_world_obj of something that stands, turned about z."""
    T = np.eye(4)
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    T[:2, :2] = ((c, -s), (s, c))
    T[:3, 3] = (x_m, y_m, z_m)
    return T


def _room(rng: np.random.Generator) -> list[Panel]:
    """Walls, floor, ceiling, posters, a window, a ceiling light and a lamp."""
    wide, deep, high = ROOM_M
    middle = FLOOR_M + high / 2
    colors = rng.uniform(110, 225, (5, 1)) + rng.normal(0, 14, (5, 3))
    paint = lambda k: plaster(rng, (512, 384), colors[k])
    sides = [((1, 0, 0), (0, -1, 0), (0, deep / 2, middle), wide),
             ((1, 0, 0), (0, 1, 0), (0, -deep / 2, middle), wide),
             ((0, 1, 0), (1, 0, 0), (-wide / 2, 0, middle), deep),
             ((0, 1, 0), (-1, 0, 0), (wide / 2, 0, middle), deep)]  # fmt: skip
    panels = [Panel(_pose(x, z, o), (w, high), paint(k)) for k, (x, z, o, w) in enumerate(sides)]
    panels += [
        Panel(
            _pose((1, 0, 0), (0, 0, 1), (0, 0, FLOOR_M)), (wide, deep), wood(rng, (1024, 900), 14)
        ),
        Panel(_pose((1, 0, 0), (0, 0, -1), (0, 0, FLOOR_M + high)), (wide, deep), paint(4)),
    ]
    for x, z, origin, width in sides:
        for k in range(4):
            size = (float(rng.uniform(0.25, 0.7)), float(rng.uniform(0.3, 0.9)))
            shift = rng.uniform(-width / 2 + 0.4, width / 2 - 0.4)
            place = np.array(origin) + np.array(x) * shift + np.array(z) * (0.004 + 0.003 * k)
            place[2] = rng.uniform(0.0, 0.9)
            panels.append(Panel(_pose(x, z, tuple(place)), size, sheet(rng, (256, 300))))
    window, day = rng.integers(4), rng.uniform(2, 7) * np.array((0.85, 0.95, 1.1))
    x, z, origin, _ = sides[window]
    place = np.array(origin) + np.array(z) * 0.02
    place[2] = 0.95
    panels.append(Panel(_pose(x, z, tuple(place)), (1.5, 0.9), radiance=tuple(day)))
    panels.append(Panel(
        _pose((1, 0, 0), (0, 0, -1), (*rng.uniform(-0.8, 0.8, 2), FLOOR_M + high - 0.02)),
        (1.1, 0.5), radiance=tuple(rng.uniform(6, 11) * np.array((1.0, 0.95, 0.86))),
    ))  # fmt: skip
    turn, lamp = rng.uniform(0, 2 * np.pi), rng.uniform(15, 45) * np.array((1.0, 0.86, 0.68))
    spot = np.array((1.1 * np.cos(turn), 1.1 * np.sin(turn), 1.25))
    down = -spot / np.linalg.norm(spot)
    side = np.cross((0, 0, 1), down)
    side /= np.linalg.norm(side)
    panels.append(Panel(_pose(tuple(side), tuple(down), tuple(spot)), (0.16, 0.16),
                        radiance=tuple(lamp)))  # fmt: skip
    return panels


def _table(rng: np.random.Generator) -> tuple[list[Item], list[Panel]]:
    """A wooden top with a rim and legs, a cutting mat and papers."""
    x, y = TABLE_M
    panels = [
        Panel(
            _pose((1, 0, 0), (0, 0, 1), (0, 0, 0)),
            TABLE_M,
            wood(rng, (1600, 1100), int(rng.integers(5, 10))),
        )
    ]
    turn = rng.normal(0, 0.25)
    x_m, y_m = rng.normal(0, 0.12, 2)
    flat = standing(x_m, y_m, 0.002, turn)
    panels.append(Panel(flat, (0.62, 0.46), mat(rng, (960, 720))))
    for k in range(5):
        flat = standing(
            rng.uniform(-0.7, 0.7), rng.uniform(-0.5, 0.5), 0.003 + 0.0006 * k, rng.uniform(0, 6.3)
        )
        panels.append(Panel(flat, (0.21, 0.297), sheet(rng, (420, 594))))
    box = primitive('box')
    rim = np.diag([x, y / 0.7, 0.04 / 0.5, 1.0])
    rim[2, 3] = -0.0205
    brown = dataclasses.replace(
        box, colors=np.tile(np.array((0.45, 0.31, 0.18)), (len(box.colors), 1))
    )
    items = [Item(_scaled(brown, rim), np.eye(4), 0.5)]
    return items, panels


def _scaled(mesh: Mesh, T: np.ndarray) -> Mesh:
    """A box keeps its normals when it is stretched along its axes."""
    return dataclasses.replace(mesh, vertices_m=mesh.vertices_m @ T[:3, :3].T + T[:3, 3])


def place_clutter(
    rng: np.random.Generator,
    meshes: list[Mesh],
    options: BenchOptions,
    *,
    keep: list[tuple[float, float, float]],
) -> list[Item]:
    """Meshes standing on free places of the table; those that find none are left out.

    `keep` holds (x, y, radius) of places that stay free.
    """
    taken = list(keep)
    items = []
    for mesh in meshes:
        radius = 0.5 * float(np.hypot(*np.ptp(mesh.vertices_m[:, :2], axis=0)))
        for attempt in range(60):
            r = rng.uniform(options.near_m, options.far_m + 0.004 * attempt) + radius
            turn = rng.uniform(0, 2 * np.pi)
            x, y = r * np.cos(turn), r * np.sin(turn)
            inside = abs(x) + radius < TABLE_M[0] / 2 and abs(y) + radius < TABLE_M[1] / 2
            if inside and all(np.hypot(x - u, y - v) > 0.8 * (radius + w) for u, v, w in taken):
                taken.append((x, y, radius))
                items.append(rest(mesh, x, y, rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.7)))
                break
    return items


def rest(mesh: Mesh, x_m: float, y_m: float, turn_rad: float, roughness: float) -> Item:
    """The mesh on the table."""
    lift = 0.004 - mesh.bounds_m[0, 2]
    return Item(mesh, standing(x_m, y_m, lift, turn_rad), roughness, metal_of(mesh))


def metal_of(mesh: Mesh) -> np.ndarray:
    """(V,) what is painted in the two greys of bare steel shines like steel."""
    colors = np.round(mesh.colors * 255)
    steel = np.isin(
        colors @ (65536, 256, 1), [138 * 65536 + 140 * 256 + 144, 188 * 65536 + 189 * 256 + 192]
    )
    return 0.8 * steel


def make_bench(
    rng: np.random.Generator,
    thing: Mesh | None,
    clutter: list[Mesh],
    options: BenchOptions,
    *,
    turn_rad: float = 0.0,
) -> World:
    """The whole world; the object, if any, comes first and stands at the origin, turned."""
    table, tops = _table(rng)
    near = [(0.0, 0.0, options.near_m)]
    around = place_clutter(rng, clutter, options, keep=near)
    first = [] if thing is None else [rest(thing, 0.0, 0.0, turn_rad, 0.38)]
    return World([*first, *table, *around], [*_room(rng), *tops], has_object=thing is not None)
