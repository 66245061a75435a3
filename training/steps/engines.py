"""Whether TensorRT takes a network, asked at the export and not on the robot.

TensorRT for RTX compiles for GPUs that are not here, with the parser that TensorRT has. In float32
Turing is left out: there it multiplies no matrices, which networks of several objects do.
"""

from __future__ import annotations

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.tensorrt.builder import Plan, Watch, build
from pose_node.runtime.backends.tensorrt.flavour import load_flavour
from pose_node.runtime.backends.tensorrt.graph import prepare

_ALL = 'sm75,sm86,sm89,sm120'
_TARGETS = {'fp16': _ALL, 'fp32': 'sm86,sm89,sm120', 'int8': _ALL}
_MAX_BATCH = 16


def check_engines(file: str, model: bytes) -> None:
    """Raise PoseNodeError when the ONNX in `model` does not compile; seconds."""
    try:
        flavour = load_flavour()
    except PoseNodeError:
        flavour = None
    if flavour is None or not flavour.rtx:
        print(f'{file}: not compiled for a trial, TensorRT for RTX is not installed here')
        return
    for precision, targets in _TARGETS.items():
        try:
            build(
                flavour, prepare(model, precision), Plan(precision, _MAX_BATCH, targets), Watch()
            )
        except PoseNodeError as error:
            raise PoseNodeError(
                f'export: {file} would run on no NVIDIA GPU in {precision}: {error}'
            ) from None
    print(f'{file}: TensorRT compiles it for {", ".join(_ALL.split(","))}')
