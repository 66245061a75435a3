"""Pictures a second of our renderer and of others: python -m training.steps.speed MESH

The scene: the mesh (at most 12,000 triangles) at random poses, one directional light, 256 x 256,
colour alone and with surface coordinates, which pyrender draws as unlit paint, in 8 bits. pyrender
and mitsuba are measured where they are installed; no other part of the project needs pyrender.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import make_pose

from ..synth.mesh import Mesh, load_mesh, simplified
from ..synth.render import Instance, Lights, Renderer
from ..synth.scene import random_rotation
from .scenes import SAMPLES

SIZE = (256, 256)
FACES = 12_000
_MEASURED_S = 5.0
# From the camera frame of OpenGL (x right, y up, z backward) to ours.
_T_CAM_GL = np.diag([1.0, -1.0, -1.0, 1.0])


def pictures_per_s(draw: Callable[[np.ndarray], object], distance_m: float) -> float:
    """The rate at which `draw` draws poses, after one for warming up."""
    rng = np.random.default_rng(1)
    draw(make_pose(np.eye(3), np.array([0.0, 0.0, distance_m])))
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < _MEASURED_S:
        draw(make_pose(random_rotation(rng), np.array([0.0, 0.0, distance_m])))
        count += 1
    return count / (time.perf_counter() - start)


def ours(mesh: Mesh, K: np.ndarray, *, labels: bool) -> Callable[[np.ndarray], object]:
    """This project's rasteriser."""
    renderer = Renderer()
    renderer.upload('mesh', mesh)
    lights = Lights(
        np.tile((0.0, 0.0, -1.0), (3, 1)), np.diag((1.0, 0.0, 0.0)), np.full(3, 0.3),
        np.full(3, 0.3), np.array((0.0, -1.0, 0.0)),
    )  # fmt: skip

    def draw(T_cam_obj: np.ndarray) -> object:
        thing = [Instance('mesh', T_cam_obj)]
        picture = renderer.picture(thing, lights, K, SIZE)
        return (picture, renderer.targets(thing, K, SIZE)) if labels else picture

    return draw


def by_pyrender(mesh: Mesh, K: np.ndarray, *, labels: bool) -> Callable[[np.ndarray], object]:
    """pyrender's offscreen renderer on the same EGL; depth comes with the colour."""
    os.environ.setdefault('PYOPENGL_PLATFORM', 'egl')
    import trimesh

    setattr(np, 'infty', np.inf)  # noqa: B010 - pyrender 0.1.45 knows NumPy 1 only
    import pyrender

    low, high = mesh.bounds_m
    coordinates = (mesh.vertices_m - low) / (high - low)
    renderer = pyrender.OffscreenRenderer(*SIZE)

    def scene_of(paint: np.ndarray) -> Any:
        shape = trimesh.Trimesh(
            mesh.vertices_m,
            mesh.faces,
            vertex_colors=(255 * paint).astype(np.uint8),
            process=False,
        )
        scene = pyrender.Scene(ambient_light=(0.3, 0.3, 0.3))
        node = scene.add(pyrender.Mesh.from_trimesh(shape))
        camera = pyrender.IntrinsicsCamera(K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)
        scene.add(camera)
        scene.add(pyrender.DirectionalLight(intensity=3.0))
        return scene, node

    flags = pyrender.RenderFlags
    passes = [(*scene_of(mesh.colors), flags.NONE)]
    if labels:
        passes.append((*scene_of(coordinates), flags.FLAT))

    def draw(T_cam_obj: np.ndarray) -> object:
        for scene, node, _ in passes:
            scene.set_pose(node, _T_CAM_GL @ T_cam_obj)
        return [renderer.render(scene, flags=how) for scene, _, how in passes]

    return draw


def by_path_tracing(mesh: Mesh, K: np.ndarray) -> Callable[[np.ndarray], object]:
    """The path tracer of `training scenes`, denoiser and visible share included."""
    from ..synth.pathtrace import Item, PathTracer, World

    sky = np.full((8, 16, 3), 0.5, np.float32)
    tracer, camera = PathTracer(World([Item(mesh, np.eye(4))], [], sky=sky)), Camera(K, SIZE)
    seeds = itertools.count(1)

    def draw(T_cam_obj: np.ndarray) -> object:
        return tracer.render(T_cam_obj, camera, samples=SAMPLES, seed=next(seeds))

    return draw


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else '')
    parser.add_argument('mesh', type=Path)
    parser.add_argument('--unit', type=float, default=1.0, help='metres of the unit of the file')
    options = parser.parse_args()
    mesh = simplified(load_mesh(options.mesh, options.unit), FACES)
    distance_m = 2.0 * mesh.diameter_m
    f = 0.9 * SIZE[0] * distance_m / mesh.diameter_m
    K = np.array([[f, 0.0, 127.5], [0.0, f, 127.5], [0.0, 0.0, 1.0]])
    print(f'{len(mesh.faces)} triangles, {SIZE[0]} x {SIZE[1]}, pictures a second:')
    renderers: dict[str, Callable[[], Callable[[np.ndarray], object]]] = {
        'ours, colour': lambda: ours(mesh, K, labels=False),
        'ours, colour and surface coordinates': lambda: ours(mesh, K, labels=True),
        'pyrender, colour': lambda: by_pyrender(mesh, K, labels=False),
        'pyrender, colour and surface coordinates': lambda: by_pyrender(mesh, K, labels=True),
        'path tracer (mitsuba, OIDN)': lambda: by_path_tracing(mesh, K),
    }
    for name, make in renderers.items():
        try:
            rate = f'{pictures_per_s(make(), distance_m):8.1f}'
        except ImportError as error:
            rate = f'  not installed ({error.name})'
        except PoseNodeError as error:
            rate = f'  {error}'
        print(f'  {name:<42}{rate}')


if __name__ == '__main__':
    main()
