"""A folded ONNX graph with its layers in half precision.

TensorRT 11 and TensorRT for RTX compute every tensor in the type that the graph gives it, so half
precision is written into the graph. Layers whose arithmetic fits half precision are converted with
their weights; all others (softmax, exp, sigmoid, division, sums) and what follows them stay in
float32, and so do the inputs and outputs: the heads of our networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.errors import PoseNodeError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

# Products of sums and data movement. What divides, exponentiates or sums over a picture is not
# among them.
_HALF = {
    *('Conv', 'ConvTranspose', 'MatMul', 'Gemm', 'Add', 'Sub', 'Mul', 'Relu', 'LeakyRelu'),
    *('Clip', 'MaxPool', 'AveragePool', 'GlobalAveragePool', 'Resize', 'Pad', 'Concat', 'Split'),
    *('Transpose', 'Reshape', 'Flatten', 'Squeeze', 'Unsqueeze', 'Gather', 'Slice', 'Identity'),
    *('DepthToSpace', 'SpaceToDepth', 'Expand'),
}
_OWN_TYPE = {'Resize': (1, 2)}  # inputs that are float32 whatever the data are: roi and scales
_ANY_TYPE = {'Shape', 'Size', 'Cast'}
_LARGEST = float(np.finfo(np.float16).max)


def half_precision(model: bytes) -> bytes:
    """`model`, folded, in half precision as said above; raises PoseNodeError."""
    import onnx

    proto = onnx.load_from_string(model)
    _Converter(onnx.shape_inference.infer_shapes(proto).graph).convert(proto.graph)
    data: bytes = proto.SerializeToString()
    return data


class _Converter:
    """One walk through a graph in its (topological) order."""

    def __init__(self, inferred: GraphProto) -> None:
        known = (*inferred.input, *inferred.output, *inferred.value_info)
        self._types = {each.name: each.type.tensor_type.elem_type for each in known}
        self._half: set[str] = set()  # tensors that nodes now make in half precision
        self._nodes: list[NodeProto] = []
        self._renamed: dict[str, str] = {}  # outputs of the graph that are made in half precision
        self._made: set[str] = set()  # casts and half copies of constants

    def convert(self, graph: GraphProto) -> None:
        """Replace the nodes of `graph`."""
        from onnx import numpy_helper

        self._constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self._inputs = {each.name for each in graph.input} - set(self._constants)
        self._added: list = []
        outputs = {each.name for each in graph.output}
        for node in graph.node:
            self._convert(node, outputs)
        for name, half in self._renamed.items():
            self._nodes.append(self._cast(half, name, to_half=False))
        used = {name for node in self._nodes for name in node.input}
        kept = [each for each in graph.initializer if each.name in used]
        for field, values in (
            (graph.node, self._nodes),
            (graph.initializer, [*kept, *self._added]),
            (graph.value_info, []),  # their types are the old ones
        ):
            del field[:]
            field.extend(values)

    def _convert(self, node: NodeProto, outputs: set[str]) -> None:
        own = range(len(node.input)) if node.op_type in _ANY_TYPE else _OWN_TYPE.get(node.op_type)
        floats = [
            i for i, name in enumerate(node.input) if self._is_float(name) and i not in (own or ())
        ]
        data = [node.input[i] for i in floats if node.input[i] not in self._constants]
        fits = node.op_type in _HALF and all(
            name in self._half or name in self._inputs for name in data
        )
        half = fits and bool(floats)
        for i in floats:
            node.input[i] = self._as(node.input[i], half=half)
        if half:
            self._half.update(name for name in node.output if name)
            for i, name in enumerate(node.output):
                if name in outputs:  # the name stays with what leaves the graph in float32
                    node.output[i] = self._renamed[name] = f'{name}_half'
        for i, name in enumerate(node.input):
            node.input[i] = self._renamed.get(name, name)
        self._nodes.append(node)

    def _is_float(self, name: str) -> bool:
        if name in self._constants:
            return self._constants[name].dtype == np.float32
        return self._types.get(name) == 1  # TensorProto.FLOAT

    def _as(self, name: str, *, half: bool) -> str:
        """The name under which tensor `name` is to be had in that precision."""
        if name in self._constants:
            return self._constant(name) if half else name
        if (name in self._half) == half:
            return name
        made = f'{name}_{"to_half" if half else "to_float"}'
        if made not in self._made:
            self._made.add(made)
            source = self._renamed.get(name, name)
            self._nodes.append(self._cast(source, made, to_half=half))
        return made

    def _constant(self, name: str) -> str:
        made = f'{name}_as_half'
        if made not in self._made:
            from onnx import numpy_helper

            values = self._constants[name]
            largest = float(np.abs(values).max(initial=0.0))
            # The bounds of a Clip may be infinite in all but name.
            if values.size > 1 and not largest < _LARGEST:
                raise PoseNodeError(
                    f'The network holds {largest:.3g} in {name!r}, and half precision ends at '
                    f'{_LARGEST:.0f}; set precision to fp32.'
                )
            rounded = np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)
            self._added.append(numpy_helper.from_array(rounded, made))
            self._made.add(made)
        return made

    @staticmethod
    def _cast(source: str, target: str, *, to_half: bool) -> NodeProto:
        from onnx import TensorProto, helper

        to = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
        return helper.make_node('Cast', [source], [target], to=to)


__all__ = ['half_precision']
