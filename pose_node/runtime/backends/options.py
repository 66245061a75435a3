"""What a compiled network is built from besides its ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISIONS = ('fp16', 'fp32', 'int8')


def _nothing(_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class EngineOptions:
    """How TensorRT compiles a network; others pass over it, but for OpenVINO's int8."""

    precision: str = 'fp16'  # fp32 is that, not TF32; int8 leaves the rest in fp16
    max_batch: int = 8  # pictures at once; more are run in turns
    cache: str = ''  # folder of the engines; '' for the user's own
    dla_core: int = -1  # deep learning accelerator of a Jetson; -1 keeps to the GPU
    cuda_graphs: bool = True  # replay the launches of a batch instead of repeating them
    gpu_crops: bool = True  # sample pictures there, too, where that turns out right
    say: Callable[[str], None] = _nothing  # told, in sentences, what a user should know
    warn: Callable[[str], None] = _nothing  # told why a GPU that is there is not used
    progress: Callable[[str], None] = _nothing  # told twice a second while an engine is built


__all__ = ['PRECISIONS', 'EngineOptions']
