"""Propose the symmetries of a recipe's objects: python -m training symmetries RECIPE.

Prints what was found and the lines to paste; which of them are true of the thing itself, whose
prints and scratches a mesh may lack, is for people to say.
"""

from __future__ import annotations

import numpy as np

from pose_node.core.symmetry import Symmetries

from ..recipe import Recipe
from ..synth.mesh import Mesh, load_mesh
from ..synth.turns import COLOR_LIMIT, LIMIT, Surface, find_turns, symmetries_of


def symmetries(recipe: Recipe) -> None:
    """A table and the TOML of every object; no file is changed."""
    for each in recipe.objects:
        mesh = load_mesh(each.mesh, each.mesh_unit_m)
        print(f'{each.name}, diameter {1000 * mesh.diameter_m:.0f} mm')
        print(report(mesh, np.random.default_rng(recipe.seed)))


def report(mesh: Mesh, rng: np.random.Generator) -> str:
    """The table of the turns about every axis, and what to paste."""
    surface = Surface(mesh, rng)
    turns = find_turns(surface)
    lines = [f'  {"axis":>20}{"turn":>10}{"distance / d":>14}{"colour":>8}  judged']
    for turn in turns:
        judged = 'symmetric' if turn.holds else 'shape only' if turn.shape else 'none'
        axis = ' '.join(f'{x:.3f}' for x in turn.axis + 0.0)
        kind = f'1/{turn.order}' if turn.order else 'any'
        share = turn.fit.distance_m / mesh.diameter_m
        lines.append(f'  {axis:>20}{kind:>10}{share:>14.3f}{turn.fit.color:>8.2f}  {judged}')
    lines.append(f'  judged by distance / d <= {LIMIT} and colour <= {COLOR_LIMIT}')
    found = symmetries_of(turns, surface)
    lines.append(to_toml(found) if found else '# no symmetries: leave the key out')
    return '\n'.join(lines)


def to_toml(found: Symmetries) -> str:
    """The line of a recipe's object: the form of models_info.json, in metres."""
    info = found.to_bop(scale=1.0)
    parts = []
    if len(found.discrete):
        rows = (_numbers(matrix) for matrix in info['symmetries_discrete'])
        parts.append('symmetries_discrete = [\n' + ''.join(f'  {row},\n' for row in rows) + ']')
    if found.continuous:
        entries = (
            f'  {{ axis = {_numbers(each["axis"])}, offset = {_numbers(each["offset"])} }},\n'
            for each in info['symmetries_continuous']
        )
        parts.append('symmetries_continuous = [\n' + ''.join(entries) + ']')
    return f'symmetries = {{ {", ".join(parts)} }}'


def _numbers(values: list[float]) -> str:
    return '[' + ', '.join(f'{round(value, 9) + 0.0:.9g}' for value in values) + ']'
