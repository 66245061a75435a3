"""Adaptive multiple importance sampling of a pose's distribution (Cornuet et al., 2012, as
EPro-PnP's algorithm 1 has it).

The first proposal is Laplace's approximation at the optimum; each further one is fitted to all
samples so far, and every sample is weighed by the mixture of all proposals. Where we differ: a
round may hold several components, one for each of the poses that look the same, each fitted to
the samples that it answers for (Cappé et al., "Adaptive importance sampling in general mixture
classes", 2008); and a fit that rests on few effective samples is drawn towards the first one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import rotation
from .cost import Seen, evaluated, pose_cost
from .proposals import UNIFORMS, AngularGaussian, StudentT, VonMises
from .solver import Poses, covariance, normal_equations

_TYLER_STEPS = 3
_PRIOR_SAMPLES = 4.0  # effective samples that Laplace's approximation is worth in a fit


@dataclass(frozen=True)
class Draws:
    """All the randomness of a call: the same draws give the same result."""

    position: Tensor  # (I, B, M, k, 6) standard normal
    orientation: Tensor  # (I, B, M, k, 4) standard normal, or (I, B, M, k, .) uniform

    @classmethod
    def new(
        cls,
        iterations: int,
        samples: int,
        like: Tensor,
        components: int = 1,
        *,
        about: bool = False,
        generator: torch.Generator | None = None,
    ) -> Draws:
        """For like (B, ...) objects, `samples` in all, shared by iterations and components."""
        each = max(1, samples // (iterations * components))
        shape = (iterations, like.shape[0], components, each)
        kind = {'dtype': like.dtype, 'device': like.device, 'generator': generator}
        normal = torch.randn(*shape, 6, **kind)  # type: ignore[call-overload]
        if about:
            uniform = torch.rand(*shape, UNIFORMS, **kind)  # type: ignore[call-overload]
            return cls(normal, uniform)
        return cls(normal, torch.randn(*shape, 4, **kind))  # type: ignore[call-overload]


@dataclass(frozen=True)
class Samples:
    """Weighted poses; the weights' gradient reaches the correspondences."""

    poses: Poses  # (B, S)
    log_weights: Tensor  # (B, S), not normalised

    @property
    def log_normaliser(self) -> Tensor:
        """(B,) log of the integral of exp(-cost) over m³ and all orientations (of mass one)."""
        count = self.log_weights.shape[1]
        return torch.logsumexp(self.log_weights, dim=1) - math.log(count)

    @property
    def effective(self) -> Tensor:
        """(B,) how many equally weighted samples they are worth (Kish)."""
        w = torch.softmax(self.log_weights.detach(), dim=1)
        return 1.0 / (w * w).sum(1)


@dataclass(frozen=True)
class _Proposal:
    position: StudentT
    orientation: AngularGaussian | VonMises

    def log_density(self, t: Tensor, orientation: Tensor) -> Tensor:
        """(B, M, S) of every component."""
        return self.position.log_density(t) + self.orientation.log_density(orientation)


def sample(seen: Seen, optimum: Poses, draws: Draws) -> Samples:
    """Around the optima (B, M), one component each, that levenberg_marquardt has found."""
    with torch.no_grad():
        t, orientation, log_mixture, costs = _adapt(seen, optimum, draws)
        poses = _poses(t, orientation, optimum)
    costs = evaluated(seen, poses.R, poses.t, costs)
    return Samples(poses, -costs - log_mixture)


