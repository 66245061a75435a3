"""ONNX to a serialized engine, with one profile of 1 to N pictures.

Nothing here needs a GPU where TensorRT for RTX builds for a named architecture; TensorRT itself
times its kernels on the GPU at hand.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pose_node.core.errors import PoseNodeError

from .flavour import DTYPES

if TYPE_CHECKING:
    from .flavour import Flavour

# For what a kernel needs besides its inputs and outputs; TensorRT for RTX counts what lies between
# layers as well (16 pictures of 192 x 192 in fp32: 283 MB).
_WORKSPACE_BYTES = 1 << 30
_HEADS = ('SOFTMAX', 'UNARY', 'REDUCE')  # kept in float32 where types are only wishes


@dataclass(frozen=True)
class Plan:
    """What an engine is built for."""

    precision: str  # fp16, fp32 or int8
    max_batch: int
    # TensorRT for RTX: 'sm86', or several with commas between for one engine that serves them all;
    # else the GPU's name and architecture.
    target: str
    dla_core: int = -1

    def strongly_typed(self, flavour: Flavour) -> bool:
        """Whether the graph's types are law. TensorRT 10 takes no such network for a DLA."""
        return flavour.can_be_typed_strongly and not (self.dla_core >= 0 and flavour.has_fp16_flag)


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine."""

    dtype: str  # NumPy's name
    shape: tuple[int, ...]  # -1 for the number of pictures
    is_input: bool


@dataclass(frozen=True)
class Built:
    """An engine and what its network has promised."""

    engine: bytes
    tensors: dict[str, Tensor]
    timing: bytes = b''  # TensorRT's timings, to be had again by the next build


class Watch:
    """How far a build is, and the wish that it stop; asked and told from different threads."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        self._phases[phase] = (parent, max(1, steps), 0)

    def step(self, phase: str, step: int) -> None:
        """A step of it is done."""
        if phase in self._phases:
            parent, steps, _ = self._phases[phase]
            self._phases[phase] = (parent, steps, min(steps, step + 1))

    def finish(self, phase: str) -> None:
        """It ends."""
        self._phases.pop(phase, None)

    @property
    def share(self) -> float | None:
        """Share of the steps done, 0 to 1; None when TensorRT (8.6) does not tell."""
        phases = dict(self._phases)  # one copy: TensorRT's threads go on
        roots = [name for name, (parent, _, _) in phases.items() if parent not in phases]
        return self._done(roots[0], phases) if roots else None

    def _done(self, name: str, phases: dict[str, tuple[str | None, int, int]]) -> float:
        _, steps, done = phases[name]
        inside = [self._done(each, phases) for each, (up, _, _) in phases.items() if up == name]
        return min(1.0, (done + max(inside, default=0.0)) / steps)


def build(flavour: Flavour, graph: bytes, plan: Plan, watch: Watch, timing: bytes = b'') -> Built:
    """Compile `graph` (ONNX as graph.prepare makes it); raises PoseNodeError."""
    trt, logger = flavour.trt, flavour.logger
    logger.errors.clear()
    builder = trt.Builder(logger)
    if builder is None:
        raise PoseNodeError(f'{flavour.title} gives no builder ({logger.sentence()}).')
    strong = plan.strongly_typed(flavour)
    network = builder.create_network(flavour.network_flags(strongly_typed=strong))
    _parse(flavour, network, graph)
    config = builder.create_builder_config()
    tensors = _tensors(network)
    _profile(builder, config, tensors, plan)
    _configure(flavour, builder, network, config, plan)
    if hasattr(trt, 'IProgressMonitor'):
        config.progress_monitor = _monitor(trt, watch)
    kept = _use_timings(flavour, config, timing)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        if watch.stop.is_set():
            raise PoseNodeError('the build of the engine was stopped.')
        raise PoseNodeError(
            f'{flavour.title} cannot build the network ({logger.sentence()}); '
            'set backend to onnx, or export the network from other layers.'
        )
    timings = bytes(kept.serialize()) if kept is not None else b''
    return Built(bytes(engine), tensors, timings)


