"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from pose_node.core.errors import PoseNodeError

from .inputs import arrays, check_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from ..preprocess import Crops

# What the runtime throws has no common base but Exception.
ERRORS = tuple(
    getattr(ort_errors, name)
    for name in (
        *('Fail', 'InvalidArgument', 'InvalidGraph', 'InvalidProtobuf', 'NoSuchFile'),
        *('NotImplemented', 'RuntimeException', 'EPFail', 'NoModel', 'ModelLoaded'),
    )
    if hasattr(ort_errors, name)
)
# More threads than this wait for each other longer than they work, on networks of our size.
_MOST_THREADS = 4


def usable_cores() -> int:
    """How many cores this process may run on."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    )


def threads_for(threads: int) -> int:
    """How many a network gets; 0 decides by the cores at hand. Raises PoseNodeError."""
    if threads < 0:
        raise PoseNodeError(f'threads is {threads}; give 0 to let the runtime decide, or more.')
    return threads or min(_MOST_THREADS, usable_cores())


class OnnxBackend:
    """An ONNX model, from its bytes or its file. threads: 0 decides by the cores at hand."""

    name, makes_crops = 'onnx', False

    def __init__(self, model: bytes | str | Path, *, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads_for(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads sleep: a robot has other work for its cores.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                source, options, providers=['CPUExecutionProvider']
            )
        except ERRORS as error:
            where = 'The ONNX model' if isinstance(model, bytes) else str(model)
            raise PoseNodeError(
                f'{where} cannot be loaded ({first_line(error)}); export it again.'
            ) from None
        self.inputs = {each.name: tuple(each.shape) for each in self._session.get_inputs()}
        self.outputs = {each.name: tuple(each.shape) for each in self._session.get_outputs()}

    def __call__(self, inputs: Mapping[str, np.ndarray | Crops]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        check_call(self.inputs, inputs, is_open=self._session is not None)
        assert self._session is not None
        try:
            values = self._session.run(None, arrays(inputs))
        except ERRORS as error:
            raise PoseNodeError(f'The network refuses its input: {first_line(error)}') from None
        return dict(zip(self.outputs, values))

    def close(self) -> None:
        """Give the session's memory and threads back."""
        self._session = None


def first_line(error: Exception) -> str:
    """What the runtime said, as far as a sentence can hold it."""
    return str(error).strip().splitlines()[0][:300]
