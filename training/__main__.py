"""python -m training STEP RECIPE.toml."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pose_node.core.errors import PoseNodeError

from .recipe import load_recipe

STEPS = (
    'symmetries', 'preview', 'scenes', 'shards', 'fit', 'curve', 'evaluate', 'export', 'all',
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one step; a mistake of the user's is one sentence and exit status 2."""
    parser = argparse.ArgumentParser(prog='python -m training', description=__doc__)
    parser.add_argument('step', choices=STEPS)
    parser.add_argument('recipe', type=Path)
    parser.add_argument(
        '--out',
        type=Path,
        help='preview, curve: picture; scenes, shards: folder; export, all: folder of the bundle',
    )
    parser.add_argument('--samples', type=int, help="shards: how many (the recipe's number)")
    parser.add_argument('--pictures', type=int, default=100, help='scenes: how many')
    parser.add_argument('--seed', type=int, default=1, help='scenes: another number, other scenes')
    parser.add_argument('--size', type=picture_size, default=(640, 480), help='scenes: 640x480')
    parser.add_argument(
        '--paint',
        type=float,
        default=0.0,
        help="scenes: how far colours stray from the meshes' (log standard deviation; 0)",
    )
    parser.add_argument(
        '--only', choices=('pose', 'locator'), help='fit, shards: for this network only'
    )
    parser.add_argument('--shards', type=Path, help='fit: folder of samples rendered ahead')
    parser.add_argument(
        '--workers', type=int, default=1, help='processes that render beside the training'
    )
    parser.add_argument('--threads', type=int, default=2, help='threads of the training')
    parser.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='fit: what trains'
    )
    parser.add_argument(
        '--processes', type=int, default=1, help='fit: that train; shards: that render'
    )
    parser.add_argument('--nodes', type=int, default=1, help='fit: machines, under torchrun')
    options = parser.parse_args(arguments)
    try:
        run(options)
    except PoseNodeError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def picture_size(text: str) -> tuple[int, int]:
    """'640x480' -> (640, 480)."""
    width, height = (int(number) for number in text.split('x'))
    return width, height


def run(options: argparse.Namespace) -> None:
    """Import only what the step needs."""
    recipe = load_recipe(options.recipe)
    step = options.step
    if step == 'symmetries':
        from .steps.symmetries import symmetries

        symmetries(recipe)
    if step == 'preview':
        from .steps.preview import preview

        preview(recipe, options.out or Path('out') / f'preview_{recipe.name}.png')
    if step == 'scenes':
        from .steps.scenes import scenes

        out = options.out or Path('out') / f'scenes_{recipe.name}'
        scenes(
            recipe, out, pictures=options.pictures, seed=options.seed, size=options.size,
            paint=options.paint,
        )  # fmt: skip
    kinds = [options.only] if options.only else ['pose', *(['locator'] if recipe.locator else [])]
    if step == 'shards':
        from .steps.shards import write_shards

        out = options.out or Path('out') / f'shards_{recipe.name}'
        for kind in kinds:
            samples = options.samples or recipe.fit_options(kind).samples
            write_shards(recipe, kind, out, samples, options.processes)
    if step in ('fit', 'all'):
        from .steps.engine import open_engine
        from .steps.fit import fit

        engine = open_engine(options.device, options.processes, options.nodes)
        for kind in kinds:
            fit(
                recipe,
                kind,
                workers=options.workers,
                threads=options.threads,
                engine=engine,
                shards=options.shards,
            )
        if engine.global_rank > 0:
            return
    if step == 'curve':
        from .steps.curve import curve

        curve(recipe, options.out or Path('out') / f'curve_{recipe.name}.svg')
    if step in ('evaluate', 'all'):
        from .steps.evaluate import evaluate

        evaluate(recipe)
    if step in ('export', 'all'):
        from .steps.export import export

        export(recipe, options.out or Path('bundles') / recipe.name)


if __name__ == '__main__':
    sys.exit(main())
