"""Scenes in which the object stands among others on a table: close together, on each other,
leaning, and in each other's shade, as in what the robot will see.

Piles are made once, from their number, and rendered from any side with whichever of their things
as the object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import exp_so3, make_pose

from .mesh import PRIMITIVES, Mesh, primitive
from .pile import Body, Pile, PileOptions, make_body
from .render import Instance, Material, ShadowMap
from .scene import Scene, SceneOptions, any_paint, occluder, paint

_PILES = 200
_SHARE = 0.8  # of the recipe's objects that stand in a pile
_OBJECTS = 8  # of them, at most
_CLUTTER = (1, 6)  # other things
_CLUTTER_M = (0.03, 0.14)
_SPREAD_M = (0.07, 0.25)
_TABLE_M = (0.5, 2.5)
_PRINT_M = (0.1, 0.8)  # how large a picture lies on a table
_LOWEST_M = 0.03  # a camera nearer to the table's plane would see nothing but its edge
_SHADED = 0.85  # share of the piles in which things shade each other
_SHADED_M = 0.35  # radius in which they do
_HIDDEN = 0.3  # share of the recipe's occlusion that comes on top of what the pile itself hides


@dataclasses.dataclass(frozen=True)
class Placed:
    """A mesh by its name in the renderer; T_world_obj (4, 4) may scale it."""

    mesh: str
    T_world_obj: np.ndarray
    thing: int = -1  # which of the recipe's objects; -1 is none


class Piles:
    """Piles of the recipe's objects, other meshes in their own size, and primitives."""

    def __init__(
        self,
        seed: int,
        objects: Mapping[str, Mesh],
        extras: Mapping[str, Mesh],
        prints: Sequence[str],
    ):
        """objects, in the recipe's order, and extras: by the names that they are drawn by; prints:
        pictures by theirs.
        """
        self.seed, self.prints = seed, tuple(prints)
        self.objects = [(name, make_body(mesh)) for name, mesh in objects.items()]
        self.extras = [(name, make_body(mesh)) for name, mesh in extras.items()]
        self.shapes = {kind: primitive(kind) for kind in PRIMITIVES}
        self._pile = lru_cache(maxsize=_PILES)(self._made)

    def _made(self, number: int) -> list[Placed]:
        rng = np.random.default_rng((self.seed, 13, number))
        pile = Pile(rng, PileOptions(spread_m=rng.uniform(*_SPREAD_M)))
        some = [i for i in range(len(self.objects)) if rng.random() < _SHARE]
        wanted = [(*self.objects[i], np.ones(3), i) for i in rng.permutation(some)[:_OBJECTS]]
        wanted += [self._clutter(rng) for _ in range(rng.integers(_CLUTTER[0], _CLUTTER[1] + 1))]
        placed = []
        for k in rng.permutation(len(wanted)):
            name, body, size, thing = wanted[k]
            T_world_obj = pile.add(body)
            if T_world_obj is not None:
                placed.append(Placed(name, T_world_obj @ np.diag((*size, 1.0)), int(thing)))
        return placed

    def _clutter(self, rng: np.random.Generator) -> tuple[str, Body, np.ndarray, int]:
        """Another mesh or a primitive: its name, body and scale, and that it is no object."""
        if self.extras and rng.random() < 0.5:
            return *self.extras[rng.integers(len(self.extras))], np.ones(3), -1
        kind = str(rng.choice(PRIMITIVES))
        size = rng.uniform(*_CLUTTER_M) * rng.uniform(0.6, 1.4, 3)
        shape = self.shapes[kind]
        body = make_body(dataclasses.replace(shape, vertices_m=shape.vertices_m * size))
        return kind, body, size, -1

    def _with(self, number: int, thing: int) -> tuple[Placed, list[Placed]]:
        """Object `thing`, and what stands round it: in pile `number`, or in the first after it
        that this object is in.
        """
        for step in range(_PILES):
            pile = self._pile((number + step) % _PILES)
            first = [each for each in pile if each.thing == thing]
            if first:
                return first[0], [each for each in pile if each.thing != thing]
        raise PoseNodeError(
            f'{self.objects[thing][0]} stands in none of {_PILES} piles: set piled to 0'
        )

    def around(
        self,
        rng: np.random.Generator,
        scene: Scene,
        options: SceneOptions,
        thing: int,
        middle_obj: np.ndarray,
        most: int | None = None,
    ) -> Scene:
        """`scene` with object `thing` in a pile, in place of all but its camera and lights.

        middle_obj (3,) of the object stays where it was. most: how many further objects of the
        recipe may be shown; they are labelled then.
        """
        first, others = self._with(int(rng.integers(_PILES)), thing)
        T_cam_world = _turned_to(scene.T_cam_obj, first.T_world_obj, middle_obj)
        T_cam_obj = T_cam_world @ first.T_world_obj
        middle_cam = T_cam_obj[:3, :3] @ middle_obj + T_cam_obj[:3, 3]
        instances = [dataclasses.replace(scene.instances[0], T_cam_obj=T_cam_obj)]
        company: list[tuple[int, int]] = []
        for other in others:
            if most is not None and other.thing >= 0:
                if len(company) == most:
                    continue
                company.append((other.thing, len(instances)))
            material = self._cover(rng) if other.mesh in PRIMITIVES else paint(rng, options)
            instances.append(Instance(other.mesh, T_cam_world @ other.T_world_obj, material))
        if rng.random() < _HIDDEN * options.occlusion:
            corners_m = self.objects[thing][1].solid.corners_m
            size_m = float(np.linalg.norm(np.ptp(corners_m, axis=0)))
            instances.append(occluder(rng, make_pose(np.eye(3), middle_cam), size_m, {}))
        if np.linalg.inv(T_cam_world)[2, 3] > _LOWEST_M:
            instances.append(self._table(rng, T_cam_world))
        shadow_map = None
        if rng.random() < _SHADED:
            depth, softness_m = rng.uniform((0.3, 0.0), (1.0, 0.02))
            shadow_map = ShadowMap(middle_cam, _SHADED_M, float(depth), float(softness_m))
        return dataclasses.replace(
            scene, T_cam_obj=T_cam_obj, instances=instances, shadow=None, shadow_map=shadow_map,
            company=tuple(company),
        )  # fmt: skip

    def _cover(self, rng: np.random.Generator) -> Material:
        """Paint, or something printed."""
        material = any_paint(rng)
        return material if rng.random() < 0.6 else self._printed(rng, material, (0.4, 1.5))

    def _printed(
        self, rng: np.random.Generator, material: Material, size: tuple[float, float]
    ) -> Material:
        """One of the prints, brighter or darker; size: how large, in the mesh's own units."""
        return dataclasses.replace(
            material, print=str(rng.choice(self.prints)), print_m=float(rng.uniform(*size)),
            color_mix=rng.uniform(0.4, 1.1) * np.eye(3), color_add=np.zeros(3),
        )  # fmt: skip

    def _table(self, rng: np.random.Generator, T_cam_world: np.ndarray) -> Instance:
        size_m = rng.uniform(*_TABLE_M, 2)
        place = np.array((*rng.uniform(-0.35, 0.35, 2) * size_m, 0.0))
        turn = exp_so3(np.array((0.0, 0.0, rng.uniform(0.0, np.pi))))
        T_cam_table = T_cam_world @ make_pose(turn, place)
        material = any_paint(rng)
        if rng.random() < 0.8:
            low, high = np.array(_PRINT_M) / size_m.mean()
            material = self._printed(rng, material, (low, high))
        return Instance('table', T_cam_table @ np.diag((*size_m, 1.0, 1.0)), material)


def _turned_to(
    T_cam_obj: np.ndarray, T_world_obj: np.ndarray, middle_obj: np.ndarray
) -> np.ndarray:
    """T_cam_world (4, 4) that leaves the object's middle where it is and, where it stands upright
    in the pile, the object as it is: the pile is turned to it.
    """
    yaw = np.arctan2(T_world_obj[1, 0], T_world_obj[0, 0])
    R_cam_world = T_cam_obj[:3, :3] @ exp_so3(np.array((0.0, 0.0, -yaw)))
    middle_world = T_world_obj[:3, :3] @ middle_obj + T_world_obj[:3, 3]
    middle_cam = T_cam_obj[:3, :3] @ middle_obj + T_cam_obj[:3, 3]
    return make_pose(R_cam_world, middle_cam - R_cam_world @ middle_world)


def table_mesh() -> Mesh:
    """A square of 1 m, seen from both sides."""
    corners = np.array(((-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)), float)
    up = np.tile((0.0, 0.0, 1.0), (4, 1))
    return Mesh(corners, up, np.full((4, 3), 0.6), np.array(((0, 1, 2), (0, 2, 3))))
