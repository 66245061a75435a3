"""`pose verify`: everything a bundle promises, held against what it is."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pose_node.core.bundle import Bundle
from pose_node.core.camera import Camera
from pose_node.core.mesh import read_ply
from pose_node.runtime.estimator import PoseEstimator
from pose_node.runtime.preprocess import Region


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('bundle', type=Path, help='folder of the bundle')
    parser.add_argument('--backend', default='onnx', help='what runs the networks (onnx)')


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
    with PoseEstimator(bundle, options.backend) as estimator:
        result = estimator(picture, camera, regions=regions)
    names = ', '.join(each.name for each in bundle.objects)
    size = sum(file.bytes for file in bundle.manifest.files.values()) / 1e6
    print(f'{bundle.name}: {len(bundle.manifest.files)} files, {size:.1f} MB, hashes right')
    print(f'objects: {names}; locator: {"yes" if bundle.locator else "no"}')
    print(f'networks run on {options.backend}: {sum(result.stage_ms.values()):.1f} ms a picture')
    return 0
