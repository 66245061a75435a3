"""The demo's report: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .charts import Plot, edges_between, histogram, runs
from .page import card, nees_chart, nees_text, nothing, number, page, section, table_of

_WIDTH = 1040
_LIMIT = 0.1  # of the diameter: a pose nearer than this counts as right
_PERCENTILES = (50, 90, 99)

_KINDS = {
    'good': 'found, ADD below 10 %',
    'warn': 'found, ADD 10 % or more',
    'bad': 'false: a pose where there is no object',
    'missed': 'missed: half or more visible',
    'hidden': 'not found, mostly hidden',
    'empty': 'rightly nothing',
}
Frames = Sequence[dict[str, Any]]


def write_report(results: dict[str, Any], folder: Path) -> Path:
    """Write folder/report.html from the demo's results; its pictures are read from `folder`."""
    frames = [_finite(frame) for frame in results.get('frames', [])]
    title = f'{results["object"]} · pose_node demo'
    sections = [
        _headline(results, frames),
        _checks(results.get('checks', [])),
        section('Pose error over time', _errors(frames)),
        section('Does the node know how good it is?', _honesty(frames)),
        section('Latency', _latency(frames)),
        section('Frames', _pictures(results.get('pictures', []), folder)),
    ]
    path = folder / 'report.html'
    path.write_text(page(title, sections), encoding='utf-8')
    return path


def _finite(frame: dict[str, Any]) -> dict[str, Any]:
    """The frame with None for what is not a finite number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in frame.items()
    }


def column(frames: Frames, name: str) -> np.ndarray:
    """(N,) of a figure, NaN where a frame has none."""
    values = [frame.get(name) for frame in frames]
    return np.array([np.nan if v is None else float(v) for v in values], np.float64)


def percentiles(values: np.ndarray) -> tuple[float, ...]:
    """p50, p90 and p99 of the finite values; NaN when there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return (math.nan,) * len(_PERCENTILES)
    return tuple(np.percentile(values, _PERCENTILES).tolist())


def kind_of(frame: dict[str, Any]) -> str:
    """What became of a frame: a key of `_KINDS`."""
    visible, share = frame['visible'], frame['add_share']
    if frame['found']:
        if visible == 0.0 or share is None:
            return 'bad'
        return 'good' if share < _LIMIT else 'warn'
    if visible >= 0.5:
        return 'missed'
    return 'hidden' if visible > 0.0 else 'empty'


def _headline(results: dict[str, Any], frames: Frames) -> str:
    seen = [f for f in frames if f['visible'] >= 0.5]
    empty = [f for f in frames if f['visible'] == 0.0]
    found = [f for f in seen if f['found']]
    right = [f for f in seen if kind_of(f) == 'good']
    false = [f for f in frames if kind_of(f) == 'bad']
    p50, _, p99 = percentiles(column(frames, 'latency_ms'))
    half = 'with half or more visible'
    cards = (
        card('Found', _share(found, seen), f'{len(found)} of {len(seen)} frames {half}'),
        card('ADD < 0.1 d', _share(right, seen), f'{len(right)} of {len(seen)} frames {half}'),
        card('False poses', str(len(false)), f'in {len(empty)} frames without the object'),
        card('Latency p50', number(p50, 0, ' ms'), f'p99 {number(p99, 0, " ms")}'),
    )
    checks = results.get('checks', [])
    kept = sum(bool(check['passed']) for check in checks)
    passed = bool(results.get('passed'))
    verdict = 'Passed' if passed else 'Failed'
    facts = (
        f'bundle {results["bundle"]}',
        f'bag {results["bag"]}, {len(frames)} frames',
        f'diameter {1000 * results["diameter_m"]:.0f} mm',
        results['machine'],
    )
    return (
        f'<header><p class="eyebrow">pose_node demo</p>'
        f'<h1>{escape(str(results["object"]))} '
        f'<span class="pill {"good" if passed else "bad"}">{verdict}: '
        f'{kept} of {len(checks)} promises kept</span></h1>'
        f'<p class="facts">{" · ".join(escape(str(fact)) for fact in facts)}</p>'
        f'<div class="cards">{"".join(cards)}</div></header>'
    )


def _share(part: Sequence[Any], whole: Sequence[Any]) -> str:
    return f'{100 * len(part) / len(whole):.1f} %' if whole else '–'


