"""`pose evaluate`: a bundle against a BOP data set, on files or through the ROS graph.

2D boxes come from a file or from the ground truth, never from nowhere: what a figure used is
printed beside it. Errors and thresholds are those of core/metrics.py.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pose_node.core import metrics
from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.bop import CSV_HEADER, BopDataset, Target, csv_line, read_boxes
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Region


@dataclass(frozen=True, eq=False)
class Estimate:
    """One pose found in one picture, and the seconds the whole picture took."""

    score: float
    T_cam_obj: np.ndarray
    seconds: float


# Picture (scene, image) -> estimates, the surest first.
Estimates = dict[tuple[int, int], list[Estimate]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('bundle', type=Path, help='folder of the bundle')
    parser.add_argument('--bop', type=Path, required=True, help='folder of the data set')
    parser.add_argument('--boxes', required=True, help='COCO-style JSON file of 2D boxes, or gt')
    parser.add_argument('--csv', type=Path, help='BOP result file to write')
    parser.add_argument('--split', default='test', help='folder of the pictures (test)')
    parser.add_argument('--object-id', type=int, help='object of the data set (from the recipe)')
    parser.add_argument('--threads', type=int, default=0, help='of the networks; 0 decides')
    parser.add_argument(
        '--via-ros',
        action='store_true',
        help='also play the pictures as a bag through the node, and compare frame by frame',
    )
    parser.add_argument('--out', type=Path, default=Path('out/evaluate'), help='bags and logs')


def run(options: argparse.Namespace) -> int:
    """Evaluate and print; exit status 1 when the two ways disagree."""
    bundle = Bundle.load(options.bundle)
    dataset = BopDataset(options.bop, options.split)
    number = options.object_id or _object_id(bundle)
    targets = [t for t in dataset.targets if t.object == number]
    if not targets:
        raise PoseNodeError(
            f'{dataset.folder} has no targets of object {number}; name another with --object-id.'
        )
    regions = boxes_of(dataset, targets, options.boxes, bundle.pose_network.object)
    estimates = on_files(bundle, dataset, targets, regions, options.threads)
    print(f'{bundle.name} on {dataset.folder.name}, object {number}, boxes: {options.boxes}')
    print(table(dataset, targets, estimates))
    if options.csv:
        write_csv(options.csv, targets, estimates)
        print(f'{options.csv}: BOP results')
    if not options.via_ros:
        return 0
    from .evaluate_ros import compare, through_ros

    others = through_ros(options, dataset, targets, regions)
    print('through the ROS graph:')
    print(table(dataset, targets, others))
    worst, sentence = compare(estimates, others)
    print(sentence)
    return 0 if worst < 1e-9 else 1


def boxes_of(
    dataset: BopDataset, targets: list[Target], boxes: str, name: str
) -> dict[tuple[int, int], list[Region]]:
    """The regions to look into: for each target the surest boxes, as many as it has instances."""
    regions: dict[tuple[int, int], list[Region]] = {}
    detections = defaultdict(list)
    if boxes != 'gt':
        for box in read_boxes(boxes):
            detections[box.scene, box.image, box.object].append(box)
    for target in targets:
        key = (target.scene, target.image)
        if boxes == 'gt':
            truths = [t for t in dataset.truths(*key) if t.object == target.object]
            truths.sort(key=lambda t: -(t.visible or 0.0))
            chosen = [(t.box_visible_px, 1.0) for t in truths[: target.count]]
            if not all(xywh for xywh, _ in chosen):
                raise PoseNodeError(
                    f'{dataset.folder} has no boxes of picture {target.image}, scene '
                    f'{target.scene} (scene_gt_info.json); give a file of them with --boxes.'
                )
        else:
            found = sorted(detections[(*key, target.object)], key=lambda box: -box.score)
            chosen = [(box.xywh_px, box.score) for box in found[: target.count]]
        regions[key] = [Region.from_xywh(name, xywh, score) for xywh, score in chosen if xywh]
    return regions


def on_files(
    bundle: Bundle,
    dataset: BopDataset,
    targets: list[Target],
    regions: dict[tuple[int, int], list[Region]],
    threads: int = 0,
) -> Estimates:
    """The estimator on the data set's files, without ROS."""
    from rich.progress import track

    estimates: Estimates = {}
    options = EstimatorOptions(min_score=0.0, threads=threads)
    with PoseEstimator(bundle, options=options) as estimator:
        for target in track(targets, 'evaluate', transient=True):
            key = (target.scene, target.image)
            picture = dataset.picture(*key)
            camera = dataset.camera(*key, (picture.shape[1], picture.shape[0]))
            start = time.perf_counter()
            result = estimator(picture, camera, regions=regions[key])
            seconds = time.perf_counter() - start
            estimates[key] = [Estimate(p.score, p.T_cam_obj, seconds) for p in result.poses]
    return estimates


