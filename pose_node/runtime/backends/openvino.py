"""OpenVINO on the CPU: optional, for machines where it is the quicker one (`pose benchmark`).

In int8 it is that on every processor that multiplies bytes.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.errors import PoseNodeError

from .fold import fold, need_onnx
from .inputs import arrays, check_call
from .int8 import activation_bounds, quantised
from .onnx import threads_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..preprocess import Crops

_CPU_INFO = Path('/proc/cpuinfo')


class OpenVinoBackend:
    """An ONNX model from its bytes. threads: 0 decides by the cores at hand; int8: convolutions in
    whole numbers (int8.py) instead of float32.

    Raises PoseNodeError where OpenVINO is not installed, or int8 cannot be had.
    """

    name, makes_crops = 'openvino', False

    def __init__(self, model: bytes, *, threads: int = 0, int8: bool = False) -> None:
        try:
            import openvino
        except ImportError:
            raise PoseNodeError(
                'OpenVINO is not installed; `pip install openvino`, or take the backend onnx.'
            ) from None
        if int8:
            model = _in_int8(model)
        settings = {
            'INFERENCE_NUM_THREADS': str(threads_for(threads)),
            'PERFORMANCE_HINT': 'LATENCY',
            # Some processors would be handed half precision unasked.
            'INFERENCE_PRECISION_HINT': 'f32',
        }
        core = openvino.Core()
        try:
            network = core.read_model(model)
            self._request = core.compile_model(network, 'CPU', settings).create_infer_request()
        except RuntimeError as error:
            raise PoseNodeError(
                f'The ONNX model cannot be loaded by OpenVINO ({_said(error)}); export it again.'
            ) from None
        self._tensor = openvino.Tensor
        self._inputs = {each.any_name: each.element_type.to_dtype() for each in network.inputs}
        self._outputs = [each.any_name for each in network.outputs]

    def __call__(self, inputs: Mapping[str, np.ndarray | Crops]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        check_call(self._inputs, inputs, is_open=self._request is not None)
        assert self._request is not None
        given = arrays(inputs)
        for name, wanted in self._inputs.items():
            if given[name].dtype != wanted:  # OpenVINO would convert it, and not say so
                raise PoseNodeError(
                    f'The network refuses its input: {name} is {given[name].dtype}, '
                    f'wanted {wanted}.'
                )
        shared = {
            name: self._tensor(np.ascontiguousarray(value), shared_memory=True)
            for name, value in given.items()
        }
        try:
            found = self._request.infer(shared)
        except RuntimeError as error:
            raise PoseNodeError(f'The network refuses its input: {_said(error)}') from None
        # The request writes to the same place next time.
        return {name: found[i].copy() for i, name in enumerate(self._outputs)}

    def close(self) -> None:
        """Give the memory and threads back."""
        self._request = None


def _in_int8(model: bytes) -> bytes:
    if not _multiplies_bytes():
        raise PoseNodeError(
            'precision int8 on this processor would cut sums of products off (it has no VNNI); '
            'set precision to fp32.'
        )
    need_onnx('int8')
    return quantised(fold(model), activation_bounds(model))


def _multiplies_bytes() -> bool:
    """Whether products of bytes are summed in 32 bits; x86 before VNNI sums pairs in 16."""
    if platform.machine().lower() not in ('x86_64', 'amd64'):
        return True
    try:
        words = _CPU_INFO.read_text().split()
    except OSError:
        return False
    return 'avx512_vnni' in words or 'avx_vnni' in words


def _said(error: Exception) -> str:
    """The last line: those before say where in OpenVINO it was said."""
    return str(error).strip().splitlines()[-1][:300]
