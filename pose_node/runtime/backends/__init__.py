"""The runtimes a network can be run by: one Protocol, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pose_node.core.errors import PoseNodeError

from .options import PRECISIONS, EngineOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from ..preprocess import Crops


class Backend(Protocol):
    """A network, ready to run."""

    name: str
    makes_crops: bool  # whether it samples pictures itself, and does it better than the caller

    def __call__(self, inputs: Mapping[str, np.ndarray | Crops]) -> dict[str, np.ndarray]:
        """All outputs by name. Raises PoseNodeError when the runtime refuses the inputs."""
        ...

    def close(self) -> None:
        """Give its memory and threads back."""
        ...


def _onnx(model: bytes, threads: int, engines: EngineOptions) -> Backend:
    from .onnx import OnnxBackend

    if engines.precision == 'int8':
        engines.say('ONNX Runtime computes in fp32; int8 is for tensorrt and openvino.')
    return OnnxBackend(model, threads=threads)


def _openvino(model: bytes, threads: int, engines: EngineOptions) -> Backend:
    from .openvino import OpenVinoBackend

    return OpenVinoBackend(model, threads=threads, int8=engines.precision == 'int8')


def _tensorrt(model: bytes, threads: int, engines: EngineOptions) -> Backend:
    from .tensorrt.backend import TensorRtBackend

    return TensorRtBackend(model, engines)


def _auto(model: bytes, threads: int, engines: EngineOptions) -> Backend:
    from .tensorrt.cuda import NoDriver

    try:
        return _tensorrt(model, threads, engines)
    except PoseNodeError as error:
        # Without a GPU nothing else was to be expected; with one, somebody wants to know.
        tell = engines.say if isinstance(error, NoDriver) else engines.warn
        tell(f'TensorRT is not used: {error} ONNX Runtime runs the networks.')
    return _onnx(model, threads, engines)


# Imported when asked for: one runtime need not be installed for the other to work.
BACKENDS = {'auto': _auto, 'onnx': _onnx, 'openvino': _openvino, 'tensorrt': _tensorrt}


def open_backend(
    name: str, model: bytes, threads: int = 0, engines: EngineOptions | None = None
) -> Backend:
    """The network in `model` (the bytes of an ONNX file) on the runtime called `name`.

    auto: TensorRT where it can be had, else ONNX Runtime, and why, said once.
    """
    if name not in BACKENDS:
        raise PoseNodeError(f'No backend is called {name!r}; choose from {", ".join(BACKENDS)}.')
    return BACKENDS[name](model, threads, engines or EngineOptions())


__all__ = ['BACKENDS', 'PRECISIONS', 'Backend', 'EngineOptions', 'open_backend']
