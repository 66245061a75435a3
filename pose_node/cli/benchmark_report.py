"""What `pose benchmark` found, as text for a terminal and as one HTML file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from .charts import Plot
from .page import card, number, page, section, table_of

if TYPE_CHECKING:
    from pathlib import Path

_CURVES = {
    'regions': ('regions in one picture', 'network'),
    'megapixels': ('megapixels of the picture', 'network'),
    'keypoints': ('keypoints (decoding and PnP alone, on maps without a network)', 'heatmaps'),
}


def text(report: dict[str, Any]) -> str:
    """All tables."""
    lines = [f'{report["bundle"]} on {report["pictures"]}, {_by(report["size"])}']
    lines += [f'{name}: {value}' for name, value in report['machine'].items()]
    sizes = ', '.join(f'{name} {mb:.1f} MB' for name, mb in report['model_mb'].items())
    lines.append(f'networks: {sizes}')
    for run in report['runs']:
        lines += ['', f'== {_name(run)}', *_summary(run)]
        for mode, found in run['modes'].items():
            lines += [
                '',
                f'{mode}: ms a picture'.ljust(42)
                + 'p50'.rjust(9)
                + 'p90'.rjust(9)
                + 'p99'.rjust(9),
            ]
            for stage, values in found['stages_ms'].items():
                lines.append(f'  {stage}'.ljust(42) + ''.join(f'{v:9.2f}' for v in values))
        for axis, rows in run['curves'].items():
            lines += ['', _CURVES[axis][0] + ': median ms']
            lines.append(''.join(key[:12].rjust(12) for key in rows[0]))
            lines += [''.join(f'{value:12.2f}' for value in row.values()) for row in rows]
    return '\n'.join(lines)


def write_report(path: Path, report: dict[str, Any]) -> None:
    """One HTML file at `path`."""
    facts = ' · '.join(f'{name} {value}' for name, value in report['machine'].items())
    shown = f'{report["pictures"]}, {_by(report["size"])} · {facts}'
    headline = f'<h1>{escape(report["bundle"])}</h1><p class="facts">{escape(shown)}</p>'
    sections = ['<p class="eyebrow">pose benchmark</p>' + headline]
    for run in report['runs']:
        tracked = run['modes']['tracked']
        p50 = tracked['stages_ms']['all'][0]
        sections.append(
            '<div class="cards">'
            + card(_name(run), number(p50, 1, ' ms'), 'a tracked picture, median')
            + card('pictures a second', number(tracked['pictures_per_s'], 1), 'tracked')
            + card('first pose', number(min(run['first_pose_s']), 2, ' s'), 'after process start')
            + card('memory', number(run['memory_mb']['process'], 0, ' MB'), 'of the process')
            + '</div>'
        )
        sections.append(section(f'Stages: {_name(run)}', _stages(run)))
        charts = ''.join(_curve(axis, rows) for axis, rows in run['curves'].items())
        sections.append(section('Cost as work grows', f'<div class="pair">{charts}</div>'))
    path.write_text(page(f'{report["bundle"]}: benchmark', sections))


def _summary(run: dict[str, Any]) -> list[str]:
    rates = ', '.join(f'{k} {m["pictures_per_s"]:.1f}' for k, m in run['modes'].items())
    starts = ', '.join(f'{seconds:.2f}' for seconds in run['first_pose_s'])
    memory = run['memory_mb']
    joules = [
        f'{k} {m["joules_per_picture"]:.2f} J a picture'
        for k, m in run['modes'].items()
        if m['joules_per_picture'] is not None
    ]
    return [
        f'pictures a second: {rates}',
        f'process start to first pose: {starts} s (opening the networks: {run["open_s"]:.2f} s)',
        f'memory: {memory["opened"]:.0f} MB for the networks, {memory["process"]:.0f} MB in all',
        f'energy: {"; ".join(joules)} ({run["energy"]})' if joules else f'energy: {run["energy"]}',
    ]


def _stages(run: dict[str, Any]) -> str:
    tables = []
    for mode, found in run['modes'].items():
        head = f'<tr><th>{escape(mode)}, ms</th><th>p50</th><th>p90</th><th>p99</th></tr>'
        rows = [
            f'<tr><td>{escape(stage)}</td>'
            + ''.join(f'<td class="n">{value:.2f}</td>' for value in values)
            + '</tr>'
            for stage, values in found['stages_ms'].items()
        ]
        tables.append(table_of(head, rows))
    return f'<div class="pair">{"".join(tables)}</div>' + ''.join(
        f'<p>{escape(line)}</p>' for line in _summary(run)
    )


def _curve(axis: str, rows: list[dict[str, float]]) -> str:
    """All, and below it the part that grows."""
    label, part = _CURVES[axis]
    xs = [row[axis] for row in rows]
    sums = [row.get('all', row.get('heatmaps', 0.0) + row.get('pnp', 0.0)) for row in rows]
    parts = [row[part] for row in rows]
    plot = Plot((510, 330), (min(xs), max(xs)), (min(parts) * 0.8, max(sums) * 1.2), log='xy')
    plot.axes(label, 'ms (median)')
    plot.line(xs, sums, 'even')
    plot.line(xs, parts, 'one')
    titles = [f'{x:g}: {y:.2f} ms' for x, y in zip(xs, sums)]
    plot.dots(xs, sums, ['even'] * len(xs), titles)
    plot.dots(
        xs, parts, ['one'] * len(xs), [f'{x:g}: {part} {y:.2f} ms' for x, y in zip(xs, parts)]
    )
    keys = (('even', 'all'), ('one', part))
    legend = ''.join(f'<span><i class="{kind}"></i>{name}</span>' for kind, name in keys)
    return f'<div>{plot.svg(f"milliseconds over {label}")}<p class="legend">{legend}</p></div>'


def _name(run: dict[str, Any]) -> str:
    threads = run['threads'] or 'its own number of'
    int8 = ' in int8' if run['precision'] == 'int8' and run['backend'] != 'onnx' else ''
    return f'{run["backend"]}{int8}, {threads} thread{"" if threads == 1 else "s"}'


def _by(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'
