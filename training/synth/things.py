"""The objects to learn: mesh, keypoints, symmetries, and which of equal poses is the label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull

from pose_node.core.errors import PoseNodeError
from pose_node.core.symmetry import Symmetries

from .corner_points import corner_points
from .keypoints import farthest_points
from .mesh import Mesh, load_mesh, simplified
from .scene import look_at, turn_z_onto

_COARSE_FACES = 1000
SELECTIONS: dict[str, Callable[[Mesh, int], np.ndarray]] = {
    'farthest': farthest_points,
    'corners': corner_points,
}
# From the front and a little above, upright: the view that labels of symmetric objects stay near.
_FRONT = look_at(np.radians(30.0), 0.0, 0.0)


@dataclass(frozen=True)
class ObjectOptions:
    """One object of a recipe."""

    name: str  # class name on the robot
    mesh: Path
    mesh_unit_m: float = 1.0
    bop_id: int = 0  # its number in BOP files; 0 is none
    symmetries: dict[str, Any] = field(default_factory=dict)  # as in models_info.json, but metres
    # Which points of it to learn: 'farthest' from each other, or the 'corners' that pictures show.
    keypoint_selection: str = 'farthest'

    def __post_init__(self) -> None:
        if self.keypoint_selection not in SELECTIONS:
            raise PoseNodeError(
                f'keypoint_selection of {self.name} is {self.keypoint_selection!r}, '
                f'wanted one of {", ".join(SELECTIONS)}'
            )


@dataclass(frozen=True)
class Thing:
    """An object, loaded."""

    name: str
    bop_id: int
    path: Path
    mesh: Mesh
    coarse: Mesh
    keypoints_obj: np.ndarray  # (K, 3) m
    outline_obj: np.ndarray  # (V, 3) m, whose projection has the box of the whole
    symmetries: Symmetries


def load_things(objects: Sequence[ObjectOptions], keypoints: int) -> list[Thing]:
    """Meshes read and keypoints chosen; they follow from the mesh and their number alone."""
    return [_load(each, keypoints) for each in objects]


def _load(options: ObjectOptions, keypoints: int) -> Thing:
    mesh = load_mesh(options.mesh, options.mesh_unit_m)
    coarse = simplified(mesh, _COARSE_FACES)
    return Thing(
        name=options.name,
        bop_id=options.bop_id,
        path=options.mesh,
        mesh=mesh,
        coarse=coarse,
        keypoints_obj=keypoints_of(options, mesh, keypoints),
        outline_obj=coarse.vertices_m[ConvexHull(coarse.vertices_m).vertices],
        symmetries=Symmetries.from_bop(options.symmetries, scale=1.0),
    )


def keypoints_of(options: ObjectOptions, mesh: Mesh, count: int) -> np.ndarray:
    """(count, 3) m, as the object's options choose them."""
    return SELECTIONS[options.keypoint_selection](mesh, count)


def canonical(T_cam_obj: np.ndarray, symmetries: Symmetries) -> np.ndarray:
    """Of all poses that look the same, the one whose view is nearest to the front.

    The view is taken along the ray to the object, so that where it stands in the picture does not
    matter: a crop shows nothing else (Pitteri et al., "On object symmetries and 6D pose
    estimation", 3DV 2019, has the idea of one representative).
    """
    if not symmetries:
        return T_cam_obj
    ray = T_cam_obj[:3, 3] / np.linalg.norm(T_cam_obj[:3, 3])
    candidates = T_cam_obj @ symmetries.transforms()
    views = turn_z_onto(ray).T @ candidates[:, :3, :3]
    nearest = np.einsum('sij,ij->s', views, _FRONT).argmax()
    return np.asarray(candidates[nearest])
