"""The runtimes a network can be run by: one Protocol, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pose_node.core.errors import PoseNodeError

if TYPE_CHECKING:
    import numpy as np


class Backend(Protocol):
    """A network, ready to run."""

    name: str

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name. Raises PoseNodeError when the runtime refuses the inputs."""
        ...

    def close(self) -> None:
        """Give its memory and threads back."""
        ...


def _onnx(model: bytes, threads: int) -> Backend:
    from .onnx import OnnxBackend

    return OnnxBackend(model, threads=threads)


def _openvino(model: bytes, threads: int) -> Backend:
    from .openvino import OpenVinoBackend

    return OpenVinoBackend(model, threads=threads)


# Imported when asked for: one runtime need not be installed for the other to work.
BACKENDS = {'onnx': _onnx, 'openvino': _openvino}


def open_backend(name: str, model: bytes, threads: int = 0) -> Backend:
    """The network in `model` (the bytes of an ONNX file) on the runtime called `name`."""
    if name not in BACKENDS:
        raise PoseNodeError(f'No backend is called {name!r}; choose from {", ".join(BACKENDS)}.')
    return BACKENDS[name](model, threads)
