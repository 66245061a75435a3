"""A GPU in software: the CUDA runtime and TensorRT's runtime as far as `Runner` uses them.

Device memory is memory, streams do their work at once, a graph is the list of calls that were made
while it was captured, an engine is the ONNX model itself, run by ONNX Runtime, and the kernel of
the crops is its own source, compiled for this processor. It counts what is open, and can be told
to fail at any call. It shows that the code around a GPU is right; that a real GPU does the same is
shown by the tests marked `gpu`.
"""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from fake_kernel import FakeDriver, kernel_for_this_processor

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import EngineOptions
from pose_node.runtime.backends.onnx import OnnxBackend
from pose_node.runtime.backends.tensorrt import backend, crops
from pose_node.runtime.backends.tensorrt.builder import Built, Tensor
from pose_node.runtime.backends.tensorrt.cuda import Cuda
from pose_node.runtime.backends.tensorrt.flavour import Flavour

DRIVER = 13000


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorInsufficientDriver = 35
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    """cuda.bindings.runtime. fail: {function: error} or {(function, which call of it): error}."""

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, fail: dict[Any, cudaError_t] | None = None) -> None:
        self.fail = fail or {}
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}  # device
        self.pinned: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.graphs: dict[int, list] = {}
        self.launchable: dict[int, list] = {}
        self.capturing: list | None = None
        self.next = 1000

    def __getattr__(self, name: str) -> Any:
        if not name.startswith('cuda'):
            raise AttributeError(name)
        work = getattr(self, f'_{name}')

        def function(*arguments: Any) -> tuple:
            self.calls.append(name)
            error = self.fail.get(name) or self.fail.get((name, self.calls.count(name)))
            if error:
                if name == 'cudaStreamEndCapture':
                    self.capturing = None
                return (error, None)
            value = work(*arguments)
            return (cudaError_t.cudaSuccess, *(value if isinstance(value, tuple) else ()))

        return function

    @property
    def open(self) -> int:
        """How many things were taken and not given back."""
        kinds = (self.memory, self.pinned, self.streams, self.graphs, self.launchable)
        return sum(map(len, kinds))

    def _number(self) -> int:
        self.next += 1
        return self.next

    def _take(self, store: dict[int, Any], size: int) -> tuple[int]:
        block = (ctypes.c_byte * size)()
        address = ctypes.addressof(block)
        store[address] = block
        return (address,)

    def _cudaDriverGetVersion(self) -> tuple[int]:
        return (DRIVER,)

    def _cudaRuntimeGetVersion(self) -> tuple[int]:
        return (13050,)

    def _cudaGetDeviceCount(self) -> tuple[int]:
        return (1,)

    def _cudaSetDevice(self, device: int) -> None:
        assert device == 0

    def _cudaGetDeviceProperties(self, device: int) -> tuple[Any]:
        properties = SimpleNamespace(
            name=b'Software\0\0', major=8, minor=6, totalGlobalMem=8 << 30
        )
        return (properties,)

    def _cudaMemGetInfo(self) -> tuple[int, int]:
        taken = sum(len(block) for block in self.memory.values())
        return ((8 << 30) - taken, 8 << 30)

    def _cudaGetErrorString(self, error: cudaError_t) -> tuple[bytes]:
        return (error.name.encode(),)

    def _cudaStreamCreateWithFlags(self, flags: int) -> tuple[int]:
        stream = self._number()
        self.streams.add(stream)
        return (stream,)

    def _cudaStreamDestroy(self, stream: int) -> None:
        self.streams.remove(stream)

    def _cudaStreamSynchronize(self, stream: int) -> None:
        assert stream in self.streams and self.capturing is None

    def _cudaMalloc(self, size: int) -> tuple[int]:
        return self._take(self.memory, size)

    def _cudaFree(self, address: int) -> None:
        del self.memory[address]

    def _cudaHostAlloc(self, size: int, flags: int) -> tuple[int]:
        return self._take(self.pinned, size)

    def _cudaFreeHost(self, address: int) -> None:
        del self.pinned[address]

    def _cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> None:
        device, host = (target, source) if kind == 1 else (source, target)
        assert size <= len(self.memory[device]) and size <= len(self.pinned[host])
        self.do(stream, lambda: ctypes.memmove(target, source, size))

    def do(self, stream: int, work: Any) -> None:
        """What is put into a stream."""
        assert stream in self.streams
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        self.capturing = []

    def _cudaStreamEndCapture(self, stream: int) -> tuple[int]:
        graph, self.capturing = self._number(), self.capturing or []
        self.graphs[graph] = self.capturing
        self.capturing = None
        return (graph,)

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[int]:
        launch = self._number()
        self.launchable[launch] = self.graphs[graph]
        return (launch,)

    def _cudaGraphDestroy(self, graph: int) -> None:
        del self.graphs[graph]

    def _cudaGraphLaunch(self, launch: int, stream: int) -> None:
        assert stream in self.streams
        for work in self.launchable[launch]:
            work()

    def _cudaGraphExecDestroy(self, launch: int) -> None:
        del self.launchable[launch]


