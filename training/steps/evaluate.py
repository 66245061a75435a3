"""Held-out renders through the network, decoder and PnP: figures, and the calibration that the
bundle carries.

The samples have another seed than the training's. For every object: the covariance scale makes the
median normalised error squared of the poses what chi²(6) says; sampled poses spread as
posterior.py finds; the score is a logistic model of "ADD below a tenth of the diameter" (of
ADD-S's kind for symmetric objects: the nearest of the poses that look the same). Poses that are
aligned to outlines are other poses, with a covariance scale of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich.progress import track
from scipy import optimize, special, stats

from pose_node.core import metrics
from pose_node.core.contour import Aligned, align
from pose_node.core.outline import Shape
from pose_node.core.pnp import PoseEstimate
from pose_node.core.pose_spec import ALIGNED_FEATURES, SCORE_FEATURES
from pose_node.runtime.score import aligned_features, score_features

from ..recipe import Recipe
from ..synth.dataset import Dataset, Sample
from ..synth.things import Thing
from .checkpoint import pose_network
from .evaluate_locator import evaluate_locator
from .judge import add_share, heatmaps
from .judges import JUDGES, Judge, Verdict
from .posterior import Posteriors

HELD_OUT_SEED = 1_000_003
_LEVELS = (0.5, 0.9, 0.95)
_AGAINST = ('rms', 'spread')  # features that speak against a pose; the others speak for it


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
        report['locator'] = evaluate_locator(recipe, recipe.seed + HELD_OUT_SEED)
    (recipe.cache / 'calibration.json').write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return report


def _evaluate_pose(recipe: Recipe) -> dict[str, Any]:
    network = pose_network(recipe)
    seed = recipe.seed + HELD_OUT_SEED
    dataset = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, seed)
    first = recipe.dataset.ramp
    samples = [
        dataset.crop(first + n)
        for n in track(range(recipe.pose.held_out), 'render held-out crops')
    ]
    judge = JUDGES[recipe.pose.network](recipe.pose)
    found = judge.read(heatmaps(network, samples))
    objects = {}
    for index, thing in enumerate(dataset.things):
        own = [i for i, sample in enumerate(samples) if sample.thing == index]
        objects[thing.name] = _calibrate(
            judge, thing, [samples[i] for i in own], [found[i] for i in own], recipe.contour
        )
    return {
        'samples': len(samples),
        'objects': objects,
    }


def _calibrate(
    judge: Judge, thing: Thing, samples: list[Sample], found: list[Any], contour: bool
) -> dict[str, Any]:
    scale = 1.0
    prior_std_px = judge.prior_std_px(thing, samples, found)

    def verdicts() -> list[Verdict]:
        pairs = zip(samples, found, strict=True)
        return [judge(sample, thing, each, scale, prior_std_px) for sample, each in pairs]

    for _ in range(3):  # inliers depend on the scale a little, so it settles in steps
        tally = _tally(verdicts(), thing, samples)
        if not np.isfinite(tally.nees).any():
            break  # a network that has learned nothing yet has no errors to scale
        scale *= _scale(tally)
    posteriors, final = Posteriors(), verdicts()
    for sample, verdict in zip(samples, final, strict=True):
        posteriors.add(sample, thing, verdict)
    return {
        **_report(tally),
        'covariance_scale': significant(scale),
        'prior_std_px': round(prior_std_px, 2) if np.isfinite(prior_std_px) else None,
        **_credible(posteriors),
        'contour': _contour(final, thing, samples) if contour else None,
    }


def _contour(
    verdicts: list[Verdict], thing: Thing, samples: list[Sample]
) -> dict[str, Any] | None:
    """Of poses that are aligned to outlines, where that is possible at all."""
    shape = Shape.from_mesh(thing.coarse.vertices_m, thing.coarse.faces)
    found = [_align(*pair, shape) for pair in zip(verdicts, samples, strict=True)]
    pairs = zip(verdicts, found, strict=True)
    verdicts = [_moved(verdict, aligned) for verdict, aligned in pairs]
    tally = _tally(verdicts, thing, samples)
    if not np.isfinite(tally.nees).any():
        return None
    known = [(i, aligned) for i, aligned in enumerate(found) if aligned is not None]
    if not known:
        return None
    scale = significant(_scale(tally))
    features = [
        aligned_features(tally.features[i], scale * aligned.covariance, thing.mesh.diameter_m)
        for i, aligned in known
    ]
    right = np.array([tally.add_share[i] < 0.1 for i, _ in known])
    bias, weights = _fit_score(features, right, ALIGNED_FEATURES)
    return {
        **_shares_right(tally),
        'covariance_scale': scale,
        'score': _rounded(bias, weights),
    }


def _align(verdict: Verdict, sample: Sample, shape: Shape) -> Aligned | None:
    """As on the robot: also where the object is not, and the network believes to see it."""
    given, estimate = verdict.likelihood, verdict.estimate
    if given is None:
        return None
    seen = given.points_obj, given.points_px, given.points_scale * given.covariances_px
    pose = estimate.T_cam_obj, estimate.covariance
    return align(sample.picture, shape, *seen, *pose, verdict.camera)


def _moved(verdict: Verdict, aligned: Aligned | None) -> Verdict:
    if aligned is None:
        return verdict
    T, covariance = aligned.T_cam_obj, aligned.covariance
    return replace(verdict, estimate=replace(verdict.estimate, T_cam_obj=T, covariance=covariance))


def _scale(tally: Tally) -> float:
    """What covariances must be multiplied by."""
    nees = np.array(tally.nees)
    return float(np.median(nees[np.isfinite(nees)]) / stats.chi2(6).median())


def _tally(verdicts: Sequence[Verdict], thing: Thing, samples: Sequence[Sample]) -> Tally:
    tally = Tally()
    for verdict, sample in zip(verdicts, samples, strict=True):
        estimate = verdict.estimate
        tally.present.append(sample.present)
        tally.visible.append(sample.visible)
        if sample.present:
            tally.keypoint_px.append(verdict.keypoint_px)
        tally.add_share.append(add_share(estimate, sample, thing))
        trusted = sample.present and estimate.ok and tally.add_share[-1] < 0.5
        tally.nees.append(_nees(estimate, sample, thing) if trusted else np.inf)
        tally.features.append(
            score_features(
                verdict.confidences, verdict.inliers, verdict.residuals_px, verdict.covariances_px
            )
        )
    return tally


def _nees(estimate: PoseEstimate, sample: Sample, thing: Thing) -> float:
    poses = sample.T_cam_obj @ thing.symmetries.transforms()
    return min(metrics.nees(estimate.T_cam_obj, T, estimate.covariance) for T in poses)


def _report(tally: Tally) -> dict[str, Any]:
    present, visible = np.array(tally.present), np.array(tally.visible)
    add_share = np.array(tally.add_share)
    half = present & (visible >= 0.5)
    errors_px = np.concatenate(tally.keypoint_px)
    bias, weights = _fit_score(tally.features, add_share < 0.1)
    scores = np.array(
        [
            special.expit(bias + sum(weights[n] * each[n] for n in SCORE_FEATURES))
            for each in tally.features
        ]
    )
    return {
        'samples': len(present),
        'keypoint_error_px': {
            'median': round(float(np.nanmedian(errors_px)), 3),
            'p90': round(float(np.nanpercentile(errors_px, 90)), 3),
        },
        **_shares_right(tally),
        'recall_at_score_half': round(float((scores[half] > 0.5).mean()), 4),
        'false_poses_at_score_half': round(float((scores[~present] > 0.5).mean()), 4),
        'score': _rounded(bias, weights),
    }


def _rounded(bias: float, weights: dict[str, float]) -> dict[str, Any]:
    return {'bias': round(bias, 4), 'weights': {k: round(v, 4) for k, v in weights.items()}}


def _shares_right(tally: Tally) -> dict[str, float]:
    present, add_share = np.array(tally.present), np.array(tally.add_share)
    half = present & (np.array(tally.visible) >= 0.5)
    return {
        'add_01d': round(float((add_share[present] < 0.1).mean()), 4),
        'add_01d_half_visible': round(float((add_share[half] < 0.1).mean()), 4),
    }


def _credible(posteriors: Posteriors) -> dict[str, Any]:
    """The sampled poses' spread, and the share of truths in their densest regions then."""
    posterior = posteriors.fitted()
    shares = posteriors.masses(posterior)
    held = {f'{100 * level:.0f} %': _share(shares <= level) for level in _LEVELS}
    fitted = {'scale': significant(posterior.scale), 'freedom': round(posterior.freedom, 2)}
    return {'posterior': fitted if np.isfinite(posterior.freedom) else None, 'credible': held}