def table(dataset: BopDataset, targets: list[Target], estimates: Estimates) -> str:
    """The figures, one a line. A missing estimate is a miss."""
    rows = _errors(dataset, targets, estimates)
    diameter_m = dataset.model(targets[0].object).diameter_m
    found = np.isfinite(rows['add'])
    seconds = [e[0].seconds for e in estimates.values() if e]
    symmetric = len(dataset.model(targets[0].object).symmetries.transforms()) > 1
    median = {
        name: float(np.median(rows[name][found])) if found.any() else np.nan for name in rows
    }
    mssd = metrics.average_recall(rows['mssd'] / diameter_m, metrics.MSSD_THRESHOLDS)
    mspd = metrics.average_recall(rows['mspd'], metrics.MSPD_THRESHOLDS_PX)
    lines = [
        ('targets', f'{len(found)}'),
        ('found', f'{found.sum()}'),
        (
            'ADD-S < 0.1 d' if symmetric else 'ADD < 0.1 d',
            f'{100 * metrics.recall(rows["add"], 0.1 * diameter_m):.1f} %',
        ),
        ('projection < 5 px', f'{100 * metrics.recall(rows["projection"], 5.0):.1f} %'),
        ('AR MSSD', f'{100 * mssd:.1f}'),
        ('AR MSPD', f'{100 * mspd:.1f}'),
        ('5 deg 5 cm', f'{100 * float(rows["five"].mean()):.1f} %'),
        ('median rotation', f'{np.degrees(median["rotation"]):.1f} deg'),
        ('median translation', f'{1000 * median["translation"]:.1f} mm'),
    ]
    if np.isfinite(seconds).any():  # the messages of the graph do not say
        lines.append(('median time', f'{1000 * float(np.nanmedian(seconds)):.1f} ms'))
    return '\n'.join(f'  {name:<20}{value:>10}' for name, value in lines)


def _errors(
    dataset: BopDataset, targets: list[Target], estimates: Estimates
) -> dict[str, np.ndarray]:
    """One entry a true instance; infinite where nothing was found for it."""
    columns: dict[str, list[float]] = defaultdict(list)
    names = ('add', 'projection', 'mssd', 'mspd', 'rotation', 'translation')
    for target in targets:
        key = (target.scene, target.image)
        model = dataset.model(target.object)
        symmetries = model.symmetries.transforms()
        truths = [t for t in dataset.truths(*key) if t.object == target.object]
        truths = sorted(truths, key=lambda t: -(t.visible or 0.0))[: target.count]
        left = [e.T_cam_obj for e in estimates.get(key, [])[: target.count]]
        camera = dataset.camera(*key, dataset.size(*key))
        for truth in truths:
            if not left:
                for name in names:
                    columns[name].append(np.inf)
                columns['five'].append(0.0)
                continue
            # With several instances the nearest estimate is the one that was meant.
            place = truth.T_cam_obj[:3, 3]
            nearest = int(np.argmin([np.linalg.norm(T[:3, 3] - place) for T in left]))
            T_est, T_gt = left.pop(nearest), truth.T_cam_obj
            points = model.vertices_m
            add = metrics.adds if len(symmetries) > 1 else metrics.add
            columns['add'].append(add(T_est, T_gt, points))
            columns['projection'].append(metrics.projection_error(T_est, T_gt, points, camera))
            columns['mssd'].append(metrics.mssd(T_est, T_gt, points, symmetries))
            mspd_px = metrics.mspd(T_est, T_gt, points, symmetries, camera)
            columns['mspd'].append(mspd_px * metrics.MSPD_WIDTH_PX / camera.size[0])
            columns['rotation'].append(metrics.rotation_error_rad(T_est, T_gt))
            columns['translation'].append(metrics.translation_error_m(T_est, T_gt))
            right = metrics.n_deg_n_cm(T_est, T_gt, 5.0, 5.0, symmetries)
            columns['five'].append(float(right))
    return {name: np.array(values) for name, values in columns.items()}


def write_csv(path: Path, targets: list[Target], estimates: Estimates) -> None:
    """The BOP result file."""
    lines = [CSV_HEADER]
    for target in targets:
        for each in estimates[target.scene, target.image][: target.count]:
            lines.append(csv_line(target, each.score, each.T_cam_obj, each.seconds))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _object_id(bundle: Bundle) -> int:
    """The object's number in BOP files, from the recipe that the bundle carries."""
    training = bundle.manifest.training
    if training and training.recipe:
        for line in bundle.read(training.recipe).decode().splitlines():
            key, _, value = line.partition('=')
            if key.strip() == 'bop_id' and value.split('#')[0].strip().isdigit():
                return int(value.split('#')[0])
    raise PoseNodeError(f'Bundle {bundle.name!r} does not say its BOP number; give --object-id.')
