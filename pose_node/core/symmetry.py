"""Symmetries of an object: the rigid motions after which it looks the same.

Declared once, in the form of BOP's models_info.json (bop_toolkit docs/bop_datasets_format.md), and
used by labels, metrics and run time. Lengths are metres here; BOP's are millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import PoseNodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Continuous:
    """Any rotation about the line through `offset_m` along `axis` (unit length)."""

    axis: tuple[float, float, float]
    offset_m: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Symmetries:
    """Transforms of the object's own frame that change nothing to see; empty for most objects."""

    discrete: np.ndarray  # (S, 4, 4) without the identity, metres
    continuous: tuple[Continuous, ...] = ()

    @classmethod
    def none(cls) -> Symmetries:
        """The symmetries of an object that has none."""
        return cls(np.zeros((0, 4, 4)))

    @classmethod
    def from_bop(cls, info: Mapping[str, Any], scale: float = 0.001) -> Symmetries:
        """Read `symmetries_discrete` and `symmetries_continuous` of one entry of models_info.json.

        info: the entry; other keys are left alone, a missing key means no symmetry. scale: metres
        per unit of its lengths. Raises PoseNodeError for what is no rigid motion.
        """
        discrete = [
            _rigid(numbers, scale, f'symmetries_discrete[{i}]')
            for i, numbers in enumerate(info.get('symmetries_discrete', ()))
        ]
        continuous = tuple(
            _continuous(entry, scale, f'symmetries_continuous[{i}]')
            for i, entry in enumerate(info.get('symmetries_continuous', ()))
        )
        return cls(np.array(discrete).reshape(-1, 4, 4), continuous)

    def to_bop(self, scale: float = 0.001) -> dict[str, Any]:
        """The two keys of models_info.json, each only where there is something to say."""
        info: dict[str, Any] = {}
        if len(self.discrete):
            matrices = self.discrete.copy()
            matrices[:, :3, 3] /= scale
            info['symmetries_discrete'] = matrices.reshape(-1, 16).tolist()
        if self.continuous:
            info['symmetries_continuous'] = [
                {'axis': list(c.axis), 'offset': [x / scale for x in c.offset_m]}
                for c in self.continuous
            ]
        return info

    def __bool__(self) -> bool:
        return bool(len(self.discrete) or self.continuous)

    def transforms(self, max_step: float = 0.01) -> np.ndarray:
        """All symmetries as (S, 4, 4), the identity first.

        A continuous one becomes ceil(pi / max_step) equal steps, so that no point of the object is
        farther than max_step / 2 diameters from its place under the nearest exact rotation
        (max_sym_disc_step of the BOP challenge).
        """
        discrete = np.concatenate((np.eye(4)[None], self.discrete))
        if not self.continuous:
            return discrete
        steps = math.ceil(math.pi / max_step)
        angles = np.arange(1, steps) * (2.0 * math.pi / steps)
        turns = [np.eye(4)[None], *(_rotations(c, angles) for c in self.continuous)]
        return (np.concatenate(turns)[None] @ discrete[:, None]).reshape(-1, 4, 4)


def _rotations(symmetry: Continuous, angles: np.ndarray) -> np.ndarray:
    """(A, 4, 4) rotations about the symmetry's line (Rodrigues' formula)."""
    x, y, z = symmetry.axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sin, cos = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    transforms = np.tile(np.eye(4), (len(angles), 1, 1))
    transforms[:, :3, :3] += sin * cross + (1.0 - cos) * (cross @ cross)
    offset = np.array(symmetry.offset_m)
    transforms[:, :3, 3] = offset - transforms[:, :3, :3] @ offset
    return transforms


def _numbers(values: Sequence[float], count: int, where: str) -> np.ndarray:
    try:
        numbers = np.array(values, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise PoseNodeError(f'{where} is {values!r}, wanted {count} finite numbers.')
    return numbers


def _rigid(values: Sequence[float], scale: float, where: str) -> np.ndarray:
    transform = _numbers(values, 16, where).reshape(4, 4)
    R = transform[:3, :3]
    rigid = (
        np.allclose(R @ R.T, np.eye(3), atol=1e-3)
        and np.linalg.det(R) > 0.0
        and np.allclose(transform[3], (0.0, 0.0, 0.0, 1.0))
    )
    if not rigid:
        raise PoseNodeError(
            f'{where} is no rigid motion; write a 4x4 matrix row by row, the last row 0 0 0 1.'
        )
    transform[:3, 3] *= scale
    return transform


def _continuous(entry: Mapping[str, Any], scale: float, where: str) -> Continuous:
    if not isinstance(entry, dict) or set(entry) != {'axis', 'offset'}:
        raise PoseNodeError(
            f"{where} is {entry!r}, wanted {{'axis': [x, y, z], 'offset': [x, y, z]}}."
        )
    axis = _numbers(entry['axis'], 3, f'{where}.axis')
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        raise PoseNodeError(f'{where}.axis has length zero; give the direction of the axis.')
    offset = _numbers(entry['offset'], 3, f'{where}.offset') * scale
    return Continuous(tuple((axis / length).tolist()), tuple(offset.tolist()))
