"""What a network starts from: the checkpoint of another recipe, or any bundle.

Encoder and decoder are taken over as they are. What belongs to one object (its part of the last
layer, its mark) is taken over where that object is the same: equal name, equal keypoints. A
network for one object has no mark; that of a bundle for several is left behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError

from ..nets.locator import Locator
from ..nets.pose_network import PoseNetwork
from ..recipe import Recipe, load_recipe, resolve
from ..synth.mesh import load_mesh
from ..synth.things import keypoints_of
from .byte_weights import read_weights

_SAME_M = 1e-3  # keypoints nearer than this are the same


@dataclass(frozen=True)
class Learned:
    """Weights by their names in torch, and the objects they know, in their order."""

    origin: Path
    weights: dict[str, Tensor]
    keypoints_obj: dict[str, np.ndarray | None]  # by object; a locator has none


def start_from(network: PoseNetwork | Locator, recipe: Recipe, kind: str) -> None:
    """Take over what the recipe's `start` has learned, wherever names and shapes agree."""
    start = recipe.fit_options(kind).start
    if not start:
        return
    learned = _learned(recipe, start, kind)
    own = network.state_dict()
    if not any(name in learned.weights for name in own if name.endswith('running_mean')):
        raise PoseNodeError(
            f'{learned.origin} holds a network whose weights are fused or another than ours: '
            'export it again from its checkpoint, or start from its recipe'
        )
    per_object = network.per_object
    shared = [n for n, v in learned.weights.items() if n in own and own[n].shape == v.shape]
    for name in shared:
        if name not in per_object:
            own[name].copy_(learned.weights[name])
    known = list(learned.keypoints_obj)
    mine = _keypoints_obj(recipe, kind)
    same = [
        (index, known.index(name))
        for index, (name, points_obj) in enumerate(mine.items())
        if name in known and _same(points_obj, learned.keypoints_obj[name])
    ]
    for name in per_object:
        theirs = learned.weights.get(name)
        if name in own and theirs is not None and own[name].shape[1:] == theirs.shape[1:]:
            rows = own[name].unflatten(0, (len(mine), -1))
            their_rows = theirs.unflatten(0, (len(known), -1))
            for index, their_index in same:
                rows[index].copy_(their_rows[their_index])
    names = ', '.join(list(mine)[index] for index, _ in same) or 'no object'
    print(f'{kind} starts from {learned.origin}, with the last layer of {names}')


def checkpoint_weights(path: Path) -> dict[str, Tensor]:
    """The averaged weights: those that did best in validation; where there was none, the last."""
    state = torch.load(path, map_location='cpu', weights_only=True)
    best = state.get('best')
    weights: dict[str, Tensor] = best['weights'] if best else state['average']
    return weights


def bundle_weights(bundle: Bundle, kind: str) -> dict[str, Tensor]:
    """The weights in a bundle's `kind` of network, float32, by their names in torch."""
    spec = bundle.pose_network if kind == 'pose' else bundle.locator
    if spec is None:
        raise PoseNodeError(f'{bundle.folder} has no locator to start from: start from ""')
    weights = read_weights(onnx.load_from_string(bundle.read(spec.file)))
    return {n.removeprefix('network.'): torch.from_numpy(v.copy()) for n, v in weights.items()}


def _learned(recipe: Recipe, start: str, kind: str) -> Learned:
    beside = recipe.path.parent / f'{start}.toml'
    if beside.is_file():
        other = load_recipe(beside)
        path = other.cache / f'{kind}.pt'
        if not path.is_file():
            raise PoseNodeError(
                f'{path} does not exist: fit recipe {start} first, or start from ""'
            )
        return Learned(path, checkpoint_weights(path), _keypoints_obj(other, kind))
    folder = resolve(start, recipe.path)
    if not (folder / 'bundle.json').is_file():
        raise PoseNodeError(
            f'{recipe.path}: start {start!r} is neither a recipe beside this one nor the folder '
            f'of a bundle; there is no {beside} and no {folder / "bundle.json"}'
        )
    bundle = Bundle.load(folder)
    weights = bundle_weights(bundle, kind)
    if kind == 'pose':
        known = {n: bundle.object(n).keypoints_obj_m for n in bundle.pose_network.objects}
        return Learned(folder, weights, dict(known))
    assert bundle.locator is not None  # bundle_weights has seen to that
    return Learned(folder, weights, dict.fromkeys(bundle.locator.objects))


def _keypoints_obj(recipe: Recipe, kind: str) -> dict[str, np.ndarray | None]:
    """By object, in the network's order."""
    return {
        each.name: keypoints_of(each, load_mesh(each.mesh, each.mesh_unit_m), recipe.keypoints)
        if kind == 'pose'
        else None
        for each in recipe.objects
    }


def _same(points_obj: np.ndarray | None, others_obj: np.ndarray | None) -> bool:
    if points_obj is None or others_obj is None:
        return points_obj is others_obj
    return points_obj.shape == others_obj.shape and bool(
        (np.linalg.norm(points_obj - others_obj, axis=1) < _SAME_M).all()
    )
