"""A pose moved until the object's outline lies where the colours change.

What a picture shows inside the outline of a first pose and what it shows round it give two colour
histograms, and these the odds of every pixel to be the object's. Along lines across the outline
the odds say where the edge is likely to be, with a mean and a deviation (Stoiber et al., "SRT3D: A
sparse region-based 3D object tracking approach for the real world", IJCV 2022, section 3). Such a
place is a correspondence that is known across the outline and not along it; together with the
keypoints that the first pose rests on it makes a better one, by reweighted least squares: what
stands in front of the object has edges, too. A keypoint network is surest about directions and
least about distance, and an outline knows the distance best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .geometry import make_pose
from .outline import Outline, extent_px, outline
from .pnp import covariance_of, problem_of
from .refine import Problem, refine, squared_residuals

if TYPE_CHECKING:
    from .camera import Camera
    from .outline import Shape

_CANVAS_PX = 128.0  # larger objects are looked at in a smaller picture
_BINS_LOG2 = 4  # histogram bins a channel
_N = 1 << _BINS_LOG2
_SMOOTH = 0.25 * (np.eye(_N, k=-1) + 2.0 * np.eye(_N) + np.eye(_N, k=1))
_SMOOTH[[0, -1], [0, -1]] += 0.25  # an end has one neighbour alone
_LEAST_SHARE = 1e-5  # of all pixels, in every bin: what was never seen has even odds
_ALONG_PX = 1e3  # deviation along the outline: nothing is known there
_FEWEST = 10  # lines, and pixels of either kind


@dataclass(frozen=True)
class ContourOptions:
    """How to look; pixels are those of a picture in which the object has at most 190."""

    samples: int = 8  # each way from the outline
    # From sample to sample, shares of the object's size; the widest only as far as the first
    # pose's covariance says that the outline may be off, times so many sigmas.
    widest: float = 0.018
    finest: float = 0.008
    sigmas: float = 3.0
    rounds: int = 2  # of finding edges and moving there, from wide to fine
    iterations: int = 3  # of least squares in a round
    ring_px: float = 14.0  # how far round the object its surroundings go
    gap_px: float = 1.5  # on both sides of the outline, where colours are mixed
    contrast: float = 0.46  # 0.5 would believe the histograms blindly
    least_std_px: float = 0.7  # of an edge: pixels are no smaller
    lines_share: float = 0.3  # weight of a line beside a keypoint's: neighbours see the same
    kernel_sigmas: float = 0.7  # beyond, keypoints and lines pull ever less (Cauchy)


@dataclass(frozen=True, eq=False)
class Aligned:
    """What the outline made of a pose."""

    T_cam_obj: np.ndarray  # (4, 4)
    covariance: np.ndarray  # (6, 6) as the weights have it; to be calibrated
    agreement: float  # 0..1: how much of the lines' probability lies at the outline


def align(
    picture: np.ndarray,
    shape: Shape,
    points_obj: np.ndarray,
    points_px: np.ndarray,
    covariances_px: np.ndarray,
    T_cam_obj: np.ndarray,
    covariance: np.ndarray,
    camera: Camera,
    options: ContourOptions | None = None,
) -> Aligned | None:
    """The pose near T_cam_obj that keypoints and outline agree upon.

    picture (H, W, 3) uint8; points (K, 3), m, seen at (K, 2), px, with covariances (K, 2, 2), px²:
    what the first pose and its covariance (6, 6) rest on. None where no outline is to be seen.
    """
    options = options or ContourOptions()
    keypoints, _ = problem_of(points_obj, points_px, covariances_px, camera)
    canvas = _canvas(picture, shape, T_cam_obj, camera, options)
    if canvas is None:
        return None
    small, camera = canvas
    seen = outline(shape, T_cam_obj, camera)
    odds = None if seen is None else log_odds(small, seen, options)
    if seen is None or odds is None or len(seen.points_obj) < _FEWEST:
        return None
    size_px = max(seen.mask.shape) / seen.mask_from_px[0, 0]
    off_px = options.sigmas * displacement_px(seen, T_cam_obj, covariance, camera)
    widest = np.clip(off_px / (options.samples * size_px), options.finest, options.widest)
    R, t = T_cam_obj[:3, :3], T_cam_obj[:3, 3]
    for number, share in enumerate(np.geomspace(widest, options.finest, options.rounds)):
        seen = outline(shape, make_pose(R, t), camera) if number else seen
        if seen is None:
            return None
        edges = find_edges(odds, seen, share * size_px, options)
        if len(edges.points_obj) < _FEWEST:
            return None
        lines, _ = problem_of(edges.points_obj, edges.points_px, edges.covariances_px, camera)
        for _ in range(options.iterations):
            both = _joined(
                _weighted(keypoints, R, t, options.kernel_sigmas),
                _weighted(lines, R, t, options.kernel_sigmas, options.lines_share),
            )
            found = refine(both, R, t, iterations=1)
            R, t = found.R, found.t
    T, spread = make_pose(R, t), covariance_of(found.normal)
    if not (np.isfinite(T).all() and np.isfinite(spread).all()):
        return None
    return Aligned(T, spread, edges.agreement)


@dataclass(frozen=True, eq=False)
class Edges:
    """Where the object seems to end, as correspondences."""

    points_obj: np.ndarray  # (N, 3) m
    points_px: np.ndarray  # (N, 2)
    covariances_px: np.ndarray  # (N, 2, 2) px²: known across the outline, and not along it
    agreement: float


def log_odds(picture: np.ndarray, seen: Outline, options: ContourOptions) -> np.ndarray | None:
    """(H, W) float32, the logarithm of how much likelier a colour is inside the outline than round
    it; None where the picture shows too little of either.
    """
    size = picture.shape[1], picture.shape[0]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    inside = cv2.warpAffine(seen.mask, seen.mask_from_px, size, flags=flags)
    depth_px = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    height_px = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
    colours = _bins(picture)
    own = colours[depth_px > options.gap_px]
    others = colours[(height_px > options.gap_px) & (height_px < options.ring_px)]
    if min(len(own), len(others)) < _FEWEST:
        return None
    of_object, of_others = _histogram(own), _histogram(others)
    share = (of_object / (of_object + of_others))[colours]
    contrast = options.contrast
    likely = (0.5 - contrast) + 2.0 * contrast * share
    return np.log(likely / (1.0 - likely)).astype(np.float32)


def find_edges(odds: np.ndarray, seen: Outline, step_px: float, options: ContourOptions) -> Edges:
    """Of lines across the outline, `step_px` from sample to sample, those that lie in the picture.

    An edge at sample d has the object's colours up to d and others beyond: its logarithm of
    likelihood is, but for a constant, the sum of the odds up to d.
    """
    reach = np.arange(-options.samples, options.samples + 1)
    places = seen.points_px[:, None] + (step_px * reach)[:, None] * seen.outward[:, None]
    height, width = odds.shape
    whole = ((places[:, [0, -1]] > -0.5) & (places[:, [0, -1]] < (width - 0.5, height - 0.5))).all(
        axis=(1, 2)
    )
    points_px, outward = seen.points_px[whole], seen.outward[whole]
    x, y = places[whole].astype(np.float32).transpose(2, 0, 1)
    found = np.zeros(x.shape, np.float32)
    if len(x):
        found = cv2.remap(odds, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found = found.astype(np.float64)
    likely = np.cumsum(found, axis=1) - 0.5 * found
    likely = np.exp(likely - likely.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    mean_px = step_px * (likely @ reach)
    variance_px2 = step_px**2 * (likely @ reach**2) - mean_px**2
    # Coarse samples say no more than fine ones of where between them an edge is.
    least_px = options.least_std_px * max(1.0, step_px)
    variance_px2 = np.maximum(variance_px2, least_px**2)
    # That one looks no farther is no knowledge: a line without an edge must say nothing.
    window_px2 = step_px**2 * float(np.mean(reach**2))
    known = np.maximum(1.0 / variance_px2 - 1.0 / window_px2, 1e-6)
    offset_px = np.clip(mean_px / variance_px2 / known, -step_px * reach[-1], step_px * reach[-1])
    across = outward[:, :, None] * outward[:, None]
    covariances_px = _ALONG_PX**2 * (np.eye(2) - across) + across / known[:, None, None]
    near = likely[:, np.abs(reach) <= 1].sum(axis=1)
    return Edges(
        seen.points_obj[whole],
        points_px + offset_px[:, None] * outward,
        covariances_px,
        float(near.mean()) if len(near) else 0.0,
    )


def displacement_px(
    seen: Outline, T_cam_obj: np.ndarray, covariance: np.ndarray, camera: Camera
) -> float:
    """How far across itself the outline may be off by the pose's covariance: one sigma, median."""
    turned = seen.points_obj @ T_cam_obj[:3, :3].T
    J = camera.project_jacobian(turned + T_cam_obj[:3, 3])
    across = np.einsum('ni,nij->nj', seen.outward, J)
    rows = np.hstack((across, np.cross(turned, across)))
    return float(np.sqrt(np.median(np.einsum('ni,ij,nj->n', rows, covariance, rows))))


