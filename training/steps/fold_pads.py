"""Padding into the convolutions behind it. TensorFlow's SAME padding is uneven, which torch's
convolutions cannot do and ONNX's can: a Pad of its own is a pass over the picture, and takes ONNX
Runtime out of its own layout of channels and back again.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator


def fold_pads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give constant zero Pads of two dimensions, whose only reader is a Conv, to that Conv; drop
    what nobody reads any more.
    """
    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for conv in [node for node in graph.node if node.op_type == 'Conv']:
        pad = maker.get(conv.input[0])
        if pad is None or pad.op_type != 'Pad' or len(readers[pad.output[0]]) != 1:
            continue
        sizes = _zeros_added(model, pad, maker)
        if sizes is None or sizes[[0, 1, 4, 5]].any() or (sizes < 0).any():
            continue
        own = next((each for each in conv.attribute if each.name == 'pads'), None)
        total = np.array(own.ints if own else (0, 0, 0, 0)) + sizes[[2, 3, 6, 7]]
        if own is not None:
            conv.attribute.remove(own)
        conv.attribute.append(helper.make_attribute('pads', total.tolist()))
        conv.input[0] = pad.input[0]
    _prune(graph)
    return model


def _zeros_added(
    model: onnx.ModelProto, pad: onnx.NodeProto, maker: dict[str, onnx.NodeProto]
) -> np.ndarray | None:
    """Of each dimension at its beginning, then at its end (8,); None where that is no constant, or
    not zeros.
    """
    modes = [each.s for each in pad.attribute if each.name == 'mode']
    sizes = _constant(model, pad.input[1], maker)
    filling = _constant(model, pad.input[2], maker) if len(pad.input) > 2 and pad.input[2] else 0
    plain = modes in ([], [b'constant']) and filling is not None and not np.any(filling)
    return sizes if plain and sizes is not None and sizes.shape == (8,) else None


def _constant(
    model: onnx.ModelProto, name: str, maker: dict[str, onnx.NodeProto]
) -> np.ndarray | None:
    """The value of a tensor that depends on no input; None for the others."""
    outside = {each.name for each in model.graph.input}
    wanted, needed = [name], set()
    while wanted:
        each = wanted.pop()
        if each in outside:
            return None
        if each in maker and maker[each].output[0] not in needed:
            needed.add(maker[each].output[0])
            wanted += [i for i in maker[each].input if i]
    nodes = [node for node in model.graph.node if node.output[0] in needed]
    result = [helper.make_empty_tensor_value_info(name)]
    part = helper.make_graph(nodes, 'part', [], result, model.graph.initializer)
    small = helper.make_model(part, opset_imports=model.opset_import)
    (value,) = ReferenceEvaluator(small).run(None, {})
    return np.asarray(value)


def _prune(graph: onnx.GraphProto) -> None:
    """Take away nodes and weights that no output depends on; nodes stand in the order of work."""
    read = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if read & set(node.output):
            kept.append(node)
            read |= set(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)
