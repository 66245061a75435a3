
"""Recipes are read strictly: a spelling mistake must not train for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from pose_node.core.errors import PoseNodeError
from training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / 'config' / 'recipes'
HEAD = 'name = "x"\ndescription = "x"\n'
OBJECT = '[[objects]]\nname = "x"\nmesh = "m.ply"\n'


def test_shipped_recipes_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every recipe in config/recipes, with its environment variables set."""
    models = tmp_path / 'lmo' / 'models'
    models.mkdir(parents=True)
    for number in (1, 5, 6, 8, 9, 10, 11, 12):
        (models / f'obj_{number:06d}.ply').touch()
    monkeypatch.setenv('POSE_NODE_REAL', str(tmp_path))
    monkeypatch.setenv('POSE_NODE_BACKGROUNDS', str(tmp_path))
    monkeypatch.setenv('POSE_NODE_MESHES', str(tmp_path))
    recipes = {path.stem: load_recipe(path) for path in RECIPES.glob('*.toml')}
    assert {'drill', 'lmo_driller', 'mustard', 'tiny'} <= set(recipes)
    assert all(recipe.name == stem for stem, recipe in recipes.items())
    assert len(recipes['lmo_driller'].dataset.distractor_meshes) == 7


def test_locator_inherits_the_data_set(tmp_path: Path) -> None:
    """[locator_dataset] holds only what differs from [dataset]."""
    text = HEAD + OBJECT + '[dataset.scene]\nroll_deg = [-1, 1]\n'
    text += '[locator_dataset]\ninput_size = [96, 64]\n[locator_dataset.scene]\nnegatives = 0.5\n'
    recipe = _load(tmp_path, text)
    assert recipe.objects[0].mesh == (tmp_path / 'm.ply').resolve()
    assert recipe.locator_dataset.input_size == (96, 64)
    assert recipe.locator_dataset.scene.roll_deg == (-1, 1)
    assert recipe.locator_dataset.scene.negatives == 0.5
    assert recipe.dataset.scene.negatives != 0.5


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        (HEAD + 'sed = 1\n' + OBJECT, "no key 'sed'"),
        (HEAD + OBJECT + '[dataset.scene]\nrol = 1\n', "no key 'rol'"),
        (HEAD + OBJECT.replace('m.ply', '$POSE_NODE_NOT_SET/m.ply'), 'not set'),
        (HEAD, 'incomplete'),
        (HEAD + '[[objects]]\nname = "x"\n', r'objects\[0\] is incomplete'),
        (HEAD + OBJECT + '[dataset]\ninput_size = 3\n', 'wanted a list'),
        (HEAD + OBJECT + '[dataset]\ndistractor_meshes = ["none/*.ply"]\n', 'matches no'),
        (HEAD + 'seed = "one"\n' + OBJECT, 'wanted int'),
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
