"""What each part of the workshop brings: one training a part, without it, on the same budget.

python -m training scenes config/recipes/drill.toml --pictures 150 --out out/scenes_drill
python test/ablation.py config/recipes/drill.toml --validation out/scenes_drill --samples 12000

Every row is trained from ImageNet's weights on as many pictures of 128 x 128, without a ramp, and
judged on pictures by another renderer. The first row is there twice, with another seed: what two
rows differ by without a cause. Checkpoints are kept in the cache, so that a run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.recipe import load_recipe, tomllib
from training.steps.fit import fit
from training.steps.fit_log import read_log

_SHOWN = ('other_add_01d', 'other_ar_mssd', 'other_keypoint_px')
_SCENE, _AUGMENT = 'dataset.scene', 'dataset.augment'
_NO_CAMERA = {
    'color': 0.0, 'blur': 0.0, 'resolution': 0.0, 'vignette': 0.0, 'bayer': 0.0, 'noise': 0.0,
    'shot_noise': 0.0, 'jpeg': 0.0, 'cutout': 0.0,
}  # fmt: skip
Overlay = dict[str, dict[str, Any]]
VARIANTS: dict[str, Overlay] = {
    'as it is': {},
    'another seed': {'': {'seed': 1005}},
    'no pictures as background, patterns alone': {'dataset': {'backgrounds': None}},
    'nothing in front': {_SCENE: {'occluders': [0, 0]}},
    'nothing beside or behind': {_SCENE: {'distractors': [0, 0]}},
    'no shadows': {_SCENE: {'shadow': 0.0, 'shadow_map': 0.0}},
    'the paint as it is': {_SCENE: {'tint': 0.0, 'repaint': 0.0}},
    'half of it in piles': {_SCENE: {'piled': 0.5}},
    'no exposure, white balance, gamma': {_AUGMENT: {'color': 0.0}},
    'no blur, no small sizes': {_AUGMENT: {'blur': 0.0, 'resolution': 0.0}},
    'no noise, no JPEG, no Bayer': {
        _AUGMENT: {'noise': 0.0, 'shot_noise': 0.0, 'jpeg': 0.0, 'bayer': 0.0}
    },
    'no patches pasted over': {_AUGMENT: {'cutout': 0.0}},
    'no camera at all': {_AUGMENT: _NO_CAMERA},
    'exact boxes': {'dataset': {'box_shift': 0.0, 'box_scale': 0.0}},
    'labels from the nearest surface in sight': {'pose': {'annotation': 'nearest'}},
    'keypoints at corners': {'objects': {'keypoint_selection': 'corners'}},
}


def main() -> None:
    """Train, judge, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('--validation', type=Path, required=True)
    parser.add_argument('--samples', type=int, default=12_000)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('out/ablation'), help='recipes, figures')
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    base = tomllib.loads(os.path.expandvars(options.recipe.read_text(encoding='utf-8')))
    print(f'{"":44s}{"ADD 0.1d":>10s}{"AR MSSD":>10s}{"keypoints":>12s}')
    for number, (name, overlay) in enumerate(VARIANTS.items()):
        values = _varied(base, overlay, options, number)
        path = options.out / f'{values["name"]}.toml'
        path.write_text(toml(values), encoding='utf-8')
        row = trained(path, options.threads)
        add, mssd, keypoint_px = (row[key] for key in _SHOWN)
        print(f'{name:44s}{100 * add:9.1f}%{100 * mssd:10.1f}{keypoint_px:9.2f} px', flush=True)


def _varied(
    base: dict[str, Any], overlay: Overlay, options: argparse.Namespace, number: int
) -> dict[str, Any]:
    """The recipe's values with the overlay's; None takes one away."""
    values = json.loads(json.dumps(base))
    folder = options.recipe.resolve().parent
    values['name'], values['locator'] = f'ablation_{number:02d}', False
    for each in values['objects']:
        each['mesh'] = str((folder / each['mesh']).resolve())
    values['dataset'].update(ramp=0, input_size=[128, 128])
    steps = options.samples // 32 * 32
    values['pose'] = {
        'samples': steps, 'validate_every': steps, 'validate_on': 1000,
        'validation': str(options.validation.resolve()),
    }  # fmt: skip
    for table, entries in overlay.items():
        targets = [values]
        for key in table.split('.') if table else ():
            targets = [each for target in targets for each in _tables(target, key)]
        for target in targets:
            target.update(entries)
    return values


def _tables(values: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The table, or the list of tables, that is called so."""
    found = values.setdefault(key, {})
    return found if isinstance(found, list) else [found]


def trained(path: Path, threads: int) -> dict[str, float]:
    """The figures of the recipe's network, once it is fitted."""
    recipe = load_recipe(path)
    fit(recipe, 'pose', threads=threads)
    return [line for line in read_log(recipe.cache / 'pose.csv') if _SHOWN[0] in line][-1]


def toml(values: dict[str, Any], prefix: str = '') -> str:
    """Tables, lists of tables, and what JSON writes as TOML would; None is left out."""
    plain, tables = [], []
    for key, value in values.items():
        if isinstance(value, dict):
            tables.append(f'\n[{prefix}{key}]\n' + toml(value, f'{prefix}{key}.'))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f'\n[[{prefix}{key}]]\n' + toml(each) for each in value]
        elif value is not None:
            plain.append(f'{key} = {json.dumps(value)}\n')
    return ''.join(plain) + ''.join(tables)


if __name__ == '__main__':
    main()