def _checks(checks: Sequence[dict[str, Any]]) -> str:
    rows = [
        f'<tr><td>{escape(check["name"])}</td><td class="n">{100 * check["value"]:.1f} %</td>'
        f'<td class="n">{escape(_sign(check["wanted"]))}</td><td class="n"><span class="pill '
        f'{"good" if check["passed"] else "bad"}">{"kept" if check["passed"] else "missed"}'
        f'</span></td></tr>'
        for check in checks
    ]
    head = '<tr><th>share of frames with …</th><th>measured</th><th>wanted</th><th></th></tr>'
    return section('Promises', table_of(head, rows))


def _sign(wanted: str) -> str:
    return wanted.replace('>=', '≥').replace('<=', '≤')


def _legend(kinds: Sequence[str]) -> str:
    items = ''.join(f'<span><i class="{kind}"></i>{escape(_KINDS[kind])}</span>' for kind in kinds)
    return f'<p class="legend">{items}</p>'


def _errors(frames: Frames) -> str:
    """ADD over time on a log axis; below it visibility and what became of each frame."""
    if not frames:
        return nothing('The bag had no frames.')
    stamps_s = column(frames, 'stamp_s')
    edges = edges_between(stamps_s)
    time = (float(edges[0]), float(edges[-1]))
    visible, kinds = column(frames, 'visible'), [kind_of(f) for f in frames]
    percent = 100 * column(frames, 'add_share')
    finite = percent[np.isfinite(percent)]
    low, high = min(0.5, *finite, 0.5), max(30.0, *finite, 30.0)
    plot = Plot((_WIDTH, 270), time, (max(low, 0.05) / 1.2, min(high, 1000.0) * 1.2), log='y',
                bottom=12)  # fmt: skip
    for start, end in runs(visible < 0.5):
        plot.band(edges[start], edges[end], 'shade')
    plot.axes(y_label='ADD / diameter, %')
    plot.level(100 * _LIMIT, '10 % of the diameter')
    titles = [_hover(f) for f in frames]
    plot.dots(stamps_s.tolist(), percent.tolist(), kinds, titles)
    strip = Plot((_WIDTH, 70), time, (0.0, 1.0), bottom=4, top=24)
    strip.text(2, 13, 'visible share, and what the node made of it', 'label', 'start')
    for i, share in enumerate(visible.tolist()):
        strip.block((float(edges[i]), float(edges[i + 1])), (0.0, share), 'seen', titles[i])
    base = Plot((_WIDTH, 62), time, (0.0, 1.0), bottom=40, top=0)
    for i, kind in enumerate(kinds):
        base.block((float(edges[i]), float(edges[i + 1])), (0.0, 1.0), kind, titles[i])
    base.axis_x('time, s')
    return (
        plot.svg('ADD over time') + strip.svg('visible share over time')
        + base.svg('found, missed or false over time')
        + _legend([kind for kind in _KINDS if kind in kinds])
        + '<p>Shaded: less than half of the object is visible. Hover for the figures.</p>'
    )  # fmt: skip


def _hover(frame: dict[str, Any]) -> str:
    parts = [f'frame {frame["index"]}', f'{100 * frame["visible"]:.0f} % visible']
    if frame['add_share'] is not None:
        parts.append(f'ADD {100 * frame["add_share"]:.1f} %')
    if frame['rotation_deg'] is not None:
        parts.append(f'{frame["rotation_deg"]:.1f}°')
    if frame['translation_mm'] is not None:
        parts.append(f'{frame["translation_mm"]:.1f} mm')
    return ', '.join([*parts, _KINDS[kind_of(frame)]])


def _honesty(frames: Frames) -> str:
    """Errors against the sigma claimed for them, and NEES against chi-square."""
    error_mm, sigma_mm = column(frames, 'translation_mm'), column(frames, 'sigma_mm')
    both = np.isfinite(error_mm) & np.isfinite(sigma_mm) & (sigma_mm > 0)
    nees = column(frames, 'nees')
    nees = nees[np.isfinite(nees)]
    if not both.any() and not len(nees):
        return nothing('No pose was found that could be compared with the truth.')
    charts = (_claims(frames, error_mm, sigma_mm) if both.any() else '') + (
        nees_chart(nees) if len(nees) else ''
    )
    return f'<div class="pair">{charts}</div>{nees_text(nees) if len(nees) else ""}'


