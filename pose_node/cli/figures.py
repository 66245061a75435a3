"""The errors of poses against a BOP data set, as figures and as a table.

Errors and thresholds are those of core/metrics.py. A target that was not found is a miss in every
figure; medians are over what was found.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core import metrics
from pose_node.core.depth import draw_depth
from pose_node.core.vsd import VSD_TAUS, average_recall_vsd, ray_lengths, vsd
from pose_node.runtime.preprocess import Region

if TYPE_CHECKING:
    from pose_node.core.camera import Camera
    from pose_node.runtime.bop import BopDataset, ObjectModel, Target

_COLUMNS = {
    'object': '12s',
    'targets': '8d',
    'found': '7d',
    'ADD(-S) 0.1d': '14.1f',
    'AUC 10 cm': '11.1f',
    '5 px': '7.1f',
    'AR MSSD': '9.1f',
    'AR MSPD': '9.1f',
    'AR VSD': '8.1f',
    '5 deg 5 cm': '12.1f',
    'turn, deg': '11.1f',
    'shift, mm': '11.1f',
}


# One entry a true instance: scene and image; score; visible share; nees; ADD in metres and in
# diameters; mssd in diameters; mspd and projection in pixels; rotation in rad; translation in
# metres; five, 1 where 5 deg 5 cm hold; vsd, the recall over tolerances and thresholds, NaN where
# the data set has no depth.
Errors = dict[str, np.ndarray]
_MISSED = {
    **dict.fromkeys(('add_m', 'add', 'projection', 'mssd', 'mspd'), np.inf),
    **dict.fromkeys(('rotation', 'translation'), np.inf),
    'score': 0.0,
    'nees': np.nan,
    'five': 0.0,
}


@dataclass(frozen=True, eq=False)
class Estimate:
    """One pose found in one picture, and the seconds the whole picture took."""

    object: int  # its number in the data set
    score: float
    T_cam_obj: np.ndarray
    seconds: float
    covariance: np.ndarray | None = None  # (6, 6)


# Picture (scene, image) -> what to look into, None is what the bundle's locator finds; estimates,
# the surest first.
Regions = dict[tuple[int, int], 'list[Region] | None']
Estimates = dict[tuple[int, int], list[Estimate]]


def of_object(estimates: Estimates, target: Target) -> list[Estimate]:
    """The estimates of the target's object in its picture, the surest first."""
    found = estimates.get((target.scene, target.image), [])
    return [each for each in found if each.object == target.object]


def table(
    dataset: BopDataset, targets: list[Target], estimates: Estimates, names: dict[int, str]
) -> str:
    """A line an object, and one for all targets together where there are several; in per cent."""
    rows = errors_of(dataset, targets, estimates, names)
    shown = {name: {'object': name, **figures(row)} for name, row in rows.items()}
    columns = {k: spec for k, spec in _COLUMNS.items() if all(k in v for v in shown.values())}
    head = ''.join(
        f'{name:{"<" if name == "object" else ">"}{spec.split(".")[0].rstrip("sd")}}'
        for name, spec in columns.items()
    )
    lines = ['  ' + head]
    for values in shown.values():
        lines.append('  ' + ''.join(format(values[k], spec) for k, spec in columns.items()))
    seconds = [each[0].seconds for each in estimates.values() if each]
    if np.isfinite(seconds).any():  # the messages of the graph do not say
        lines.append(f'  median time of a picture {1000 * float(np.nanmedian(seconds)):.1f} ms')
    return '\n'.join(lines)


def errors_of(
    dataset: BopDataset, targets: list[Target], estimates: Estimates, names: dict[int, str]
) -> dict[str, Errors]:
    """The errors of every object by its name, and of `all` where there are several."""
    rows = {
        name: _errors(dataset, [t for t in targets if t.object == number], estimates)
        for number, name in names.items()
        if any(t.object == number for t in targets)
    }
    if any(np.isnan(row['vsd']).any() for row in rows.values()):
        for row in rows.values():  # of a part of the targets it would be another figure
            row['vsd'] = np.full(len(row['vsd']), np.nan)
    if len(rows) > 1:
        keys = next(iter(rows.values()))
        rows['all'] = {key: np.concatenate([row[key] for row in rows.values()]) for key in keys}
    return rows


