"""Piles: nothing meets, nothing hangs in the air, nothing stands beyond the table's edges."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog

from pose_node.core.geometry import apply, make_pose
from training.synth.mesh import PRIMITIVES, Mesh, primitive
from training.synth.pile import Body, Pile, PileOptions, Solid, clearance_m, make_body
from training.synth.scene import random_rotation

TABLE_M = (-0.4, -0.3, 0.35, 0.3)


def bodies_of(rng: np.random.Generator, count: int) -> list[Body]:
    """Solids of 5 to 16 cm that rest in any way they like."""
    found = []
    for _ in range(count):
        mesh = primitive(str(rng.choice(PRIMITIVES)))
        size_m = rng.uniform(0.05, 0.16)
        mesh = Mesh(mesh.vertices_m * size_m, mesh.normals, mesh.colors, mesh.faces)
        found.append(make_body(mesh, np.pi))
    return found


def meet(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the hulls of corners a (N, 3) and b (M, 3) have a point in common: a linear
    programme, which has nothing in common with what is tested.
    """
    of_a, of_b = np.repeat([[1.0, 0.0], [0.0, 1.0]], (len(a), len(b)), axis=1)
    weights = np.vstack((np.hstack((a.T, -b.T)), of_a, of_b))
    answer = linprog(np.zeros(len(a) + len(b)), A_eq=weights, b_eq=(0, 0, 0, 1, 1))
    return bool(answer.status == 0)


def grown(rng: np.random.Generator, options: PileOptions) -> list[np.ndarray]:
    """Corners (N, 3) in the world of all that found a place."""
    pile = Pile(rng, options)
    placed = [(body, pile.add(body)) for body in bodies_of(rng, 12)]
    return [apply(T, body.solid.corners_m) for body, T in placed if T is not None]


def test_nothing_meets_and_nothing_sinks(rng: np.random.Generator) -> None:
    for _ in range(3):
        corners = grown(rng, PileOptions(0.07, stacked=0.4, leaning=0.4, table_m=TABLE_M))
        assert len(corners) > 5
        for one, other in itertools.combinations(corners, 2):
            assert not meet(one, other)
        assert all(each[:, 2].min() >= 0.0 for each in corners)


def test_what_neither_stacks_nor_leans_stands_on_the_table(rng: np.random.Generator) -> None:
    for apart in (False, True):
        options = PileOptions(0.1, stacked=0.0, leaning=0.0, apart=apart, table_m=TABLE_M)
        corners = grown(rng, options)
        assert len(corners) > 3
        for each in corners:
            assert each[:, 2].min() < 0.001
            assert (each[:, :2].min(axis=0) >= TABLE_M[:2]).all()
            assert (each[:, :2].max(axis=0) <= TABLE_M[2:]).all()


def test_a_box_on_a_box_is_held_by_it(rng: np.random.Generator) -> None:
    """Its feet are on the other's top, as high as that is."""
    mesh = primitive('box')
    wide, small = (
        make_body(Mesh(mesh.vertices_m * scale, mesh.normals, mesh.colors, mesh.faces))
        for scale in (0.3, 0.08)
    )
    pile = Pile(rng, PileOptions(0.02, stacked=1.0, yaw_rad=(0.0, 0.0)))
    below, above = pile.add(wide), pile.add(small)
    assert below is not None and above is not None
    top, feet = apply(below, wide.solid.corners_m), apply(above, small.solid.corners_m)
    assert 0.0 < feet[:, 2].min() - top[:, 2].max() < 0.002
    assert (feet[:, :2].min(axis=0) > top[:, :2].min(axis=0)).all()
    assert (feet[:, :2].max(axis=0) < top[:, :2].max(axis=0)).all()


def test_what_leans_touches_the_table_and_another(rng: np.random.Generator) -> None:
    """Nothing leans on nothing: alone it stands straight."""
    mesh = primitive('bar')
    mesh = Mesh(mesh.vertices_m * 0.2, mesh.normals, mesh.colors, mesh.faces)
    upright = make_body(mesh)
    body = Body(upright.solid, np.array([[[0, 0, -1.0], [0, 1, 0], [1, 0, 0]]]), np.ones(1))
    leant = 0
    for _ in range(8):
        pile = Pile(rng, PileOptions(0.05, stacked=0.0, leaning=1.0))
        first, second = pile.add(body), pile.add(body)
        assert first is not None and second is not None
        assert abs(first[:3, 0] @ (0, 0, 1)) > 0.999
        corners = apply(second, body.solid.corners_m)
        assert 0.0 <= corners[:, 2].min() < 0.001
        if abs(second[:3, 0] @ (0, 0, 1)) < 0.999:
            leant += 1
            # One degree further would have been into the other: it is as near as that.
            assert pile_gap_m(pile) < np.radians(1.0) * 0.2 + 0.001
    assert leant > 0


def pile_gap_m(pile: Pile) -> float:
    one, other = pile.solids
    return float(clearance_m(one, other, np.zeros((1, 3)))[0])


def test_clearance_is_never_more_than_the_distance(rng: np.random.Generator) -> None:
    """Of balls the distance is known; and what is clear does not meet."""
    ball = make_body(primitive('ball')).solid
    for _ in range(20):
        shift = rng.normal(size=3)
        gap = clearance_m(ball, ball, shift[None])[0]
        assert gap <= np.linalg.norm(shift) - 0.95
        assert gap >= np.linalg.norm(shift) - 1.05
    for _ in range(30):
        solids = [
            body.solid.moved(make_pose(random_rotation(rng), rng.normal(0.0, 0.06, 3)))
            for body in bodies_of(rng, 2)
        ]
        clear = clearance_m(*solids, np.zeros((1, 3)))[0] > 0.0
        assert not (clear and meet(solids[0].corners_m, solids[1].corners_m))


def test_a_moved_solid_keeps_its_planes(rng: np.random.Generator) -> None:
    solid: Solid = bodies_of(rng, 1)[0].solid
    moved = solid.moved(make_pose(random_rotation(rng), rng.normal(size=3)))
    np.testing.assert_allclose(
        (moved.normals @ moved.corners_m.T).max(axis=1), moved.offsets_m, atol=1e-9
    )
