"""Path-traced pictures of a recipe's objects in piles on tables, as a BOP data set:
python -m training scenes RECIPE --pictures N --out FOLDER.

Another renderer than the training's, so that what the networks learnt of their own renderer does
not count. Every scene has its own seed: a run that was stopped goes on, a longer one keeps what is
there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TimeRemainingColumn

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import inverse, make_pose
from training.objects import clutter

from ..recipe import Recipe
from ..synth import tabletop
from ..synth.mesh import Mesh, load_mesh, simplified
from ..synth.pathtrace import PathTracer, auto_exposure, develop
from ..synth.pile import Body, make_body
from ..synth.scene import SceneOptions, look_at, turn_z_onto
from ..synth.stray import strayed
from ..synth.things import Thing, load_things
from .bop_writer import (
    Seen,
    targets,
    write_depth,
    write_json,
    write_models,
    write_picture,
    write_scene,
)

SAMPLES = 3  # rays a pixel; the denoiser does the rest
VIEWS = 5  # pictures of a scene
_ITEM_FACES = 12000  # of a distractor
_PAINT = 1_000_000  # no picture of a scene has this number
_VIEW_SLACK_DEG, _DISTANCE_SLACK = 5.0, 1.05


@dataclass(frozen=True)
class Stock:
    """What scenes are made from."""

    things: Sequence[Thing]
    numbers: Sequence[int]  # of the things, in BOP files
    bodies: Sequence[Body]
    extra: Sequence[Mesh]  # distractors of the recipe
    pictures: tabletop.Pictures
    scene: SceneOptions
    paint: float = 0.0  # how far the things' colours stray from their meshes'


def scenes(
    recipe: Recipe,
    out: Path,
    *,
    pictures: int,
    seed: int,
    size: tuple[int, int],
    paint: float = 0.0,
) -> None:
    """Render `pictures` pictures into the BOP data set `out`, and list what is to be found.

    paint: the things' colours stray so far from their meshes' (synth/stray.py); 0 is not at all.
    """
    _claim(out, recipe, seed, size, paint)
    stock = dataclasses.replace(load_stock(recipe, size), paint=paint)
    models = {
        number: (thing.mesh, thing.symmetries)
        for number, thing in zip(stock.numbers, stock.things)
    }
    write_models(out / 'models_eval', models)
    wanted: list[dict[str, int]] = []
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn()) as progress:
        task = progress.add_task('path tracing', total=pictures)
        for scene in range(1, -(-pictures // VIEWS) + 1):
            count = min(VIEWS, pictures - (scene - 1) * VIEWS)
            seen = render_scene(stock, out, seed, scene, count)
            wanted += targets(scene, seen)
            progress.advance(task, count)
    write_json(out / 'test_targets_bop19.json', wanted)
    print(f'{out}: {pictures} pictures, {len(wanted)} targets')


def load_stock(recipe: Recipe, size: tuple[int, int]) -> Stock:
    """The recipe's objects, distractors, pictures, and a camera of `size`."""
    options = recipe.dataset
    things = load_things(recipe.objects, recipe.keypoints)
    own = {each.mesh for each in recipe.objects}
    scale = size[0] / options.scene.picture_size[0]
    low, high = options.scene.focal_px
    scene = dataclasses.replace(
        options.scene, picture_size=size, focal_px=(low * scale, high * scale)
    )
    tilt_rad = tabletop.tilt_limit_rad(scene)
    return Stock(
        things=things,
        numbers=numbers_of(things),
        bodies=[make_body(thing.mesh, tilt_rad) for thing in things],
        extra=[
            simplified(load_mesh(path, options.distractor_unit_m), _ITEM_FACES)
            for path in options.distractor_meshes
            if path not in own
        ],
        pictures=tabletop.Pictures(options.backgrounds),
        scene=scene,
    )


def numbers_of(things: Sequence[Thing]) -> list[int]:
    """BOP numbers; objects without one get the lowest that is free."""
    taken = {thing.bop_id for thing in things}
    free = (n for n in range(1, 2 * len(things) + 1) if n not in taken)
    return [thing.bop_id or next(free) for thing in things]


def _claim(out: Path, recipe: Recipe, seed: int, size: tuple[int, int], paint: float) -> None:
    """Leave a note of what the pictures were made from; raise where another one lies."""
    note: dict[str, Any] = {'recipe': recipe.name, 'seed': seed, 'size': list(size)}
    if paint:
        note['paint'] = paint
    path = out / 'scenes.json'
    if path.is_file() and json.loads(path.read_text()) != note:
        raise PoseNodeError(
            f'{out} holds pictures of {json.loads(path.read_text())}, wanted {note}: '
            'remove it or name another folder'
        )
    write_json(path, note)


def render_scene(stock: Stock, out: Path, seed: int, scene: int, count: int) -> list[list[Seen]]:
    """`count` pictures of one pile; those that are there are kept."""
    folder = out / 'test' / f'{scene:06d}'
    rng = np.random.default_rng((seed, scene))
    # Its own generator: the scenes are the same ones in any paint.
    colors = np.random.default_rng((seed, scene, _PAINT))
    meshes = [strayed(colors, thing.mesh, stock.paint) for thing in stock.things]
    table = tabletop.make_table(
        rng,
        list(zip(meshes, stock.bodies)),
        _distractors(rng, stock.extra),
        stock.pictures,
        tabletop.TableOptions(),
        stock.scene,
    )
    tracer = PathTracer(table.world)
    cameras, seen = [], []
    for index in range(count):
        rng = np.random.default_rng((seed, scene, index))
        T_cam_world, K = tabletop.draw_camera(rng, table, stock.scene)
        camera = Camera(K, stock.scene.picture_size)
        path = folder / 'rgb' / f'{index:06d}.png'
        if not path.is_file():
            write_picture(path, _picture(rng, tracer, T_cam_world, camera))
        write_depth(folder / 'depth' / path.name, tracer.depths_m(T_cam_world, camera))
        cameras.append(K)
        seen.append(_truth(stock, table, tracer, T_cam_world, camera))
    write_scene(folder, cameras, seen)
    return seen


