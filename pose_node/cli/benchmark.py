"""`pose benchmark`: how long a bundle takes on this machine, stage by stage, and how that grows.

No ROS: messages and publishing are the demo's to measure (`pose demo`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.ros.environment import share_folder
from pose_node.runtime.backends import BACKENDS, PRECISIONS, EngineOptions
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator

from . import workload
from .machine import Energy, machine, memory_mb

_SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
_KEYPOINTS = (8, 16, 32, 64, 128)
_STARTS = 3
# What a process does that has nothing but a bundle and a picture, until it has a pose.
_FIRST_POSE = """
import sys, time
from pathlib import Path
from pose_node.cli.workload import first_pose
first_pose(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
print(time.monotonic())
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('bundle', type=Path, help='folder of the bundle')
    parser.add_argument(
        '--backends', nargs='+', default=['onnx'], help=f'of {", ".join(BACKENDS)} (onnx)'
    )
    parser.add_argument(
        '--threads', nargs='+', type=int, default=[0], help='of a network; 0 lets it decide (0)'
    )
    parser.add_argument('--precision', choices=PRECISIONS, default=EngineOptions.precision)
    parser.add_argument(
        '--regions', nargs='+', type=int, default=[1, 2, 4, 8, 16, 32],
        help='regions in one picture, for the curve (1 2 4 8 16 32)',
    )  # fmt: skip
    parser.add_argument('--pictures', type=int, default=173, help='of the film, at most (173)')
    parser.add_argument('--repeats', type=int, default=6, help='of a point of a curve (6)')
    parser.add_argument('--bag', type=Path, help="whose pictures are shown (the demo's)")
    parser.add_argument('--out', type=Path, default=Path('out/benchmark'), help='(out/benchmark)')


def run(options: argparse.Namespace) -> int:
    """Measure, print the tables, write benchmark.json and report.html; raises PoseNodeError."""
    from .benchmark_report import text, write_report

    least = min(*options.regions, options.pictures, options.repeats)
    if least < 1:
        raise PoseNodeError(f'Regions, pictures and repeats are counted from 1, got {least}.')
    bundle = Bundle.load(options.bundle)
    bag = options.bag or share_folder() / 'demo' / 'drill_bag'
    film = workload.film_for(bundle, bag, np.random.default_rng(0), options.pictures)
    report: dict[str, Any] = {
        'bundle': bundle.name,
        'pictures': film.source,
        'size': film.camera.size,
        'machine': machine(),
        'model_mb': {
            spec.file: bundle.manifest.files[spec.file].bytes / 1e6
            for spec in (bundle.pose_network, bundle.locator)
            if spec is not None
        },
        'runs': [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for backend in options.backends:
        for threads in options.threads:
            one = _measure(bundle, film, backend, threads, options)
            report['runs'].append(one)
    print(text(report))
    (options.out / 'benchmark.json').write_text(json.dumps(report, indent=1) + '\n')
    write_report(options.out / 'report.html', report)
    print(f'{options.out / "report.html"}   {options.out / "benchmark.json"}')
    return 0


def _measure(
    bundle: Bundle,
    film: workload.Film,
    backend: str,
    threads: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    before_mb, began = memory_mb(), time.perf_counter()
    engines = EngineOptions(precision=options.precision)
    how = EstimatorOptions(threads=threads, engines=engines)
    estimator = PoseEstimator(bundle, backend, how)
    opened_s = time.perf_counter() - began
    with estimator:
        open_mb = memory_mb() - before_mb
        modes, energy = {}, Energy()
        for name, track in (('each picture for itself', False), ('tracked', True)):
            workload.stages(estimator, film_start(film), track=track)  # warms up
            began = time.perf_counter()
            with energy:
                rows = workload.stages(estimator, film, track=track)
            seconds = time.perf_counter() - began
            modes[name] = {
                'stages_ms': percentiles(rows),
                'pictures_per_s': len(rows) / seconds,
                'joules_per_picture': energy.joules and energy.joules / len(rows),
            }
        curves = {
            'megapixels': workload.by_size(estimator, film, _SIZES, options.repeats),
            'keypoints': workload.by_keypoints(estimator, film, _KEYPOINTS, options.repeats),
        }
        held_mb = memory_mb()
    regions = workload.by_regions(bundle, film, backend, how, options.regions, options.repeats)
    return {
        'backend': backend,
        'threads': threads,
        'precision': options.precision,
        'modes': modes,
        'energy': energy.source,
        'memory_mb': {'opened': open_mb, 'process': held_mb},
        'open_s': opened_s,
        'first_pose_s': _first_pose_s(options.bundle, film, backend, how, options.out),
        'curves': {'regions': regions, **curves},
    }


def film_start(film: workload.Film) -> workload.Film:
    """The first few pictures."""
    return workload.Film(film.files[:5], film.stamps_ns[:5], film.camera, film.source)


def percentiles(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """p50, p90 and p99 of every stage, and of the share of all that is not the networks'."""
    found = {
        stage: np.percentile([row[stage] for row in rows], (50, 90, 99)).tolist()
        for stage in workload.STAGES
    }
    shares = [100.0 * (1.0 - (row['network'] + row['locate']) / row['all']) for row in rows]
    return {**found, 'not the networks, %': np.percentile(shares, (50, 90, 99)).tolist()}


def _first_pose_s(
    folder: Path, film: workload.Film, backend: str, how: EstimatorOptions, out: Path
) -> list[float]:
    """From the start of a process to its first pose, in seconds, a few times."""
    picture = out / 'first.jpg'
    picture.write_bytes(film.files[0])
    arguments = (folder, picture, backend, how.threads, how.engines.precision)
    command = [sys.executable, '-c', _FIRST_POSE, *map(str, arguments)]
    times = []
    for _ in range(_STARTS):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PoseNodeError(f'A fresh process found no first pose: {done.stderr[-500:]}')
        times.append(float(done.stdout.split()[-1]) - began)
    return times
