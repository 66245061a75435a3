"""Keypoints from heatmaps as the run time reads them, with a gradient.

pose_node/core/heatmap.py is what a bundle is decoded with, and its numbers are these. The window's
walk ends where the blob's mean under the window is the window's own centre; how that place moves
with the map follows from the condition alone (the implicit function theorem). For a Gaussian blob
it is one more of the walk's own steps, so the walk itself needs no gradient: the last look has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pose_node.core.heatmap import (
    SMALLEST_VARIANCE,
    WIDEST_WINDOW,
    WINDOW_PER_BLOB,
    DecodeOptions,
    anywhere_px2,
)


@dataclass(frozen=True)
class Decoded:
    """Keypoints in pixels of the map; as core's `Keypoints`, but for the axes' correlation."""

    points_px: Tensor  # (N, K, 2)
    variances_px: Tensor  # (N, K, 2) of x and y, px²
    counts: Tensor  # (N, K) bool


@dataclass(frozen=True)
class _Seen:
    """Of M blobs, through their windows."""

    shift: Tensor  # (M, 2) of the mean against the window's centre
    half: Tensor  # (M,) half the difference of the covariance's diagonal
    spread: Tensor  # (M,) its eigenvalues lie so far above and below their mean
    variances: Tensor  # (2, M) along its axes, the window's effect taken out, the larger first
    mass: Tensor  # (M,)


def decode(maps: Tensor, sigma_px: float, options: DecodeOptions | None = None) -> Decoded:
    """maps (N, K, h, w), not negative, of any scale; sigma_px as core's."""
    options = options or DecodeOptions()
    height, width = maps.shape[-2:]
    flat = maps.flatten(0, 1).flatten(1)
    peaks, peak_at = flat.detach().max(dim=1)
    usable = peaks.isfinite() & (peaks > 0.0)
    flat = torch.where(usable[:, None], flat, 0.0)
    peaks = torch.where(usable, peaks, 0.0)
    blobs = (flat / torch.where(usable, peaks, 1.0)[:, None]).clamp(min=0.0)
    total = blobs.sum(1)
    blobs = (blobs - _medians(blobs)[:, None]).clamp(min=0.0).unflatten(1, (height, width))
    start = torch.stack((peak_at % width, peak_at // width), dim=1).to(blobs.dtype)
    points, windows = _walk(blobs.detach(), start, sigma_px, options.iterations)

    seen = _look(blobs, points, windows)
    step = _gain(seen, windows)[:, None].detach() * seen.shift
    points = points + step - step.detach()
    anywhere = anywhere_px2(height, width)
    share = (seen.mass / total.clamp(min=1e-9)).clamp(0.0, 1.0)
    doubt = (seen.variances - sigma_px**2).clamp(options.min_variance_px2, anywhere)
    first, second = 1.0 / (share / doubt + (1.0 - share) / anywhere)
    middle, off = 0.5 * (first + second), 0.5 * (first - second) / seen.spread * seen.half
    variances = torch.stack((middle + off, middle - off), dim=1)
    leading = maps.shape[:2]
    best = peaks.unflatten(0, leading).amax(1, keepdim=True)
    counts = usable.unflatten(0, leading) & (
        peaks.unflatten(0, leading) >= options.threshold * best
    )
    return Decoded(points.unflatten(0, leading), variances.unflatten(0, leading), counts)


@torch.no_grad()
def _walk(blobs: Tensor, start: Tensor, sigma_px: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Centres (M, 2) of the blobs nearest to each start, and the variances (M,) of the windows."""
    height, width = blobs.shape[1:]
    narrowest = (WINDOW_PER_BLOB * sigma_px) ** 2
    widest = max(narrowest, (WIDEST_WINDOW * max(height, width)) ** 2)
    limit = start.new_tensor((width - 1.0, height - 1.0))
    points, windows = start, start.new_full(start.shape[:1], narrowest)
    for _ in range(iterations):
        seen = _look(blobs, points, windows)
        reach = windows.sqrt()[:, None]
        step = (_gain(seen, windows)[:, None] * seen.shift).clamp(-reach, reach)
        points = (points + step).clamp(torch.zeros_like(limit), limit)
        windows = (WINDOW_PER_BLOB**2 * seen.variances.mean(0)).clamp(narrowest, widest)
    return points, windows


def _gain(seen: _Seen, windows: Tensor) -> Tensor:
    """How far the blob's mean moves while the mean under the window moves by one."""
    return 1.0 + (seen.variances.mean(0) / windows).clamp(max=1.0)


def _look(blobs: Tensor, points: Tensor, windows: Tensor) -> _Seen:
    """Blobs (M, h, w) through windows of variance (M,) centred on points (M, 2)."""
    height, width = blobs.shape[1:]
    across, down = (
        _powers(torch.arange(n, device=points.device, dtype=points.dtype) - at[:, None], windows)
        for n, at in zip((width, height), points.unbind(1), strict=True)
    )
    moments = down @ blobs @ across.mT  # [blob, power of y, power of x]
    mass = moments[:, 0, 0].clamp(min=1e-12)
    m = (moments / mass[:, None, None]).flatten(1)
    x, y = m[:, 1], m[:, 3]
    xx, xy, yy = m[:, 2] - x * x, m[:, 4] - x * y, m[:, 6] - y * y
    middle, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    # Not a root of zero, whose slope is infinite.
    spread = (half * half + xy * xy).clamp(min=1e-12).sqrt()
    seen = torch.stack((middle + spread, middle - spread)).clamp(min=SMALLEST_VARIANCE)
    lowest, highest = 1.0 / anywhere_px2(height, width), 1.0 / SMALLEST_VARIANCE
    freed = 1.0 / (1.0 / seen - 1.0 / windows).clamp(lowest, highest)
    ratio = ((freed[0] * freed[1]) / (seen[0] * seen[1])).sqrt()
    return _Seen(torch.stack((x, y), dim=1), half, spread, freed, mass * ratio)


def _powers(away: Tensor, windows: Tensor) -> Tensor:
    """(M, 3, n): the window at distances (M, n), times the distances' powers 0, 1 and 2."""
    window = torch.exp(-0.5 * away * away / windows[:, None])
    return torch.stack((window, window * away, window * away * away), dim=1)


def _medians(blobs: Tensor) -> Tensor:
    """(M, pixels) -> (M,), of every seventh pixel, as core has it."""
    some = blobs[:, ::7].sort(dim=1).values
    middle = some.shape[1] // 2
    return 0.5 * (some[:, middle - 1 + some.shape[1] % 2] + some[:, middle])