def _distractors(rng: np.random.Generator, extra: Sequence[Mesh]) -> list[Mesh]:
    low, high = tabletop.TableOptions().clutter
    found = []
    for _ in range(int(rng.integers(low, high + 1))):
        kind = rng.random()
        if extra and kind < 0.4:
            found.append(extra[int(rng.integers(len(extra)))])
        elif kind < 0.75:
            group = clutter.TALL + clutter.LOW
            found.append(group[int(rng.integers(len(group)))](rng))
        else:
            found.append(tabletop.random_primitive(rng))
    return found


def _picture(
    rng: np.random.Generator, tracer: PathTracer, T_cam_world: np.ndarray, camera: Camera
) -> np.ndarray:
    noise_seed = int(rng.integers(1, 2**31))
    frame = tracer.render(T_cam_world, camera, samples=SAMPLES, seed=noise_seed)
    exposure = auto_exposure(frame.linear) * np.exp(rng.normal(0.0, 0.25))
    balance = np.exp(rng.normal(0.0, 0.06, 3))
    return develop(
        frame.linear * balance.astype(np.float32),
        exposure=exposure,
        blur_px=rng.uniform(0.3, 0.9),
        noise=rng.uniform(0.005, 0.03),
        rng=rng,
    )


def _truth(
    stock: Stock,
    table: tabletop.Table,
    tracer: PathTracer,
    T_cam_world: np.ndarray,
    camera: Camera,
) -> list[Seen]:
    """Pixels counted, one ray each, in the very world of the picture."""
    identities = tracer.identities(T_cam_world, camera)
    found = []
    for item, number in enumerate(table.things):
        thing = stock.things[number]
        T_cam_obj = T_cam_world @ table.world.items[item].T_world_obj
        whole, corner = _silhouette(tracer, item, thing, T_cam_obj, T_cam_world, camera)
        if not whole.any():
            continue
        mask = identities == item + 1
        x, y, width, height = box_of(whole)
        found.append(Seen(
            stock.numbers[number], T_cam_obj, float(mask.sum() / whole.sum()),
            (x + corner[0], y + corner[1], width, height),
            box_of(mask) if mask.any() else None,
            int(whole.sum()), int(mask.sum()),
            wanted=in_view(T_cam_obj, thing, stock.scene),
        ))  # fmt: skip
    return found


def _silhouette(
    tracer: PathTracer,
    item: int,
    thing: Thing,
    T_cam_obj: np.ndarray,
    T_cam_world: np.ndarray,
    camera: Camera,
) -> tuple[np.ndarray, tuple[int, int]]:
    """(h, w) bool of the object alone, beyond the picture's borders too, and the pixel of the
    picture that its corner is.
    """
    px = camera.project(thing.mesh.vertices_m @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3])
    if not np.isfinite(px).all():
        return np.zeros((1, 1), bool), (0, 0)
    low = np.floor(px.min(axis=0)).astype(int) - 1
    high = np.ceil(px.max(axis=0)).astype(int) + 2
    window = camera.cropped(*low.tolist(), *(high - low).tolist())
    return tracer.silhouette(item, T_cam_world, window), (int(low[0]), int(low[1]))


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, width, height (px) of a mask that is not empty."""
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1


def in_view(T_cam_obj: np.ndarray, thing: Thing, scene: SceneOptions) -> bool:
    """Whether the recipe promises this view of the object, or of a symmetric twin."""
    to_middle = make_pose(np.eye(3), thing.mesh.bounds_m.mean(axis=0))
    poses = T_cam_obj @ thing.symmetries.transforms(0.1) @ to_middle
    return any(_in_view(pose, scene) for pose in poses)


def _in_view(T_cam_mid: np.ndarray, scene: SceneOptions) -> bool:
    t = T_cam_mid[:3, 3]
    distance = float(np.linalg.norm(t))
    low, high = scene.distance_m
    if not low / _DISTANCE_SLACK <= distance <= high * _DISTANCE_SLACK:
        return False
    R = turn_z_onto(t / distance).T @ T_cam_mid[:3, :3]
    eye = inverse(T_cam_mid)[:3, 3] / distance
    elevation, azimuth = np.arcsin(np.clip(eye[2], -1.0, 1.0)), np.arctan2(eye[1], eye[0])
    rolled = R @ look_at(elevation, azimuth, 0.0).T
    roll = np.arctan2(rolled[1, 0], rolled[0, 0])
    promised = (scene.elevation_deg, scene.azimuth_deg, scene.roll_deg)
    for angle, (first, last) in zip((elevation, azimuth, roll), promised):
        middle, half = np.radians((first + last) / 2), np.radians((last - first) / 2)
        off = abs((angle - middle + np.pi) % (2 * np.pi) - np.pi)
        if off > half + np.radians(_VIEW_SLACK_DEG):
            return False
    return True
