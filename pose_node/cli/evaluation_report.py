"""The report of `pose evaluate`: figures, curves, honesty, and the best and worst pictures."""

from __future__ import annotations

import base64
import itertools
from html import escape
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pose_node.core import metrics
from pose_node.core.geometry import apply
from pose_node.runtime.draw import box_edges

from .charts import Plot
from .figures import Errors, Estimates, figures
from .page import card, nees_chart, nees_text, nothing, number, page, section, table_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pose_node.core.bundle import Bundle
    from pose_node.core.camera import Camera
    from pose_node.runtime.bop import BopDataset

_SHOWN = 6  # pictures, of the best and of the worst
_SHOWN_PX = 300
_VISIBLE = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0001)
_TRUTH, _FOUND = (64, 224, 96), (255, 80, 64)


def write_evaluation(
    path: Path,
    bundle: Bundle,
    dataset: BopDataset,
    boxes: str,
    rows: dict[str, Errors],
    names: dict[int, str],
    estimates: Estimates,
) -> None:
    """One HTML file at `path`; rows as errors_of() gives them."""
    whole = rows.get('all', next(iter(rows.values())))
    nees = whole['nees'][np.isfinite(whole['nees']) & (whole['add'] < 0.5)]
    honesty = (
        f'<div class="pair">{nees_chart(nees)}{_score_chart(whole)}</div>{nees_text(nees)}'
        if len(nees)
        else nothing('No pose came with a covariance near enough to the truth.')
    )
    sections = [
        _headline(bundle, dataset, boxes, whole),
        section('Figures', _figures(rows)),
        section('Recall over thresholds', _curves(rows)),
        section('Recall over the visible share', _by_visibility(whole)),
        section('Do score and covariance tell the truth?', honesty),
    ]
    for title, chosen in _extremes(rows, names):
        pictures = ''.join(
            _figure(bundle, dataset, estimates, *each, number_of=names) for each in chosen
        )
        sections.append(section(title, f'<div class="pictures">{pictures}</div>'))
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f'{bundle.name} on {dataset.folder.name}'
    path.write_text(page(title, sections), encoding='utf-8')


def _headline(bundle: Bundle, dataset: BopDataset, boxes: str, whole: Errors) -> str:
    shown = figures(whole)
    cards = (
        card('ADD(-S) < 0.1 d', f'{shown["ADD(-S) 0.1d"]:.1f} %', f'{shown["targets"]} targets'),
        card('AR MSSD', f'{shown["AR MSSD"]:.1f}', 'thresholds 0.05 to 0.5 diameters'),
        card('AR MSPD', f'{shown["AR MSPD"]:.1f}', 'thresholds 5 to 50 px'),
        card('5 deg 5 cm', f'{shown["5 deg 5 cm"]:.1f} %', f'{shown["found"]} found'),
    )
    return (
        '<header><p class="eyebrow">pose evaluate</p>'
        f'<h1>{escape(bundle.name)} on {escape(dataset.folder.name)}</h1>'
        f'<p class="facts">boxes: {escape(boxes)} · {escape(bundle.manifest.description)}</p>'
        f'<div class="cards">{"".join(cards)}</div></header>'
    )


def _figures(rows: dict[str, Errors]) -> str:
    lines, head = [], ''
    for name, row in rows.items():
        shown = figures(row)
        head = ''.join(f'<th>{escape(key)}</th>' for key in shown)
        cells = ''.join(
            f'<td class="n">{value if isinstance(value, int) else number(value)}</td>'
            for value in shown.values()
        )
        lines.append(f'<tr><td>{escape(name)}</td>{cells}</tr>')
    return table_of(f'<tr><th>object</th>{head}</tr>', lines)


def _curves(rows: dict[str, Errors]) -> str:
    """One line an object; all of them together is the heavy one."""
    charts = []
    for key, limit, unit, scale in (
        ('add', 0.5, 'ADD(-S), % of the diameter', 100.0),
        ('mspd', 50.0, 'MSPD, px', 1.0),
    ):
        thresholds = np.linspace(0.0, limit, 101)
        plot = Plot((510, 330), (0.0, limit * scale), (0.0, 100.0))
        plot.axes(unit, 'recall, %')
        for name, row in rows.items():
            recall = [100 * metrics.recall(row[key], t) for t in thresholds]
            last = name == 'all' or len(rows) == 1
            plot.line((scale * thresholds).tolist(), recall, 'even' if last else 'one')
            plot.text(plot.x.end - 2, plot.y(recall[-1]) - 4, name, 'note', 'end')
        charts.append(plot.svg(f'recall over thresholds of {unit}'))
    return f'<div class="pair">{"".join(charts)}</div>'


