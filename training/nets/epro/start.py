"""Where the solver begins: fits to random samples of the points (EPro-PnP's random-sample LM).

Each proposal draws a few points by their weights, a random rotation and the distance at which the
object would be as large as it is seen; a few iterations fit it to its points, and the one that all
points like best is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import rotation
from .cost import Seen, pose_cost
from .solver import Poses, join, levenberg_marquardt


@dataclass(frozen=True)
class StartOptions:
    """How many, and how hard each one tries."""

    proposals: int = 4
    points: int = 16
    iterations: int = 3


@torch.no_grad()
def random_starts(
    seen: Seen, order: Tensor, turns: Tensor, options: StartOptions, up: Poses | None = None
) -> Poses:
    """(B, P) poses fitted to random points.

    order (B, P, N): uniform random numbers, which choose the points; turns (B, P, 4): standard
    normal ones, which become rotations, or (B, P, 1): shares of a full turn about the axis of
    `up`, poses (B, 1) at angle zero.
    """
    weights = seen.weights.mean(-1)
    total = weights.sum(1, keepdim=True).clamp(min=1e-12)
    share = (weights / total)[..., None]
    xy = (share * seen.points_xy).sum(1)
    off = seen.points_obj - (share * seen.points_obj).sum(1, keepdim=True)
    size_m = (share * off * off).sum((1, 2)).sqrt()
    seen_off = seen.points_xy - xy[:, None]
    size_xy = (share * seen_off * seen_off).sum((1, 2)).sqrt()
    # Of three coordinates two are seen.
    depth = (2.0 / 3.0) ** 0.5 * size_m / size_xy.clamp(min=1e-4)
    t = torch.cat((xy, torch.ones_like(xy[:, :1])), dim=-1) * depth[:, None].clamp(0.05, 1e3)
    t = t[:, None].expand(-1, turns.shape[1], -1)
    if up is None or up.up is None:
        q = turns / turns.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        starts = Poses(q, t)
    else:
        turn = rotation.from_vector(2.0 * torch.pi * turns * up.up[:, None])
        starts = Poses(rotation.multiply(turn, up.q.expand_as(turn)), t, up.up)

    # The largest of log w + Gumbel noise are a draw without replacement.
    gumbel = -(-order.clamp(1e-12, 1.0 - 1e-7).log()).log()
    count = min(options.points, order.shape[2])
    chosen = ((weights + 1e-30).log()[:, None] + gumbel).topk(count, dim=2).indices
    # Each proposal is an object of its own now, because its points are.
    proposals = starts.t.shape[1]

    def few(x: Tensor) -> Tensor:
        index = chosen[..., None].expand(*chosen.shape, x.shape[-1])
        return x[:, None].expand(-1, proposals, -1, -1).gather(2, index).flatten(0, 1)

    def many(x: Tensor) -> Tensor:
        return x.repeat_interleave(proposals, dim=0)

    small = Seen(
        few(seen.points_obj), few(seen.points_xy), few(seen.weights),
        many(seen.delta), many(seen.usable),
    )  # fmt: skip
    about = None if starts.up is None else many(starts.up)
    flat = Poses(starts.q.flatten(0, 1)[:, None], starts.t.flatten(0, 1)[:, None], about)
    found, _ = levenberg_marquardt(small, flat, options.iterations)
    batch = seen.delta.shape[0]
    q, t = found.q[:, 0].unflatten(0, (batch, -1)), found.t[:, 0].unflatten(0, (batch, -1))
    return Poses(q, t, starts.up)


@torch.no_grad()
def best_start(seen: Seen, *candidates: Poses) -> Poses:
    """(B, 1): of all candidates the one that costs least."""
    every = join(*candidates)
    costs = pose_cost(seen, every.R, every.t).nan_to_num(torch.inf)
    return every.take(costs.argmin(1, keepdim=True))
