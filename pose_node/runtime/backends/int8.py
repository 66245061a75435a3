"""Convolutions of a folded ONNX graph in whole numbers of eight bits.

A bundle's ONNX says of tensors that convolutions read how large they get (its metadata; the
workshop measures that on held-out renders, training/steps/bounds.py). Here each such convolution
gets a QuantizeLinear and a DequantizeLinear before its input, and weights of a byte with a scale
for every output channel: TensorRT 8.6 to 11 and OpenVINO compute what stands between such pairs in
int8. Zero is zero (symmetric), as TensorRT wants it. Where channels of unlike size were put
together, each is first multiplied by a power of two of its own, which the weights take back. What
has no bound stays as it is.
Source: Jacob et al., "Quantization and training of neural networks", CVPR 2018, section 2; powers
for channels: Xiao et al., "SmoothQuant", ICML 2023, equation 3.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.errors import PoseNodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import GraphProto, NodeProto

# Of the model's metadata: JSON, {tensor: bound} or {tensor: [bound, digits]}.
METADATA = 'activation_bounds'
LEVELS = 127
# The first that lets the scales, and so what comes out of the pairs, be in half precision.
_HALF_SCALES = 19


@dataclass(frozen=True)
class Bound:
    """How large a tensor gets, after channel c was multiplied by 2 to the power shifts[c]."""

    largest: float
    shifts: tuple[int, ...] = ()  # 0 to 9; none: no channel is multiplied


def activation_bounds(model: bytes) -> dict[str, Bound]:
    """The bounds by the names of the tensors; raises PoseNodeError where the model has none."""
    import onnx

    for each in onnx.load_from_string(model).metadata_props:
        if each.key == METADATA:
            return _parsed(each.value)
    raise PoseNodeError(
        'precision int8 needs to know how large the numbers inside the network get, and this '
        'bundle does not say; export it again, or set precision to fp16.'
    )


def with_activation_bounds(model: bytes, bounds: Mapping[str, Bound]) -> bytes:
    """The ONNX in `model` with these bounds in its metadata, instead of any others."""
    import onnx

    proto = onnx.load_from_string(model)
    kept = [each for each in proto.metadata_props if each.key != METADATA]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    values = {
        name: [each.largest, ''.join(map(str, each.shifts))] if each.shifts else each.largest
        for name, each in bounds.items()
    }
    proto.metadata_props.add(key=METADATA, value=json.dumps(values))
    data: bytes = proto.SerializeToString()
    return data


def _parsed(text: str) -> dict[str, Bound]:
    bounds = {}
    try:
        for name, value in json.loads(text).items():
            largest, digits = value if isinstance(value, list) else (value, '')
            bounds[name] = Bound(float(largest), tuple(int(digit) for digit in digits))
        good = all(0.0 < each.largest < np.inf for each in bounds.values())
    except (AttributeError, TypeError, ValueError):
        good = False
    if not good:
        raise PoseNodeError(
            f'The {METADATA} of the network are no numbers above zero by the names of tensors; '
            'export it again, or set precision to fp16.'
        )
    return bounds


def quantised(model: bytes, bounds: Mapping[str, Bound]) -> bytes:
    """`model`, folded (and in half precision or not), with the convolutions that read a tensor of
    `bounds` in int8. Raises PoseNodeError where the bounds are another network's.
    """
    import onnx
    from onnx import numpy_helper, version_converter

    proto = onnx.load_from_string(model)
    constants = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    halves = any(each.dtype == np.float16 for each in constants.values())
    if halves and any(s.domain == '' and s.version < _HALF_SCALES for s in proto.opset_import):
        proto = version_converter.convert_version(proto, _HALF_SCALES)
    _Quantiser(constants, bounds).convert(proto.graph)
    data: bytes = proto.SerializeToString()
    return data


def is_dense(node: NodeProto) -> bool:
    """Whether it is a convolution in which every output sees every channel."""
    return node.op_type == 'Conv' and all(a.i == 1 for a in node.attribute if a.name == 'group')


class _Quantiser:
    """One walk through a graph in its (topological) order."""

    def __init__(self, constants: Mapping[str, np.ndarray], bounds: Mapping[str, Bound]) -> None:
        self._constants, self._bounds = constants, bounds
        self._nodes: list[NodeProto] = []
        self._added: dict[str, np.ndarray] = {}
        self._made: set[str] = set()

    def convert(self, graph: GraphProto) -> None:
        """Replace the nodes of `graph`."""
        from onnx import numpy_helper

        read: set[str] = set()
        for node in graph.node:
            if is_dense(node) and node.input[0] in self._bounds:
                name, weights = node.input[0], self._constants[node.input[1]]
                read.add(name)
                node.input[1] = self._weights(node.input[1], weights, self._factors(name, weights))
                node.input[0] = self._rounded(name, weights)
            self._nodes.append(node)
        if missing := sorted(set(self._bounds) - read):
            raise PoseNodeError(
                f'No convolution of the network reads {missing[0]!r}, which the bundle gives a '
                'bound for int8; export it again, or set precision to fp16.'
            )
        used = {name for node in self._nodes for name in node.input}
        kept = [each for each in graph.initializer if each.name in used]
        added = [numpy_helper.from_array(each, name) for name, each in self._added.items()]
        for field, values in (
            (graph.node, self._nodes),
            (graph.initializer, [*kept, *added]),
            (graph.value_info, []),  # what is in between has other types
        ):
            del field[:]
            field.extend(values)

    def _factors(self, name: str, weights: np.ndarray) -> np.ndarray | None:
        """(1, C, 1, 1) of the channels of tensor `name`, which `weights` multiply."""
        shifts = self._bounds[name].shifts
        if not shifts:
            return None
        if len(shifts) != weights.shape[1]:
            raise PoseNodeError(
                f'{name!r} has {weights.shape[1]} channels, and the bundle tells of '
                f'{len(shifts)}; export it again, or set precision to fp16.'
            )
        return np.exp2(np.array(shifts, np.float32)).reshape(1, -1, 1, 1)

    def _rounded(self, name: str, weights: np.ndarray) -> str:
        """The name of tensor `name` after it was multiplied and rounded."""
        from onnx import helper

        made = f'{name}_int8'
        if made not in self._made:
            self._made.add(made)
            source, factors = name, self._factors(name, weights)
            if factors is not None:
                source = f'{name}_even'
                self._added[f'{name}_factors'] = factors.astype(weights.dtype)
                self._nodes.append(helper.make_node('Mul', [name, f'{name}_factors'], [source]))
            scale, zero, whole = f'{name}_scale', f'{name}_zero', f'{name}_whole'
            self._added[scale] = np.array(self._bounds[name].largest / LEVELS, weights.dtype)
            self._added[zero] = np.array(0, np.int8)
            self._nodes += [
                helper.make_node('QuantizeLinear', [source, scale, zero], [whole]),
                helper.make_node('DequantizeLinear', [whole, scale, zero], [made]),
            ]
        return made

    def _weights(self, name: str, weights: np.ndarray, factors: np.ndarray | None) -> str:
        """The name of the weights, a scale for every output channel."""
        from onnx import helper

        made = f'{name}_int8'
        if made not in self._made:
            self._made.add(made)
            exact = weights.astype(np.float32) / (1.0 if factors is None else factors)
            largest = np.abs(exact).max(axis=tuple(range(1, exact.ndim)), keepdims=True)
            # No smaller than half precision can say.
            scale = np.maximum(largest / LEVELS, 1e-7).astype(weights.dtype)
            whole = np.rint(exact / scale.astype(np.float32))
            names = [f'{name}_whole', f'{name}_scale', f'{name}_zero']
            self._added[names[0]] = np.clip(whole, -LEVELS, LEVELS).astype(np.int8)
            self._added[names[1]] = scale.ravel()
            self._added[names[2]] = np.zeros(len(scale), np.int8)
            self._nodes.append(helper.make_node('DequantizeLinear', names, [made], axis=0))
        return made


__all__ = [
    'LEVELS',
    'METADATA',
    'Bound',
    'activation_bounds',
    'is_dense',
    'quantised',
    'with_activation_bounds',
]
