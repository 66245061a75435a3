"""Paint that is not quite the mesh's: what a scan tells of colours is what one camera saw under
one light. By another rule than the rasteriser's tints, so that what a network learnt of those does
not count.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .mesh import Mesh

_WAVES = 4  # of the stains
_GREY = np.array((0.2126, 0.7152, 0.0722))  # luma


def strayed(rng: np.random.Generator, mesh: Mesh, strength: float) -> Mesh:
    """The mesh in other colours: gamma, exposure, white balance and saturation drawn from log
    normals of width `strength` (white balance: half), and stains as large as the object.
    """
    if strength == 0.0:
        return mesh
    gamma, exposure, saturation = np.exp(rng.normal(0.0, strength, 3))
    balance = np.exp(rng.normal(0.0, 0.5 * strength, 3))
    colors = exposure * balance * mesh.colors**gamma
    grey = (colors @ _GREY)[:, None]
    colors = grey + saturation * (colors - grey)
    waves = rng.normal(0.0, np.pi / mesh.diameter_m, (_WAVES, 3))
    phases = rng.uniform(0.0, 2.0 * np.pi, _WAVES)
    stains = np.sin(mesh.vertices_m @ waves.T + phases).mean(axis=1)
    colors = colors * np.exp(strength * stains)[:, None]
    return dataclasses.replace(mesh, colors=np.clip(colors, 0.0, 1.0))