def _claims(frames: Frames, error_mm: np.ndarray, sigma_mm: np.ndarray) -> str:
    values = np.concatenate([error_mm, sigma_mm])
    values = values[np.isfinite(values) & (values > 0)]
    ends = (max(float(values.min()), 0.1) / 1.3, float(values.max()) * 1.3)
    plot = Plot((510, 330), ends, ends, log='xy')
    plot.axes('position sigma the node claims, mm', 'position error, mm')
    plot.line(ends, ends, 'even')
    plot.text(plot.x.start + 66, plot.y.start - 18, 'error = sigma', 'note', 'start')
    plot.dots(
        sigma_mm.tolist(), error_mm.tolist(), [kind_of(f) for f in frames],
        [_hover(f) for f in frames],
    )  # fmt: skip
    return plot.svg('position error against the claimed sigma')


def _latency(frames: Frames) -> str:
    values = column(frames, 'latency_ms')
    values = values[np.isfinite(values)]
    chart = _latency_chart(values) if len(values) else nothing('No latency was measured.')
    return chart + _queue(frames, values) + _stages(frames, values)


def _latency_chart(values: np.ndarray) -> str:
    high = 1.05 * max(float(values.max()), 1e-3)
    counts, edges = histogram(values, high, 48)
    plot = Plot((_WIDTH, 250), (0.0, high), (0.0, 1.25 * float(counts.max())))
    plot.axes('from the picture to its answer, ms', 'frames')
    for count, left, right in zip(counts.tolist(), edges[:-1], edges[1:]):
        plot.block((left, right), (0, count), 'bar', f'{left:.0f}..{right:.0f} ms: {count} frames')
    for row, (p, value) in enumerate(zip(_PERCENTILES, percentiles(values))):
        plot.upright(value, f'p{p} {value:.1f} ms', row)
    return plot.svg('histogram of the latency')


def _queue(frames: Frames, latency_ms: np.ndarray) -> str:
    """A sentence where most of the latency is waiting, which says little of the node's speed."""
    wait = percentiles(column([frame.get('stage_ms') or {} for frame in frames], 'wait'))[0]
    whole = percentiles(latency_ms)[0]
    if not wait > 0.5 * whole:
        return ''
    return (
        f'<p>Half of the pictures waited <b>{wait:.0f} ms</b> or more in the queue before their '
        'turn: this machine, with all that runs on it, was slower than the bag.</p>'
    )


def _stages(frames: Frames, latency_ms: np.ndarray) -> str:
    """Percentiles of each stage; entries named `*_ms` are sums over stages, not stages."""
    stages = [frame.get('stage_ms') or {} for frame in frames]
    names = list(dict.fromkeys(name for stage in stages for name in stage))
    table = {n: percentiles(column(stages, n)) for n in names if not n.endswith('_ms')}
    if 'total_ms' in names:
        table['all stages but wait' if 'wait' in table else 'all stages'] = percentiles(
            column(stages, 'total_ms')
        )
    if len(latency_ms):
        table['picture to answer'] = percentiles(latency_ms)
    if not table:
        return ''
    # Bars compare the work; waiting and sums would dwarf it.
    work = {n: table[n][0] for n in names if n in table and n != 'wait'}
    longest = max((value for value in work.values() if math.isfinite(value)), default=0.0)
    rows = []
    for name, row in table.items():
        value = work.get(name, 0.0)
        share = 100 * value / longest if longest > 0 and math.isfinite(value) else 0.0
        cells = ''.join(f'<td class="n">{number(value)}</td>' for value in row)
        rows.append(
            f'<tr><td>{escape(name)}</td>{cells}'
            f'<td class="wide"><div class="share" style="width:{share:.1f}%"></div></td></tr>'
        )
    head = ''.join(f'<th>p{p}, ms</th>' for p in _PERCENTILES)
    return table_of(f'<tr><th>stage</th>{head}<th class="wide">p50</th></tr>', rows)


def _pictures(pictures: Sequence[dict[str, str]], folder: Path) -> str:
    if not pictures:
        return nothing('No pictures were recorded.')
    return f'<div class="pictures">{"".join(_figure(p, folder) for p in pictures)}</div>'


def _figure(picture: dict[str, str], folder: Path) -> str:
    path, caption = folder / picture['jpeg'], escape(picture['caption'])
    if path.is_file():
        data = base64.b64encode(path.read_bytes()).decode('ascii')
        shown = f'<img alt="{caption}" src="data:image/jpeg;base64,{data}">'
    else:
        shown = nothing(f'{picture["jpeg"]} is missing.')
    return f'<figure>{shown}<figcaption>{caption}</figcaption></figure>'