def _parse(flavour: Flavour, network: Any, graph: bytes) -> None:
    parser = flavour.trt.OnnxParser(network, flavour.logger)
    if parser.parse(graph):
        return
    why = flavour.logger.sentence()
    if parser.num_errors:
        error = parser.get_error(0)
        # TensorRT 8.6 tells no operator.
        operator = error.node_operator() if hasattr(error, 'node_operator') else ''
        name = error.node_name() if hasattr(error, 'node_name') else ''
        place = f'operator {operator} at {name!r}: ' if operator else ''
        why = place + ' '.join(error.desc().split())[:300].rstrip('. ')
    raise PoseNodeError(
        f'{flavour.title} does not take the network ({why}); '
        'set backend to onnx, or export the network from other layers.'
    )


def _tensors(network: Any) -> dict[str, Tensor]:
    """Inputs and outputs of a parsed network; only the number of pictures may be open."""
    pairs = [(network.get_input(i), True) for i in range(network.num_inputs)]
    pairs += [(network.get_output(i), False) for i in range(network.num_outputs)]
    tensors = {}
    for tensor, is_input in pairs:
        shape = tuple(int(length) for length in tensor.shape)
        if not shape or shape[0] != -1 or -1 in shape[1:]:
            raise PoseNodeError(
                f'{tensor.name!r} of the network has shape {shape}; its first axis alone must be '
                'open (-1), the number of pictures: export the network so.'
            )
        dtype = np.dtype(DTYPES[tensor.dtype.name]).name
        tensors[str(tensor.name)] = Tensor(dtype, shape, is_input)
    return tensors


def _profile(builder: Any, config: Any, tensors: dict[str, Tensor], plan: Plan) -> None:
    """One picture is what kernels are chosen for: most robots look at one thing."""
    profile = builder.create_optimization_profile()
    for name, tensor in tensors.items():
        if tensor.is_input:
            rest = tensor.shape[1:]
            profile.set_shape(name, (1, *rest), (1, *rest), (plan.max_batch, *rest))
    if config.add_optimization_profile(profile) < 0:
        raise PoseNodeError(f'1 to {plan.max_batch} pictures are refused; change max_objects.')


def _configure(flavour: Flavour, builder: Any, network: Any, config: Any, plan: Plan) -> None:
    trt = flavour.trt
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if plan.precision == 'fp32':
        config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of mantissa are not float32
    elif not plan.strongly_typed(flavour):
        _allow_half(trt, network, config, plan)
    if flavour.rtx:
        _aim(flavour, config, plan.target)
    if plan.dla_core >= 0:
        if plan.precision != 'fp16' or not plan.dla_core < builder.num_DLA_cores:
            raise PoseNodeError(
                f'DLA core {plan.dla_core} cannot be had in {plan.precision}: '
                f'{flavour.title} sees {builder.num_DLA_cores} cores, and they compute in fp16; '
                'set dla_core to -1 for the GPU.'
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = plan.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _allow_half(trt: Any, network: Any, config: Any, plan: Plan) -> None:
    """Half precision, and int8, where types are only wishes; the heads hold on to float32."""
    config.set_flag(trt.BuilderFlag.FP16)
    if plan.precision == 'int8':
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    heads = {trt.LayerType.__members__[name] for name in _HEADS}
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type in heads and layer.get_output(0).dtype == trt.float32:
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)


def _aim(flavour: Flavour, config: Any, target: str) -> None:
    architectures = target.split(',')
    config.num_compute_capabilities = len(architectures)
    for i, name in enumerate(architectures):
        if name not in flavour.targets:
            raise PoseNodeError(
                f'{flavour.title} builds for {", ".join(flavour.targets)}, not for {name}; '
                'use one of them, or the full TensorRT.'
            )
        capability = flavour.trt.ComputeCapability.__members__[name.upper()]
        if not config.set_compute_capability(capability, i):
            raise PoseNodeError(f'{flavour.title} refuses {name} ({flavour.logger.sentence()}).')


def _use_timings(flavour: Flavour, config: Any, timing: bytes) -> Any:
    """Kernels timed before need no timing again. None where nothing is timed."""
    if flavour.rtx:
        return None
    cache = config.create_timing_cache(timing)
    if not config.set_timing_cache(cache, False):
        # Of another GPU or version, though it was kept under this one's name.
        cache = config.create_timing_cache(b'')
        config.set_timing_cache(cache, False)
    return cache


def _monitor(trt: Any, watch: Watch) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Tells the watch. What it raised would end the process: C++ lies around it."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            watch.step(phase_name, step)
            return not watch.stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()


__all__ = ['Built', 'Plan', 'Tensor', 'Watch', 'build']
