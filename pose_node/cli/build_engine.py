"""`pose build-engine`: TensorRT engines of a bundle, made before the robot needs them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import PRECISIONS, EngineOptions
from pose_node.runtime.backends.tensorrt.backend import engine_for, key_of, plan_for
from pose_node.runtime.backends.tensorrt.builder import Plan, Watch
from pose_node.runtime.backends.tensorrt.cache import EngineCache
from pose_node.runtime.backends.tensorrt.cuda import load_cuda, need_driver
from pose_node.runtime.backends.tensorrt.flavour import Flavour, load_flavour
from pose_node.runtime.estimator import EstimatorOptions, engine_batches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; where the node has a parameter of that name, they must agree."""
    parser.add_argument('bundle', type=Path, help='folder of the bundle')
    parser.add_argument(
        '--target',
        help='architectures of absent GPUs, sm86,sm89 (TensorRT for RTX); else this one',
    )
    parser.add_argument('--precision', choices=PRECISIONS, default=EngineOptions.precision)
    parser.add_argument('--engine-cache', default='', help="folder (the user's own cache)")
    parser.add_argument('--max-objects', type=int, default=EstimatorOptions.max_objects)
    parser.add_argument('--dla-core', type=int, default=-1, help='of a Jetson (the GPU)')


def run(options: argparse.Namespace) -> int:
    """Build what the cache lacks; raises PoseNodeError."""
    bundle, flavour = Bundle.load(options.bundle), load_flavour()
    if options.max_objects < 1:
        raise PoseNodeError(f'--max-objects is {options.max_objects}; give 1 or more.')
    cache = EngineCache(options.engine_cache)
    for file, most in engine_batches(bundle, options.max_objects).items():
        engines = EngineOptions(
            precision=options.precision,
            max_batch=most,
            cache=options.engine_cache,
            dla_core=options.dla_core,
            say=lambda line: print(line, file=sys.stderr),
        )
        model = bundle.read(file)
        for plan in _plans(flavour, options.target, engines):
            built = engine_for(flavour, model, plan, engines, Watch())
            path = cache.path(key_of(flavour, model, plan))
            where = path if path.is_file() else 'not kept'
            size_mb = len(built.engine) / 1e6
            print(f'{file} {plan.target} {plan.precision}: {size_mb:.1f} MB, {where}')
    return 0


def _plans(flavour: Flavour, target: str | None, engines: EngineOptions) -> list[Plan]:
    """One a target; without one, for the GPU that is here."""
    if not target:
        try:
            need_driver()
            return [plan_for(flavour, load_cuda().gpu(), engines)]
        except PoseNodeError as error:
            if not flavour.rtx:
                raise
            raise PoseNodeError(
                f'{error} For a GPU that is not here, name --target: {", ".join(flavour.targets)}.'
            ) from None
    if not flavour.rtx:
        raise PoseNodeError(
            f'{flavour.title} builds for the GPU that it runs on only; leave --target away, or '
            'install TensorRT for RTX.'
        )
    wanted = [name.strip() for name in target.split(',')]
    return [Plan(engines.precision, engines.max_batch, name, engines.dla_core) for name in wanted]
