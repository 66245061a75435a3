"""CUDA's runtime and driver through cuda-python, every return code checked."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pose_node.core.errors import PoseNodeError


@dataclass(frozen=True)
class Gpu:
    """The first GPU; CUDA_VISIBLE_DEVICES says which one that is."""

    name: str
    capability: tuple[int, int]
    memory_mb: int

    @property
    def architecture(self) -> str:
        """'sm86'."""
        return f'sm{self.capability[0]}{self.capability[1]}'


class NoDriver(PoseNodeError):
    """There is no GPU of NVIDIA's, or nothing to drive it: most machines."""


class Cuda:
    """`cuda('cudaMalloc', 1024)` is what cudaMalloc gives besides its code; raises PoseNodeError.

    `cuda.driver('cuModuleLoadData', code)` is the same of the driver. The modules are
    cuda.bindings.runtime and cuda.bindings.driver.
    """

    def __init__(self, runtime: Any, driver: Any = None) -> None:
        self.rt, self._driver = runtime, driver

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Call one function of the runtime: None, its one value, or a tuple of them."""
        code, *values = getattr(self.rt, function)(*arguments)
        if int(code) != 0:
            raise PoseNodeError(self._sentence(function, code))
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def driver(self, function: str, *arguments: Any) -> Any:
        """Call one function of the driver: None or its one value."""
        code, *values = getattr(self._driver, function)(*arguments)
        if int(code) != 0:
            raise PoseNodeError(f'{function} of CUDA fails: {getattr(code, "name", code)}.')
        return values[0] if values else None

    def gpu(self) -> Gpu:
        """The GPU that networks run on; raises PoseNodeError where there is none."""
        driver = int(self('cudaDriverGetVersion'))
        if driver == 0:
            raise NoDriver('no NVIDIA driver is installed.')
        self('cudaGetDeviceCount')
        self('cudaSetDevice', 0)
        properties = self('cudaGetDeviceProperties', 0)
        name = properties.name
        return Gpu(
            (name.decode(errors='replace') if isinstance(name, bytes) else str(name)).strip('\0'),
            (int(properties.major), int(properties.minor)),
            int(properties.totalGlobalMem) >> 20,
        )

    def free_mb(self) -> int:
        """Memory of the GPU that nobody has taken, MB."""
        free, _ = self('cudaMemGetInfo')
        return int(free) >> 20

    def _sentence(self, function: str, code: Any) -> str:
        kind = getattr(code, 'name', str(code))
        if kind == 'cudaErrorMemoryAllocation':
            return (
                f"the GPU's memory does not suffice ({function}); close what else runs on it, or "
                'lower max_objects.'
            )
        if kind in ('cudaErrorInsufficientDriver', 'cudaErrorSystemDriverMismatch'):
            _, driver = self.rt.cudaDriverGetVersion()
            _, runtime = self.rt.cudaRuntimeGetVersion()
            return (
                f'the NVIDIA driver is too old: it serves CUDA {_version(driver)}, and '
                f'cuda-python is of {_version(runtime)}; install a newer driver, or cuda-python '
                f'{_version(driver)}.'
            )
        if kind in ('cudaErrorNoDevice', 'cudaErrorInvalidDevice'):
            return 'no NVIDIA GPU is to be seen.'
        try:
            words = self.rt.cudaGetErrorString(code)[1]
        except (AttributeError, RuntimeError):
            words = b''
        text = words.decode(errors='replace') if isinstance(words, bytes) else str(words)
        return f'{function} of CUDA fails: {kind} ({text}).'


def _version(number: int | None) -> str:
    return f'{int(number) // 1000}.{int(number) % 1000 // 10}' if number else '(unknown)'


def need_driver() -> None:
    """Raise PoseNodeError where there is no driver, before anything heavy is loaded."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        raise NoDriver('no NVIDIA driver is installed.') from None


def load_cuda() -> Cuda:
    """Runtime and driver of cuda-python; raises PoseNodeError where it is not installed."""
    try:
        modules = [import_module(f'cuda.bindings.{name}') for name in ('runtime', 'driver')]
        return Cuda(*modules)
    except ImportError as error:
        raise PoseNodeError(
            f'cuda-python does not import ({error}); install the one of your CUDA: '
            "pip install 'cuda-python==12.*' on JetPack 6."
        ) from None


__all__ = ['Cuda', 'Gpu', 'NoDriver', 'load_cuda', 'need_driver']
