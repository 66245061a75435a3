"""Weights in one byte each, so that bundles stay small: a scale for every output channel, as all
integer inference has it (Krishnamoorthi, "Quantizing deep convolutional networks", 2018, section
3.1), but computed with in float32 as before. Whoever loads the graph multiplies once.

Large layers have 63 levels, which pack into six bits and are enough; small ones, which say the
first that is seen, and those of which a channel reads one alone (depthwise) need all 255:
BENCHMARKS.md has both. Weights that came out of a bundle and were not trained go back as they
were, so that a bundle that shares parts with an older one shares their bytes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_BYTES, _SCALE, _HALF = '_bytes', '_scale', '_half'
_LARGE = 10_000  # weights
_ON_THE_GRID = 1e-3  # of a level: nearer than trained weights come all at once


def byte_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store float32 initialisers as int8, each with a Cast and a Mul behind it; but for vectors,
    which are small and among which are variances of any magnitude.
    """
    graph, nodes = model.graph, []
    for index, initializer in enumerate(list(graph.initializer)):
        if initializer.data_type != TensorProto.FLOAT or len(initializer.dims) < 2:
            continue
        name = initializer.name
        weights = numpy_helper.to_array(initializer)
        whole, scale = _bytes_of(weights)
        graph.initializer[index].CopyFrom(numpy_helper.from_array(whole, name + _BYTES))
        graph.initializer.append(numpy_helper.from_array(scale, name + _SCALE))
        nodes += [
            helper.make_node('Cast', [name + _BYTES], [name + '_whole'], to=TensorProto.FLOAT),
            helper.make_node('Mul', [name + '_whole', name + _SCALE], [name]),
        ]
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _bytes_of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 and the scale of every first index, whose product is the weights, nearly."""
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    small = weights.size < _LARGE or weights.shape[1] == 1
    for levels in (127.0, 31.0):
        scale = np.maximum(largest / levels, 1e-20).astype(np.float32)
        exact = weights / scale
        whole = np.rint(exact).astype(np.int8)
        if small or np.abs(exact - whole).max() < _ON_THE_GRID:
            break
    return whole, scale


def read_weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The initialisers as float32 by the names they had, also those of older bundles in half
    precision; a tensor that the exporter stored once for several names is there for each.
    """
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = {}
    for name, values in stored.items():
        if name.endswith(_BYTES):
            own = name.removesuffix(_BYTES)
            weights[own] = values.astype(np.float32) * stored[own + _SCALE]
        elif not (name.endswith(_SCALE) and name.removesuffix(_SCALE) + _BYTES in stored):
            weights[name.removesuffix(_HALF)] = values.astype(np.float32)
    for node in model.graph.node:
        if node.op_type == 'Identity' and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return weights
