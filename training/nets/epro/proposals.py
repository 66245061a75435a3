"""What poses are drawn from: Student-t for the position, and for the orientation an angular
central Gaussian on the unit quaternions (6 degrees of freedom) or a von Mises with a uniform share
(4 degrees).

Densities are with respect to metres cubed times the uniform measure of SO(3) or of the circle,
which has total mass one: a normaliser over all rotations is then a mean over them. Tyler
("Statistical analysis for the angular central Gaussian distribution on the sphere", 1987) has the
fixed point for the angular central Gaussian; Best and Fisher (1979) the draw from a von Mises.

Every family holds M components for each of B objects; samples are (B, S, .).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FREEDOM = 3.0  # degrees of freedom of the Student-t
DISPERSION = 1e-3  # how much of a ball the angular Gaussian always has
UNIFORM = 0.25  # share of the circle's proposal that goes everywhere
_TRIES = 16  # draws from a von Mises of which the first good one counts: all fail once in 3e7
UNIFORMS = 2 + 3 * _TRIES  # numbers that one angle is drawn from


def cholesky(matrix: Tensor, otherwise: Tensor) -> Tensor:
    """The lower factor; where there is none, `otherwise`."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    good = (info == 0)[..., None, None] & factor.isfinite().all(-1, keepdim=True).all(
        -2, keepdim=True
    )
    return torch.where(good, factor, otherwise)


@dataclass(frozen=True)
class StudentT:
    """Positions."""

    mean: Tensor  # (B, M, 3)
    tril: Tensor  # (B, M, 3, 3)

    @classmethod
    def fit(cls, mean: Tensor, scale: Tensor) -> StudentT:
        """scale (B, M, 3, 3) of the bell, a covariance."""
        eye = torch.eye(3, dtype=scale.dtype, device=scale.device)
        wide = scale.diagonal(dim1=-2, dim2=-1).clamp(1e-12, 1e12).sqrt()
        return cls(mean, cholesky(scale, torch.diag_embed(wide) + 0.0 * eye))

    def draw(self, normals: Tensor) -> Tensor:
        """normals (B, M, k, 6), three of them for chi-square(3) -> (B, M k, 3)."""
        direction, rest = normals.split(3, dim=-1)
        width = (FREEDOM / (rest * rest).sum(-1, keepdim=True).clamp(min=1e-12)).sqrt()
        off = (direction * width) @ self.tril.mT
        return (self.mean[:, :, None] + off).flatten(1, 2)

    def log_density(self, t: Tensor) -> Tensor:
        """(B, S, 3) -> (B, M, S)."""
        off = (t[:, None] - self.mean[:, :, None]).mT
        white = torch.linalg.inv_ex(self.tril)[0] @ off
        square = (white * white).sum(-2)
        half = 0.5 * (FREEDOM + 3.0)
        norm = math.lgamma(half) - math.lgamma(0.5 * FREEDOM) - 1.5 * math.log(FREEDOM * math.pi)
        log_det = self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return norm - log_det[..., None] - half * torch.log1p(square / FREEDOM)


@dataclass(frozen=True)
class AngularGaussian:
    """Orientations in space, as quaternions."""

    tril: Tensor  # (B, M, 4, 4), of the matrix whose inverse the density has

    @classmethod
    def fit(cls, matrix: Tensor) -> AngularGaussian:
        """Scaled to trace one, with a little of a ball."""
        trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        matrix = matrix / trace.clamp(min=1e-30)
        eye = torch.eye(4, dtype=matrix.dtype, device=matrix.device)
        size = torch.linalg.det(matrix).clamp(min=0.0)[..., None, None] ** 0.25
        return cls(cholesky(matrix + (DISPERSION * size + 1e-7) * eye, 0.5 * eye))

    def draw(self, normals: Tensor) -> Tensor:
        """normals (B, M, k, 4) -> (B, M k, 4)."""
        q = normals @ self.tril.mT
        return (q / q.norm(dim=-1, keepdim=True).clamp(min=1e-20)).flatten(1, 2)

    def square(self, q: Tensor) -> Tensor:
        """(B, S, 4) -> (B, M, S): q^T matrix^-1 q."""
        white = torch.linalg.inv_ex(self.tril)[0] @ q[:, None].mT
        return (white * white).sum(-2)

    def log_density(self, q: Tensor) -> Tensor:
        """(B, S, 4) -> (B, M, S)."""
        log_det = self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -log_det[..., None] - 2.0 * self.square(q).log()


@dataclass(frozen=True)
class VonMises:
    """Angles about an axis: a von Mises, and a share that is uniform."""

    mean: Tensor  # (B, M) rad
    kappa: Tensor  # (B, M)

    @classmethod
    def fit(cls, mean: Tensor, kappa: Tensor) -> VonMises:
        """kappa held where the formulas have their digits; below, it is as good as uniform."""
        return cls(mean, kappa.clamp(0.02, 1e7))

    def draw(self, uniforms: Tensor) -> Tensor:
        """uniforms (B, M, k, UNIFORMS) -> angles (B, M k)."""
        choice, anywhere = uniforms[..., 0], uniforms[..., 1]
        u1, u2, u3 = uniforms[..., 2:].unflatten(-1, (3, _TRIES)).unbind(-2)
        kappa = self.kappa[..., None, None]
        # 1 - rho, r - 1 and 1 - f, none of them as a difference: sharp peaks need every digit.
        root = (1.0 + 4.0 * kappa * kappa).sqrt()
        gap = ((2.0 * (1.0 + root)).sqrt() - 1.0 - 1.0 / (2.0 * kappa + root)) / (2.0 * kappa)
        over = gap * gap / (2.0 * (1.0 - gap))
        half = 0.5 * torch.pi * u1
        fall = over * 2.0 * half.sin() ** 2 / (over + 2.0 * half.cos() ** 2)
        c = kappa * (over + fall)
        good = (c * (2.0 - c) > u2) | (torch.log(c / u2.clamp(min=1e-30)) + 1.0 >= c)
        first = good.to(torch.uint8).argmax(-1, keepdim=True)
        off = 2.0 * torch.asin((0.5 * fall).clamp(0.0, 1.0).sqrt())
        angle = self.mean[..., None] + (torch.sign(u3 - 0.5) * off).gather(-1, first)[..., 0]
        around = torch.pi * (2.0 * anywhere - 1.0)
        return torch.where(choice < UNIFORM, around, angle).flatten(1, 2)

    def log_density(self, angle: Tensor) -> Tensor:
        """(B, S) -> (B, M, S)."""
        kappa = self.kappa[..., None]
        off = torch.cos(angle[:, None] - self.mean[..., None]) - 1.0
        peak = kappa * off - torch.special.i0e(kappa).log() + math.log(1.0 - UNIFORM)
        return torch.logaddexp(peak, torch.full_like(peak, math.log(UNIFORM)))
