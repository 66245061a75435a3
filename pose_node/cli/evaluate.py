"""`pose evaluate`: a bundle against a BOP data set, on files or through the ROS graph.

2D boxes come from the bundle's own locator, from a file or from the ground truth; what a figure
used is printed beside it. Errors and thresholds are those of core/metrics.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import PRECISIONS, EngineOptions
from pose_node.runtime.bop import CSV_HEADER, BopDataset, Target, csv_line, read_boxes
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Region

from .evaluation_report import write_evaluation
from .figures import Estimate, Estimates, Regions, errors_of, of_object, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('bundle', type=Path, help='folder of the bundle')
    parser.add_argument('--bop', type=Path, required=True, help='folder of the data set')
    parser.add_argument(
        '--boxes',
        help="COCO-style JSON file of 2D boxes, or gt; without it the bundle's own locator looks",
    )
    parser.add_argument('--csv', type=Path, help='BOP result file to write')
    parser.add_argument('--report', type=Path, help='HTML file to write: curves, pictures')
    parser.add_argument('--split', default='test', help='folder of the pictures (test)')
    parser.add_argument('--object-id', type=int, help='only this object of the data set')
    parser.add_argument(
        '--no-contour', action='store_true', help='leave poses where the keypoints are'
    )
    parser.add_argument('--threads', type=int, default=0, help='of the networks; 0 decides')
    parser.add_argument('--backend', default='onnx', help='what runs the networks (onnx)')
    parser.add_argument('--precision', choices=PRECISIONS, default=EngineOptions.precision)
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
    names = numbers_of(bundle, options.object_id)
    targets = [t for t in dataset.targets if t.object in names]
    if not targets:
        raise PoseNodeError(
            f'{dataset.folder} has no targets of object {", ".join(map(str, names))}; '
            'name another with --object-id.'
        )
    if options.boxes is None and bundle.locator is None:
        raise PoseNodeError(
            f'Bundle {bundle.name!r} has no locator; give a file of 2D boxes with --boxes, or gt.'
        )
    boxes = options.boxes or "the bundle's own locator"
    regions = boxes_of(dataset, targets, options.boxes, names)
    how = EstimatorOptions(
        threads=options.threads,
        contour=not options.no_contour,
        engines=EngineOptions(precision=options.precision, say=_say, warn=_say),
    )
    estimates = on_files(bundle, dataset, regions, names, how, options.backend)
    print(f'{bundle.name} on {dataset.folder.name}, boxes: {boxes}')
    print(table(dataset, targets, estimates, names))
    if options.csv:
        write_csv(options.csv, targets, estimates)
        print(f'{options.csv}: BOP results')
    if options.report:
        rows = errors_of(dataset, targets, estimates, names)
        write_evaluation(options.report, bundle, dataset, boxes, rows, names, estimates)
        print(f'{options.report}: curves and pictures')
    if not options.via_ros:
        return 0
    from .evaluate_ros import compare, through_ros

    others = through_ros(options, dataset, regions, names, most_regions(regions, len(names)))
    print('through the ROS graph:')
    print(table(dataset, targets, others, names))
    worst, sentence = compare(estimates, others)
    print(sentence)
    return 0 if worst < 1e-9 else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def numbers_of(bundle: Bundle, only: int | None = None) -> dict[int, str]:
    """Object names by their numbers in the data set: those of the bundle, or only one of them."""
    names = {each.bop_id: each.name for each in bundle.objects if each.bop_id is not None}
    if only is None and not names:
        raise PoseNodeError(
            f'Bundle {bundle.name!r} does not say its BOP number; give --object-id.'
        )
    if only is None:
        return names
    if only not in names and len(bundle.objects) > 1:
        known = ', '.join(f'{number} {name}' for number, name in names.items()) or 'none'
        raise PoseNodeError(f'Object {only} is not in {bundle.name!r}; its objects are {known}.')
    return {only: names.get(only, bundle.objects[0].name)}


def boxes_of(
    dataset: BopDataset, targets: list[Target], boxes: str | None, names: dict[int, str]
) -> Regions:
    """The regions to look into: for each target the surest boxes, as many as it has instances;
    without boxes whatever the bundle's locator finds in the target's picture.
    """
    if boxes is None:
        return {(target.scene, target.image): None for target in targets}
    regions: defaultdict[tuple[int, int], list[Region]] = defaultdict(list)
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
        name = names[target.object]
        regions[key] += [Region.from_xywh(name, xywh, score) for xywh, score in chosen if xywh]
    return dict(regions)


def on_files(
    bundle: Bundle,
    dataset: BopDataset,
    regions: Regions,
    names: dict[int, str],
    how: EstimatorOptions | None = None,
    backend: str = 'onnx',
) -> Estimates:
    """The estimator on the data set's files, without ROS; every pose, however unsure."""
    from rich.progress import track

    numbers = {name: number for number, name in names.items()}
    most = most_regions(regions, len(names))
    options = replace(how or EstimatorOptions(), min_score=0.0, max_objects=most)
    estimates: Estimates = {}
    with PoseEstimator(bundle, backend, options) as estimator:
        for key, boxes in track(regions.items(), 'evaluate', transient=True):
            picture = dataset.picture(*key)
            camera = dataset.camera(*key, (picture.shape[1], picture.shape[0]))
            start = time.perf_counter()
            result = estimator(picture, camera, regions=boxes)
            seconds = time.perf_counter() - start
            estimates[key] = [
                Estimate(numbers[p.object], p.score, p.T_cam_obj, seconds, p.covariance)
                for p in result.poses
                if p.object in numbers
            ]
    return estimates


def most_regions(regions: Regions, objects: int) -> int:
    """How many regions a picture may have: all that are given, or two of every object, because
    some will be false.
    """
    given = [len(boxes) for boxes in regions.values() if boxes is not None]
    return max(1, *given) if given else max(EstimatorOptions.max_objects, 2 * objects)


def write_csv(path: Path, targets: list[Target], estimates: Estimates) -> None:
    """The BOP result file."""
    lines = [CSV_HEADER]
    for target in targets:
        for each in of_object(estimates, target)[: target.count]:
            lines.append(csv_line(target, each.score, each.T_cam_obj, each.seconds))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
