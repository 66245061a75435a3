"""Small charts as SVG text: scales, axes, dots, lines, bands, bars. Colours come from the page.

Every mark carries a class (`good`, `bad`, ...) that the page's style sheet colours, so that one
picture serves light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np


@dataclass(frozen=True)
class Scale:
    """Values low..high to pixels start..end, linear or logarithmic; what is outside is clipped."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values within the scale: steps of 1, 2 or 5 times a power of ten."""
        if self.log:
            return self._log_ticks()
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for mantissas in ((1, 2, 5), (1, 3), (1,)):
            values = [m * 10.0**d for d in decades for m in mantissas]
            values = [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]
            if len(values) <= 8:
                break
        return values


class Plot:
    """One chart: axes first, then marks in the order in which they are added."""

    def __init__(
        self,
        size: tuple[int, int],
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        log: str = '',  # 'x', 'y' or 'xy'
        bottom: int = 40,
        top: int = 28,
    ) -> None:
        self.width, self.height = size
        x, y = _opened(x, 'x' in log), _opened(y, 'y' in log)
        self.x = Scale(*x, 46, self.width - 14, 'x' in log)
        self.y = Scale(*y, self.height - bottom, top, 'y' in log)
        self._parts: list[str] = []

    def axes(self, x_label: str = '', y_label: str = '', unit: str = '') -> None:
        """Grid lines and numbers; the label of y stands above it, that of x to its right."""
        left, right, bottom = self.x.start, self.x.end, self.y.start
        for value in self.y.ticks():
            y = self.y(value)
            self._parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
            self.text(left - 8, y + 4, f'{value:.4g}{unit}', 'axis', 'end')
        if x_label:
            self.axis_x(x_label)
        self._parts.append(f'<path class="base" d="M{left} {bottom:.1f}H{right}"/>')
        self.text(2, 13, y_label, 'label', 'start')

    def axis_x(self, label: str) -> None:
        """Numbers below the chart, and what they are at the right end."""
        for value in self.x.ticks():
            self.text(self.x(value), self.y.start + 17, f'{value:.4g}', 'axis', 'middle')
        self.text(self.x.end, self.y.start + 34, label, 'label', 'end')

    def text(self, x: float, y: float, text: str, kind: str, anchor: str) -> None:
        """Text at pixels x, y."""
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f'{escape(text)}</text>'
        )

    def dots(
        self, xs: Sequence[float], ys: Sequence[float], kinds: Sequence[str], titles: Sequence[str]
    ) -> None:
        """Points with hover titles; points that are not finite are left out."""
        for x, y, kind, title in zip(xs, ys, kinds, titles):
            if math.isfinite(x) and math.isfinite(y):
                self._parts.append(
                    f'<circle class="dot {kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" '
                    f'r="3.4"><title>{escape(title)}</title></circle>'
                )

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        """A line through the points."""
        points = ' '.join(f'{self.x(x):.1f},{self.y(y):.1f}' for x, y in zip(xs, ys))
        self._parts.append(f'<polyline class="line {kind}" points="{points}"/>')

    def block(
        self, x: tuple[float, float], y: tuple[float, float], kind: str, title: str = ''
    ) -> None:
        """A filled rectangle between two values of x and two of y."""
        left, right = self.x(x[0]), self.x(x[1])
        top, bottom = self.y(y[1]), self.y(y[0])
        self._parts.append(
            f'<rect class="{kind}" x="{left:.2f}" y="{top:.1f}" width="{right - left:.2f}" '
            f'height="{bottom - top:.1f}">'
            + (f'<title>{escape(title)}</title>' if title else '')
            + '</rect>'
        )

    def band(self, start: float, end: float, kind: str) -> None:
        """A stretch of x over the whole height."""
        self.block((start, end), (self.y.low, self.y.high), kind)

    def level(self, value: float, label: str) -> None:
        """A dashed line at a value of y, labelled at its right end."""
        y = self.y(value)
        self._parts.append(f'<path class="mark" d="M{self.x.start} {y:.1f}H{self.x.end}"/>')
        self.text(self.x.end, y - 5, label, 'note', 'end')

    def upright(self, value: float, label: str, row: int = 0) -> None:
        """A dashed line at a value of x, labelled at its top; rows keep labels apart."""
        x, top = self.x(value), self.y.end
        near_end = x > self.x.start + 0.6 * (self.x.end - self.x.start)
        self._parts.append(f'<path class="mark" d="M{x:.1f} {self.y.start}V{top}"/>')
        at = x - 5 if near_end else x + 5
        self.text(at, top + 10 + 15 * row, label, 'note', 'end' if near_end else 'start')

    def svg(self, label: str) -> str:
        """The chart; `label` is what a screen reader says of it."""
        return (
            f'<div class="chart"><svg viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(label)}" style="min-width:{self.width * 0.6:.0f}px">'
            f'{"".join(self._parts)}</svg></div>'
        )


def histogram(values: np.ndarray, high: float, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges on 0..high; what is larger is counted in the last bin."""
    return np.histogram(np.clip(values, 0.0, high), bins=bins, range=(0.0, high))


def edges_between(stamps_s: np.ndarray) -> np.ndarray:
    """N+1 borders, half way between N rising stamps; the outer ones as wide as their neighbour."""
    if len(stamps_s) < 2:
        return np.concatenate([stamps_s - 0.5, stamps_s + 0.5])
    middle = (stamps_s[1:] + stamps_s[:-1]) / 2
    first, last = 2 * stamps_s[0] - middle[0], 2 * stamps_s[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of each stretch of true flags; the end is one past it."""
    padded = np.concatenate([[0], np.asarray(flags, np.int8), [0]])
    change = np.flatnonzero(np.diff(padded))
    return list(zip(change[::2].tolist(), change[1::2].tolist()))


def _opened(ends: tuple[float, float], log: bool) -> tuple[float, float]:
    """An interval that has a width, and for a log axis is positive."""
    low, high = ends
    if log:
        low = max(low, 1e-6)
        return low, max(high, 10 * low)
    return low, high if high > low else low + 1.0
