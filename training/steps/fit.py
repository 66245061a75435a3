"""Fit the pose network, then the locator: python -m training fit RECIPE [--only pose|locator]."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from ..nets.locator import Locator, locator_loss
from ..nets.unet import HeatmapUNet, heatmap_loss
from ..recipe import FitOptions, Recipe
from .feed import Batches, loader, normalise
from .start import start_from

_SAVE_EVERY_S = 60.0


def build(recipe: Recipe, kind: str, *, pretrained: bool = True) -> HeatmapUNet | Locator:
    """The network of `kind` ('pose' or 'locator'), channels last."""
    network: HeatmapUNet | Locator
    objects = len(recipe.objects)
    if kind == 'pose':
        network = HeatmapUNet(
            recipe.keypoints, objects, pretrained=pretrained, frozen=recipe.pose.frozen
        )
    else:
        network = Locator(objects, pretrained=pretrained, frozen=recipe.locate.frozen)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_trained(recipe: Recipe, kind: str) -> nn.Module:
    """The averaged weights of the last checkpoint, in evaluation mode."""
    state = torch.load(recipe.cache / f'{kind}.pt', map_location='cpu', weights_only=True)
    network = build(recipe, kind, pretrained=False)
    network.load_state_dict(state['average'])
    return network.eval()


def fit(recipe: Recipe, kind: str, *, workers: int = 1, threads: int = 2) -> None:
    """Train and checkpoint; an interrupted run goes on where it was."""
    options = recipe.pose if kind == 'pose' else recipe.locate
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    network = build(recipe, kind)
    start_from(network, recipe, kind)
    average = copy.deepcopy(network).eval()
    optimiser = _optimiser(network, options)
    checkpoint = recipe.cache / f'{kind}.pt'
    log = recipe.cache / f'{kind}.jsonl'
    log.parent.mkdir(parents=True, exist_ok=True)
    step = 0
    if checkpoint.exists():
        step = _restore(checkpoint, network, average, optimiser)
    steps = options.samples // options.batch
    dataset = recipe.dataset if kind == 'pose' else recipe.locator_dataset
    batches = Batches(
        dataset, recipe.objects, recipe.keypoints, recipe.seed,
        kind=kind, batch=options.batch, first=step, last=steps, sigma_px=options.sigma_px,
    )  # fmt: skip
    saved, since, waited, losses = time.monotonic(), time.monotonic(), 0.0, []
    with _progress() as progress, log.open('a') as lines:
        bar = progress.add_task(f'fit {kind} {recipe.name}', total=steps, completed=step, loss='')
        asked = time.monotonic()
        for batch in loader(batches, workers):
            waited += time.monotonic() - asked
            rate = schedule(step, steps, options.warmup)
            for group in optimiser.param_groups:
                group['lr'] = group['top_lr'] * rate
            losses.append(train_step(network, kind, batch, optimiser))
            step += 1
            _follow(average, network, min(options.ema, step / (step + 10)))
            if step % 50 == 0 or step == steps:
                elapsed = time.monotonic() - since
                mean = np.mean(losses, axis=0).round(4).tolist()
                line = {
                    'step': step,
                    'loss': mean,
                    'pictures_per_s': round(50 * options.batch / elapsed, 1),
                    'waited_share': round(waited / elapsed, 3),
                }
                lines.write(json.dumps(line) + '\n')
                lines.flush()
                progress.update(bar, completed=step, loss=str(mean))
                since, waited, losses = time.monotonic(), 0.0, []
            if step == steps or time.monotonic() - saved > _SAVE_EVERY_S:
                _save(checkpoint, step, network, average, optimiser)
                saved = time.monotonic()
            asked = time.monotonic()
    (recipe.cache / f'{kind}.json').write_text(json.dumps(dataclasses.asdict(options), indent=1))


def train_step(
    network: nn.Module, kind: str, batch: tuple[Tensor, ...], optimiser: torch.optim.Optimizer
) -> list[float]:
    """One step; gives the parts of the loss."""
    network.train()
    x = normalise(batch[0]).contiguous(memory_format=torch.channels_last)
    if kind == 'pose':
        parts = [heatmap_loss(network(x, batch[1]), batch[2])]
    else:
        parts = list(locator_loss(*network(x), *batch[1:]))
    loss = torch.stack(parts).sum()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    if torch.isfinite(norm):
        optimiser.step()
    return [float(p.detach()) for p in parts]


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the highest rate: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


def _optimiser(network: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    encoder = {id(p) for p in network.encoder.parameters()}  # type: ignore[union-attr, operator]
    old = [p for p in network.parameters() if id(p) in encoder]
    new = [p for p in network.parameters() if id(p) not in encoder]
    groups = [
        {'params': old, 'top_lr': options.lr * options.encoder_lr},
        {'params': new, 'top_lr': options.lr},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay)


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


def _save(
    path: Path, step: int, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    state = {
        'step': step,
        'network': network.state_dict(),
        'average': average.state_dict(),
        'optimiser': optimiser.state_dict(),
    }
    partial = path.with_suffix('.partial')
    torch.save(state, partial)
    partial.replace(path)


def _restore(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    state = torch.load(path, map_location='cpu', weights_only=True)
    network.load_state_dict(state['network'])
    average.load_state_dict(state['average'])
    optimiser.load_state_dict(state['optimiser'])
    return int(state['step'])


def _progress() -> Progress:
    columns = (
        '[progress.description]{task.description}',
        BarColumn(),
        '{task.completed}/{task.total}',
    )
    return Progress(
        *columns, TextColumn('{task.fields[loss]}'), TimeElapsedColumn(), TimeRemainingColumn()
    )
