"""Symmetries: BOP's form in and out, and the transforms that come of it."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_node.core.errors import PoseNodeError
from pose_node.core.symmetry import Symmetries

HALF_TURN = [-1.0, 0, 0, 10.0, 0, -1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0]
AXIS_Z = {'axis': [0, 0, 1], 'offset': [0, 0, 0]}


def rounded(transforms: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(np.round(T, 9).ravel() + 0.0) for T in transforms}


def test_none():
    for symmetries in (Symmetries.none(), Symmetries.from_bop({'diameter': 100.0})):
        assert not symmetries
        np.testing.assert_array_equal(symmetries.transforms(), np.eye(4)[None])
        assert symmetries.to_bop() == {}


def test_discrete_in_metres():
    symmetries = Symmetries.from_bop({'symmetries_discrete': [HALF_TURN]})
    transforms = symmetries.transforms()
    np.testing.assert_array_equal(transforms[0], np.eye(4))
    np.testing.assert_allclose(transforms[1] @ [0.004, 0.002, 0.003, 1], [0.006, -0.002, 0.003, 1])


def test_the_callers_data_is_not_touched():
    info = {'symmetries_discrete': [HALF_TURN], 'symmetries_continuous': [AXIS_Z]}
    before = copy.deepcopy(info)
    first = Symmetries.from_bop(info)
    second = Symmetries.from_bop(info)
    assert info == before
    np.testing.assert_array_equal(first.discrete, second.discrete)
    first.transforms()
    first.to_bop()
    np.testing.assert_array_equal(first.discrete, second.discrete)


def test_bop_form_is_a_circle():
    info = {
        'symmetries_discrete': [HALF_TURN],
        'symmetries_continuous': [{'axis': [0, 0, -1], 'offset': [1.0, 2.0, 3.0]}],
    }
    again = json.loads(json.dumps(Symmetries.from_bop(info).to_bop()))
    np.testing.assert_allclose(again['symmetries_discrete'], info['symmetries_discrete'])
    np.testing.assert_allclose(again['symmetries_continuous'][0]['axis'], [0, 0, -1])
    np.testing.assert_allclose(again['symmetries_continuous'][0]['offset'], [1.0, 2.0, 3.0])


def test_metres_in_metres_out():
    info = {'symmetries_continuous': [{'axis': [1, 0, 0], 'offset': [0.0, 0.25, 0.0]}]}
    symmetries = Symmetries.from_bop(info, scale=1.0)
    assert symmetries.continuous[0].offset_m == (0.0, 0.25, 0.0)
    assert symmetries.to_bop(scale=1.0) == info


@pytest.mark.parametrize('axis', [[0, 0, 1], [0, 0, -1], [1, 2, -3], [0.01, 0, 0]])
def test_continuous_turns_about_its_line(axis):
    offset_mm = np.array([5.0, -7.0, 9.0])
    info = {'symmetries_continuous': [{'axis': axis, 'offset': offset_mm.tolist()}]}
    transforms = Symmetries.from_bop(info).transforms(max_step=0.01)
    assert len(transforms) == 315  # ceil(pi / 0.01)
    unit = np.array(axis) / np.linalg.norm(axis)
    for i in (0, 1, 100, 314):
        wanted = Rotation.from_rotvec(unit * i * 2 * np.pi / 315).as_matrix()
        np.testing.assert_allclose(transforms[i][:3, :3], wanted, atol=1e-12)
    # Points of the line stay where they are.
    for distance in (0.0, 0.3):
        point = np.append(offset_mm / 1000 + distance * unit, 1.0)
        np.testing.assert_allclose(transforms @ point, np.tile(point, (315, 1)), atol=1e-12)


def test_step_bounds_the_motion():
    """No rotation about the axis is farther from one of the steps than the step promises."""
    info = {'symmetries_continuous': [AXIS_Z]}
    rim = np.array([0.5, 0.0, 0.0, 1.0])  # an object of diameter 1
    for max_step in (0.3, 0.05, 0.01):
        places = Symmetries.from_bop(info).transforms(max_step) @ rim
        angles = np.linspace(0, 2 * np.pi, 2000)
        exact = 0.5 * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        gaps = np.linalg.norm(exact[:, None] - places[None, :, :2], axis=2).min(axis=1)
        assert gaps.max() <= max_step / 2 + 1e-9


def test_discrete_and_continuous_are_combined_in_bops_order():
    """As misc.get_symmetry_transformations does: first the discrete one, then the turn."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    flip[:3, 3] = [0.0, 2.0, 0.0]
    info = {'symmetries_discrete': [flip.ravel().tolist()], 'symmetries_continuous': [AXIS_Z]}
    transforms = Symmetries.from_bop(info).transforms(max_step=np.pi / 4)
    assert len(transforms) == 8
    wanted = []
    for first in (np.eye(4), np.diag([1.0, -1.0, -1.0, 1.0])):
        first = first.copy()
        first[1, 3] = 0.002 if first[1, 1] < 0 else 0.0
        for quarter in range(4):
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_euler('z', 90 * quarter, degrees=True).as_matrix()
            wanted.append(turn @ first)
    assert rounded(transforms) == rounded(np.array(wanted))


@pytest.mark.parametrize(
    ('info', 'words'),
    [
        ({'symmetries_discrete': [[1.0] * 15]}, r'symmetries_discrete\[0\].*wanted 16'),
        ({'symmetries_discrete': [[float('nan')] * 16]}, 'finite'),
        ({'symmetries_discrete': [np.diag([2.0, 1, 1, 1]).ravel().tolist()]}, 'rigid'),
        ({'symmetries_discrete': [np.diag([-1.0, 1, 1, 1]).ravel().tolist()]}, 'rigid'),
        ({'symmetries_discrete': [np.diag([1.0, 1, 1, 0]).ravel().tolist()]}, 'rigid'),
        ({'symmetries_continuous': [{'axis': [0, 0, 0], 'offset': [0, 0, 0]}]}, 'length zero'),
        ({'symmetries_continuous': [{'axis': [0, 0, 1]}]}, 'wanted .*offset'),
        ({'symmetries_continuous': [{'axis': 'z', 'offset': [0, 0, 0]}]}, 'wanted 3'),
        ({'symmetries_continuous': ['z']}, 'wanted .*axis'),
    ],
)
def test_what_is_no_symmetry_is_refused(info, words):
    with pytest.raises(PoseNodeError, match=words):
        Symmetries.from_bop(info)
