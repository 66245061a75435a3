"""Fit the pose network, then the locator: python -m training fit RECIPE [--only pose|locator]."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn

from pose_node.core.errors import PoseNodeError

from ..nets.locator import locator_loss
from ..nets.unet import heatmap_loss
from ..recipe import FitOptions, Recipe
from .checkpoint import Run, begin
from .feed import Batches, loader, normalise
from .fit_log import FitLog
from .validate import Validation

_SAVE_EVERY_S = 60.0
_LOG_EVERY = 50  # steps
_LARGEST_GRADIENT = 5.0
LOSSES = {'pose': ('loss',), 'locator': ('centers', 'boxes')}


def fit(
    recipe: Recipe, kind: str, *, workers: int = 1, threads: int = 2, device: str = 'auto'
) -> None:
    """Train and checkpoint; an interrupted run goes on where it was, to the same result."""
    options = recipe.fit_options(kind)
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    run = begin(recipe, kind, choose_device(device))
    recipe.cache.mkdir(parents=True, exist_ok=True)
    checkpoint = recipe.cache / f'{kind}.pt'
    steps = options.samples // options.batch
    every = max(1, options.validate_every // options.batch)
    validation = Validation(recipe, kind) if options.validate_every else None
    batches = Batches(
        recipe.dataset_options(kind), recipe.objects, recipe.keypoints, recipe.seed,
        kind=kind, batch=options.batch, first=run.step, last=steps, sigma_px=options.sigma_px,
    )  # fmt: skip
    names = (*LOSSES[kind], 'pictures_per_s', 'waited_share', 'skipped')
    with FitLog(
        recipe.cache / f'{kind}.csv', (*names, *(validation.names if validation else ())),
        first=run.step, last=steps, title=f'fit {kind} {recipe.name}',
    ) as log:  # fmt: skip
        saved = time.monotonic()
        for batch in log.timed(loader(batches, workers)):
            log.add(train_step(run, kind, batch, options))
            last = run.step == steps
            if run.step % _LOG_EVERY == 0 or last:
                log.losses(run.step, LOSSES[kind], options.batch, skipped=run.skipped)
            if validation and (run.step % every == 0 or last):
                figures = validation(run.average)
                run.keep(figures[validation.decides])
                log.figures(run.step, figures)
            if last or time.monotonic() - saved > _SAVE_EVERY_S:
                run.save(checkpoint)
                saved = time.monotonic()
    if run.skipped:
        print(f'{kind}: {run.skipped} of {steps} steps were skipped, their gradient not finite')
    if validation and run.best:
        print(f'{kind}: kept step {run.best["step"]}, {validation.decides} {run.best["figure"]}')


def train_step(run: Run, kind: str, batch: tuple[Tensor, ...], options: FitOptions) -> list[float]:
    """One step; gives the parts of the loss. One whose gradient is not finite changes nothing but
    the count of such steps.
    """
    network = run.network.train()
    rate = schedule(run.step, options.samples // options.batch, options.warmup)
    for group in run.optimiser.param_groups:
        group['lr'] = group['top_lr'] * rate
    parts = losses(network, kind, batch, options.precision)
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


def losses(
    network: nn.Module, kind: str, batch: tuple[Tensor, ...], precision: str
) -> list[Tensor]:
    """The parts of a batch's loss, in float32."""
    device = next(network.parameters()).device
    pictures, *labels = (tensor.to(device, non_blocking=True) for tensor in batch)
    x = normalise(pictures).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16'):
        outputs = network(x, labels[0]) if kind == 'pose' else network(x)
    if kind == 'pose':
        return [heatmap_loss(outputs, labels[1])]
    return list(locator_loss(*outputs, *labels))


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the highest rate: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


def choose_device(name: str) -> torch.device:
    """'auto' is the GPU where there is one."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if name == 'cuda' and not torch.cuda.is_available():
        raise PoseNodeError('device cuda: torch sees no GPU here; say cpu or auto')
    return torch.device(name)


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
