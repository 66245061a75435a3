"""`pose demo`: a recorded bag through the real node; a live table, a recording, a report.

Three processes on DDS: bag player, node, recorder. This one only watches what the recorder writes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.ros.bagfile import BagReader, typestore
from pose_node.ros.environment import default_bundle, share_folder

from .graph import DETECTIONS, FRAME_STATS, NODE, OVERLAY, GraphOptions, Heard, run_graph
from .report import write_report
from .truth import DETECTIONS_TOPIC, Frame, Judge, read_frames

_IMAGE, _CAMERA_INFO = '/camera/image_raw', '/camera/camera_info'
_ROWS = 12  # of the live table
_SHOWN = 9  # annotated frames in the report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--bag', type=Path, help='a bag with ground truth (the demo bag)')
    parser.add_argument('--bundle', type=Path, help='folder of the bundle (the demo drill)')
    parser.add_argument('--out', type=Path, default=Path('out/demo'), help='folder (out/demo)')
    parser.add_argument('--rate', type=float, default=1.0, help='times as fast as recorded (1)')


def run(options: argparse.Namespace) -> int:
    """Play, watch, report; exit status 1 when the accuracy is missed."""
    bag = options.bag or share_folder() / 'demo' / 'drill_bag'
    bundle = Bundle.load(options.bundle or default_bundle())
    judge = Judge(bundle)
    with BagReader(bag) as reader:
        frames = read_frames(reader)
        rate_hz = len(frames) / max(reader.duration_s, 1e-3)
    if not frames:
        raise PoseNodeError(f'{bag} has no ground truth on {DETECTIONS_TOPIC}; play it with ROS.')
    out = options.out
    for name in ('recorded', 'logs', 'frames'):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / 'frames').mkdir(parents=True)
    graph = graph_options(options, bag, bundle, out)
    console = Console()
    _watch(console, graph, frames, judge)
    pictures = write_overlays(out, frames, rate_hz)
    results = summary(bundle, judge, bag, frames, pictures)
    (out / 'results.json').write_text(json.dumps(results, indent=1), encoding='utf-8')
    report = write_report(results, out)
    for check in results['checks']:
        mark = '[green]kept[/]' if check['passed'] else '[red]missed[/]'
        console.print(
            f'{mark}  {check["name"]}: {100 * check["value"]:.1f} % (wanted {check["wanted"]})',
            highlight=False,
        )
    console.print(f'{report}   {out / "overlay.webm"}   {out / "recorded"}', highlight=False)
    return 0 if results['passed'] else 1


def graph_options(
    options: argparse.Namespace, bag: Path, bundle: Bundle, out: Path
) -> GraphOptions:
    """What is played and recorded. Every picture is answered, in the bag's own time."""
    name = bundle.objects[0].name
    topics = (f'{name}/pose', f'{name}/pose_with_covariance', 'markers')
    return GraphOptions(
        bag=bag.resolve(),
        bundle=bundle.folder,
        out=out / 'recorded',
        logs=out / 'logs',
        image=_IMAGE,
        camera_info=_CAMERA_INFO,
        record=(*(f'{NODE}/{t}' for t in topics), OVERLAY, '/tf', '/diagnostics', _CAMERA_INFO),
        jpeg=(OVERLAY,),
        rate=options.rate,
        parameters={'deterministic': 'true'},
    )


def _watch(console: Console, graph: GraphOptions, frames: list[Frame], judge: Judge) -> None:
    """Fill in the frames as answers come, with a table for whoever waits."""
    store = typestore()
    by_stamp = {frame.stamp_ns: frame for frame in frames}
    bar = Progress(TextColumn('{task.description}'), BarColumn(), TimeRemainingColumn())
    task = bar.add_task('waiting for the node', total=len(frames))
    answered: list[Frame] = []
    drawn_s = 0.0
    with Live(Group(bar), console=console, auto_refresh=False, transient=True) as live:
        live.refresh()
        for heard in run_graph(graph, len(frames)):
            frame = by_stamp.get(heard.stamp_ns)
            if frame is None:
                continue
            _take(store, graph, judge, frame, heard)
            if heard.topic != DETECTIONS:
                continue
            answered.append(frame)
            # Drawing costs milliseconds that the node may need: five times a second is enough.
            if time.monotonic() - drawn_s > 0.2:
                drawn_s = time.monotonic()
                bar.update(task, completed=len(answered), description='playing the bag')
                live.update(Group(table(answered[-_ROWS:]), bar), refresh=True)
    console.print(table(answered[-_ROWS:]))


