"""Coordinate and weight maps, or points with both, to correspondences.

CDPN: Li et al., ICCV 2019; EPro-PnP: Chen et al., CVPR 2022.

Every pixel of a map, or every place that a network chose, is a point of the object, in its box's
own units, and two weights in 1 / px: the residual's x and y are multiplied by them before the
Huber kernel. A weight is what the pose was taught to make of a point, not how sure the point is:
all of them have one factor too few or too many to be read as sigmas. They are read so that the
edge of the kernel, where a residual begins to count as an outlier's, lies at `KERNEL_SIGMAS`
sigmas; the pose's covariance is then too small by a factor that is known, and given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .pnp import PnpOptions, PoseEstimate, solve_pnp

if TYPE_CHECKING:
    from .camera import Camera

KERNEL_SIGMAS = 2.5  # as PnpOptions.kernel_sigmas
_KEPT = 0.995  # share of the squared weights that the points used have together
_MOST_POINTS = 512
_LEAST_POINTS = 4
# A network that is unsure of everything has residuals beyond its kernel's edge everywhere: the
# search for a pose then sees wider sigmas, and the covariance is none the narrower for it.
_WIDER = (1.0, 3.0, 9.0)


@dataclass(frozen=True, eq=False)
class DensePoints:
    """The correspondences that matter, the weightiest first, and the likelihood they are of."""

    points_obj: np.ndarray  # (N, 3) m
    points_px: np.ndarray  # (N, 2) map pixels
    covariances_px: np.ndarray  # (N, 2, 2) map px²
    weights: np.ndarray  # (N, 2) as the network gives them, 1 / input px
    delta: float  # of the Huber kernel
    covariance_scale: float  # of the pose's covariance


def correspondences(
    maps: np.ndarray, bounds_obj: np.ndarray, stride: int, relative_delta: float
) -> DensePoints:
    """maps (5, h, w): x, y, z in -1..1 of the box `bounds_obj` (2, 3), and two weights, 1 / px of
    the network's input. Pixels with anything that is not finite, or without weight, are left out;
    where fewer than four are left there are no points at all.
    """
    height, width = maps.shape[1:]
    v, u = np.divmod(np.arange(height * width), width)
    rows = np.concatenate((np.stack((u, v)), np.asarray(maps, np.float64).reshape(5, -1)))
    return point_correspondences(rows, bounds_obj, stride, relative_delta)


def point_correspondences(
    rows: np.ndarray, bounds_obj: np.ndarray, stride: int, relative_delta: float
) -> DensePoints:
    """rows (7, N): u, v in pixels of a map with one for `stride` of the network's input; then what
    `correspondences` finds in such a pixel.
    """
    rows = np.asarray(rows, np.float64)
    places, weights = rows[:2].T, rows[5:].T
    good = np.all(np.isfinite(rows), axis=0) & np.all(weights > 0.0, axis=1)
    # As training/nets/epro/cost.py has it, over all points.
    known = places[np.isfinite(places).all(axis=1)]
    spread_px = stride * np.sqrt(known.var(axis=0).sum()) if len(known) else 0.0
    total = np.where(good.reshape(-1, 1), weights, 0.0)
    delta = relative_delta * spread_px * float(total.mean())
    chosen = _weightiest(np.where(good, (total**2).sum(axis=1), 0.0))
    if len(chosen) < _LEAST_POINTS or not 0.0 < delta < np.inf:
        chosen, delta = chosen[:0], 0.0
    low, high = bounds_obj
    # Sigmas in map pixels: weights per input pixel, and the kernel's edge at KERNEL_SIGMAS.
    unit = KERNEL_SIGMAS / delta if delta else 1.0
    sigmas = 1.0 / (unit * stride * weights[chosen])
    return DensePoints(
        points_obj=0.5 * (low + high) + 0.5 * (high - low) * rows[2:5, chosen].T,
        points_px=places[chosen],
        covariances_px=sigmas[:, :, None] ** 2 * np.eye(2),
        weights=weights[chosen],
        delta=delta,
        covariance_scale=unit**2,
    )


def solve(
    points_obj: np.ndarray,
    points_px: np.ndarray,
    covariances_px: np.ndarray,
    covariance_scale: float,
    camera: Camera,
    options: PnpOptions | None = None,
) -> PoseEstimate:
    """The pose of `correspondences`, carried to pixels of `camera`, with its true covariance."""
    options = options or PnpOptions()
    # Answers are compared by the likelihood they are of.
    options = replace(options, ambiguity_cost=covariance_scale * options.ambiguity_cost)
    for wider in _WIDER:
        found = solve_pnp(points_obj, points_px, wider**2 * covariances_px, camera, options)
        if found.ok:
            break
    return replace(found, covariance=covariance_scale * found.covariance)


def _weightiest(squares: np.ndarray) -> np.ndarray:
    """Indices of the largest, as many as hold nearly all of the sum, and no more than are used."""
    order = np.argsort(-squares, kind='stable')
    held = np.cumsum(squares[order])
    if not held[-1] > 0.0:
        return order[:0]
    count = int(np.searchsorted(held, _KEPT * held[-1])) + 1
    count = min(max(count, _LEAST_POINTS), _MOST_POINTS, int((squares > 0.0).sum()))
    return order[:count]