def _adapt(seen: Seen, optimum: Poses, draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, orientations (quaternions or angles), log of the mixture, costs: all (B, S)."""
    first = current = _laplace(seen, optimum)
    t = orientation = costs = None
    densities: list[Tensor] = []  # of each proposal at the samples so far
    proposals: list[_Proposal] = []
    components = optimum.t.shape[1]
    for position, turn in zip(draws.position, draws.orientation, strict=True):
        new_t, new_o = current.position.draw(position), current.orientation.draw(turn)
        new_poses = _poses(new_t, new_o, optimum)
        new_costs = pose_cost(seen, new_poses.R, new_poses.t)
        proposals.append(current)
        new = [_mixed(each.log_density(new_t, new_o), components) for each in proposals]
        if t is None or orientation is None or costs is None:
            t, orientation, costs, densities = new_t, new_o, new_costs, new
        else:
            densities.append(_mixed(current.log_density(t, orientation), components))
            densities = [torch.cat(pair, 1) for pair in zip(densities, new, strict=True)]
            t, orientation = torch.cat((t, new_t), 1), torch.cat((orientation, new_o), 1)
            costs = torch.cat((costs, new_costs), 1)
        stacked = torch.stack(densities)
        log_mixture = torch.logsumexp(stacked, dim=0) - math.log(len(densities))
        if len(proposals) < len(draws.position):
            weights = torch.softmax((-costs - log_mixture).nan_to_num(-1e30), dim=1)
            current = _fit(current, first, t, orientation, weights)
    assert t is not None and orientation is not None and costs is not None
    return t, orientation, log_mixture, costs


def _poses(t: Tensor, orientation: Tensor, optimum: Poses) -> Poses:
    """Angles turn the first optimum about its axis."""
    if optimum.up is None:
        return Poses(orientation, t)
    turn = rotation.from_vector(orientation[..., None] * optimum.up[:, None])
    base = optimum.q[:, :1].expand_as(turn)
    return Poses(rotation.multiply(turn, base), t, optimum.up)


def _mixed(log_densities: Tensor, components: int) -> Tensor:
    """(B, M, S) of the components -> (B, S) of their mean."""
    return torch.logsumexp(log_densities, dim=1) - math.log(components)


def _laplace(seen: Seen, optimum: Poses) -> _Proposal:
    """As wide as the information at the optimum says; the tails are the families' own."""
    sigma = covariance(normal_equations(seen, optimum)[0])
    position = StudentT.fit(optimum.t, sigma[..., :3, :3])
    turned = sigma[..., 3:, 3:]
    if optimum.up is not None:
        # Angles are from the first optimum.
        off = rotation.multiply(optimum.q, rotation.inverse(optimum.q[:, :1]))
        angle = 2.0 * torch.atan2((off[..., :3] * optimum.up[:, None]).sum(-1), off[..., 3])
        return _Proposal(position, VonMises.fit(angle, 0.33 / turned[..., 0, 0].clamp(min=1e-8)))
    E = rotation.tangent(optimum.q)
    eye = torch.eye(4, dtype=sigma.dtype, device=sigma.device)
    # Near q the density falls as (1 + v' E S^-1 E' v)^-2, the Gaussian as exp(-2 v' E S^-1 E' v).
    # Its inverse by way of 3 x 3: q q' + E (S^-1 + I)^-1 E'.
    small = torch.eye(3, dtype=sigma.dtype, device=sigma.device)
    inner = turned @ torch.linalg.inv_ex(small + turned)[0]
    q = optimum.q[..., None]
    matrix = q @ q.mT + E @ inner @ E.mT
    matrix = torch.where(
        matrix.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), matrix, eye
    )
    return _Proposal(position, AngularGaussian.fit(0.5 * (matrix + matrix.mT)))


def _fit(
    current: _Proposal, first: _Proposal, t: Tensor, orientation: Tensor, weights: Tensor
) -> _Proposal:
    """Each component to the samples that it answers for, weights (B, S) of sum one."""
    answers = torch.softmax(current.log_density(t, orientation), dim=1)
    w = weights[:, None] * answers
    total = w.sum(-1, keepdim=True)
    w = w / total.clamp(min=1e-30)
    effective = 1.0 / (w * w).sum(-1).clamp(min=1e-12)
    # Samples that speak for few, or for a component that has next to none, are not believed.
    share = (effective / (effective + _PRIOR_SAMPLES)) * (total[..., 0] > 1e-12)
    mean = _between((w[..., None] * t[:, None]).sum(2), current.position.mean, share)
    off = t[:, None] - mean[:, :, None]
    scale = (w[..., None] * off).mT @ off
    prior = first.position.tril @ first.position.tril.mT
    position = StudentT.fit(mean, _between(scale, prior, share))
    if isinstance(current.orientation, VonMises) and isinstance(first.orientation, VonMises):
        return _Proposal(position, _fit_angles(current.orientation, orientation, w, share))
    assert isinstance(first.orientation, AngularGaussian)
    return _Proposal(position, _fit_turns(first.orientation, orientation, w, share))


def _between(fitted: Tensor, prior: Tensor, share: Tensor) -> Tensor:
    """`share` (B, M) of the one, the rest of the other."""
    share = share.reshape(*share.shape, *(1,) * (fitted.dim() - share.dim()))
    return torch.where(share > 0.0, share * fitted, torch.zeros_like(fitted)) + (1 - share) * prior


def _fit_turns(first: AngularGaussian, q: Tensor, w: Tensor, share: Tensor) -> AngularGaussian:
    """Tyler's fixed point, a few steps of it."""
    prior = first.tril @ first.tril.mT
    prior = prior / prior.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    # Begun as round as may be: a sharp start forgets its own width too slowly.
    eye = 0.25 * torch.eye(4, dtype=q.dtype, device=q.device)
    fitted = AngularGaussian(torch.linalg.cholesky_ex(eye.expand_as(prior))[0])
    for _ in range(_TYLER_STEPS):
        u = w / fitted.square(q).clamp(min=1e-30)
        matrix = (u[..., None] * q[:, None]).mT @ q[:, None]
        matrix = matrix / matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(1e-30)
        fitted = AngularGaussian.fit(_between(matrix, prior, share))
    return fitted


def _fit_angles(current: VonMises, angle: Tensor, w: Tensor, share: Tensor) -> VonMises:
    """By the mean direction; EPro-PnP has a third of the usual concentration, for wide tails."""
    c, s = (w * angle.cos()[:, None]).sum(-1), (w * angle.sin()[:, None]).sum(-1)
    r = (c * c + s * s).sqrt().clamp(1e-6, 1.0 - 1e-7)
    kappa = 0.33 * r * (2.0 - r * r) / (1.0 - r * r)
    mean = torch.where(share > 0.0, torch.atan2(s, c), current.mean)
    return VonMises.fit(mean, share * kappa + (1.0 - share) * current.kappa.clamp(max=1e3))


__all__ = ['Draws', 'Samples', 'sample']