class FakeEngine:
    """An engine whose plan is an ONNX model."""

    device_memory_size_v2 = 4096
    profile_max = 8

    def __init__(self, trt: Any, gpu: FakeCuda, model: bytes) -> None:
        self.trt, self.gpu = trt, gpu
        self.session = ort.InferenceSession(model, providers=['CPUExecutionProvider'])
        self.io = [(each, True) for each in self.session.get_inputs()]
        self.io += [(each, False) for each in self.session.get_outputs()]

    @property
    def num_io_tensors(self) -> int:
        return len(self.io)

    def get_tensor_name(self, i: int) -> str:
        return str(self.io[i][0].name)

    def _of(self, name: str) -> Any:
        return next(each for each in self.io if each[0].name == name)

    def get_tensor_dtype(self, name: str) -> Any:
        kind = {'tensor(float)': 'FLOAT', 'tensor(int64)': 'INT64'}[self._of(name)[0].type]
        return SimpleNamespace(name=kind)

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.TensorIOMode
        return modes.INPUT if self._of(name)[1] else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self._of(name)[0].shape[1:])

    def get_tensor_profile_shape(self, name: str, index: int) -> list:
        rest = self._of(name)[0].shape[1:]
        return [(1, *rest), (1, *rest), (self.profile_max, *rest)]

    def create_execution_context_without_device_memory(self) -> FakeContext:
        return FakeContext(self)


class FakeContext:
    """Refuses to run before its memory, addresses and shapes are set."""

    refuses = False

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.device_memory = 0
        self.address: dict[str, int] = {}
        self.count = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.address[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.count = shape[0]
        return shape[0] <= self.engine.profile_max

    def infer_shapes(self) -> list[str]:
        return [] if self.count else ['picture']

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self.engine.gpu
        assert self.device_memory in gpu.memory
        assert set(self.address) == {each.name for each, _ in self.engine.io}
        if self.refuses:
            return False
        gpu.do(stream, self._run)
        return True

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert size <= len(self.engine.gpu.memory[self.address[name]])
        block = (ctypes.c_byte * size).from_address(self.address[name])
        return np.frombuffer(block, dtype).reshape(shape)

    def _run(self) -> None:
        inputs = {}
        for each in self.engine.session.get_inputs():
            dtype = np.int64 if 'int64' in each.type else np.float32
            inputs[each.name] = self._array(each.name, (self.count, *each.shape[1:]), dtype)
        values = self.engine.session.run(None, inputs)
        for each, value in zip(self.engine.session.get_outputs(), values):
            self._array(each.name, value.shape, np.float32)[...] = value


class FakeTensorRt:
    """The runtime half of a TensorRT of the 8.6 kind."""

    __name__ = 'tensorrt'
    __version__ = '8.6.1'
    TensorIOMode = SimpleNamespace(INPUT=1, OUTPUT=2)

    def __init__(self, gpu: FakeCuda) -> None:
        self.gpu = gpu

    def Runtime(self, logger: Any) -> Any:
        def deserialize(plan: bytes) -> FakeEngine | None:
            try:
                return FakeEngine(self, self.gpu, plan)
            except Exception:  # noqa: BLE001 - ONNX Runtime's errors have no other base
                logger.errors.append('Serialization assertion failed')
                return None

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class Logger:
    def __init__(self):
        self.errors = []

    def sentence(self):
        return self.errors[0] if self.errors else 'TensorRT does not say why'


class SoftwareGpu:
    """This machine with a GPU in software: what was built and said there.

    What is built is a copy of the ONNX model, and takes `slow_s`.
    """

    def __init__(self, tmp_path, monkeypatch):
        self.cuda, self.said, self.builds, self.slow_s = FakeCuda(), [], 0, 0.0
        self.options = EngineOptions(
            max_batch=4,
            cache=str(tmp_path / 'engines'),
            say=self.said.append,
            warn=self.said.append,
        )
        trt = FakeTensorRt(self.cuda)
        trt.NetworkDefinitionCreationFlag = SimpleNamespace(__members__={'EXPLICIT_BATCH': 0})
        monkeypatch.setattr(backend, 'load_flavour', lambda: Flavour(trt, Logger()))
        self.driver = FakeDriver(self.cuda)
        monkeypatch.setattr(backend, 'load_cuda', lambda: Cuda(self.cuda, self.driver))
        monkeypatch.setattr(crops, 'compiled', lambda _: kernel_for_this_processor())
        monkeypatch.setattr(backend, 'need_driver', lambda: None)
        monkeypatch.setattr(backend, 'prepare', lambda model, precision, **_: model)
        monkeypatch.setattr(backend, 'build', self.build)

    def build(self, flavour, graph, plan, watch, timing):
        self.builds += 1
        watch.start('build', None, 10)
        watch.step('build', 3)
        if watch.stop.wait(self.slow_s):
            raise PoseNodeError('the build of the engine was stopped.')
        reference = OnnxBackend(graph)
        tensors = {n: Tensor('float32', (-1, *s[1:]), True) for n, s in reference.inputs.items()}
        tensors |= {
            n: Tensor('float32', (-1, *s[1:]), False) for n, s in reference.outputs.items()
        }
        return Built(graph, tensors, b'timings')
