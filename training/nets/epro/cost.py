"""The weighted reprojection cost of many poses at once, and its gradient by the correspondences.

EPro-PnP (Chen et al., CVPR 2022; T-PAMI 2024), eq. 3 and 5: a pose y costs

    sum_i huber(|f_i(y)|, delta),  f_i = w_i (pi(R X_i + t) - x_i),  p(X | y) ~ exp(-cost),

with an adaptive delta: relative_delta times the mean weight times the spread of the points x.

Where we differ. A pose P = (R t) enters the residual linearly but for the division by the depth:
z f = w (P1 - x P3) X~. So all residuals of all poses are three batched matrix products over the
points, and a handful of passes; the gradient is written down, needs nothing kept but the poses,
and is three products more. A point nearer than `NEAREST_M` or behind the camera is not clamped to
the picture's edge but has a third residual that grows with how far behind it is: the mirror image
of a pose, behind the camera, is then no second optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NEAREST_M = 0.01
_MOST_WEIGHT = 1e6  # 1 / px; float32 squares it without overflow
_LEAST_DELTA = 1e-6
_CHUNK = 1 << 17  # residuals in sight of a CPU's thread at once: they stay in its cache


@dataclass(frozen=True)
class Seen:
    """Points of B objects and where they were seen, in normalised coordinates (x / z, y / z)."""

    points_obj: Tensor  # (B, N, 3) m
    points_xy: Tensor  # (B, N, 2)
    weights: Tensor  # (B, N, 2) per unit of points_xy; 0 where a point does not count
    delta: Tensor  # (B,) of the Huber kernel
    usable: Tensor  # (B,) int64, how many points count


def correspondences(
    points_obj: Tensor,
    points_px: Tensor,
    weights: Tensor,
    K: Tensor,
    relative_delta: float | None = 0.1,
) -> Seen:
    """points_obj (B, N, 3) m, points_px (B, N, 2), weights (B, N, 2) in 1 / px, K (B, 3, 3).

    Points with anything that is not finite, or with a weight below zero, count for nothing and get
    no gradient. relative_delta None: least squares, no kernel.
    """
    points_obj, points_px, weights = (_precise(x) for x in (points_obj, points_px, weights))
    K = _precise(K)
    good = torch.cat((points_obj, points_px, weights), dim=-1).isfinite().all(-1, keepdim=True)
    good = good & (weights >= 0.0).all(-1, keepdim=True)
    nothing = weights.new_zeros(())
    points_obj = torch.where(good, points_obj, nothing)
    points_px = torch.where(good, points_px, nothing)
    weights = torch.where(good, weights, nothing).clamp(max=_MOST_WEIGHT)

    if relative_delta is None:
        delta = weights.new_full(weights.shape[:1], torch.finfo(weights.dtype).max ** 0.25)
    else:
        count = good.sum(1).clamp(min=1)
        mean = points_px.sum(1) / count
        off = torch.where(good, points_px - mean[:, None], nothing)
        # Not a root of zero, whose slope is infinite.
        spread = ((off * off).sum((1, 2)) / count[:, 0]).clamp(min=1e-6).sqrt()
        delta = relative_delta * spread * (weights.sum(1) / count).mean(-1)
    focal = torch.stack((K[:, 0, 0], K[:, 1, 1]), dim=-1)[:, None]
    center = torch.stack((K[:, 0, 2], K[:, 1, 2]), dim=-1)[:, None]
    largest = weights.detach().sum(-1).amax(1, keepdim=True)
    counts = (weights.detach().sum(-1) > 1e-6 * largest).sum(1)
    return Seen(
        points_obj,
        (points_px - center) / focal,
        weights * focal,
        delta.clamp(min=_LEAST_DELTA),
        counts,
    )


def pose_cost(seen: Seen, R: Tensor, t: Tensor) -> Tensor:
    """(B, S) costs of poses R (B, S, 3, 3), t (B, S, 3), differentiable by the correspondences but
    not by the poses.
    """
    return evaluated(seen, R, t, None)


def evaluated(seen: Seen, R: Tensor, t: Tensor, costs: Tensor | None) -> Tensor:
    """As pose_cost, where the costs (B, S) may be known: then only the gradient is to be had."""
    homogeneous = torch.cat((seen.points_obj, torch.ones_like(seen.points_obj[..., :1])), dim=-1)
    X = homogeneous.transpose(1, 2)
    wx, wy = seen.weights.transpose(1, 2)[:, :, None].unbind(1)
    x, y = seen.points_xy.transpose(1, 2)[:, :, None].unbind(1)
    across = torch.cat((wx * X, -(wx * x) * X), dim=1)
    down = torch.cat((wy * X, -(wy * y) * X), dim=1)
    # The clamp gives points without weight a slope of zero, not of 0 / 0.
    behind = (wx * wx + wy * wy).clamp(min=1e-20).sqrt()
    poses = torch.cat((R, t[..., None]), dim=-1).detach()
    result: Tensor = _Cost.apply(across, down, X, behind, seen.delta, poses, costs)
    return result


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _step(poses: Tensor, points: int) -> int:
    """Poses that are looked at together."""
    if poses.device.type != 'cpu' or torch.compiler.is_compiling():
        return poses.shape[1]
    return max(1, _CHUNK * torch.get_num_threads() // max(1, poses.shape[0] * points))


def _all_in_front(z: Tensor) -> bool:
    """Whether that is known without asking a device that works ahead of us."""
    return (
        z.device.type == 'cpu' and not torch.compiler.is_compiling() and bool(z.min() > NEAREST_M)
    )


def _look(
    across: Tensor, down: Tensor, X: Tensor, behind: Tensor, poses: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """a, b = z f (B, S, N), c of what is behind, if anything may be, the depth and the squared
    residual.
    """
    first, second, third = poses.unbind(2)
    a = torch.cat((first, third), dim=-1) @ across
    b = torch.cat((second, third), dim=-1) @ down
    z = third @ X
    if _all_in_front(z):
        return a, b, None, z, (a * a).addcmul_(b, b).div_(z).div_(z)
    depth = z.clamp(min=NEAREST_M)
    c = (depth - z).mul_(behind)
    squared = (a * a).addcmul_(b, b).addcmul_(c, c).div_(depth).div_(depth)
    return a, b, c, depth, squared


class _Cost(torch.autograd.Function):
    """across, down (B, 8, N), X (B, 4, N), behind (B, 1, N), delta (B,), poses (B, S, 3, 4)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, costs = inputs
        ctx.save_for_backward(*tensors)
        if costs is not None:
            return costs.clone()  # type: ignore[no-any-return]
        across, down, X, behind, delta, poses = tensors
        parts = []
        for chunk in poses.split(_step(poses, X.shape[2]), dim=1):
            *_, squared = _look(across, down, X, behind, chunk)
            s = squared.sqrt_()
            most = torch.minimum(s, delta[:, None, None])
            # s² / 2 up to delta, delta (s - delta / 2) beyond
            parts.append(s.add_(most, alpha=-0.5).mul_(most).sum(-1))
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        across, down, X, behind, delta, poses = ctx.saved_tensors
        to_across, to_down, to_X = (torch.zeros_like(x) for x in (across, down, X))
        to_behind, to_delta = torch.zeros_like(behind), torch.zeros_like(delta)
        step = _step(poses, X.shape[2])
        for chunk, g in zip(poses.split(step, 1), gradients[0].split(step, 1), strict=True):
            a, b, c, depth, squared = _look(across, down, X, behind, chunk)
            first, second, third = chunk.unbind(2)
            s = squared.sqrt()
            edge = delta[:, None, None]
            to_delta += ((s - edge).clamp_(min=0.0).sum(-1) * g).sum(-1)
            # d cost / d s / s / depth, times what the cost is worth
            k = (edge / torch.maximum(s, edge)).mul_(g[..., None]).div_(depth)
            to_z = squared.mul_(k).neg_()
            k = k / depth
            to_across += torch.cat((first, third), dim=-1).transpose(1, 2) @ a.mul_(k)
            to_down += torch.cat((second, third), dim=-1).transpose(1, 2) @ b.mul_(k)
            if c is not None:
                # In front c is zero; behind, the depth does not change and c falls as z grows.
                c_k = k.mul_(c)
                to_z = torch.where(c > 0.0, c_k * -behind, to_z)
                to_behind += (c_k * c).sum(1, keepdim=True) / behind
            to_X += third.transpose(1, 2) @ to_z
        return to_across, to_down, to_X, to_behind, to_delta, None, None
