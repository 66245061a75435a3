"""Which TensorRT is here: TensorRT 8.6 to 11, or TensorRT for RTX.

They share one Python API. Where versions differ, the difference is asked of the module itself
(a flag that is a member, a method that is there), so that it stands in one place: here.

TensorRT 8.6: EXPLICIT_BATCH must be asked for; half precision is the builder flag FP16.
TensorRT 10: batches are always explicit; networks may be strongly typed.
TensorRT 11 and TensorRT for RTX: networks are always strongly typed, BuilderFlag.FP16 is gone.
Source: NVIDIA's migration guides 8.x to 10.x and 10.x to 11.x.
"""

from __future__ import annotations

import platform
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from pose_node.core.errors import PoseNodeError

# The bindings of PyPI come without the package that re-exports them.
MODULES = ('tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings')
_OLDEST = (8, 6)
# trt.nptype of TensorRT 8.6 asks NumPy for np.bool, which NumPy 1.24 to 1.26 do not have.
DTYPES = {
    'FLOAT': np.float32,
    'HALF': np.float16,
    'INT32': np.int32,
    'INT64': np.int64,
    'INT8': np.int8,
    'UINT8': np.uint8,
    'BOOL': np.bool_,
}


@dataclass(frozen=True)
class Flavour:
    """An imported TensorRT."""

    trt: Any  # the module
    logger: Any  # one for the process: TensorRT goes on using the first that it was given

    @property
    def rtx(self) -> bool:
        """Whether it is TensorRT for RTX: engines for named architectures, also of absent GPUs."""
        return str(self.trt.__name__).startswith('tensorrt_rtx')

    @property
    def name(self) -> str:
        """'tensorrt' or 'tensorrt_rtx'."""
        return 'tensorrt_rtx' if self.rtx else 'tensorrt'

    @property
    def version(self) -> str:
        """The version in full: an engine of another one is refused."""
        return str(self.trt.__version__)

    @property
    def title(self) -> str:
        """For people."""
        return f'TensorRT{" for RTX" if self.rtx else ""} {self.version}'

    @property
    def targets(self) -> tuple[str, ...]:
        """Architectures that engines can be built for ahead of time, as 'sm86'."""
        known = getattr(self.trt, 'ComputeCapability', None)
        names = known.__members__ if known is not None else ()
        return tuple(name.lower() for name in names if name.startswith('SM'))

    def network_flags(self, *, strongly_typed: bool) -> int:
        """What create_network is to be given."""
        members = self.trt.NetworkDefinitionCreationFlag.__members__
        flags = 0
        if 'EXPLICIT_BATCH' in members and self._major < 10 and not self.rtx:
            flags |= 1 << int(members['EXPLICIT_BATCH'])
        if strongly_typed and 'STRONGLY_TYPED' in members:
            flags |= 1 << int(members['STRONGLY_TYPED'])
        return flags

    @property
    def can_be_typed_strongly(self) -> bool:
        """Whether a network's own types can be law."""
        return 'STRONGLY_TYPED' in self.trt.NetworkDefinitionCreationFlag.__members__

    @property
    def has_fp16_flag(self) -> bool:
        """Whether half precision can be allowed instead of written into the network."""
        return 'FP16' in self.trt.BuilderFlag.__members__

    @property
    def _major(self) -> int:
        return int(self.version.split('.')[0])


def machine() -> str:
    """Operating system and processor: engines do not move between them."""
    return f'{platform.system().lower()}-{platform.machine()}'


@lru_cache(maxsize=1)
def load_flavour() -> Flavour:
    """The TensorRT that imports; raises PoseNodeError when none does."""
    broken = ''
    for name in MODULES:
        try:
            trt = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                broken = broken or f' ({name} does not import: {error})'
            continue
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            broken = broken or f' ({name} does not import: {error})'
            continue
        # Not somebody's folder of that name, nor a meta package whose libraries are absent.
        if not hasattr(trt, 'Builder') or not hasattr(trt, 'OnnxParser'):
            continue
        flavour = Flavour(trt, _make_logger(trt))
        numbers = tuple(int(part) for part in flavour.version.split('.')[:2])
        if not flavour.rtx and numbers < _OLDEST:
            raise PoseNodeError(
                f'TensorRT {flavour.version} is too old; '
                f'install {".".join(map(str, _OLDEST))} or later (JetPack 6).'
            )
        return flavour
    raise PoseNodeError(
        f'no TensorRT for Python is installed{broken}; '
        "install JetPack's python3-libnvinfer, or tensorrt or tensorrt_rtx with pip."
    )


def _make_logger(trt: Any) -> Any:
    class Collector(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps the latest errors, so that a failure can be told in a sentence."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if int(severity) <= int(trt.ILogger.ERROR):
                self.errors.append(message)

        def sentence(self) -> str:
            """The first error since the last clear, in one line; TensorRT's later ones follow."""
            if not self.errors:
                return 'TensorRT does not say why'
            words = ' '.join(self.errors[0].split())
            return words[:400].rstrip('. ')

    return Collector()


__all__ = ['DTYPES', 'MODULES', 'Flavour', 'load_flavour', 'machine']
