"""The drawn workbench: closed things that stand on the table, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from training.synth import bench
from training.synth.mesh import primitive


def things():
    """The module that draws clutter."""
    pytest.importorskip(
        'manifold3d', reason='manifold3d is not installed: clutter is modelled with it'
    )
    from training.objects import clutter

    return clutter


def every_thing():
    clutter = things()
    return sorted({*clutter.TALL, *clutter.LOW, *clutter.LARGE}, key=lambda make: make.__name__)


def test_clutter_is_closed_and_of_the_size_of_tools(rng):
    for make in every_thing():
        mesh = make(rng)
        places, joined = np.unique(mesh.vertices_m, axis=0, return_inverse=True)
        surface = trimesh.Trimesh(places, joined.reshape(-1)[mesh.faces], process=False)
        assert surface.volume > 0, make.__name__
        assert 0.02 < np.ptp(mesh.vertices_m, axis=0).max() < 0.45, make.__name__
        assert len(mesh.faces) < 6_000, make.__name__


def test_bench_stands_on_the_table_and_leaves_the_object_room(rng):
    clutter = things()
    thing = primitive('cylinder')
    thing.vertices_m[:] *= 0.2
    options = bench.BenchOptions(near_m=0.17)
    world = bench.make_bench(
        rng, thing, [clutter.can(rng) for _ in range(8)], options, turn_rad=0.5
    )
    assert world.has_object
    np.testing.assert_allclose(world.items[0].T_world_obj[:2, 3], 0.0)
    cans = world.items[2:]
    assert len(cans) >= 6
    for item in (world.items[0], *cans):
        places = item.mesh.vertices_m @ item.T_world_obj[:3, :3].T + item.T_world_obj[:3, 3]
        assert 0.0 <= places[:, 2].min() < 0.006
    for item in cans:
        assert np.linalg.norm(item.T_world_obj[:2, 3]) > 0.17


def test_same_seed_same_bench():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return bench.make_bench(rng, None, [primitive('box')], bench.BenchOptions())

    one, two, other = draw(3), draw(3), draw(4)
    for a, b in zip(one.panels, two.panels):
        np.testing.assert_array_equal(a.T_world_panel, b.T_world_panel)
        if a.picture is not None:
            np.testing.assert_array_equal(a.picture, b.picture)
    assert (one.panels[0].picture != other.panels[0].picture).any()


def test_steel_is_metal():
    mesh = primitive('box')
    mesh.colors[:] = np.array((138, 140, 144)) / 255
    mesh.colors[0] = (0.1, 0.5, 0.5)
    metal = bench.metal_of(mesh)
    assert metal[0] == 0.0
    assert (metal[1:] > 0.5).all()