def significant(scale: float) -> float:
    """To five digits, wherever they begin: one that is rounded to nothing is no scale."""
    return float(f'{scale:.5g}')


def _share(hits: np.ndarray) -> float | None:
    return round(float(hits.mean()), 3) if len(hits) else None


def _fit_score(
    features: list[dict[str, float]], right: np.ndarray, names: Sequence[str] = SCORE_FEATURES
) -> tuple[float, dict[str, float]]:
    """Logistic regression with a weak pull to zero, on standardised features, each of which may
    only speak for the pose, or only against it.
    """
    X = np.array([[f[name] for name in names] for f in features])
    mean, spread = X.mean(axis=0), X.std(axis=0) + 1e-9
    Z = np.column_stack((np.ones(len(X)), (X - mean) / spread))
    sign = np.where(right, 1.0, -1.0)

    def cost(w: np.ndarray) -> float:
        return float(np.logaddexp(0.0, -sign * (Z @ w)).mean() + 1e-3 * (w[1:] ** 2).sum())

    bounds = [(None, None), *((None, 0.0) if n in _AGAINST else (0.0, None) for n in names)]
    w = optimize.minimize(cost, np.zeros(Z.shape[1]), method='L-BFGS-B', bounds=bounds).x
    weights = w[1:] / spread
    return float(w[0] - weights @ mean), dict(zip(names, weights.tolist(), strict=True))
