"""Fit the pose network, then the locator: python -m training fit RECIPE [--only pose|locator]."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from pose_node.core.errors import PoseNodeError

from ..nets.locator import Locator, locator_loss
from ..recipe import FitOptions, Recipe
from .checkpoint import Run, begin
from .engine import Engine, open_engine
from .feed import Batches, loader, normalise
from .fit_log import FitLog
from .validate import Validation

_SAVE_EVERY_S = 60.0
_LOG_EVERY = 50  # steps
_LARGEST_GRADIENT = 5.0
_WORDS = {
    'too_few_points': 'objects were left out of the pose loss: too few points had a weight',
    'not_finite': 'objects were left out of the pose loss: it was not finite',
    'degenerate': 'objects had points that fixed no pose; they were learned from',
}
LOSSES = {'pose': ('loss',), 'locator': ('centers', 'boxes')}


def fit(
    recipe: Recipe,
    kind: str,
    *,
    workers: int = 1,
    threads: int = 2,
    engine: Engine | None = None,
    shards: Path | None = None,
) -> Run:
    """Train and checkpoint; an interrupted run goes on where it was, to the same result.

    Of every batch each process of `engine` has an equal part; the first one writes and validates.
    `shards` holds samples that were rendered ahead.
    """
    engine = engine or open_engine()
    options, speaks = recipe.fit_options(kind), engine.global_rank == 0
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    run = begin(recipe, kind, engine.device)
    if engine.broadcast(run.step) != run.step:
        raise PoseNodeError(
            f'{recipe.cache} holds step {run.step} here and another where process 0 runs: '
            'let POSE_NODE_CACHE be one folder for all machines'
        )
    if engine.world_size > 1 and getattr(run.network, 'held', False):
        raise PoseNodeError(
            f'{recipe.path}: several processes cannot release an encoder on their way: '
            'train in one, or leave "weights" away'
        )
    run.model = engine.setup_module(run.network)
    recipe.cache.mkdir(parents=True, exist_ok=True)
    steps = options.samples // options.batch
    every = max(1, options.validate_every // options.batch)
    validation = Validation(recipe, kind) if options.validate_every and speaks else None
    batches = Batches(
        recipe, kind, run.step, steps,
        rank=engine.global_rank, world=engine.world_size, shards=shards,
    )  # fmt: skip
    names = (*LOSSES[kind], 'pictures_per_s', 'waited_share', 'skipped', *_troubles(run))
    with FitLog(
        recipe.cache / f'{kind}.csv' if speaks else None,
        (*names, *(validation.names if validation else ())),
        first=run.step, last=steps, title=f'fit {kind} {recipe.name}',
    ) as log:  # fmt: skip
        saved = time.monotonic()
        for batch in log.timed(loader(batches, workers)):
            log.add(train_step(run, kind, batch, options))
            last = run.step == steps
            if run.step % _LOG_EVERY == 0 or last:
                counts = {'skipped': run.skipped, **_troubles(run)}
                log.losses(run.step, LOSSES[kind], options.batch, **counts)
            if validation and (run.step % every == 0 or last):
                figures = validation(run.average)
                run.keep(figures[validation.decides])
                log.figures(run.step, figures)
            if speaks and (last or time.monotonic() - saved > _SAVE_EVERY_S):
                run.save(recipe.cache / f'{kind}.pt')
                saved = time.monotonic()
    engine.barrier()
    if speaks:
        _say(run, kind, steps)
    if validation and run.best:
        print(f'{kind}: kept step {run.best["step"]}, {validation.decides} {run.best["figure"]}')
    return run


def _troubles(run: Run) -> dict[str, int]:
    """Of the pose's layer, if there is one; where many processes train, of this one's part."""
    return {} if isinstance(run.network, Locator) else run.network.troubles()


def _say(run: Run, kind: str, steps: int) -> None:
    """What a training did not learn from."""
    if run.skipped:
        print(f'{kind}: {run.skipped} of {steps} steps were skipped, their gradient not finite')
    for name, count in _troubles(run).items():
        if count:
            print(f'{kind}: {count} {_WORDS[name]}')


def train_step(run: Run, kind: str, batch: tuple[Tensor, ...], options: FitOptions) -> list[float]:
    """One step; gives the parts of the loss. One whose gradient is not finite changes nothing but
    the count of such steps.
    """
    network = run.network
    if not isinstance(network, Locator):
        network.advance(run.step * options.batch // options.epoch)
    run.train()
    rate = schedule(run.step, options.samples // options.batch, options.warmup)
    if not isinstance(network, Locator):
        rate = network.rate(rate)
    for group in run.optimiser.param_groups:
        group['lr'] = group['top_lr'] * rate
    parts = losses(run, batch, options.precision)
    run.optimiser.zero_grad(set_to_none=True)
    torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
    run.step += 1
    if torch.isfinite(nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)):
        run.optimiser.step()
        _follow(run.average, network, min(options.ema, run.step / (run.step + 10)))
    else:
        run.skipped += 1
        # BatchNorm's statistics saw the batch: the averaged ones have not.
        for value, healthy in zip(network.buffers(), run.average.buffers(), strict=True):
            value.copy_(healthy)
    return [float(p.detach()) for p in parts]


def losses(run: Run, batch: tuple[Tensor, ...], precision: str) -> list[Tensor]:
    """The parts of a batch's loss, in float32."""
    network = run.network
    device = next(network.parameters()).device
    locates = isinstance(network, Locator)
    pictures, *labels = (tensor.to(device, non_blocking=True) for tensor in batch)
    x = normalise(pictures, network).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16'):
        outputs = run.model(x) if locates else run.model(x, labels[0])
    if isinstance(network, Locator):
        return list(locator_loss(*outputs, *labels))
    return [network.loss(outputs, labels[1:])]


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the highest rate: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential average of the weights; the running statistics are averaged alike."""
    for slow, fast in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if slow.is_floating_point():
            slow.lerp_(fast, 1.0 - decay)
        else:
            slow.copy_(fast)