def _take(store: Any, graph: GraphOptions, judge: Judge, frame: Frame, heard: Heard) -> None:
    if heard.topic == graph.pictures:
        frame.received_ns = heard.time_ns
    elif heard.cdr is None:
        return
    elif heard.topic == DETECTIONS:
        judge.take(frame, store.deserialize_cdr(heard.cdr, heard.type), heard.time_ns)
    elif heard.topic == FRAME_STATS:
        status = store.deserialize_cdr(heard.cdr, heard.type).status[0]
        frame.stage_ms = {entry.key: float(entry.value) for entry in status.values}


def table(frames: list[Frame]) -> Table:
    """The last frames, for the terminal."""
    view = Table(title='pose_node', expand=False)
    columns = ('frame', 'visible', 'objects', 'score', 'ADD / diameter', 'turn', 'latency')
    for name in columns:
        view.add_column(name, justify='right')
    for f in frames:
        view.add_row(
            str(f.index),
            f'{100 * f.visible:.0f} %',
            str(f.objects),
            '' if f.score is None else f'{f.score:.2f}',
            _error(f),
            '' if f.rotation_deg is None else f'{f.rotation_deg:.1f} deg',
            '' if f.latency_ms is None else f'{f.latency_ms:.0f} ms',
        )
    return view


def _error(frame: Frame) -> str:
    if frame.add_share is None:
        return '[red]false[/]' if frame.score is not None else ''
    color = 'green' if frame.add_share < 0.1 else 'red'
    return f'[{color}]{100 * frame.add_share:.1f} %[/]'


def write_overlays(out: Path, frames: list[Frame], rate_hz: float) -> list[dict[str, str]]:
    """overlay.webm and some frames/*.jpg from the recorded overlays, with captions."""
    index_of = {frame.stamp_ns: frame for frame in frames}
    shown = _worth_showing(frames)
    video = None
    captions = {}
    with BagReader(out / 'recorded') as bag:
        for _, message in bag.messages([f'{OVERLAY}/compressed']):
            stamp = message.header.stamp
            frame = index_of.get(stamp.sec * 1_000_000_000 + stamp.nanosec)
            picture = cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_COLOR)
            if frame is None or picture is None:
                continue
            if video is None:
                size = (picture.shape[1], picture.shape[0])
                codec = cv2.VideoWriter.fourcc(*'VP80')
                video = cv2.VideoWriter(str(out / 'overlay.webm'), codec, rate_hz, size)
                if not video.isOpened():
                    raise PoseNodeError('This OpenCV writes no WebM; install the one from PyPI.')
            video.write(picture)
            if frame.index in shown:
                name = f'frames/{frame.index:06d}.jpg'
                cv2.imwrite(str(out / name), picture)
                captions[frame.index] = {'jpeg': name, 'caption': _caption(frame)}
    if video is not None:
        video.release()
    return [captions[index] for index in sorted(captions)]


def _worth_showing(frames: list[Frame]) -> set[int]:
    """Frames spread over the bag, and the worst one that was found."""
    spread = np.linspace(0, len(frames) - 1, _SHOWN).round().astype(int).tolist()
    errors = [(f.add_share, f.index) for f in frames if f.add_share is not None]
    return {*spread, *([max(errors)[1]] if errors else [])}


def _caption(frame: Frame) -> str:
    text = f'frame {frame.index}: {100 * frame.visible:.0f} % visible, '
    if frame.add_share is not None:
        return text + f'ADD {100 * frame.add_share:.1f} % of the diameter'
    return text + ('a false pose' if frame.score is not None else 'nothing found')


def summary(
    bundle: Bundle, judge: Judge, bag: Path, frames: list[Frame], pictures: list[dict[str, str]]
) -> dict[str, Any]:
    """results.json, and what the report shows."""
    checks = judge.checks(frames)
    first_ns = frames[0].stamp_ns
    names = ('score', 'add_share', 'rotation_deg', 'translation_mm', 'nees', 'sigma_mm')
    return {
        'bundle': bundle.name,
        'object': judge.object.name,
        'diameter_m': judge.diameter_m,
        'bag': bag.name,
        'machine': f'{os.cpu_count()} cores, {platform.machine()}, Python '
        f'{platform.python_version()}',
        'passed': all(check['passed'] for check in checks),
        'checks': checks,
        'frames': [
            {
                'index': f.index,
                'stamp_s': (f.stamp_ns - first_ns) * 1e-9,
                'visible': f.visible,
                'found': f.score is not None,
                **{name: getattr(f, name) for name in names},
                'latency_ms': f.latency_ms,
                'stage_ms': f.stage_ms,
            }
            for f in frames
        ],
        'pictures': pictures,
    }
