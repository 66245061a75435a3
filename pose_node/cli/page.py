"""Pieces of the reports: one HTML file each that needs neither network nor scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from .charts import Plot, histogram
from .report_style import STYLE

# Of the chi-square distribution with 6 degrees of freedom: what NEES follows if covariances hold.
_NEES_MEAN, _NEES_MEDIAN, _NEES_95 = 6.0, 5.348, 12.592


def page(title: str, sections: Sequence[str]) -> str:
    """The whole file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f'<body><main>\n{chr(10).join(sections)}\n</main></body></html>\n'
    )


def section(title: str, body: str) -> str:
    """A titled box."""
    return f'<section><h2>{escape(title)}</h2>{body}</section>'


def number(value: float, digits: int = 1, unit: str = '') -> str:
    """A dash for what is not finite."""
    return f'{value:.{digits}f}{unit}' if math.isfinite(value) else '–'


def table_of(head: str, rows: Sequence[str]) -> str:
    """A table that scrolls where it is too wide."""
    return (
        f'<div class="chart"><table><thead>{head}</thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div>'
    )


def nothing(text: str) -> str:
    """What stands where there is nothing to show."""
    return f'<p class="nothing">{escape(text)}</p>'


def nees_chart(nees: np.ndarray) -> str:
    """How the normalised errors spread, and how they should."""
    high, bins = 30.0, 30
    counts, edges = histogram(nees, high, bins)
    x = np.linspace(0.0, high, 121)
    # Density of chi-square with 6 degrees of freedom, in frames a bin.
    expected = x**2 * np.exp(-x / 2) / 16 * len(nees) * high / bins
    plot = Plot((510, 330), (0.0, high), (0.0, 1.15 * max(counts.max(), expected.max())))
    plot.axes('NEES (30 and more in the last bin)', 'frames')
    for count, left, right in zip(counts.tolist(), edges[:-1], edges[1:]):
        plot.block((left, right), (0.0, count), 'bar', f'{left:.0f}..{right:.0f}: {count} frames')
    plot.line(x.tolist(), expected.tolist(), 'even')
    plot.upright(_NEES_95, '95 % expected left of this')
    return plot.svg('histogram of NEES, and the chi-square density')


def nees_text(nees: np.ndarray) -> str:
    """What that says of the covariances."""
    inside = 100 * float(np.mean(nees <= _NEES_95))
    mean, median = float(nees.mean()), float(np.median(nees))
    word = 'the claim holds'
    if inside < 85:
        word = 'the node is too sure of itself'
    elif inside > 99 and mean < _NEES_MEAN / 2:
        word = 'the node is more careful than it need be'
    return (
        f'<p>NEES is the squared pose error in units of the covariance the node publishes. '
        f'Over {len(nees)} frames its mean is <b>{mean:.1f}</b> (expected {_NEES_MEAN:.0f}), '
        f'its median <b>{median:.1f}</b> (expected {_NEES_MEDIAN:.1f}). '
        f'<b>{inside:.1f} %</b> of the frames lie within the 95 % region: {word}. '
        'The curve is the chi-square density with 6 degrees of freedom.</p>'
    )


def card(name: str, value: str, note: str) -> str:
    """One large figure."""
    return (
        f'<div class="card"><span>{escape(name)}</span><strong>{escape(value)}</strong>'
        f'<small>{escape(note)}</small></div>'
    )
