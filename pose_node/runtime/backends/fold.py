"""A bundle's ONNX in plain operators, for those who rewrite it.

Bundles keep weights in a byte each, scaled inside the graph: TensorRT refuses such constants
("only allowed before DQ"). ONNX Runtime's basic optimisation computes all that is constant, puts
BatchNorm into the convolutions (in float32, before anything is rounded), and writes plain ONNX
operators again; it is installed wherever a bundle runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime as ort

from pose_node.core.errors import PoseNodeError

from .onnx import ERRORS, first_line


def fold(model: bytes) -> bytes:
    """All that is constant computed once, BatchNorms inside their convolutions."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory(prefix='pose_node-') as folder:
        file = Path(folder) / 'folded.onnx'
        options.optimized_model_filepath = str(file)
        try:
            ort.InferenceSession(model, options, providers=['CPUExecutionProvider'])
            return file.read_bytes()
        except ERRORS as error:
            raise PoseNodeError(
                f'The ONNX model cannot be loaded ({first_line(error)}); export it again.'
            ) from None


def need_onnx(precision: str) -> None:
    """Raise PoseNodeError where graphs cannot be rewritten."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise PoseNodeError(
            f'precision {precision} needs the Python package onnx; install it (pip install onnx) '
            'or set precision to fp32.'
        ) from None


__all__ = ['fold', 'need_onnx']