def _canvas(
    picture: np.ndarray,
    shape: Shape,
    T_cam_obj: np.ndarray,
    camera: Camera,
    options: ContourOptions,
) -> tuple[np.ndarray, Camera] | None:
    """The part of the picture round the object, reduced by a whole number; and its camera."""
    box = extent_px(shape, T_cam_obj, camera)
    if box is None:
        return None
    size_px = float((box[1] - box[0]).max())
    reduction = max(1, round(size_px / _CANVAS_PX))
    reach_px = options.samples * options.widest * size_px
    margin_px = reduction * max(reach_px / reduction, options.ring_px) + 2.0
    low = np.clip(np.floor(box[0] - margin_px), 0, camera.size).astype(int)
    high = np.clip(np.ceil(box[1] + margin_px), 0, camera.size).astype(int)
    width, height = (high - low) // reduction
    if min(width, height) < _FEWEST:
        return None
    x, y = low
    whole = width * reduction, height * reduction
    part = picture[y : y + whole[1], x : x + whole[0]]
    if reduction > 1:
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    return part, camera.cropped(x, y, *whole).resized(width, height)


def _bins(picture: np.ndarray) -> np.ndarray:
    """(H, W) the bin of every pixel's colour."""
    r, g, b = (picture >> (8 - _BINS_LOG2)).astype(np.int32).transpose(2, 0, 1)
    return (((r << _BINS_LOG2) + g) << _BINS_LOG2) + b


def _histogram(bins: np.ndarray) -> np.ndarray:
    """Shares of the pixels, smoothed over neighbouring bins, nowhere zero."""
    counts = np.bincount(bins, minlength=_N**3) / len(bins)
    for _ in range(3):  # the first axis becomes the last one
        counts = (_SMOOTH @ counts.reshape(_N, -1)).T.ravel()
    return counts + _LEAST_SHARE


def _weighted(
    problem: Problem, R: np.ndarray, t: np.ndarray, kernel: float, share: float = 1.0
) -> Problem:
    """The problem whose least squares has the gradient of Cauchy's kernel here."""
    squared = np.minimum(squared_residuals(problem, R, t), 1e12)
    weights = share / (1.0 + squared / kernel**2)
    return Problem(problem.points_obj, problem.points_xy, problem.whitening * np.sqrt(weights))


def _joined(a: Problem, b: Problem) -> Problem:
    return Problem(
        np.concatenate((a.points_obj, b.points_obj), axis=1),
        np.concatenate((a.points_xy, b.points_xy), axis=1),
        np.concatenate((a.whitening, b.whitening), axis=2),
    )