def _by_visibility(row: Errors) -> str:
    """Bars: how much of the object must be seen."""
    lines = []
    for low, high in itertools.pairwise(_VISIBLE):
        inside = (row['visible'] >= low) & (row['visible'] < high)
        if not inside.any():
            continue
        shown = figures({key: values[inside] for key, values in row.items()})
        cells = ''.join(
            f'<td class="n">{shown[key]:.1f}</td>'
            for key in ('ADD(-S) 0.1d', 'AR MSSD', 'AR MSPD')
        )
        lines.append(
            f'<tr><td>{100 * low:.0f} to {min(100, 100 * high):.0f} %</td>'
            f'<td class="n">{shown["targets"]}</td>{cells}<td class="wide">'
            f'<div class="share" style="width:{shown["AR MSPD"]:.1f}%"></div></td></tr>'
        )
    if not lines:
        return nothing('The data set does not say how much is visible.')
    head = ''.join(
        f'<th>{name}</th>' for name in ('targets', 'ADD(-S) 0.1d', 'AR MSSD', 'AR MSPD')
    )
    return table_of(f'<tr><th>visible</th>{head}<th class="wide">AR MSPD</th></tr>', lines)


def _score_chart(row: Errors) -> str:
    """Of the poses with about a score, so many are right: on the diagonal the score is true."""
    plot = Plot((510, 330), (0.0, 1.0), (0.0, 100.0))
    plot.axes('score', 'ADD(-S) below 10 % of the diameter, %')
    plot.line((0.0, 1.0), (0.0, 100.0), 'even')
    found = np.isfinite(row['add'])
    for low in np.arange(0.0, 1.0, 0.1):
        inside = found & (row['score'] >= low) & (row['score'] < low + 0.1001)
        if inside.any():
            right = 100.0 * float(np.mean(row['add'][inside] < 0.1))
            title = f'{inside.sum()} poses of score {low:.1f} to {low + 0.1:.1f}: {right:.0f} %'
            plot.block((low + 0.005, low + 0.095), (0.0, right), 'bar', title)
    return plot.svg('share of right poses over the score')


def _extremes(
    rows: dict[str, Errors], names: dict[int, str]
) -> list[tuple[str, list[tuple[int, tuple[int, int], float]]]]:
    """(object, picture, ADD in diameters) of the best and of the worst found ones."""
    every = [
        (number, (int(scene), int(image)), float(add))
        for number, name in names.items()
        if name in rows
        for scene, image, add in zip(
            rows[name]['scene'], rows[name]['image'], rows[name]['add'], strict=True
        )
        if np.isfinite(add)
    ]
    every.sort(key=lambda each: each[2])
    if not every:
        return []
    worst = every[::-1][: min(_SHOWN, len(every) // 2)]
    return [('Best pictures', every[:_SHOWN]), ('Worst pictures', worst)]


def _figure(
    bundle: Bundle,
    dataset: BopDataset,
    estimates: Estimates,
    number: int,
    key: tuple[int, int],
    add: float,
    *,
    number_of: dict[int, str],
) -> str:
    """The crop round the object, the true box in green, the found one in red."""
    picture = dataset.picture(*key).copy()
    camera = dataset.camera(*key, (picture.shape[1], picture.shape[0]))
    spec = bundle.object(number_of[number])
    edges = box_edges(spec.bounds_obj_m)
    truths = [t.T_cam_obj for t in dataset.truths(*key) if t.object == number]
    found = [e.T_cam_obj for e in estimates[key] if e.object == number]
    for poses, color in ((truths, _TRUTH), (found, _FOUND)):
        for T in poses[:4]:
            _draw_edges(picture, camera.project, apply(T, edges.reshape(-1, 3)), color)
    middle_cam = apply(truths[0], spec.bounds_obj_m.mean(axis=0)[None])[0]
    jpeg = cv2.imencode('.jpg', _crop(picture, camera, middle_cam, spec.diameter_m))[1]
    data = base64.b64encode(jpeg.tobytes()).decode('ascii')
    caption = f'{spec.name}, scene {key[0]}, picture {key[1]}: ADD {100 * add:.1f} % of d'
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{data}">'
        f'<figcaption>{escape(caption)}</figcaption></figure>'
    )


def _draw_edges(
    picture: np.ndarray,
    project: Callable[[np.ndarray], np.ndarray],
    ends_cam: np.ndarray,
    color: tuple[int, int, int],
) -> None:
    ends = project(ends_cam).reshape(-1, 2, 2)
    for start, end in ends[np.isfinite(ends).all(axis=(1, 2))].round().astype(int).tolist():
        cv2.line(picture, start, end, color, 1, cv2.LINE_AA)


def _crop(
    picture: np.ndarray, camera: Camera, middle_cam: np.ndarray, diameter_m: float
) -> np.ndarray:
    """BGR, square, 1.5 diameters wide, round the object's middle (3,)."""
    half = int(0.75 * diameter_m * camera.K[0, 0] / middle_cam[2]) + 1
    bordered = cv2.copyMakeBorder(picture, half, half, half, half, cv2.BORDER_CONSTANT)
    height, width = picture.shape[:2]
    center = camera.project(middle_cam[None])[0]
    x, y = np.clip(center.round().astype(int), 0, (width - 1, height - 1))
    cut = bordered[y : y + 2 * half, x : x + 2 * half, ::-1]
    return cv2.resize(cut, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_LINEAR)
