"""How large the tensors get that convolutions read: what int8 has to know (the run time's
backends/int8.py), measured on held-out renders and kept in the ONNX file's metadata.

A bound that holds the largest number of all wastes levels on what happens once; of many bounds the
one is taken whose rounding and cutting off cost least together, as a mean square. Left as they
are: the first layer, which sees the picture, the last ones, which say where a keypoint is,
convolutions of few weights, which cost little time and most accuracy, and those of one channel
each (depthwise). Where two tensors are put side by side, the decoder's own features and those of
the encoder, which are six times as large, each channel gets a power of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch

from pose_node.runtime.backends.fold import fold
from pose_node.runtime.backends.int8 import LEVELS, Bound, is_dense, with_activation_bounds
from pose_node.runtime.backends.onnx import OnnxBackend

from ..nets.locator import Locator
from ..nets.pose_network import PoseNetwork
from ..recipe import Recipe
from ..synth.dataset import Dataset
from .evaluate import HELD_OUT_SEED, significant
from .feed import normalise

_PICTURES = {'pose': 128, 'locator': 32}
_BATCH = 16
_LEAST_WEIGHTS = 5_000
_KEPT = 2_000  # places of a tensor and batch, all channels of each
_SHARES = np.linspace(0.2, 1.0, 81)  # of the largest number, that are tried as bounds
_LARGE_PERCENT = 99.9  # of a channel's numbers are below what is called its size
_MOST_SHIFT = 7


@dataclass
class _Tensor:
    """Numbers at random of what a convolution reads."""

    joined: bool  # two tensors side by side
    places: list[np.ndarray] = field(default_factory=list)  # of (n, channels)

    @property
    def bound(self) -> Bound:
        """The tensor's."""
        values = np.concatenate(self.places)
        if not self.joined:
            return Bound(significant(best_bound(values)))
        sizes = np.maximum(np.percentile(np.abs(values), _LARGE_PERCENT, axis=0), 1e-6)
        shifts = np.rint(np.log2(sizes.max() / sizes)).clip(0, _MOST_SHIFT).astype(int)
        even = values * np.exp2(shifts).astype(np.float32)
        return Bound(significant(best_bound(even)), tuple(shifts.tolist()))


def held_out(
    recipe: Recipe, kind: str, network: PoseNetwork | Locator
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of inputs of the pose network's or the locator's ONNX: renders that evaluation sees
    and training does not.
    """
    shown = recipe.dataset_options(kind)
    dataset = Dataset(shown, recipe.objects, recipe.keypoints, recipe.seed + HELD_OUT_SEED)
    look = dataset.crop if kind == 'pose' else dataset.whole
    for first in range(0, _PICTURES[kind], _BATCH):
        views = [look(shown.ramp + first + i) for i in range(_BATCH)]
        pictures = torch.from_numpy(np.stack([view.picture for view in views]))
        batch = {'picture': normalise(pictures, network).contiguous().numpy()}
        if kind == 'pose' and len(recipe.objects) > 1:
            batch['object'] = np.array([view.thing for view in views])
        yield batch


def with_bounds(model: bytes, batches: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """The ONNX in `model`, with the bounds that `batches` of its inputs give in its metadata."""
    proto = onnx.load_from_string(fold(model))
    tensors = _read_by_convolutions(proto.graph)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    backend, rng = OnnxBackend(proto.SerializeToString()), np.random.default_rng(0)
    for batch in batches:
        given = backend(dict(batch))
        for name, tensor in tensors.items():
            values = np.moveaxis(given[name], 1, -1).reshape(-1, given[name].shape[1])
            tensor.places.append(values[rng.integers(0, len(values), min(len(values), _KEPT))])
    backend.close()
    return with_activation_bounds(model, {name: each.bound for name, each in tensors.items()})


def best_bound(values: np.ndarray) -> float:
    """The bound by which `values`, rounded to int8, are nearest to themselves."""
    bounds = (float(np.abs(values).max(initial=0.0)) or 1.0) * _SHARES
    errors = [
        np.square(values - scale * np.clip(np.rint(values / scale), -LEVELS, LEVELS)).mean()
        for scale in bounds / LEVELS
    ]
    return float(bounds[int(np.argmin(errors))])


def _read_by_convolutions(graph: onnx.GraphProto) -> dict[str, _Tensor]:
    """What the convolutions read that are to be in int8."""
    inputs = {each.name for each in graph.input}
    weights = {each.name: int(np.prod(each.dims)) for each in graph.initializer}
    joined = {node.output[0] for node in graph.node if node.op_type == 'Concat'}
    leads_on: set[str] = set()  # tensors that a convolution comes of
    names: list[str] = []
    left: set[str] = set()  # what also small convolutions, or the last ones, read
    for node in reversed(graph.node):
        follows = any(name in leads_on for name in node.output)
        if is_dense(node):
            large = weights.get(node.input[1], 0) >= _LEAST_WEIGHTS
            if follows and large and node.input[0] not in inputs:
                names.append(node.input[0])
            else:
                left.add(node.input[0])
        if follows or node.op_type == 'Conv':
            leads_on.update(node.input)
    return {name: _Tensor(name in joined) for name in reversed(names) if name not in left}
