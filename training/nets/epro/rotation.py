"""Unit quaternions (x, y, z, w) as tensors, without branches that a batch could not share."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-4  # rad; below, sin(a / 2) / a is its series


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) x (..., 4): first b, then a."""
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = aw * bv + bw * av + torch.linalg.cross(av, bv)
    return torch.cat((vector, aw * bw - (av * bv).sum(-1, keepdim=True)), dim=-1)


def inverse(q: Tensor) -> Tensor:
    """Of unit quaternions (..., 4)."""
    return torch.cat((-q[..., :3], q[..., 3:]), dim=-1)


def from_vector(rotvec: Tensor) -> Tensor:
    """Rotation vectors (..., 3), rad -> (..., 4)."""
    square = (rotvec * rotvec).sum(-1, keepdim=True)
    small = square < _SMALL**2
    # So that the branch that is not taken has a finite gradient, too.
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    half = torch.where(small, 0.5 - square / 48.0, torch.sin(0.5 * angle) / angle)
    real = torch.where(small, 1.0 - square / 8.0, torch.cos(0.5 * angle))
    return torch.cat((half * rotvec, real), dim=-1)


def to_matrix(q: Tensor) -> Tensor:
    """(..., 4) of length one -> (..., 3, 3): linear in the products of its components."""
    products = (q[..., :, None] * q[..., None, :]).flatten(-2)
    return (products @ _TO_MATRIX.to(q)).unflatten(-1, (3, 3))


def _products_to_matrix() -> Tensor:
    """(16, 9): x x, x y, .. w w -> R row by row."""
    x, y, z, w = range(4)
    table = torch.zeros(4, 4, 3, 3)
    for own in (x, y, z):
        table[w, w, own, own] = 1.0
        for axis in (x, y, z):
            table[axis, axis, own, own] = 1.0 if axis == own else -1.0
    for i, j, k, sign in ((0, 1, 2, -1.0), (0, 2, 1, 1.0), (1, 2, 0, -1.0)):
        table[i, j, i, j] = table[i, j, j, i] = 2.0
        table[k, w, i, j], table[k, w, j, i] = 2.0 * sign, -2.0 * sign
    return table.reshape(16, 9)


_TO_MATRIX = _products_to_matrix()


def from_matrix(R: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 4), by way of the largest component (Markley, 2008)."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in R.unbind(-2))
    trace = a + e + i
    columns = torch.stack(
        (
            *(1.0 - trace + 2.0 * a, b + d, c + g, h - f),
            *(b + d, 1.0 - trace + 2.0 * e, f + h, c - g),
            *(c + g, f + h, 1.0 - trace + 2.0 * i, d - b),
            *(h - f, c - g, d - b, 1.0 + trace),
        ),
        dim=-1,
    ).unflatten(-1, (4, 4))
    largest = columns.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    q = columns.gather(-2, index)[..., 0, :]
    return q / q.norm(dim=-1, keepdim=True)


def tangent(q: Tensor) -> Tensor:
    """(..., 4) -> (..., 4, 3) with orthonormal columns: d q = 1/2 tangent(q) d r, where R turns to
    exp(d r) R.
    """
    x, y, z, w = q.unbind(-1)
    rows = (w, z, -y, -z, w, x, y, -x, w, -x, -y, -z)
    return torch.stack(rows, dim=-1).unflatten(-1, (4, 3))
