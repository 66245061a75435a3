"""The demonstration bag, path traced: python -m training.steps.demo_bag MESH.ply OUT_DIR

A camera is carried by hand round a drill on a crowded bench; it looks away twice, and things stand
between. The pictures obey a distorted CameraInfo, the ground truth is exact. Rendered frames are
kept in --frames DIR: a run that was stopped goes on.

With --validation N it writes N single pictures of random benches in the BOP layout instead, to try
a network on a renderer it was not trained with.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from pose_node.core.camera import Camera
from training.objects import clutter
from training.synth import bench
from training.synth.mesh import Mesh, load_mesh
from training.synth.pathtrace import PathTracer, World, auto_exposure, develop

from .bag_writer import BagFrame, write_bag
from .bop_writer import write_bop

CAMERA = Camera(
    np.array([[588.4, 0.0, 323.7], [0.0, 589.1, 236.2], [0.0, 0.0, 1.0]]),
    (640, 480), 'plumb_bob', (-0.158, 0.042, 0.0011, -0.0007, 0.0),
)  # fmt: skip
RATE_HZ = 10
SAMPLES = 3  # rays a pixel; the denoiser does the rest
DRILL_TURN_RAD = 0.35

# s, azimuth, elevation (deg), distance m, the view's turn off the drill: right, up, roll (deg).
PATH = np.array([
    (0.0, -40, 24, 0.80, 54, -9, -4),
    (0.8, -36, 22, 0.80, 49, -8, -5),
    (1.3, -30, 20, 0.80, 32, -3, -3),
    (1.9, -22, 19, 0.76, 24, 1, -1),
    (2.8, 4, 20, 0.66, 4, 0, 3),
    (4.0, 45, 33, 0.55, -3, 0, 7),
    (5.8, 100, 14, 0.62, 3, 1, -9),
    (7.0, 146, 12, 0.74, 0, 2, -3),
    (8.2, 190, 24, 0.97, -8, 0, 5),
    (8.8, 202, 30, 0.95, -27, 3, 7),
    (9.3, 210, 33, 0.90, -46, -4, 8),
    (10.5, 222, 34, 0.82, -53, -11, 2),
    (11.1, 228, 35, 0.80, -34, -4, 0),
    (11.8, 236, 38, 0.76, -23, 0, -2),
    (12.8, 260, 54, 0.62, 2, 2, 14),
    (14.2, 300, 63, 0.47, 0, -1, -17),
    (15.6, 338, 30, 0.58, 5, 0, -6),
    (16.6, 358, 14, 0.78, -4, 1, 3),
    (17.2, 372, 13, 0.86, -7, 2, 5),
], dtype=float)  # fmt: skip
# What stands between the drill and the path: its azimuth (deg), distance and height (m).
BETWEEN = (
    (clutter.carton, 103.0, 0.36, 0.215),
    (clutter.toolbox, 150.0, 0.44, 0.20),
    (clutter.bottle, 60.0, 0.30, 0.22),
    (clutter.can, 357.0, 0.42, 0.215),
    (clutter.spray, 12.0, 0.33, 0.23),
    (clutter.carton, 128.0, 0.34, 0.16),
    (clutter.mug, 268.0, 0.23, 0.10),
)  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """One picture to be taken."""

    T_cam_world: np.ndarray
    seed: int


def look(
    azimuth_rad: float, elevation_rad: float, distance_m: float,
    turn_rad: tuple[float, float, float],
    target_m: tuple[float, float, float],
) -> np.ndarray:  # fmt: skip
    """T_cam_world of a camera on a sphere round `target_m`, then turned right, up and rolled."""
    ce, se = np.cos(elevation_rad), np.sin(elevation_rad)
    outward = np.array((ce * np.cos(azimuth_rad), ce * np.sin(azimuth_rad), se))
    right = np.cross(-outward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    R_cam_world = np.stack((right, np.cross(-outward, right), -outward))
    to_right, up, roll = turn_rad
    for rotvec in ((0.0, -to_right, 0.0), (-up, 0.0, 0.0), (0.0, 0.0, roll)):
        R_cam_world = cv2.Rodrigues(np.array(rotvec))[0] @ R_cam_world
    T = np.eye(4)
    T[:3, :3] = R_cam_world
    T[:3, 3] = -R_cam_world @ (np.array(target_m) + distance_m * outward)
    return T


def carried_path(rng: np.random.Generator) -> list[Shot]:
    """The path of PATH with the unsteadiness of a hand."""
    times = np.arange(0.0, PATH[-1, 0] + 1e-9, 1 / RATE_HZ)
    values = PchipInterpolator(PATH[:, 0], PATH[:, 1:])(times)
    # A hand: a few slow swings, degrees and centimetres.
    for column, size in enumerate((0.8, 0.6, 0.006, 0.7, 0.6, 0.7)):
        for hertz in (0.35, 0.8, 1.7):
            phase = rng.uniform(0, 2 * np.pi)
            values[:, column] += size / (1 + hertz) * np.sin(2 * np.pi * hertz * times + phase)
    shots = []
    for index, (azimuth, elevation, distance, right, up, roll) in enumerate(values):
        turn = (np.radians(right), np.radians(up), np.radians(roll))
        T = look(np.radians(azimuth), np.radians(elevation), distance, turn, (0.0, 0.0, 0.115))
        shots.append(Shot(T, index + 1))
    return shots


def _things(rng: np.random.Generator, options: bench.BenchOptions) -> list[Mesh]:
    groups = (
        (clutter.LARGE, options.large),
        (clutter.TALL, options.tall),
        (clutter.LOW, options.low),
    )
    return [group[rng.integers(len(group))](rng) for group, count in groups for _ in range(count)]


def demo_world(thing: Mesh, seed: int) -> World:
    """The bench of the bag."""
    rng = np.random.default_rng(seed)
    options = bench.BenchOptions(tall=5, low=18, large=3, near_m=0.42, far_m=0.75)
    world = bench.make_bench(rng, thing, _things(rng, options), options, turn_rad=DRILL_TURN_RAD)
    between = []
    for make, azimuth_deg, radius_m, height_m in BETWEEN:
        mesh = make(rng)
        scale = height_m / np.ptp(mesh.vertices_m[:, 2])
        mesh = dataclasses.replace(mesh, vertices_m=mesh.vertices_m * scale)
        turn = np.radians(azimuth_deg)
        x, y = radius_m * np.cos(turn), radius_m * np.sin(turn)
        between.append(bench.rest(mesh, x, y, turn + rng.normal(1.57, 0.2), rng.uniform(0.3, 0.6)))
    return dataclasses.replace(world, items=[*world.items, *between])


def render_bag(thing: Mesh, out: Path, frames: Path, seed: int) -> None:
    """All pictures (kept in `frames` as they come), then the bag."""
    rng = np.random.default_rng(seed)
    shots = carried_path(rng)
    world = demo_world(thing, seed)
    tracer = PathTracer(world)
    frames.mkdir(parents=True, exist_ok=True)
    for index in _progress(range(len(shots)), 'path tracing'):
        kept = frames / f'{index:06d}.npz'
        if not kept.is_file():
            frame = tracer.render(
                shots[index].T_cam_world, CAMERA, samples=SAMPLES, seed=shots[index].seed
            )
            unfinished = kept.with_suffix('.part')
            with unfinished.open('wb') as file:
                np.savez(file, linear=frame.linear.astype(np.float16), visible=frame.visible)
            unfinished.rename(kept)
    T_world_obj = world.items[0].T_world_obj
    exposure = None
    taken = []
    for index, shot in enumerate(shots):
        with np.load(frames / f'{index:06d}.npz') as kept_frame:
            linear, visible = kept_frame['linear'].astype(np.float32), float(kept_frame['visible'])
        wanted = auto_exposure(linear)
        # The camera's automatic exposure follows slowly.
        exposure = wanted if exposure is None else exposure + 0.15 * (wanted - exposure)
        picture = develop(linear, exposure=exposure, blur_px=0.45, noise=0.012, rng=rng)
        taken.append(BagFrame(picture, shot.T_cam_world @ T_world_obj, visible))
    write_bag(out, taken, CAMERA, thing.bounds_m, rate_hz=RATE_HZ)


def render_validation(thing: Mesh, out: Path, count: int, seed: int) -> None:
    """`count` single pictures, each of its own bench, without distortion (BOP knows none)."""
    camera = Camera(CAMERA.K, CAMERA.size)
    frames = []
    for index in _progress(range(count), 'path tracing'):
        rng = np.random.default_rng((seed, index))
        options = bench.BenchOptions(
            tall=int(rng.integers(3, 10)), low=int(rng.integers(8, 20)),
            large=int(rng.integers(1, 4)),
            near_m=rng.uniform(0.15, 0.22), far_m=0.6,
        )  # fmt: skip
        turn = rng.uniform(0, 2 * np.pi)
        world = bench.make_bench(rng, thing, _things(rng, options), options, turn_rad=turn)
        off = (
            np.radians(rng.uniform(-18, 18)),
            np.radians(rng.uniform(-12, 12)),
            np.radians(rng.uniform(-20, 20)),
        )
        T_cam_world = look(
            rng.uniform(0, 2 * np.pi),
            np.radians(rng.uniform(10, 65)),
            rng.uniform(0.45, 1.1),
            off,
            (0.0, 0.0, 0.115),
        )
        frame = PathTracer(world).render(T_cam_world, camera, samples=SAMPLES, seed=index + 1)
        exposure = auto_exposure(frame.linear) * rng.uniform(0.7, 1.4)
        picture = develop(
            frame.linear, exposure=exposure, blur_px=rng.uniform(0.3, 0.8), noise=0.015, rng=rng
        )
        frames.append(BagFrame(picture, T_cam_world @ world.items[0].T_world_obj, frame.visible))
    write_bop(out, frames, camera, thing)


def _progress(steps: range, text: str):
    from rich.progress import track

    return track(steps, description=text)


def main() -> None:
    """Read the command line and render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('mesh', type=Path, help='drill.ply')
    parser.add_argument('out', type=Path, help='the folder to write: a bag, or a BOP data set')
    parser.add_argument('--seed', type=int, default=5)
    parser.add_argument(
        '--frames', type=Path, help='where rendered frames are kept (default: OUT_frames)'
    )
    parser.add_argument(
        '--validation', type=int, metavar='N', help='N single pictures instead of the bag'
    )
    arguments = parser.parse_args()
    thing = load_mesh(arguments.mesh)
    if arguments.validation:
        render_validation(thing, arguments.out, arguments.validation, arguments.seed)
    else:
        frames = arguments.frames or arguments.out.with_name(arguments.out.name + '_frames')
        render_bag(thing, arguments.out, frames, arguments.seed)


if __name__ == '__main__':
    main()
