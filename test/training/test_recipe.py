
"""Recipes are read strictly: a spelling mistake must not train for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from pose_node.core.errors import PoseNodeError
from training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / 'config' / 'recipes'
HEAD = 'name = "x"\nobject = "x"\ndescription = "x"\n'


def test_shipped_recipes_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every recipe in config/recipes, with its environment variables set."""
    models = tmp_path / 'lmo' / 'models'
    models.mkdir(parents=True)
    for number in (1, 5, 6, 9, 10, 11, 12):
        (models / f'obj_{number:06d}.ply').touch()
    monkeypatch.setenv('POSE_NODE_REAL', str(tmp_path))
    monkeypatch.setenv('POSE_NODE_BACKGROUNDS', str(tmp_path))
    recipes = {path.stem: load_recipe(path) for path in RECIPES.glob('*.toml')}
    assert {'drill', 'lmo_driller', 'tiny'} <= set(recipes)
    assert all(recipe.name == stem for stem, recipe in recipes.items())
    assert len(recipes['lmo_driller'].dataset.distractor_meshes) == 7


def test_locator_inherits_the_data_set(tmp_path: Path) -> None:
    """[locator_dataset] holds only what differs from [dataset]."""
    text = HEAD + '[dataset]\nmesh = "m.ply"\n[dataset.scene]\nroll_deg = [-1, 1]\n'
    text += '[locator_dataset]\ninput_size = [96, 64]\n[locator_dataset.scene]\nnegatives = 0.5\n'
    recipe = _load(tmp_path, text)
    assert recipe.locator_dataset.mesh == (tmp_path / 'm.ply').resolve()
    assert recipe.locator_dataset.input_size == (96, 64)
    assert recipe.locator_dataset.scene.roll_deg == (-1, 1)
    assert recipe.locator_dataset.scene.negatives == 0.5
    assert recipe.dataset.scene.negatives != 0.5


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        (HEAD + 'sed = 1\n[dataset]\nmesh = "m.ply"\n', "no key 'sed'"),
        (HEAD + '[dataset]\nmesh = "m.ply"\n[dataset.scene]\nrol = 1\n', "no key 'rol'"),
        (HEAD + '[dataset]\nmesh = "$POSE_NODE_NOT_SET/m.ply"\n', 'not set'),
        (HEAD + '[dataset]\n', 'incomplete'),
        (HEAD + '[dataset]\nmesh = "m.ply"\ninput_size = 3\n', 'wanted a list'),
        (HEAD + '[dataset]\nmesh = "m.ply"\ndistractor_meshes = ["none/*.ply"]\n', 'matches no'),
        (HEAD + 'seed = "one"\n[dataset]\nmesh = "m.ply"\n', 'wanted int'),
        ('name = \n', 'not TOML'),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, text: str, sentence: str) -> None:
    """What was got, where, and what is known."""
    with pytest.raises(PoseNodeError, match=sentence):
        _load(tmp_path, text)


def _load(folder: Path, text: str) -> object:
    path = folder / 'recipe.toml'
    path.write_text(text)
    return load_recipe(path)
