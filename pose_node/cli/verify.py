"""`pose verify`: everything a bundle promises, held against what it is; with --parity, what this
machine's TensorRT makes of it, held against ONNX Runtime.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pose_node.core.bundle import Bundle
from pose_node.core.camera import Camera
from pose_node.core.mesh import read_ply
from pose_node.runtime.backends import PRECISIONS, EngineOptions
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.parity import Scene, compare, painted_scenes
from pose_node.runtime.preprocess import Region

from .run import frames

_SCENES = 20  # of each object


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('bundle', type=Path, help='folder of the bundle')
    parser.add_argument('--backend', help='what runs the networks (onnx; with --parity tensorrt)')
    parser.add_argument(
        '--parity', action='store_true', help='hold the backend against ONNX Runtime'
    )
    parser.add_argument('--pictures', help='what to compare on (painted from the meshes)')
    parser.add_argument('--precision', choices=PRECISIONS, default=EngineOptions.precision)
    parser.add_argument('--engine-cache', default='', help="folder (the user's own cache)")


def run(options: argparse.Namespace) -> int:
    """Load, hash, and look once into a picture of noise; raises PoseNodeError."""
    bundle = Bundle.load(options.bundle)
    for each in bundle.objects:
        if each.mesh:
            read_ply(bundle.read(each.mesh))
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    camera = Camera(np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]), (640, 480))
    regions = [
        Region(name, (319.5, 239.5), (200.0, 200.0)) for name in bundle.pose_network.objects
    ]
    if options.parity:
        return _parity(bundle, options)
    with PoseEstimator(bundle, options.backend or 'onnx', _options(options)) as estimator:
        backend = estimator.backend
        result = estimator(picture, camera, regions=regions)
    names = ', '.join(each.name for each in bundle.objects)
    size = sum(file.bytes for file in bundle.manifest.files.values()) / 1e6
    print(f'{bundle.name}: {len(bundle.manifest.files)} files, {size:.1f} MB, hashes right')
    print(f'objects: {names}; locator: {"yes" if bundle.locator else "no"}')
    print(f'networks run on {backend}: {sum(result.stage_ms.values()):.1f} ms a picture')
    return 0


def _options(options: argparse.Namespace) -> EstimatorOptions:
    engines = EngineOptions(
        precision=options.precision,
        cache=options.engine_cache,
        say=_say,
        warn=_say,
    )
    return EstimatorOptions(engines=engines)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _parity(bundle: Bundle, options: argparse.Namespace) -> int:
    """Status 1 where the backend's answers are not ONNX Runtime's."""
    # One look: where the second one falls depends on the first.
    # What the networks say, once: edges that are found anew would enlarge any difference.
    once = replace(_options(options), second_look=1.0, contour=False)
    whole = replace(once, engines=EngineOptions('fp32'))
    name = options.backend or 'tensorrt'
    with (
        PoseEstimator(bundle, name, once) as tested,
        PoseEstimator(bundle, 'onnx', whole) as reference,
    ):
        scenes = (
            _scenes_of(options.pictures, reference)
            if options.pictures
            else painted_scenes(bundle, _SCENES, np.random.default_rng(0))
        )
        parity = compare(tested, reference, scenes, options.precision)
        print(f'{bundle.name} on {tested.backend} against {reference.backend}, {parity}')
    if parity.fault:
        print(f'pose verify: no parity: {parity.fault}.', file=sys.stderr)
        return 1
    return 0


def _scenes_of(pictures: str, estimator: PoseEstimator) -> Iterator[Scene]:
    """Where the locator looks; without one, the whole picture for every object."""
    for _, picture in frames(pictures):
        height, width = picture.shape[:2]
        K = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
        middle, size = ((width - 1) / 2, (height - 1) / 2), (float(width), float(height))
        regions = (
            estimator.locator(picture)
            if estimator.locator is not None
            else [Region(name, middle, size) for name in estimator.objects]
        )
        yield picture, Camera(K, (width, height)), regions
