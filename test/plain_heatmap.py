"""`heatmap.decode` written down plainly: every matrix a matrix, in double precision."""

from __future__ import annotations

import numpy as np

from pose_node.core.heatmap import (
    _STILL,
    SMALLEST_VARIANCE,
    WIDEST_WINDOW,
    WINDOW_PER_BLOB,
    DecodeOptions,
    Keypoints,
    anywhere_px2,
)


def decode(maps: np.ndarray, sigma_px: float, options: DecodeOptions) -> Keypoints:
    """As the fast one."""
    *leading, height, width = maps.shape
    flat = maps.reshape(-1, height * width)
    peaks, peak_at = flat.max(axis=1), flat.argmax(axis=1)
    # One NaN poisons the maximum; an infinity is one itself. Either way nothing is known.
    usable = np.isfinite(peaks) & (peaks > 0.0)
    blobs = np.where(usable[:, None], flat, 0.0) / np.where(usable, peaks, 1.0)[:, None]
    # A regressed map rings below zero, and negative mass has no centre.
    blobs = np.maximum(blobs, 0.0).astype(np.float64)
    total = blobs.sum(axis=1, dtype=np.float64)
    # The floor is taken off for the walk, or the window would widen to see ever more of it. Every
    # seventh pixel gives the median at a seventh of the price.
    floor = np.median(blobs[:, ::7], axis=1, keepdims=True)
    blobs = np.maximum(blobs - floor, 0.0).reshape(-1, height, width)

    start = np.stack((peak_at % width, peak_at // width), axis=1).astype(np.float64)
    points, covariances, masses = _walk(blobs, start, sigma_px, options.iterations)
    share = np.clip(masses / np.maximum(total, 1e-9), 0.0, 1.0)[:, None, None]
    anywhere = anywhere_px2(height, width)
    doubt = _clamped(covariances - sigma_px**2 * np.eye(2), options.min_variance_px2, anywhere)
    information = share * np.linalg.inv(doubt) + (1.0 - share) / anywhere * np.eye(2)
    covariances = np.linalg.inv(information)

    points[~usable] = np.nan
    covariances[~usable] = anywhere * np.eye(2)
    confidences = np.where(usable, peaks, 0.0).reshape(leading)
    best = confidences.max(axis=-1, keepdims=True, initial=0.0)
    usable = usable.reshape(leading)
    return Keypoints(
        points_px=points.reshape(*leading, 2),
        covariances_px=covariances.reshape(*leading, 2, 2),
        confidences=confidences,
        counts=usable & (confidences >= options.threshold * best),
    )


def _walk(
    blobs: np.ndarray, start: np.ndarray, sigma_px: float, iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (N, 2), covariance (N, 2, 2) and mass (N,) of the blob nearest to each start.

    Under a Gaussian window of covariance W a Gaussian blob of covariance C at distance d shows the
    covariance V = (C⁻¹ + W⁻¹)⁻¹ and the centre (I - V W⁻¹) d away from the window's: both are
    solved for C and d, exactly for a Gaussian and by iteration for anything else.
    """
    height, width = blobs.shape[1:]
    narrowest = (WINDOW_PER_BLOB * sigma_px) ** 2
    widest = max(narrowest, (WIDEST_WINDOW * max(height, width)) ** 2)
    limit = np.array([width - 1.0, height - 1.0])
    points = start
    windows = np.full(len(blobs), narrowest)
    for _ in range(iterations):
        shift, covariances, _ = _look(blobs, points, windows)
        variances = 0.5 * np.trace(covariances, axis1=1, axis2=2)
        # Held within one window's width: where the blob has no edge, the equation has no answer.
        gain, reach = 1.0 + np.minimum(variances / windows, 1.0), np.sqrt(windows)
        step = np.clip(gain[:, None] * shift, -reach[:, None], reach[:, None])
        points = np.clip(points + step, 0.0, limit)
        windows = np.clip(WINDOW_PER_BLOB**2 * variances, narrowest, widest)
        if np.abs(step).max(initial=0.0) < _STILL:
            break
    _, covariances, masses = _look(blobs, points, windows)
    return points, covariances, masses


def _look(
    blobs: np.ndarray, points: np.ndarray, windows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One look through windows of variance (N,) centred on points (N, 2).

    Returns the mean seen, relative to the window's centre (N, 2), the covariance of the blob with
    the window's effect taken out (N, 2, 2), and the mass of that blob (N,).
    """
    height, width = blobs.shape[1:]
    # The window is separable, so all six moments are two small matrix products per map.
    dx = np.arange(width) - points[:, :1]
    dy = np.arange(height) - points[:, 1:]
    window_x = np.exp(-0.5 * dx**2 / windows[:, None])
    window_y = np.exp(-0.5 * dy**2 / windows[:, None])
    across = np.stack((window_x, window_x * dx, window_x * dx**2), axis=2)
    down = np.stack((window_y, window_y * dy, window_y * dy**2), axis=1)
    moments = down @ (blobs @ across)  # [n, power of y, power of x]
    mass = np.maximum(moments[:, 0, 0], 1e-12)
    mean = np.stack((moments[:, 0, 1], moments[:, 1, 0]), axis=1) / mass[:, None]
    seen = np.empty((len(blobs), 2, 2))
    seen[:, 0, 0], seen[:, 1, 1] = moments[:, 0, 2] / mass, moments[:, 2, 0] / mass
    seen[:, 0, 1] = seen[:, 1, 0] = moments[:, 1, 1] / mass
    seen -= mean[:, :, None] * mean[:, None, :]

    variances, axes = np.linalg.eigh(seen)
    variances = np.maximum(variances, SMALLEST_VARIANCE)
    information = 1.0 / variances - 1.0 / windows[:, None]
    freed = 1.0 / np.clip(information, 1.0 / anywhere_px2(height, width), 1.0 / SMALLEST_VARIANCE)
    covariances = (axes * freed[:, None, :]) @ axes.swapaxes(1, 2)
    # Under the window the mass of a Gaussian shrinks by sqrt(det V / det C).
    masses = mass * np.sqrt((freed / variances).prod(axis=1))
    return mean, covariances, masses


def _clamped(covariances: np.ndarray, low: float, high: float) -> np.ndarray:
    """Symmetric matrices (N, 2, 2) with their eigenvalues held between `low` and `high`."""
    variances, axes = np.linalg.eigh(covariances)
    return (axes * np.clip(variances, low, high)[:, None, :]) @ axes.swapaxes(1, 2)
