"""An engine on the GPU: buffers, contexts and CUDA graphs. All of it belongs to one thread.

Pictures go through pinned memory, whole to be cropped on the GPU (crops.py), or as crops. Every
number of pictures has a context and a graph of its own, because a graph holds good only for the
context and shapes it was captured with (NVIDIA's developer guide, "CUDA Graphs"); the contexts
share one piece of memory for what lies between layers.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pose_node.core.errors import PoseNodeError

from ...preprocess import Crops
from .builder import Tensor
from .crops import Cropper
from .flavour import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .builder import Built
    from .cuda import Cuda
    from .flavour import Flavour

_NO_FLAGS = 0


class EngineRefused(PoseNodeError):
    """The engine does not load, or is not what its header says: build it anew."""


@dataclass
class _Buffer:
    """One input or output on both sides, for as many pictures as the engine takes."""

    tensor: Tensor
    device: int  # address
    host: np.ndarray  # (N, ...), pinned
    row_bytes: int


class Runner:
    """Holds an engine that is ready to run. To be made, used and closed by one thread."""

    def __init__(
        self, flavour: Flavour, cuda: Cuda, built: Built, max_batch: int, *, graphs: bool
    ) -> None:
        """Raises EngineRefused, or PoseNodeError when CUDA fails; nothing is left behind then."""
        self._flavour, self._cuda, self._max_batch = flavour, cuda, max_batch
        self.graphs = graphs
        self.inputs = {name: each for name, each in built.tensors.items() if each.is_input}
        self._contexts: dict[int, Any] = {}
        self._launches: dict[tuple[int, str], Any] = {}  # captured graphs
        self._cropper: Cropper | None = None
        self._open = ExitStack()
        try:
            cuda('cudaSetDevice', 0)
            before_mb = cuda.free_mb()
            self._engine = self._load(built)
            flags = cuda.rt.cudaStreamNonBlocking
            self._stream = cuda('cudaStreamCreateWithFlags', flags)
            self._open.callback(cuda, 'cudaStreamDestroy', self._stream)
            self._buffers = {name: self._buffer(tensor) for name, tensor in built.tensors.items()}
            self._scratch_bytes = _scratch_bytes(self._engine)
            self._scratch = self._allocate(self._scratch_bytes)
            self._open.callback(self._drop_contexts)
            self._try_out()
            self.memory_mb = max(0, before_mb - cuda.free_mb())
        except BaseException:
            self._open.close()
            raise

    def __call__(self, inputs: Mapping[str, np.ndarray | Crops]) -> dict[str, np.ndarray]:
        """All outputs; any number of pictures, in turns of as many as the engine takes."""
        count = len(next(iter(inputs.values())))
        outputs = {
            name: np.empty((count, *buffer.tensor.shape[1:]), buffer.host.dtype)
            for name, buffer in self._buffers.items()
            if not buffer.tensor.is_input
        }
        for start in range(0, count, self._max_batch):
            stop = min(count, start + self._max_batch)
            cropped = ''  # the input that comes from crops
            for name, values in inputs.items():
                if isinstance(values, Crops):
                    self._stage(values, start, stop)
                    cropped = name
                else:
                    self._buffers[name].host[: stop - start] = values[start:stop]
            self._run(stop - start, cropped)
            for name, values in outputs.items():
                values[start:stop] = self._buffers[name].host[: stop - start]
        return outputs

    def make_crops(self, architecture: str) -> None:
        """Take Crops from now on; raises PoseNodeError, and goes on without, where this GPU makes
        other numbers of them than the CPU.
        """
        pictures = [
            each
            for each in self._buffers.values()
            if each.tensor.is_input and each.host.ndim == 4 and each.host.dtype == np.float32
        ]
        if len(pictures) != 1 or pictures[0].host.shape[1] != 3:
            raise PoseNodeError('the network has no picture in RGB as its one input of that kind')
        buffer = pictures[0]
        height, width = buffer.host.shape[2:]
        cropper = Cropper(self._cuda, architecture, (width, height), self._max_batch)
        try:
            off = self._crops_off(cropper, buffer)
            if not off <= 1.0:
                raise PoseNodeError(f'they are {off:.3g} of 255 off on this GPU')
        except BaseException:
            cropper.close()
            raise
        self._cropper = cropper
        self._open.callback(cropper.close)

    def _crops_off(self, cropper: Cropper, buffer: _Buffer) -> float:
        """How far the GPU's crops of noise are from the CPU's, of 255: enlarged, a bit and much
        reduced, and half outside.
        """
        height, width = buffer.host.shape[2:]
        picture = np.random.default_rng(0).integers(0, 256, (241, 323, 3), dtype=np.uint8)
        for scale in (0.4, 1.3, 2.6, 5.2):
            reduction = scale * 100.0 / width
            A = np.array([[[reduction, 0.0, 170.3], [0.0, reduction, 60.7]]])
            crops = Crops(picture, A, (width, height), (0.0,) * 3, (1.0,) * 3)
            if not cropper.fits(crops):
                cropper.make_room(crops)
            cropper.stage(crops, 0, 1)
            cropper.enqueue(1, buffer.device, self._stream)
            down = self._cuda.rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
            self._copy(buffer.host.ctypes.data, buffer.device, buffer.row_bytes, down)
            self._cuda('cudaStreamSynchronize', self._stream)
            off = float(np.abs(buffer.host[:1] - crops.tensor()).max())
            if not off <= 1.0:
                return off
        return off

    def _stage(self, crops: Crops, start: int, stop: int) -> None:
        assert self._cropper is not None
        if not self._cropper.fits(crops):
            for key in [key for key in self._launches if key[1]]:
                self._cuda('cudaGraphExecDestroy', self._launches.pop(key))
            self._cropper.make_room(crops)
        self._cropper.stage(crops, start, stop)

    def close(self) -> None:
        """Give everything back, the last taken first."""
        self._open.close()

    def _try_out(self) -> None:
        """One black picture, now: at start-up failing is harmless."""
        blank = {
            name: np.zeros((1, *buffer.tensor.shape[1:]), buffer.host.dtype)
            for name, buffer in self._buffers.items()
            if buffer.tensor.is_input
        }
        for name, values in self(blank).items():
            if not np.isfinite(values).all():
                raise PoseNodeError(
                    f'{self._flavour.title} gives {name!r} with numbers that are not finite; set '
                    'precision to fp32.'
                )

    def _load(self, built: Built) -> Any:
        trt, logger = self._flavour.trt, self._flavour.logger
        logger.errors.clear()
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(built.engine) if runtime is not None else None
        if engine is None:
            raise EngineRefused(f'{self._flavour.title} refuses the engine ({logger.sentence()}).')
        # The engine lives in its runtime, so the runtime is let go after it.
        self._open.callback(lambda kept: None, runtime)
        self._open.callback(self._drop_engine)
        found = {}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            dtype = np.dtype(DTYPES[engine.get_tensor_dtype(name).name]).name
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found[name] = Tensor(dtype, tuple(engine.get_tensor_shape(name)), is_input)
            if is_input:
                largest = tuple(engine.get_tensor_profile_shape(name, 0)[2])
                if largest[0] < self._max_batch:
                    raise EngineRefused(f'the engine takes {largest[0]} pictures at once.')
        if found != built.tensors:
            raise EngineRefused(f'the engine has {found}, its header says {built.tensors}.')
        return engine

    def _allocate(self, size: int) -> int:
        address = int(self._cuda('cudaMalloc', max(1, size)))
        self._open.callback(self._cuda, 'cudaFree', address)
        return address

    def _buffer(self, tensor: Tensor) -> _Buffer:
        shape = (self._max_batch, *tensor.shape[1:])
        dtype = np.dtype(tensor.dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        address = int(self._cuda('cudaHostAlloc', size, self._cuda.rt.cudaHostAllocDefault))
        self._open.callback(self._cuda, 'cudaFreeHost', address)
        pinned = (ctypes.c_byte * size).from_address(address)
        host = np.ctypeslib.as_array(pinned).view(dtype).reshape(shape)
        return _Buffer(tensor, self._allocate(size), host, size // self._max_batch)

    def _context(self, count: int) -> Any:
        """The context for so many pictures, its addresses and shapes set once and for all."""
        context = self._contexts.get(count)
        if context is not None:
            return context
        self._flavour.logger.errors.clear()
        context = self._new_context()
        self._check(context is not None, 'a context')
        if hasattr(context, 'set_device_memory'):
            context.set_device_memory(self._scratch, self._scratch_bytes)
        else:
            context.device_memory = self._scratch
        for name, buffer in self._buffers.items():
            self._check(context.set_tensor_address(name, buffer.device), f'the address of {name}')
            if buffer.tensor.is_input:
                shape = (count, *buffer.tensor.shape[1:])
                self._check(context.set_input_shape(name, shape), f'shape {shape} of {name}')
        self._check(not context.infer_shapes(), 'the shapes')
        self._contexts[count] = context
        return context

    def _new_context(self) -> Any:
        """A context that brings no memory of its own."""
        trt, engine = self._flavour.trt, self._engine
        strategies = getattr(trt, 'ExecutionContextAllocationStrategy', None)
        if strategies is None:  # TensorRT 8.6
            return engine.create_execution_context_without_device_memory()
        if not self._flavour.rtx:
            return engine.create_execution_context(strategies.USER_MANAGED)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategies.USER_MANAGED)
        # Kernels for these shapes at the first run, not some time later: a graph would go on
        # with those that it was captured with.
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        return engine.create_execution_context(config)

    def _check(self, good: bool, what: str) -> None:
        if not good:
            raise PoseNodeError(
                f'{self._flavour.title} refuses {what} ({self._flavour.logger.sentence()}).'
            )

    def _run(self, count: int, cropped: str = '') -> None:
        """From the pinned inputs to the pinned outputs, and wait."""
        launch = self._launches.get((count, cropped))
        if launch is not None:
            self._cuda('cudaGraphLaunch', launch, self._stream)
        else:
            self._enqueue(count, cropped)
        self._cuda('cudaStreamSynchronize', self._stream)
        if launch is None and self.graphs:
            self._capture(count, cropped)  # after a plain run: the first one sets the context up

    def _enqueue(self, count: int, cropped: str) -> None:
        kinds = self._cuda.rt.cudaMemcpyKind
        up, down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        context = self._context(count)
        for name, buffer in self._buffers.items():
            if name == cropped and self._cropper is not None:
                self._cropper.enqueue(count, buffer.device, self._stream)
            elif buffer.tensor.is_input:
                self._copy(buffer.device, buffer.host.ctypes.data, count * buffer.row_bytes, up)
        self._check(context.execute_async_v3(int(self._stream)), 'to run')
        for buffer in self._buffers.values():
            if not buffer.tensor.is_input:
                self._copy(buffer.host.ctypes.data, buffer.device, count * buffer.row_bytes, down)

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self._cuda('cudaMemcpyAsync', target, source, size, kind, self._stream)

    def _capture(self, count: int, cropped: str) -> None:
        """Record the launches for so many pictures; where that fails they are made one by one."""
        cuda, context = self._cuda, self._context(count)
        if hasattr(context, 'is_stream_capturable'):
            self.graphs = bool(context.is_stream_capturable(int(self._stream)))
            if not self.graphs:
                return
        graph = None
        try:
            mode = cuda.rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            cuda('cudaStreamBeginCapture', self._stream, mode)
            try:
                self._enqueue(count, cropped)
            finally:  # a stream that goes on capturing is of no use
                graph = cuda('cudaStreamEndCapture', self._stream)
            self._launches[count, cropped] = cuda('cudaGraphInstantiate', graph, _NO_FLAGS)
        except PoseNodeError:
            self.graphs = False
        finally:
            if graph is not None:
                cuda('cudaGraphDestroy', graph)

    def _drop_contexts(self) -> None:
        with ExitStack() as last:
            for launch in self._launches.values():
                last.callback(self._cuda, 'cudaGraphExecDestroy', launch)
            self._launches = {}
            last.callback(self._contexts.clear)

    def _drop_engine(self) -> None:
        self._engine = None


def _scratch_bytes(engine: Any) -> int:
    """What lies between layers; the second name is the only one since TensorRT 11."""
    if hasattr(engine, 'device_memory_size_v2'):
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)


__all__ = ['EngineRefused', 'Runner']
