"""The backend `tensorrt`: an engine from the cache or built, and the one thread that runs it."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.errors import PoseNodeError

from ...preprocess import Crops
from ..inputs import check_call
from ..options import PRECISIONS
from .builder import Built, Plan, Watch, build
from .cache import CacheFault, EngineCache, digest
from .cuda import load_cuda, need_driver
from .flavour import load_flavour, machine
from .graph import GRAPH_VERSION, prepare
from .runner import EngineRefused, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from ..options import EngineOptions
    from .cache import Key
    from .cuda import Cuda, Gpu
    from .flavour import Flavour

    Result = TypeVar('Result')

_TOLD_EVERY_S = 0.5


def plan_for(flavour: Flavour, gpu: Gpu, options: EngineOptions) -> Plan:
    """What to build on this GPU. Engines of TensorRT for RTX serve all GPUs of an architecture;
    those of TensorRT are tuned to one model.
    """
    target = gpu.architecture if flavour.rtx else f'{gpu.name} {gpu.architecture}'
    return Plan(options.precision, options.max_batch, target, options.dla_core)


def key_of(flavour: Flavour, model: bytes, plan: Plan) -> Key:
    """All that an engine depends on."""
    return {
        'onnx': hashlib.sha256(model).hexdigest(),
        'graph': str(GRAPH_VERSION),
        'flavour': flavour.name,
        'version': flavour.version,
        'target': plan.target,
        'machine': machine(),
        'precision': plan.precision,
        'batch': str(plan.max_batch),
        'dla': str(plan.dla_core) if plan.dla_core >= 0 else 'none',
        'typing': 'strong' if plan.strongly_typed(flavour) else 'weak',
    }


def engine_for(
    flavour: Flavour, model: bytes, plan: Plan, options: EngineOptions, watch: Watch
) -> Built:
    """The engine of `model`: from the cache, or built and kept there. Raises PoseNodeError."""
    if plan.precision not in PRECISIONS:
        raise PoseNodeError(
            f'precision is {plan.precision!r}; give one of: {", ".join(PRECISIONS)}.'
        )
    cache, key = EngineCache(options.cache), key_of(flavour, model, plan)
    try:
        return cache.load(key)
    except CacheFault as fault:
        if cache.path(key).exists():
            options.say(f'The engine {cache.path(key)} {fault}; it is built anew.')
    told = False

    def waiting() -> None:
        nonlocal told
        if watch.stop.is_set():
            raise PoseNodeError('waiting for the engine of another process was stopped.')
        if not told:
            options.say(f'Another process builds engines in {cache.folder}; waiting for it.')
            told = True

    with ExitStack() as held:
        try:
            held.enter_context(cache.lock(waiting))
        except OSError as error:
            _not_kept(options, cache, error)
            return _build(flavour, model, plan, options, watch, b'')
        try:
            return cache.load(key)  # the other process has built it
        except CacheFault:
            pass
        built = _build(flavour, model, plan, options, watch, cache.timings(key))
        try:
            cache.store(key, built)
            cache.store_timings(key, built.timing)
        except OSError as error:
            _not_kept(options, cache, error)
        return built


def _not_kept(options: EngineOptions, cache: EngineCache, error: OSError) -> None:
    options.say(
        f'The engine cache {cache.folder} cannot be written ({error.strerror}): the engine stays '
        'in memory and is built at every start; set engine_cache to a folder that can be written.'
    )


def _build(
    flavour: Flavour, model: bytes, plan: Plan, options: EngineOptions, watch: Watch, timing: bytes
) -> Built:
    patience = '' if flavour.rtx else ' It takes minutes on a Jetson, once.'
    pictures = 'one picture' if plan.max_batch == 1 else f'up to {plan.max_batch} pictures'
    options.say(
        f'{flavour.title} builds an engine for {plan.target} in {plan.precision}, for {pictures} '
        f'at once.{patience}'
    )
    start = time.monotonic()
    strong = plan.strongly_typed(flavour)
    graph = prepare(model, plan.precision, strongly_typed=strong)
    built = build(flavour, graph, plan, watch, timing)
    seconds, size_mb = time.monotonic() - start, len(built.engine) / 1e6
    options.say(f'The engine was built in {seconds:.1f} s ({size_mb:.1f} MB).')
    return built


class TensorRtBackend:
    """An ONNX model (its bytes) on the GPU. Raises PoseNodeError where that cannot be."""

    name = 'tensorrt'
    makes_crops = False

    def __init__(self, model: bytes, options: EngineOptions, cuda: Cuda | None = None) -> None:
        if cuda is None:
            need_driver()
        flavour = load_flavour()
        cuda = cuda or load_cuda()
        self._watch = Watch()
        # CUDA and TensorRT are met by this thread only: contexts belong to threads.
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, 'tensorrt')
        try:
            self._runner = self._wait(lambda: self._open(flavour, cuda, model, options), options)
        except BaseException:
            self._watch.stop.set()  # Ctrl-C: the build ends at its next step
            self._thread.shutdown(wait=True)
            raise
        self.inputs = self._runner.inputs

    def __call__(self, inputs: Mapping[str, np.ndarray | Crops]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        check_call(self.inputs, inputs, is_open=self._thread is not None)
        assert self._thread is not None
        counts = {len(values) for values in inputs.values()}
        for name, values in inputs.items():
            wanted = self.inputs[name]
            got = values if isinstance(values, Crops) else np.asarray(values)
            # Indices are int64 in ONNX and int32 in engines of TensorRT 8.6.
            fits = got.dtype == wanted.dtype or {got.dtype.kind, wanted.dtype[0]} == {'i'}
            if got.shape[1:] != wanted.shape[1:] or not fits or len(counts) > 1:
                raise PoseNodeError(
                    f'The network refuses its input: {name!r} is {got.dtype} {got.shape}, wanted '
                    f'{wanted.dtype} (N, {", ".join(map(str, wanted.shape[1:]))}).'
                )
        return self._thread.submit(self._runner, inputs).result()

    def close(self) -> None:
        """Give its memory and thread back."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.submit(self._runner.close).result()
            finally:
                thread.shutdown(wait=True)

    def _open(self, flavour: Flavour, cuda: Cuda, model: bytes, options: EngineOptions) -> Runner:
        """A runner; whatever else TensorRT throws becomes a sentence, so that `auto` goes on."""
        try:
            return self._load_or_build(flavour, cuda, model, options)
        except PoseNodeError:
            raise
        except (AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError) as e:
            raise PoseNodeError(
                f'{flavour.title} does what is not expected of it ({type(e).__name__}: {e}); '
                'set backend to onnx, and please report this.'
            ) from e

    def _load_or_build(
        self, flavour: Flavour, cuda: Cuda, model: bytes, options: EngineOptions
    ) -> Runner:
        gpu = cuda.gpu()
        plan = plan_for(flavour, gpu, options)
        key = key_of(flavour, model, plan)
        for last in (False, True):
            built = engine_for(flavour, model, plan, options, self._watch)
            try:
                runner = Runner(
                    flavour, cuda, built, options.max_batch, graphs=options.cuda_graphs
                )
                break
            except EngineRefused as error:
                if last:
                    raise
                options.say(f'The engine in the cache is of no use ({error}); it is built anew.')
                EngineCache(options.cache).discard(key)
        if options.gpu_crops:
            try:
                runner.make_crops(gpu.architecture)
                self.makes_crops = True
            except PoseNodeError as error:
                options.say(f'Pictures are cropped on the CPU: {error}')
        options.say(
            f'{flavour.title} runs {plan.precision} on {gpu.name} ({gpu.architecture}), engine '
            f'{digest(key)[:12]}, {runner.memory_mb} MB of {gpu.memory_mb} MB taken.'
        )
        return runner

    def _wait(self, work: Callable[[], Result], options: EngineOptions) -> Result:
        """Do `work` on the thread and tell `progress`, here, what is going on."""
        if self._thread is None:
            raise PoseNodeError('The network was closed; open it again to run it.')
        future, start = self._thread.submit(work), time.monotonic()
        while True:
            try:
                return future.result(timeout=_TOLD_EVERY_S)
            except NotYet:
                if future.done():
                    raise
                share = self._watch.share
                part = f', {100.0 * share:.0f} %' if share is not None else ''
                options.progress(f'building an engine{part}, {time.monotonic() - start:.0f} s')


__all__ = ['TensorRtBackend', 'engine_for', 'key_of', 'plan_for']