def figures(row: Errors) -> dict[str, float]:
    """Name -> figure of the errors of some targets; shares and recalls in per cent."""
    found = np.isfinite(row['add'])

    def median(name: str) -> float:
        return float(np.median(row[name][found])) if found.any() else np.nan

    return {
        'targets': len(found),
        'found': int(found.sum()),
        'ADD(-S) 0.1d': 100 * metrics.recall(row['add'], 0.1),
        'AUC 10 cm': 100 * metrics.area_under_curve(row['add_m'], 0.1),
        '5 px': 100 * metrics.recall(row['projection'], 5.0),
        'AR MSSD': 100 * metrics.average_recall(row['mssd'], metrics.MSSD_THRESHOLDS),
        'AR MSPD': 100 * metrics.average_recall(row['mspd'], metrics.MSPD_THRESHOLDS_PX),
        **({} if np.isnan(row['vsd']).any() else {'AR VSD': 100 * float(row['vsd'].mean())}),
        '5 deg 5 cm': 100 * float(row['five'].mean()),
        'turn, deg': float(np.degrees(median('rotation'))),
        'shift, mm': 1000 * median('translation'),
    }


def _errors(dataset: BopDataset, targets: list[Target], estimates: Estimates) -> Errors:
    """One entry a true instance; infinite where nothing was found for it."""
    columns: dict[str, list[float]] = defaultdict(list)
    for target in targets:
        key = (target.scene, target.image)
        truths = [t for t in dataset.truths(*key) if t.object == target.object]
        truths = sorted(truths, key=lambda t: -(t.visible or 0.0))[: target.count]
        left = of_object(estimates, target)[: target.count]
        for truth in truths:
            columns['scene'].append(target.scene)
            columns['image'].append(target.image)
            columns['visible'].append(np.nan if truth.visible is None else truth.visible)
            depth_m = dataset.depth_m(*key)
            errors = {**_MISSED, 'vsd': np.nan if depth_m is None else 0.0}
            if left:
                # With several instances the nearest estimate is the one that was meant.
                place = truth.T_cam_obj[:3, 3]
                nearest = min(
                    left, key=lambda e: float(np.linalg.norm(e.T_cam_obj[:3, 3] - place))
                )
                left = [each for each in left if each is not nearest]
                camera = dataset.camera(*key, dataset.size(*key))
                model = dataset.model(target.object)
                errors = _pose_errors(nearest, truth.T_cam_obj, model, camera)
                errors['vsd'] = _vsd_recall(nearest, truth.T_cam_obj, model, camera, depth_m)
            for name, value in errors.items():
                columns[name].append(value)
    return {name: np.array(values) for name, values in columns.items()}


def _pose_errors(
    estimate: Estimate, T_gt: np.ndarray, model: ObjectModel, camera: Camera
) -> dict[str, float]:
    T_est = estimate.T_cam_obj
    symmetries = model.symmetries.transforms()
    points = model.vertices_m
    add = metrics.adds if len(symmetries) > 1 else metrics.add
    mspd_px = metrics.mspd(T_est, T_gt, points, symmetries, camera)
    add_m = add(T_est, T_gt, points)
    covariance = estimate.covariance
    nees = np.nan
    if covariance is not None and np.isfinite(covariance).all():
        nees = min(metrics.nees(T_est, T_gt @ S, covariance) for S in symmetries)
    return {
        'score': estimate.score,
        'nees': nees,
        'add_m': add_m,
        'add': add_m / model.diameter_m,
        'projection': metrics.projection_error(T_est, T_gt, points, camera),
        'mssd': metrics.mssd(T_est, T_gt, points, symmetries) / model.diameter_m,
        'mspd': mspd_px * metrics.MSPD_WIDTH_PX / camera.size[0],
        'rotation': min(metrics.rotation_error_rad(T_est, T_gt @ S) for S in symmetries),
        'translation': metrics.translation_error_m(T_est, T_gt),
        'five': float(metrics.n_deg_n_cm(T_est, T_gt, 5.0, 5.0, symmetries)),
    }


def _vsd_recall(
    estimate: Estimate,
    T_gt: np.ndarray,
    model: ObjectModel,
    camera: Camera,
    depth_m: np.ndarray | None,
) -> float:
    """The share of pairs of tolerance and threshold that hold; NaN without depth or triangles."""
    if depth_m is None or not len(model.faces):
        return np.nan
    depth_est_m, depth_gt_m = (
        draw_depth(model.vertices_m, model.faces, T, camera.K, camera.size)
        for T in (estimate.T_cam_obj, T_gt)
    )
    rays = ray_lengths(camera.K, camera.size)
    errors = vsd(depth_est_m, depth_gt_m, depth_m, rays, VSD_TAUS * model.diameter_m)
    return average_recall_vsd(errors[None])
