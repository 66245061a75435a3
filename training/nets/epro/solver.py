"""Levenberg-Marquardt for a batch of poses, and the Gauss-Newton step that can be differentiated.

The step is (dp, dr) with p' = p + dp and R' = exp(dr) R, as in pose_node/core/refine.py, so that
the inverse of the normal matrix is the covariance that the node publishes. The trust region is
that of EPro-PnP's code (and of Ceres): damping is the clamped diagonal over a radius that each
pose has for itself, so no pose waits for another and nothing asks the device how it went.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import rotation
from .cost import NEAREST_M, Seen, pose_cost

_RADIUS, _LARGEST_RADIUS = 30.0, 1e16
_LEAST_DIAGONAL, _MOST_DIAGONAL = 1e-6, 1e32
_ACCEPTED = 1e-3  # least share of the promised decrease that a step must keep


@dataclass(frozen=True)
class Poses:
    """P poses for each of B objects. `up` (B, 3): rotations are about this axis of the camera
    frame alone (4 degrees of freedom); None: they are free (6).
    """

    q: Tensor  # (B, P, 4) x, y, z, w
    t: Tensor  # (B, P, 3) m
    up: Tensor | None = None

    @property
    def R(self) -> Tensor:
        """(B, P, 3, 3)."""
        return rotation.to_matrix(self.q)

    def moved(self, step: Tensor) -> Poses:
        """By steps (B, P, 6), or (B, P, 4) where there is an axis."""
        turn = step[..., 3:]
        if self.up is not None:
            turn = turn * self.up[:, None]
        q = rotation.multiply(rotation.from_vector(turn), self.q)
        return Poses(q / q.norm(dim=-1, keepdim=True), self.t + step[..., :3], self.up)

    def where(self, condition: Tensor, other: Poses) -> Poses:
        """These where `condition` (B, P), else the other ones."""
        choose = condition[..., None]
        q, t = torch.where(choose, self.q, other.q), torch.where(choose, self.t, other.t)
        return Poses(q, t, self.up)

    def take(self, index: Tensor) -> Poses:
        """(B, n) numbers of poses -> those."""
        q = self.q.gather(1, index[..., None].expand(*index.shape, 4))
        return Poses(q, self.t.gather(1, index[..., None].expand(*index.shape, 3)), self.up)


def join(*parts: Poses) -> Poses:
    """All of them, object by object."""
    q, t = torch.cat([p.q for p in parts], dim=1), torch.cat([p.t for p in parts], dim=1)
    return Poses(q, t, parts[0].up)


def normal_equations(seen: Seen, poses: Poses) -> tuple[Tensor, Tensor]:
    """Information (B, P, d, d) of a step and its downhill gradient (B, P, d); residuals beyond
    delta weigh delta / |f| (as EPro-PnP scales them, by the root of the kernel's slope).
    """
    X = seen.points_obj.transpose(1, 2)[:, None]
    turned = poses.R @ X
    px, py, pz = (turned + poses.t[..., None]).unbind(-2)
    front = pz > NEAREST_M
    z = torch.where(front, pz, torch.ones_like(pz))
    x, y = px / z, py / z
    wx, wy = (w[:, None] * front for w in seen.weights.unbind(-1))
    u, v = (each[:, None] for each in seen.points_xy.unbind(-1))
    fx, fy = wx * (x - u), wy * (y - v)
    edge = seen.delta[:, None, None]
    # The kernel's slope is a number here, not something to differentiate twice.
    s = (fx * fx + fy * fy).detach().sqrt()
    root = (edge / torch.maximum(s, edge)).sqrt()
    J = torch.stack((_rows(turned, root * wx / z, x, 0), _rows(turned, root * wy / z, y, 1)), -1)
    if poses.up is not None:
        about = (poses.up[:, None, :, None, None] * J[:, :, 3:]).sum(2, keepdim=True)
        J = torch.cat((J[:, :, :3], about), dim=2)
    flat = J.flatten(3)
    f = torch.stack((root * fx, root * fy), dim=-1).flatten(2)
    return flat @ flat.transpose(2, 3), -(flat @ f[..., None])[..., 0]


def _rows(turned: Tensor, w: Tensor, along: Tensor, axis: int) -> Tensor:
    """(B, P, 6, N): d f / d (dp, dr) of one coordinate, w [e_axis - along e_z] and its moment."""
    a, b, c = turned.unbind(-2)
    zero = torch.zeros_like(w)
    jx, jy = (w, zero) if axis == 0 else (zero, w)
    jz = -w * along
    return torch.stack((jx, jy, jz, b * jz - c * jy, c * jx - a * jz, a * jy - b * jx), dim=2)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """x of matrix x = right (..., d); zero where there is none."""
    x, info = torch.linalg.solve_ex(matrix, right[..., None])
    good = (info == 0)[..., None] & x[..., 0].isfinite().all(-1, keepdim=True)
    return torch.where(good, x[..., 0], torch.zeros_like(right))


def scaled(normal: Tensor, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """(D N D + eps I, D) with a diagonal of one, so that metres and radians are alike and what is
    not known at all is merely known badly.
    """
    eps = 10.0 * torch.finfo(normal.dtype).eps if eps is None else eps
    D = normal.diagonal(dim1=-2, dim2=-1).clamp(min=1e-12).rsqrt()
    unit = normal * D[..., None] * D[..., None, :]
    return unit + eps * torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device), D


def covariance(normal: Tensor) -> Tensor:
    """Of the step at the optimum: the inverse of the information."""
    unit, D = scaled(normal)
    inverse, info = torch.linalg.inv_ex(unit)
    eye = torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    inverse = torch.where((info == 0)[..., None, None], inverse, eye)
    return 0.5 * (inverse + inverse.mT) * D[..., None] * D[..., None, :]


def gauss_newton_step(seen: Seen, poses: Poses) -> Tensor:
    """(B, P, d): differentiable by the correspondences, at poses that are given."""
    normal, downhill = normal_equations(seen, poses)
    unit, D = scaled(normal)
    return D * solve(unit, D * downhill)


@torch.no_grad()
def gauss_newton(seen: Seen, poses: Poses, iterations: int) -> Poses:
    """A few plain steps from a start that is near: for the test time."""
    for _ in range(iterations):
        poses = poses.moved(gauss_newton_step(seen, poses))
    return poses


@torch.no_grad()
def levenberg_marquardt(seen: Seen, poses: Poses, iterations: int) -> tuple[Poses, Tensor]:
    """The poses that so many iterations lead to, and their costs (B, P)."""
    costs = pose_cost(seen, poses.R, poses.t)
    normal, downhill = normal_equations(seen, poses)
    radius = torch.full_like(costs, _RADIUS)
    shrink = torch.full_like(costs, 2.0)
    for k in range(iterations):
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        damping = diagonal.clamp(_LEAST_DIAGONAL, _MOST_DIAGONAL) / radius[..., None]
        step = solve(normal + torch.diag_embed(damping), downhill)
        promised = ((downhill - 0.5 * (normal @ step[..., None])[..., 0]) * step).sum(-1)
        new = poses.moved(step)
        new_costs = pose_cost(seen, new.R, new.t)
        kept = (costs - new_costs) / promised
        good = (kept >= _ACCEPTED) & (promised > 0.0)
        poses, costs = new.where(good, poses), torch.where(good, new_costs, costs)
        grown = radius / (1.0 - (2.0 * kept - 1.0) ** 3).clamp(min=1.0 / 3.0)
        radius = torch.where(good, grown, radius / shrink).clamp(max=_LARGEST_RADIUS)
        shrink = torch.where(good, torch.full_like(shrink, 2.0), 2.0 * shrink)
        if k + 1 < iterations:
            normal, downhill = normal_equations(seen, poses)
    return poses, costs
