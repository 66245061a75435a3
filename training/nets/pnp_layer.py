"""EPro-PnP: the pose as a distribution that correspondences are taught through.

Chen et al., "EPro-PnP: generalized end-to-end probabilistic perspective-n-points for monocular
object pose estimation", CVPR 2022 and T-PAMI 2024. The loss is the Kullback-Leibler divergence
from the target distribution to p(y) = exp(-cost(y)) / Z, where Z = integral of exp(-cost) is
estimated by adaptive importance sampling (epro/amis.py): with the target a point y_gt,

    L = cost(y_gt) + log Z.

Symmetric objects. If y S_1 .. y S_M look alike (S_1 = identity), a picture cannot tell which one
it shows, and the target is their mixture, 1/M sum_m delta(y_gt S_m). Up to its own entropy, which
no weight changes, the divergence is then

    L = 1/M sum_m cost(y_gt S_m) + log Z.

It is least where exp(-cost) has equal mass at all M poses and none elsewhere: the gradient of
log Z is -E_p[d cost], so L's is zero when the mean over the modes equals the mean over p, which a
single mode in their middle cannot reach. (A Dirac at one of them, chosen at random or by a rule,
teaches the mean over the choices or a jump.) Continuous symmetries are a mixture of a few equal
turns about the axis. Z must be sampled at all modes: each has its own component in every round of
proposals.

`epro/` holds the parts: cost, solver, start, proposals, amis. What differs from the published
code is said there and here: subsets of the points may be drawn without changing the likelihood
(`subset`), Z is over orientations of total mass one, and an object that cannot be used is counted
instead of being a silent zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .epro import rotation
from .epro.amis import Draws, Samples, sample
from .epro.cost import Seen, correspondences, pose_cost
from .epro.solver import (
    Poses,
    covariance,
    gauss_newton_step,
    join,
    levenberg_marquardt,
    normal_equations,
    scaled,
)
from .epro.start import StartOptions, best_start, random_starts

_LEAST_POINTS = 4
# What the divergence and the two parts of the derivative count. EPro-PnP version 2 has a fifth of
# the divergence; with all of it photographs are read far better (BENCHMARKS.md, "Dense networks").
_DIVERGENCE, _TRANSLATION, _ROTATION = 1.0, 1.0, 1.0
# Least eigenvalue of the information, scaled to a diagonal of one, of points that fix a pose.
_DEGENERATE = 1e-6


class Status(IntEnum):
    """How it went with one object."""

    OK = 0
    TOO_FEW_POINTS = 1  # fewer than four with a weight: it is left out of the loss
    NOT_FINITE = 2  # the loss is none: it is left out
    DEGENERATE = 3  # its points do not fix a pose yet; it counts, and that is how they learn to


@dataclass(frozen=True)
class LayerOptions:
    """The published values, where there are any."""

    samples: int = 512
    rounds: int = 4
    relative_delta: float | None = 0.1  # of the Huber kernel; None: least squares
    iterations: int = 5  # of Levenberg-Marquardt
    momentum: float = 0.01  # of the mean scale that the loss is divided by
    beta_m: float = 0.05  # below, the translation's loss is a square
    start: StartOptions = field(default_factory=StartOptions)


@dataclass(frozen=True)
class PnpLoss:
    """Losses, means over the objects that can be used, and what happened."""

    divergence: Tensor  # scalar, over the scale's mean
    translation: Tensor  # scalar, m
    rotation: Tensor  # scalar, 2 (1 - cos² of half the angle)
    status: Tensor  # (B,) Status
    poses: Poses  # (B, 1) the optima
    covariance: Tensor  # (B, d, d) of their steps
    samples: Samples
    log_posterior: Tensor  # (B,) mean over the target's modes

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        derivative = _TRANSLATION * self.translation + _ROTATION * self.rotation
        return _DIVERGENCE * self.divergence + derivative

    @property
    def used(self) -> Tensor:
        """(B,) bool."""
        return _used(self.status)


class PnpLayer(nn.Module):
    """Correspondences and true poses -> PnpLoss. Holds the mean scale, and counts of objects."""

    mean_scale: Tensor
    started: Tensor
    by_status: Tensor  # how many objects went how, so far

    def __init__(self, options: LayerOptions | None = None) -> None:
        super().__init__()
        self.options = options or LayerOptions()
        self.register_buffer('mean_scale', torch.ones(()))
        self.register_buffer('started', torch.zeros((), dtype=torch.bool))
        self.register_buffer('by_status', torch.zeros(len(Status), dtype=torch.int64))

    def forward(
        self,
        points_obj: Tensor,
        points_px: Tensor,
        weights: Tensor,
        K: Tensor,
        T_cam_obj: Tensor,
        scale: Tensor | None = None,
        *,
        up_cam: Tensor | None = None,
        draws: LayerDraws | None = None,
        wanted: Tensor | None = None,
    ) -> PnpLoss:
        """points_obj (B, N, 3) m, points_px (B, N, 2), weights (B, N, 2) in 1 / px, K (B, 3, 3),
        T_cam_obj (B, 4, 4), or (B, M, 4, 4) where M poses look alike; scale: what the network
        multiplied the weights by. up_cam (B, 3): objects that stand, turned about this axis of
        the camera's frame alone (four degrees of freedom). wanted (B,) bool: the others have no
        pose to be taught.
        """
        options = self.options
        with torch.autocast(points_obj.device.type, enabled=False):
            seen = correspondences(points_obj, points_px, weights, K, options.relative_delta)
            targets = target_poses(T_cam_obj, seen.points_obj, up_cam)
            draws = draws or LayerDraws.new(
                seen, targets.t.shape[1], options, about=up_cam is not None
            )
            found = _losses(seen, targets, draws, options)
            return self._mean(seen, found, scale, wanted)

    def _mean(
        self, seen: Seen, found: _Found, scale: Tensor | None, wanted: Tensor | None
    ) -> PnpLoss:
        each = torch.stack((found.divergence, found.translation, found.rotation))
        status = torch.where(found.known, int(Status.OK), int(Status.DEGENERATE))
        finite = each.detach().isfinite().all(0)
        status = torch.where(finite, status, int(Status.NOT_FINITE))
        status = torch.where(seen.usable >= _LEAST_POINTS, status, int(Status.TOO_FEW_POINTS))
        used = _used(status)
        counted = torch.ones_like(used) if wanted is None else wanted
        used = used & counted
        if self.training:
            self._follow(scale, status, counted)
        means = torch.where(used, each, torch.zeros_like(each)).sum(1) / used.sum().clamp(min=1)
        return PnpLoss(
            divergence=means[0] / self.mean_scale.to(means.dtype),
            translation=means[1],
            rotation=means[2],
            status=status,
            poses=found.optimum,
            covariance=found.covariance,
            samples=found.samples,
            log_posterior=-found.divergence.detach(),
        )

    def troubles(self) -> dict[str, int]:
        """How many objects of all steps so far did not go well, by the name of their status."""
        counts = self.by_status.tolist()
        return {s.name.lower(): counts[s] for s in Status if s is not Status.OK}

    @torch.no_grad()
    def _follow(self, scale: Tensor | None, status: Tensor, counted: Tensor) -> None:
        """The mean scale, begun at the first one seen; the counts."""
        if scale is not None:
            now = scale.detach().float().mean()
            now = torch.where(now.isfinite() & (now > 0.0), now, self.mean_scale)
            pace = torch.where(self.started, self.options.momentum, 1.0)
            self.mean_scale.copy_(torch.lerp(self.mean_scale, now, pace))
            self.started.fill_(True)
        one_hot = F.one_hot(status.long(), len(Status)) * counted[:, None]
        self.by_status.add_(one_hot.sum(0))


@dataclass(frozen=True)
class LayerDraws:
    """The randomness of one call."""

    order: Tensor  # (B, P, N) uniform
    turns: Tensor  # (B, P, 4) standard normal, or (B, P, 1) uniform
    amis: Draws

    @classmethod
    def new(
        cls,
        seen: Seen,
        components: int,
        options: LayerOptions,
        generator: torch.Generator | None = None,
        *,
        about: bool = False,
    ) -> LayerDraws:
        """For the objects of `seen`, which turn freely or `about` an axis."""
        like, proposals = seen.points_obj, options.start.proposals
        kind = {'dtype': like.dtype, 'device': like.device, 'generator': generator}
        order = torch.rand(like.shape[0], proposals, like.shape[1], **kind)  # type: ignore[call-overload]
        if about:
            turns = torch.rand(like.shape[0], proposals, 1, **kind)  # type: ignore[call-overload]
        else:
            turns = torch.randn(like.shape[0], proposals, 4, **kind)  # type: ignore[call-overload]
        samples = options.rounds, options.samples
        amis = Draws.new(*samples, like, components, about=about, generator=generator)
        return cls(order, turns, amis)


@dataclass(frozen=True)
class _Found:
    """Of every object, whether it can be used or not."""

    divergence: Tensor
    translation: Tensor
    rotation: Tensor
    known: Tensor  # whether its points fix a pose
    optimum: Poses
    covariance: Tensor
    samples: Samples


def _used(status: Tensor) -> Tensor:
    """Whether an object counts. (Plain numbers: to torch.compile an enum equals no tensor.)"""
    return (status == int(Status.OK)) | (status == int(Status.DEGENERATE))


def _losses(seen: Seen, targets: Poses, draws: LayerDraws, options: LayerOptions) -> _Found:
    with torch.no_grad():
        upright = Poses(targets.q[:, :1], targets.t[:, :1], targets.up)
        starts = random_starts(seen, draws.order, draws.turns, options.start, upright)
        # The truth is a start, too: where it costs less, the sampler begins there.
        start = best_start(seen, starts, targets)
        optimum, _ = levenberg_marquardt(seen, start, options.iterations)
        centres = optimum
        if targets.t.shape[1] > 1:
            # One component a mode, each at the optimum nearest to it.
            centres, _ = levenberg_marquardt(seen, targets, options.iterations)
        normal, _ = normal_equations(seen, optimum)
        unit, _ = scaled(normal, 0.0)
        least = torch.linalg.eigvalsh(unit.nan_to_num())[:, 0, 0]
    samples = sample(seen, centres, draws.amis)
    at_target = pose_cost(seen, targets.R, targets.t).mean(1)
    divergence = at_target + samples.log_normaliser
    translation, turn = _derivative(seen, optimum, targets, options.beta_m)
    return _Found(
        divergence, translation, turn, least > _DEGENERATE, optimum,
        covariance(normal)[:, 0], samples,
    )  # fmt: skip


def _derivative(
    seen: Seen, optimum: Poses, targets: Poses, beta_m: float
) -> tuple[Tensor, Tensor]:
    """Where one more Gauss-Newton step leads, from the optimum as it is, against the target that
    is nearest: the solver's basin is pulled towards the truth (section 3.4 of the paper).
    """
    with torch.no_grad():
        alike = (optimum.q * targets.q).sum(-1).abs()
        target = targets.take(alike.argmax(1, keepdim=True))
    moved = optimum.moved(gauss_newton_step(seen, optimum))
    off = (moved.t - target.t)[:, 0]
    translation = F.smooth_l1_loss(off, torch.zeros_like(off), beta=beta_m, reduction='none')
    same = (moved.q * target.q).sum((-1, -2))
    return translation.sum(1), 2.0 * (1.0 - same * same)


def target_poses(T_cam_obj: Tensor, like: Tensor, up_cam: Tensor | None = None) -> Poses:
    """(B, 4, 4) or (B, M, 4, 4) -> (B, M)."""
    T = T_cam_obj.to(like.dtype)
    T = T[:, None] if T.dim() == 3 else T
    up = None if up_cam is None else F.normalize(up_cam.to(like.dtype), dim=-1)
    return Poses(rotation.from_matrix(T[..., :3, :3]), T[..., :3, 3], up)


def subset(count: int, *points: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """`count` of N points at random, each object its own: every tensor (B, N, d), weights last.

    The weights are raised by the root of N / count, so that the cost, a sum of squares, has the
    same mean as that of all points, and so has the posterior's width.
    """
    total = weights.shape[1]
    if count >= total:
        return (*points, weights)
    index = torch.rand(weights.shape[:2], device=weights.device).topk(count, dim=1).indices
    chosen = [x.gather(1, index[..., None].expand(-1, -1, x.shape[-1])) for x in points]
    own = weights.gather(1, index[..., None].expand(-1, -1, weights.shape[-1]))
    return (*chosen, own * (total / count) ** 0.5)


__all__ = ['LayerDraws', 'LayerOptions', 'PnpLayer', 'PnpLoss', 'Status', 'join', 'subset']
