"""A bundle's ONNX as TensorRT takes it: in plain operators, its types written into it."""

from __future__ import annotations

from ..fold import fold, need_onnx
from ..int8 import activation_bounds, quantised
from .half import half_precision

# To be raised whenever what comes out of here changes: engines of other numbers are built anew.
GRAPH_VERSION = 1


def prepare(model: bytes, precision: str, *, strongly_typed: bool = True) -> bytes:
    """The ONNX in `model`, folded, its layers in half precision when that is asked for, or its
    convolutions in int8 and the others in half precision (where types are only wishes, in float32:
    TensorRT 8.6 takes no other scales, and chooses for itself).

    Inputs and outputs keep their names, types and shapes.
    """
    if precision != 'fp32':
        need_onnx(precision)
    bounds = activation_bounds(model) if precision == 'int8' else {}
    graph = fold(model)
    if precision == 'fp16' or (precision == 'int8' and strongly_typed):
        graph = half_precision(graph)
    return quantised(graph, bounds) if bounds else graph


__all__ = ['GRAPH_VERSION', 'prepare']
