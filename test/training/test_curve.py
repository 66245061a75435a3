"""The picture of a training says what its log says."""

from __future__ import annotations

import csv
import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

from pose_node.core.errors import PoseNodeError
from training.recipe import Recipe, load_recipe
from training.steps.curve import curve

MESH = Path(__file__).parents[2] / 'bundles' / 'drill' / 'drill.ply'
RECIPE = """name = "x"
description = "x"
[[objects]]
name = "x"
mesh = "{}"
[pose]
batch = 10
"""
SVG = '{http://www.w3.org/2000/svg}'


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'cache'))
    path = tmp_path / 'x.toml'
    path.write_text(RECIPE.format(MESH))
    loaded = load_recipe(path)
    loaded.cache.mkdir(parents=True)
    return loaded


def write(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open('w', newline='') as file:
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = csv.DictWriter(file, names)
        lines.writeheader()
        lines.writerows(rows)


def points(line: ET.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, p.split(','))) for p in line.attrib['points'].split()]  # type: ignore[misc]


def test_lines_go_where_the_figures_go(recipe: Recipe, tmp_path: Path) -> None:
    """A falling loss falls, halvings are equally high, figures are on their true heights."""
    losses = [{'step': 50 * n, 'loss': 8.0 / 2**n} for n in range(1, 5)]
    figures = [{'step': 100, 'own_ar_mssd': 0.0}, {'step': 200, 'own_ar_mssd': 0.75}]
    write(recipe.cache / 'pose.csv', [*losses, *figures])
    out = tmp_path / 'out' / 'curve.svg'
    curve(recipe, out)
    lines = ET.parse(out).getroot().findall(f'.//{SVG}polyline')
    loss, ar = (points(line) for line in lines)
    assert len(loss) == 4 and len(ar) == 2
    steps = [b[1] - a[1] for a, b in itertools.pairwise(loss)]
    assert min(steps) > 0, 'y grows downwards'
    assert max(steps) - min(steps) < 0.2
    heights = {t.text: float(t.attrib['y']) - 4 for t in ET.parse(out).findall(f'.//{SVG}text')}
    assert ar[1][1] == pytest.approx(heights['0.75'], abs=0.2)
    assert ar[0][0] == pytest.approx(loss[1][0], abs=0.2), 'both are step 100'
    assert '2,000 samples' in heights, '200 steps of 10'


def test_nothing_to_draw_is_said(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(PoseNodeError, match='no losses yet'):
        curve(recipe, tmp_path / 'curve.svg')
    write(recipe.cache / 'locator.csv', [{'step': 50, 'centers': 1.0, 'boxes': 1.0}])
    with pytest.raises(PoseNodeError, match=r'pose\.csv'):
        curve(recipe, tmp_path / 'curve.svg')
    assert not (tmp_path / 'curve.svg').exists()


def test_both_networks_have_a_row(recipe: Recipe, tmp_path: Path) -> None:
    write(recipe.cache / 'pose.csv', [{'step': 50, 'loss': 3.0}, {'step': 100, 'loss': 2.0}])
    rows = [{'step': 50, 'centers': 1.0, 'boxes': 2.0}, {'step': 90, 'own_ap': 0.5}]
    write(recipe.cache / 'locator.csv', rows)
    curve(recipe, tmp_path / 'curve.svg')
    root = ET.parse(tmp_path / 'curve.svg').getroot()
    titles = [t.text for t in root.findall(f'.//{SVG}text[@class="title"]')]
    assert titles == ['pose: loss', 'locator: loss', 'locator: on renders it never saw']
    assert len(root.findall(f'.//{SVG}polyline')) == 4
