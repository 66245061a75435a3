"""How a training went, as a picture: python -m training curve RECIPE [--out FILE.svg].

A row a network: on the left its loss, on the right what the validations found. It may be drawn
while the training runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pose_node.core.errors import PoseNodeError

from ..recipe import Recipe
from .fit import LOSSES
from .fit_log import read_log

_WIDTH, _HEIGHT = 420, 250  # of a chart, with what stands around it
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 50, 42
_COLORS = ('#2f6bd8', '#d98a00', '#16855c', '#7a3fc0')
_STYLE = (
    "text{font:12px system-ui,'Segoe UI',Roboto,'Noto Sans',sans-serif;fill:#667180}"
    '.title{font-weight:600;fill:#171a1f}.grid{stroke:#e4e8ed}.line{fill:none;stroke-width:1.8}'
)
_NAMES = {'ar_mssd': 'AR MSSD', 'add_01d': 'ADD below 0.1 d', 'ap': 'AP of the boxes'}
Line = tuple[str, list[float], list[float]]  # name, samples, values


@dataclass(frozen=True)
class Chart:
    """Lines over the number of samples; y on a logarithmic scale, or else from 0 to 1."""

    title: str
    lines: Sequence[Line]
    last: float  # samples at the right end
    log: bool = False

    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value shown."""
        values = [v for _, _, ys in self.lines for v in ys if v > 0.0]
        if not self.log or not values:
            return 0.0, 1.0
        return min(values) / 1.15, max(values) * 1.15


def curve(recipe: Recipe, out: Path) -> None:
    """Write the picture of the recipe's training, as far as it got, as SVG."""
    charts: list[Chart] = []
    for kind in ('pose', 'locator') if recipe.locator else ('pose',):
        path = recipe.cache / f'{kind}.csv'
        lines = read_log(path)
        if not any(LOSSES[kind][0] in line for line in lines):
            if kind == 'locator' and charts:
                break  # its turn has not come
            raise PoseNodeError(
                f'{path} holds no losses yet: run `python -m training fit {recipe.path}` first; '
                'every 50 steps have a line'
            )
        charts += charts_of(kind, lines, recipe.fit_options(kind).batch)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(svg(charts), encoding='utf-8')
    print(out)


def charts_of(kind: str, lines: Sequence[dict[str, float]], batch: int) -> list[Chart]:
    """The loss and the figures of one log's lines."""
    last = batch * max(line['step'] for line in lines)
    found = list(dict.fromkeys(name for line in lines for name in line))
    figures = [n for n in found if n.partition('_')[2] in _NAMES]
    losses = [_line(n if n != 'loss' else '', n, lines, batch) for n in LOSSES[kind]]
    charts = [Chart(f'{kind}: loss', losses, last, log=True)]
    others = {'own': '', 'other': ', by another renderer'}
    shown = [
        _line(_NAMES[what] + others[which], name, lines, batch)
        for name in figures
        for which, _, what in [name.partition('_')]
    ]
    return charts + ([Chart(f'{kind}: on renders it never saw', shown, last)] if shown else [])


def _line(label: str, name: str, lines: Sequence[dict[str, float]], batch: int) -> Line:
    having = [line for line in lines if name in line and math.isfinite(line[name])]
    return label, [batch * line['step'] for line in having], [line[name] for line in having]


def svg(charts: Sequence[Chart]) -> str:
    """All charts, two a row, on a white card: readable on light and dark pages."""
    rows = -(-len(charts) // 2)
    width, height = 2 * _WIDTH, rows * _HEIGHT
    parts = [
        f'<g transform="translate({_WIDTH * (k % 2)} {_HEIGHT * (k // 2)})">{_drawn(chart)}</g>'
        for k, chart in enumerate(charts)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img"><title>How the training went</title>'
        f'<style>{_STYLE}</style><rect width="{width}" height="{height}" rx="12" fill="#fff"/>'
        + ''.join(parts)
        + '</svg>\n'
    )


def _drawn(chart: Chart) -> str:
    low, high = chart.bounds()
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(samples: float) -> float:
        return _LEFT + (right - _LEFT) * samples / chart.last

    def y(value: float) -> float:
        value = min(max(value, low), high)
        if chart.log:
            value, first, last = math.log(value), math.log(low), math.log(high)
        else:
            first, last = low, high
        return bottom + (_TOP - bottom) * (value - first) / (last - first)

    parts = [f'<text class="title" x="12" y="20">{escape(chart.title)}</text>']
    for value in _ticks(low, high) if chart.log else (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{right}"/>')
        parts.append(_text(_LEFT - 8, y(value) + 4, f'{value:.3g}', 'end'))
    for share in (0.0, 0.5, 1.0):
        label = f'{share * chart.last:,.0f}' + (' samples' if share == 1.0 else '')
        at = 'end' if share == 1.0 else 'middle'
        parts.append(_text(x(share * chart.last), bottom + 18, label, at))
    beside = float(_LEFT)
    for (name, samples, values), color in zip(chart.lines, _COLORS):
        points = ' '.join(f'{x(s):.1f},{y(v):.1f}' for s, v in zip(samples, values))
        parts.append(f'<polyline class="line" stroke="{color}" points="{points}"/>')
        if len(values) < 30:
            parts += [
                f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="{color}">'
                f'<title>{v:.3g}</title></circle>'
                for s, v in zip(samples, values)
            ]
        if name:
            parts.append(f'<path stroke="{color}" stroke-width="3" d="M{beside} 36h14"/>')
            parts.append(_text(beside + 20, 40, f'{name}, {values[-1]:.3g}' if values else name))
            beside += 36 + 7 * (len(name) + 6)
    return ''.join(parts)


def _text(x: float, y: float, text: str, anchor: str = 'start') -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**p for p in powers for m in (1, 2, 3, 4, 5, 6, 8)]
    inside = [v for v in values if low <= v <= high]
    return inside if len(inside) <= 7 else [v for v in inside if f'{v:e}'[0] in '125']
