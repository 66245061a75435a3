"""Further labelled objects beside the one whose turn it is, in one coherent view.

Mostly all stand upright on one floor, each turned about its upright axis, as on a table; otherwise
each floats in a view of its own, so that no place and no tilt is learned by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pose_node.core.geometry import exp_so3, make_pose

from .scene import SceneOptions, sample_pose

_STANDING = 0.7  # share of the pictures in which all stand on one floor
_TRIES = 12  # places looked for, for one object
_REACH = (0.5, 4.0)  # of an object on the floor from the first one, in sizes of both together
# Two things nearer than this share of the sum of their radii would reach into each other.
_APART = 0.55


@dataclass(frozen=True)
class Body:
    """What placing needs to know of a mesh: bounds_m (2, 3) in its own frame."""

    bounds_m: np.ndarray

    @property
    def radius_m(self) -> float:
        """Half the diagonal of its bounds."""
        return 0.5 * float(np.linalg.norm(self.bounds_m[1] - self.bounds_m[0]))


def sample_company(
    rng: np.random.Generator,
    options: SceneOptions,
    K: np.ndarray,
    first: tuple[Body, np.ndarray],
    bodies: Sequence[Body],
) -> list[np.ndarray | None]:
    """T_cam_obj (4, 4) of each body beside the first one and its T_cam_obj; None where there was
    no room for it.
    """
    standing = rng.random() < _STANDING
    taken = [first]
    places: list[np.ndarray | None] = []
    for body in bodies:
        for _ in range(_TRIES):
            T = _on_floor(rng, first, body) if standing else _floating(rng, options, K, body)
            if _shows(T, K, options) and all(_apart(body, T, *other) for other in taken):
                taken.append((body, T))
                places.append(T)
                break
        else:
            places.append(None)
    return places


def _on_floor(rng: np.random.Generator, first: tuple[Body, np.ndarray], body: Body) -> np.ndarray:
    """Upright, beside the first one, on the floor that it stands on."""
    neighbour, T_cam_first = first
    low, high = _REACH
    reach_m = (neighbour.radius_m + body.radius_m) * rng.uniform(low, high)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    floor_m = neighbour.bounds_m[0, 2] - body.bounds_m[0, 2]
    place = (reach_m * np.cos(angle), reach_m * np.sin(angle), floor_m)
    turn = exp_so3(np.array([0.0, 0.0, rng.uniform(0.0, 2.0 * np.pi)]))
    return np.asarray(T_cam_first @ make_pose(turn, np.array(place)))


def _floating(
    rng: np.random.Generator, options: SceneOptions, K: np.ndarray, body: Body
) -> np.ndarray:
    """In a view of its own, which is of its middle."""
    middle = make_pose(np.eye(3), -body.bounds_m.mean(axis=0))
    return np.asarray(sample_pose(rng, options, K) @ middle)


def _shows(T_cam_obj: np.ndarray, K: np.ndarray, options: SceneOptions) -> bool:
    """Whether it lies as deep as the options say, a little more or less, and in the picture."""
    place = T_cam_obj[:3, 3]
    near, far = options.distance_m
    if not 0.9 * near <= np.linalg.norm(place) <= 1.1 * far or place[2] <= 0.0:
        return False
    pixel = (K @ place)[:2] / place[2]
    share = pixel / options.picture_size
    return bool((np.abs(share - 0.5) <= 0.5 + options.margin).all())


def _apart(body: Body, T: np.ndarray, other: Body, T_other: np.ndarray) -> bool:
    distance_m = np.linalg.norm(_middle(body, T) - _middle(other, T_other))
    return bool(distance_m >= _APART * (body.radius_m + other.radius_m))


def _middle(body: Body, T_cam_obj: np.ndarray) -> np.ndarray:
    return np.asarray(T_cam_obj[:3, :3] @ body.bounds_m.mean(axis=0) + T_cam_obj[:3, 3])
