"""Keypoints to heatmaps and back: the two halves of one code, so that neither can drift.

A map is a Gaussian of known width round the keypoint, or what a network makes of it: the belief
about where the keypoint is, blurred by that Gaussian. Decoding is a soft-argmax through a Gaussian
window that walks to the blob and takes its width: the adaptive moments of Bernstein and Jarvis (AJ
123:583, 2002) in place of the plain sum of Sun et al., "Integral Human Pose Regression" (2018). A
window that sits still cuts one flank of the blob more than the other and pulls the answer towards
its centre; one that ends centred on the answer does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .errors import PoseNodeError

# A window this many times as wide as the blob leaves 80 % of the blob's variance in sight.
WINDOW_PER_BLOB = 2.0
# The window may grow to this share of the map's longer side; a blob wider than that is "anywhere".
WIDEST_WINDOW = 0.35
_STILL = 1e-3  # px; a window that moves less has arrived
_LARGEST_PULL = 0.15  # more of a point's offset is never taken for the prior's doing
SMALLEST_VARIANCE = 1e-3  # px²; a blob of one pixel would have none


@dataclass(frozen=True)
class DecodeOptions:
    """How maps become keypoints."""

    threshold: float = 0.1  # a keypoint counts when max(map) >= threshold * max(all maps)
    min_variance_px2: float = 0.01  # no keypoint is more certain than this, map px²
    iterations: int = 6  # at most, of the window; a clean blob takes two or three


@dataclass(frozen=True)
class Keypoints:
    """Decoded keypoints, K of them behind any leading axes, in pixels of the map."""

    points_px: np.ndarray  # (..., K, 2) x, y; NaN where the map is empty or not finite
    covariances_px: np.ndarray  # (..., K, 2, 2) px²
    confidences: np.ndarray  # (..., K) the map's maximum
    counts: np.ndarray  # (..., K) bool, whether the keypoint is seen well enough to be used


def encode(points_px: np.ndarray, size: tuple[int, int], sigma_px: float) -> np.ndarray:
    """One Gaussian of height 1 for every point, at its true place between the pixels.

    points_px (..., K, 2) and sigma_px in map pixels, size (width, height) -> (..., K, height,
    width) float32. A point that is not finite gets an empty map. The map of a point outside holds
    the flank that reaches in.
    """
    _check_sigma(sigma_px)
    points = np.asarray(points_px, dtype=np.float64)
    if points.ndim < 2 or points.shape[-1] != 2:
        raise PoseNodeError(
            f'Keypoints to encode have shape {points.shape}, wanted (..., K, 2) in map pixels.'
        )
    width, height = size
    known = np.isfinite(points).all(axis=-1, keepdims=True)
    points = np.where(known, points, np.inf)
    # A Gaussian of two variables is the product of two of one.
    columns = np.exp(-0.5 * ((np.arange(width) - points[..., :1]) / sigma_px) ** 2)
    rows = np.exp(-0.5 * ((np.arange(height) - points[..., 1:]) / sigma_px) ** 2)
    return (rows[..., :, None] * columns[..., None, :]).astype(np.float32)


def decode(maps: np.ndarray, sigma_px: float, options: DecodeOptions | None = None) -> Keypoints:
    """Where the keypoints are, how sure that is, and which of them count.

    maps (..., K, h, w), not negative, of any scale: softmax maps and regressed Gaussians alike.
    sigma_px is the width of the Gaussian they were trained on, map pixels: it is taken off the
    covariance again, because it is the target's blur and not the network's doubt.

    What the map holds elsewhere, a second mode or a flat floor, is belief in another place: with
    the share q of the mass in the blob, the keypoint has the expected information q C⁻¹ + (1 - q)
    A⁻¹, where C is the blob's covariance and A that of a point that may be anywhere on the map.
    """
    _check_sigma(sigma_px)
    options = options or DecodeOptions()
    maps = np.asarray(maps)
    if maps.ndim < 3 or not np.issubdtype(maps.dtype, np.floating):
        raise PoseNodeError(
            f'Heatmaps are {maps.dtype} {maps.shape}, wanted floating point (..., K, h, w).'
        )
    *leading, height, width = maps.shape
    flat = maps.reshape(-1, height * width)
    peaks, peak_at = flat.max(axis=1), flat.argmax(axis=1)
    # One NaN poisons the maximum; an infinity is one itself. Either way nothing is known.
    usable = np.isfinite(peaks) & (peaks > 0.0)
    if not usable.all():
        flat, peaks = np.where(usable[:, None], flat, 0.0), np.where(usable, peaks, 0.0)
    blobs = flat / np.where(usable, peaks, 1.0)[:, None]
    # A regressed map rings below zero, and negative mass has no centre.
    blobs = _positive(blobs.astype(np.float32, copy=False))
    total = blobs.sum(axis=1)
    # The floor is taken off for the walk, or the window would widen to see ever more of it.
    blobs -= _medians(blobs)[:, None]
    blobs = _positive(blobs).reshape(-1, height, width)

    start = np.stack((peak_at % width, peak_at // width)).astype(np.float64)
    points, seen, masses = _walk(blobs, start, sigma_px, options.iterations)
    anywhere = anywhere_px2(height, width)
    share = np.clip(masses / np.maximum(total, 1e-9), 0.0, 1.0)
    doubt = np.clip(seen.variances - sigma_px**2, options.min_variance_px2, anywhere)
    covariances = seen.with_variances(1.0 / (share / doubt + (1.0 - share) / anywhere))

    points = points.T.copy()
    points[~usable] = np.nan
    covariances[~usable] = anywhere * np.eye(2)
    confidences = peaks.reshape(leading)
    best = confidences.max(axis=-1, keepdims=True, initial=0.0)
    usable = usable.reshape(leading)
    return Keypoints(
        points_px=points.reshape(*leading, 2),
        covariances_px=covariances.reshape(*leading, 2, 2),
        confidences=confidences,
        counts=usable & (confidences >= options.threshold * best),
    )


def without_prior(
    found: Keypoints, size: tuple[int, int], prior_std_px: float | np.ndarray
) -> Keypoints:
    """What the picture alone says of keypoints on maps of `size` (width, height).

    A network that is unsure answers with the mean of all that could be, which lies nearer to the
    middle than the truth, and all keypoints nearer to the middle are an object farther away. A
    Gaussian belief of variance s² under a prior of variance p² round the middle has been pulled in
    by 1 - s² / p²: points and covariances are divided by it, and then hold the likelihood, which
    is what a least squares fit wants.

    prior_std_px: p in map pixels, a number or (...) for found.points_px (..., K, 2); infinite
    leaves all as it is.
    """
    prior = np.square(np.asarray(prior_std_px, dtype=np.float64))[..., None]
    variances = 0.5 * np.trace(found.covariances_px, axis1=-2, axis2=-1)
    gain = 1.0 / (1.0 - np.minimum(variances / prior, _LARGEST_PULL))
    middle = 0.5 * (np.array(size) - 1.0)
    return replace(
        found,
        points_px=found.points_px + (gain[..., None] - 1.0) * (found.points_px - middle),
        covariances_px=gain[..., None, None] * found.covariances_px,
    )


@dataclass(frozen=True)
class _Ellipses:
    """Covariances of N blobs, as numpy has them quickest: the symmetric matrix S (2, 2) that a
    window shows has eigenvalues `spread` above and below their mean, and the blob's own
    covariance has the same axes.
    """

    half: np.ndarray  # (N,) half the difference of the diagonal of S
    off: np.ndarray  # (N,) S[0, 1]
    spread: np.ndarray  # (N,)
    variances: np.ndarray  # (2, N) along the axes of S, the larger first

    def with_variances(self, variances: np.ndarray) -> np.ndarray:
        """Matrices (N, 2, 2) with these axes and the variances (2, N) along them."""
        middle = 0.5 * (variances[0] + variances[1])
        stretch = 0.5 * (variances[0] - variances[1]) / np.maximum(self.spread, 1e-300)
        matrices = np.empty((len(middle), 2, 2))
        matrices[:, 0, 0] = middle + stretch * self.half
        matrices[:, 1, 1] = middle - stretch * self.half
        matrices[:, 0, 1] = matrices[:, 1, 0] = stretch * self.off
        return matrices


def _walk(
    blobs: np.ndarray, start: np.ndarray, sigma_px: float, iterations: int
) -> tuple[np.ndarray, _Ellipses, np.ndarray]:
    """Centre (2, N), covariance and mass (N,) of the blob nearest to each start (2, N).

    Under a Gaussian window of covariance W a Gaussian blob of covariance C at distance d shows the
    covariance V = (C⁻¹ + W⁻¹)⁻¹ and the centre (I - V W⁻¹) d away from the window's: both are
    solved for C and d, exactly for a Gaussian and by iteration for anything else.
    """
    height, width = blobs.shape[1:]
    narrowest = (WINDOW_PER_BLOB * sigma_px) ** 2
    widest = max(narrowest, (WIDEST_WINDOW * max(height, width)) ** 2)
    limit = np.array([[width - 1.0], [height - 1.0]])
    points = start
    windows = np.full(len(blobs), narrowest)
    for _ in range(iterations):
        shift, seen, _ = _look(blobs, points, windows)
        variances = 0.5 * (seen.variances[0] + seen.variances[1])
        # Held within one window's width: where the blob has no edge, the equation has no answer.
        gain, reach = 1.0 + np.minimum(variances / windows, 1.0), np.sqrt(windows)
        step = np.minimum(np.maximum(gain * shift, -reach), reach)
        points = np.minimum(np.maximum(points + step, 0.0), limit)
        windows = np.minimum(np.maximum(WINDOW_PER_BLOB**2 * variances, narrowest), widest)
        if np.abs(step).max(initial=0.0) < _STILL:
            break
    _, seen, masses = _look(blobs, points, windows)
    return points, seen, masses


def _look(
    blobs: np.ndarray, points: np.ndarray, windows: np.ndarray
) -> tuple[np.ndarray, _Ellipses, np.ndarray]:
    """One look through windows of variance (N,) centred on points (2, N).

    Returns the mean seen, relative to the window's centre (2, N), the covariance of the blob with
    the window's effect taken out, and the mass of that blob (N,).
    """
    height, width = blobs.shape[1:]
    # The window is separable, so all six moments are two small matrix products per map. Both axes
    # are computed at once, in float32, which holds a millionth of a pixel here.
    powers = np.empty((3, 2, len(blobs), max(height, width)), np.float32)  # power, axis, map
    weight, first, second = powers
    places = np.arange(powers.shape[-1], dtype=np.float32)
    np.subtract(places, points.astype(np.float32)[..., None], out=first)
    np.square(first, out=second)
    np.multiply(second, (-0.5 / windows).astype(np.float32)[:, None], out=weight)
    np.exp(weight, out=weight)
    powers[1:] *= weight
    across, down = powers[:, 0, :, :width], powers[:, 1, :, :height]
    moments = (down.swapaxes(0, 1) @ blobs) @ across.transpose(1, 2, 0)
    # [map, power of y, power of x] -> [power of y, power of x, map]
    (m00, m01, m02), (m10, m11, _), (m20, _, _) = moments.transpose(1, 2, 0).astype(np.float64)
    per_mass = 1.0 / np.maximum(m00, 1e-12)
    x, y = m01 * per_mass, m10 * per_mass
    xx, xy, yy = m02 * per_mass - x * x, m11 * per_mass - x * y, m20 * per_mass - y * y
    middle, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    spread = np.sqrt(half * half + xy * xy)
    seen = np.array((middle + spread, middle - spread))
    np.maximum(seen, SMALLEST_VARIANCE, out=seen)
    freed = 1.0 / seen - 1.0 / windows
    np.maximum(freed, 1.0 / anywhere_px2(height, width), out=freed)
    np.divide(1.0, np.minimum(freed, 1.0 / SMALLEST_VARIANCE, out=freed), out=freed)
    # Under the window the mass of a Gaussian shrinks by sqrt(det V / det C).
    ratio = np.sqrt((freed[0] * freed[1]) / (seen[0] * seen[1]))
    return np.array((x, y)), _Ellipses(half, xy, spread, freed), m00 * ratio


def _positive(values: np.ndarray) -> np.ndarray:
    """(N, pixels) float32 with zeros for what is below, in place where rows lie one after another
    (maps from torch may not); numpy takes four times as long against a scalar.
    """
    values = np.ascontiguousarray(values)
    if values.size:
        cv2.threshold(values, 0.0, 0.0, cv2.THRESH_TOZERO, dst=values)
    return values


def _medians(blobs: np.ndarray) -> np.ndarray:
    """(N, pixels) -> (N,), of every seventh pixel: nearly as good, at a seventh of the price."""
    some = blobs[:, ::7]
    middle = some.shape[1] // 2
    lower = middle - 1 + some.shape[1] % 2
    parted = np.partition(some, (lower, middle), axis=1)
    return 0.5 * (parted[:, lower] + parted[:, middle])


def anywhere_px2(height: int, width: int) -> float:
    """The variance of a point that may be anywhere on the map's longer side, px²."""
    return max(max(height, width) ** 2 / 12.0, 1.0)


def _check_sigma(sigma_px: float) -> None:
    if not (np.isfinite(sigma_px) and sigma_px > 0.0):
        raise PoseNodeError(f'sigma_px is {sigma_px}, wanted a positive width in map pixels.')
