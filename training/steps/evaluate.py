"""Held-out renders through the network, decoder and PnP: figures, and the calibration that the
bundle carries.

The samples have another seed than the training's. For every object: the covariance scale makes the
median normalised error squared of the poses what chi²(6) says; the score is a logistic model of
"ADD below a tenth of the diameter" (of ADD-S's kind for symmetric objects: the nearest of the
poses that look the same).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.progress import track
from scipy import optimize, special, stats

from pose_node.core import heatmap, metrics
from pose_node.core.camera import Camera
from pose_node.core.geometry import apply
from pose_node.core.pnp import PoseEstimate, solve_pnp
from pose_node.runtime.score import score_features

from ..nets import locator, unet
from ..recipe import Recipe
from ..synth.dataset import Dataset, Sample
from ..synth.things import Thing
from .feed import normalise
from .fit import load_trained

_HELD_OUT_SEED = 1_000_003
_THRESHOLD = 0.1  # a keypoint counts above this share of the best one's peak
_MIN_VARIANCE_PX2 = 0.01
_SCORE_NAMES = ('confidence', 'inlier_share', 'rms')


@dataclass
class Tally:
    """One row per held-out sample."""

    present: list[bool] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    keypoint_px: list[np.ndarray] = field(default_factory=list)
    add_share: list[float] = field(
        default_factory=list
    )  # ADD over the diameter; infinite without a pose
    nees: list[float] = field(default_factory=list)
    features: list[dict[str, float]] = field(default_factory=list)


def evaluate(recipe: Recipe) -> dict[str, Any]:
    """Measure, calibrate, print, and leave calibration.json beside the checkpoints."""
    report: dict[str, Any] = {'pose': _evaluate_pose(recipe)}
    if recipe.locator:
        report['locator'] = _evaluate_locator(recipe)
    (recipe.cache / 'calibration.json').write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return report


def _evaluate_pose(recipe: Recipe) -> dict[str, Any]:
    network = load_trained(recipe, 'pose')
    seed = recipe.seed + _HELD_OUT_SEED
    dataset = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, seed)
    first = recipe.dataset.ramp
    samples = [
        dataset.crop(first + n)
        for n in track(range(recipe.pose.held_out), 'render held-out crops')
    ]
    maps = _maps(network, samples)
    objects = {}
    for index, thing in enumerate(dataset.things):
        own = [i for i, sample in enumerate(samples) if sample.thing == index]
        objects[thing.name] = _calibrate(recipe, thing, [samples[i] for i in own], maps[own])
    return {
        'samples': len(samples),
        'threshold': _THRESHOLD,
        'min_variance_px2': _MIN_VARIANCE_PX2,
        'objects': objects,
    }


def _calibrate(
    recipe: Recipe, thing: Thing, samples: list[Sample], maps: np.ndarray
) -> dict[str, Any]:
    scale = 1.0
    for _ in range(3):  # inliers depend on the scale a little, so it settles in steps
        tally = _tally(recipe, thing, samples, maps, scale)
        good = np.isfinite(tally.nees)
        scale *= float(np.median(np.array(tally.nees)[good]) / stats.chi2(6).median())
    return _report(tally, scale)


def _maps(network: torch.nn.Module, samples: list[Sample]) -> np.ndarray:
    maps = []
    with torch.no_grad():
        for i in track(range(0, len(samples), 32), 'network'):
            batch = samples[i : i + 32]
            pictures = torch.from_numpy(np.stack([s.picture for s in batch]))
            index = torch.tensor([s.thing for s in batch])
            maps.append(network(normalise(pictures), index).exp().numpy())
    return np.concatenate(maps)


def _tally(
    recipe: Recipe, thing: Thing, samples: list[Sample], maps: np.ndarray, scale: float
) -> Tally:
    options = heatmap.DecodeOptions(
        threshold=_THRESHOLD, scale=scale, min_variance_px2=_MIN_VARIANCE_PX2
    )
    tally = Tally()
    for sample, sample_maps in zip(samples, maps, strict=True):
        found = heatmap.decode(sample_maps, recipe.pose.sigma_px, options)
        points_px = (found.points_px + 0.5) * unet.STRIDE - 0.5
        covariances_px = found.covariances_px * unet.STRIDE**2
        camera = Camera(sample.T_net_px @ sample.scene.K, recipe.dataset.input_size)
        use = found.counts
        estimate = solve_pnp(
            thing.keypoints_obj[use], points_px[use], covariances_px[use], camera
        )
        tally.present.append(sample.present)
        tally.visible.append(sample.visible)
        if sample.present:
            tally.keypoint_px.append(np.linalg.norm(points_px - sample.keypoints_px, axis=1))
        tally.add_share.append(_add_share(estimate, sample, thing))
        trusted = sample.present and estimate.ok and tally.add_share[-1] < 0.5
        tally.nees.append(_nees(estimate, sample, thing) if trusted else np.inf)
        inliers = np.zeros(len(use), bool)
        residuals_px = np.full(points_px.shape, np.inf)
        if estimate.ok:
            inliers[use] = estimate.inliers
            residuals_px = (
                camera.project(apply(estimate.T_cam_obj, thing.keypoints_obj)) - points_px
            )
        tally.features.append(
            score_features(found.confidences, inliers, residuals_px, covariances_px)
        )
    return tally


def _add_share(estimate: PoseEstimate, sample: Sample, thing: Thing) -> float:
    if not (estimate.ok and sample.present):
        return np.inf
    vertices, poses = thing.coarse.vertices_m, sample.T_cam_obj @ thing.symmetries.transforms()
    nearest_m = min(metrics.add(estimate.T_cam_obj, T, vertices) for T in poses)
    return nearest_m / thing.mesh.diameter_m


def _nees(estimate: PoseEstimate, sample: Sample, thing: Thing) -> float:
    poses = sample.T_cam_obj @ thing.symmetries.transforms()
    return min(metrics.nees(estimate.T_cam_obj, T, estimate.covariance) for T in poses)


def _report(tally: Tally, scale: float) -> dict[str, Any]:
    present, visible = np.array(tally.present), np.array(tally.visible)
    add_share = np.array(tally.add_share)
    half = present & (visible >= 0.5)
    errors_px = np.concatenate(tally.keypoint_px)
    bias, weights = _fit_score(tally.features, add_share < 0.1)
    scores = np.array([
        special.expit(bias + sum(weights[n] * f[n] for n in _SCORE_NAMES)) for f in tally.features
    ])  # fmt: skip
    return {
        'samples': len(present),
        'keypoint_error_px': {
            'median': round(float(np.median(errors_px)), 3),
            'p90': round(float(np.percentile(errors_px, 90)), 3),
        },
        'add_01d': round(float((add_share[present] < 0.1).mean()), 4),
        'add_01d_half_visible': round(float((add_share[half] < 0.1).mean()), 4),
        'recall_at_score_half': round(float((scores[half] > 0.5).mean()), 4),
        'false_poses_at_score_half': round(float((scores[~present] > 0.5).mean()), 4),
        'covariance_scale': round(scale, 4),
        'score': {'bias': round(bias, 4), 'weights': {k: round(v, 4) for k, v in weights.items()}},
    }


def _fit_score(
    features: list[dict[str, float]], right: np.ndarray
) -> tuple[float, dict[str, float]]:
    """Logistic regression with a weak pull to zero, on standardised features."""
    X = np.array([[f[name] for name in _SCORE_NAMES] for f in features])
    mean, spread = X.mean(axis=0), X.std(axis=0) + 1e-9
    Z = np.column_stack((np.ones(len(X)), (X - mean) / spread))
    sign = np.where(right, 1.0, -1.0)

    def cost(w: np.ndarray) -> float:
        return float(np.logaddexp(0.0, -sign * (Z @ w)).mean() + 1e-3 * (w[1:] ** 2).sum())

    w = optimize.minimize(cost, np.zeros(Z.shape[1])).x
    weights = w[1:] / spread
    return float(w[0] - weights @ mean), dict(zip(_SCORE_NAMES, weights.tolist(), strict=True))


def _evaluate_locator(recipe: Recipe) -> dict[str, Any]:
    """Recall and false alarms over thresholds.

    The threshold that is kept makes F3 largest: a missed object is lost, a false region only costs
    a look, because the score of the pose judges it.
    """
    network = load_trained(recipe, 'locator')
    options = recipe.locator_dataset
    seed = recipe.seed + _HELD_OUT_SEED
    dataset = Dataset(options, recipe.objects, recipe.keypoints, seed)
    samples = [
        dataset.whole(options.ramp + n) for n in track(range(recipe.locate.held_out), 'locator')
    ]
    present = np.array([s.present for s in samples])
    peaks, found = [], []
    with torch.no_grad():
        for sample in samples:
            logits, boxes = network(normalise(torch.from_numpy(sample.picture[None])))
            centers = torch.sigmoid(logits)[0, sample.thing].numpy()
            peak, iou = best_box(centers, boxes[0].numpy(), sample)
            peaks.append(peak)
            found.append(iou > 0.5)
    scores, right = np.array(peaks), np.array(found)
    rows = {}
    for threshold in np.arange(0.1, 0.91, 0.05).round(2):
        hit = float((scores >= threshold)[present & right].sum())
        recall = hit / max(1, present.sum())
        precision = hit / max(1, (scores >= threshold).sum())
        f3 = 10.0 * recall * precision / max(1e-9, recall + 9.0 * precision)
        rows[float(threshold)] = (f3, recall, precision)
    best = max(rows, key=lambda t: rows[t][0])
    return {
        'samples': len(samples),
        'threshold': best,
        'recall': round(rows[best][1], 4),
        'precision': round(rows[best][2], 4),
        'false_alarms': round(float((scores[~present] >= best).mean()), 4),
    }


def best_box(centers: np.ndarray, boxes: np.ndarray, sample: Sample) -> tuple[float, float]:
    """(height of the highest peak, IoU of its box with the true one; 0 without an object)."""
    row, column = np.unravel_index(centers.argmax(), centers.shape)
    dx, dy, log_w, log_h = boxes[:, row, column]
    center = (np.array((column + dx, row + dy)) + 0.5) * locator.STRIDE - 0.5
    size = np.exp((log_w, log_h))
    if not sample.present:
        return float(centers[row, column]), 0.0
    low = np.maximum(center - size / 2, sample.box_center_px - sample.box_size_px / 2)
    high = np.minimum(center + size / 2, sample.box_center_px + sample.box_size_px / 2)
    shared = float(np.prod(np.clip(high - low, 0, None)))
    union = float(np.prod(size) + np.prod(sample.box_size_px)) - shared
    return float(centers[row, column]), shared / union
