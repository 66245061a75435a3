"""The slow twin of training/nets/pnp_layer.py: EPro-PnP's structure, written down as it is read.

Every sample's points are transformed, projected, clamped and weighed as tensors (B, S, N, .) that
autograd keeps, round by round; the solver has whole Jacobians (B, P, N, 2, 6). The same draws give
the same loss, wherever no point is clamped. Proposals are the layer's own: they cost little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.nets.epro import amis, rotation
from training.nets.epro.cost import Seen
from training.nets.epro.solver import Poses
from training.nets.pnp_layer import LayerDraws, LayerOptions

NEAREST_M = 0.01
CLAMP_PX = 2000.0


@dataclass(frozen=True)
class Problem:
    """points_obj (B, N, 3), points_px (B, N, 2), weights (B, N, 2), K (B, 3, 3)."""

    points_obj: Tensor
    points_px: Tensor
    weights: Tensor
    K: Tensor
    relative_delta: float = 0.1

    @property
    def delta(self) -> Tensor:
        """(B,)."""
        spread = self.points_px.var(1, correction=0).sum(-1).sqrt()
        return self.relative_delta * self.weights.mean((1, 2)) * spread


def camera_points(problem: Problem, R: Tensor, t: Tensor) -> Tensor:
    """(B, S, N, 3)."""
    return problem.points_obj[:, None] @ R.mT + t[:, :, None]


def residuals(problem: Problem, R: Tensor, t: Tensor) -> Tensor:
    """(B, S, N, 2)."""
    p = camera_points(problem, R, t)
    z = p[..., 2:].clamp(min=NEAREST_M)
    projected = (p @ problem.K.mT[:, None])[..., :2] / z
    projected = projected.clamp(-CLAMP_PX, CLAMP_PX)
    return (projected - problem.points_px[:, None]) * problem.weights[:, None]


def cost(problem: Problem, R: Tensor, t: Tensor) -> Tensor:
    """(B, S)."""
    s = residuals(problem, R, t).norm(dim=-1)
    delta = problem.delta[:, None, None]
    return torch.where(s <= delta, 0.5 * s.square(), delta * s - 0.5 * delta.square()).sum(-1)


def jacobian(problem: Problem, R: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Rescaled residuals (B, P, 2 N) and their Jacobian (B, P, 2 N, 6)."""
    p = camera_points(problem, R, t)
    z = p[..., 2].clamp(min=NEAREST_M)
    fx, fy = problem.K[:, 0, 0, None, None], problem.K[:, 1, 1, None, None]
    by_point = torch.zeros(*p.shape[:-1], 2, 3, dtype=p.dtype)
    by_point[..., 0, 0], by_point[..., 1, 1] = fx / z, fy / z
    by_point[..., 0, 2] = -fx * p[..., 0] / z.square()
    by_point[..., 1, 2] = -fy * p[..., 1] / z.square()
    turned = p - t[:, :, None]
    skew = torch.zeros(*p.shape, 3, dtype=p.dtype)
    a, b, c = turned.unbind(-1)
    skew[..., 0, 1], skew[..., 0, 2], skew[..., 1, 2] = c, -b, a
    skew[..., 1, 0], skew[..., 2, 0], skew[..., 2, 1] = -c, b, -a
    J = torch.cat((by_point, by_point @ skew), dim=-1) * problem.weights[:, None, ..., None]
    f = residuals(problem, R, t)
    s = f.norm(dim=-1, keepdim=True)
    root = (problem.delta[:, None, None, None] / s.clamp(min=1e-10)).clamp(max=1.0).sqrt()
    return (f * root).flatten(2), (J * root[..., None]).flatten(2, 3)


@torch.no_grad()
def levenberg_marquardt(problem: Problem, poses: Poses, iterations: int) -> Poses:
    """As the solver's, one whole Jacobian each time."""
    costs = cost(problem, poses.R, poses.t)
    radius, shrink = torch.full_like(costs, 30.0), torch.full_like(costs, 2.0)
    for _ in range(iterations):
        f, J = jacobian(problem, poses.R, poses.t)
        normal, gradient = J.mT @ J, -(J.mT @ f[..., None])[..., 0]
        diagonal = normal.diagonal(dim1=-2, dim2=-1).clamp(1e-6, 1e32)
        damped = normal + torch.diag_embed(diagonal / radius[..., None])
        step = torch.linalg.solve_ex(damped, gradient[..., None])[0][..., 0]
        promised = ((gradient - 0.5 * (normal @ step[..., None])[..., 0]) * step).sum(-1)
        new = poses.moved(step)
        new_costs = cost(problem, new.R, new.t)
        kept = (costs - new_costs) / promised
        good = (kept >= 1e-3) & (promised > 0.0)
        poses, costs = new.where(good, poses), torch.where(good, new_costs, costs)
        grown = radius / (1.0 - (2.0 * kept - 1.0) ** 3).clamp(min=1.0 / 3.0)
        radius = torch.where(good, grown, radius / shrink)
        shrink = torch.where(good, torch.full_like(shrink, 2.0), 2.0 * shrink)
    return poses


def divergence(
    problem: Problem, seen: Seen, start: Poses, T_cam_obj: Tensor, draws: LayerDraws,
    options: LayerOptions,
) -> Tensor:  # fmt: skip
    """(B,) of the layer's loss. `seen` is the same problem as the layer holds it, for Laplace's
    approximation; the start is given.
    """
    optimum = levenberg_marquardt(problem, start, options.iterations)
    with torch.no_grad():
        first = current = amis._laplace(seen, optimum)
    proposals, t, q, costs = [], [], [], []
    for position, turn in zip(draws.amis.position, draws.amis.orientation, strict=True):
        t.append(current.position.draw(position))
        q.append(current.orientation.draw(turn))
        costs.append(cost(problem, rotation.to_matrix(q[-1]), t[-1]))
        proposals.append(current)
        every_t, every_q = torch.cat(t, dim=1), torch.cat(q, dim=1)
        with torch.no_grad():
            densities = [each.log_density(every_t, every_q).logsumexp(1) for each in proposals]
            mixture = torch.stack(densities).logsumexp(0) - math.log(len(proposals))
        log_weights = -torch.cat(costs, dim=1) - mixture
        with torch.no_grad():
            weights = torch.softmax(log_weights, dim=1)
            current = amis._fit(current, first, every_t, every_q, weights)
    log_z = log_weights.logsumexp(1) - math.log(log_weights.shape[1])
    R, p = T_cam_obj[:, None, :3, :3], T_cam_obj[:, None, :3, 3]
    return cost(problem, R, p)[:, 0] + log_z


def random_start(
    problem: Problem, draws: LayerDraws, options: LayerOptions, truth: Poses
) -> Poses:
    """Random samples of the points, fitted one proposal after the other; the truth is a rival."""
    best, least = truth, cost(problem, truth.R, truth.t)
    for order, turn in zip(draws.order.unbind(1), draws.turns.unbind(1), strict=True):
        index = order.topk(min(options.start.points, order.shape[1]), dim=1).indices[..., None]
        few = Problem(
            *(
                x.gather(1, index.expand(-1, -1, x.shape[-1]))
                for x in (problem.points_obj, problem.points_px, problem.weights)
            ),
            problem.K,
        )
        q = (turn / turn.norm(dim=-1, keepdim=True))[:, None]
        found = levenberg_marquardt(few, Poses(q, truth.t), options.start.iterations)
        costs = cost(problem, found.R, found.t)
        best, least = found.where(costs < least, best), torch.minimum(costs, least)
    return best
