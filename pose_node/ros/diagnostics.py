"""Health as diagnostic_msgs: once a second on /diagnostics, and one message a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from .health import Level, memory_mb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .health import Snapshot


@dataclass(frozen=True)
class Facts:
    """What is known besides the counts."""

    state: str  # of the lifecycle
    progress: str  # of what is being configured, in words
    picture_topic: str
    publishers: int
    camera_info_topic: str
    camera_frames: tuple[str, ...]
    waiting: int  # pictures in the queue
    bundle: str
    backend: str
    use_detections: bool
    no_tensorrt: str = ''  # why `auto` does without, on a machine that has a GPU


def diagnostics(node_name: str, stamp: Any, snapshot: Snapshot, facts: Facts) -> DiagnosticArray:
    """One status a task: pictures, camera_info, estimator; boxes if used, transforms if wrong."""
    counts = {
        'received': snapshot.arrived,
        'received per second': f'{snapshot.arrived_hz:.1f}',
        'processed': snapshot.processed,
        'processed per second': f'{snapshot.processed_hz:.1f}',
        'waiting': facts.waiting,
        **{f'dropped: {reason}': count for reason, count in sorted(snapshot.dropped.items())},
        **{f'refused: {task}': count for task, count in sorted(snapshot.refused.items())},
    }
    stages = {
        f'{stage} p50/p99 ms': f'{p50:.2f} / {p99:.2f}'
        for stage, (p50, p99) in snapshot.stages_ms.items()
    }
    last = snapshot.last.sentence if snapshot.last is not None else 'none'
    fine = f'{snapshot.processed_hz:.1f} of {snapshot.arrived_hz:.1f} pictures per second'
    frames = ', '.join(facts.camera_frames)
    tasks: dict[str, tuple[str, Mapping[str, Any]]] = {
        'pictures': (
            fine,
            {
                'topic': facts.picture_topic,
                'publishers': facts.publishers,
                **counts,
                'last error': last,
            },
        ),
        'camera_info': (
            f'for {frames}' if frames else 'none yet',
            {'topic': facts.camera_info_topic, 'frames': frames},
        ),
        'estimator': (
            facts.progress or facts.state,
            {
                'state': facts.state,
                'bundle': facts.bundle,
                'backend': facts.backend,
                **({'tensorrt': facts.no_tensorrt} if facts.no_tensorrt else {}),
                'memory MB': f'{memory_mb():.0f}',
                **stages,
            },
        ),
    }
    if 'transforms' in snapshot.standing:
        tasks['transforms'] = ('', {})
    if facts.use_detections:
        tasks['boxes'] = ('used', {})
    message = DiagnosticArray()
    message.header.stamp = stamp
    for task, (text, values) in tasks.items():
        complaint = snapshot.standing.get(task)
        level = Level.OK
        if complaint is not None:
            level, text = complaint.level, complaint.sentence
        message.status.append(
            _status(f'{node_name}: {task}', level, text, facts.bundle, values.items())
        )
    return message


def frame_stats(node_name: str, header: Any, values: Mapping[str, float]) -> DiagnosticArray:
    """Times of one picture, in ms; the header is the picture's."""
    pairs = [(key, f'{value:.4f}') for key, value in values.items()]
    return DiagnosticArray(
        header=header, status=[_status(f'{node_name}: frame', Level.OK, '', '', pairs)]
    )


def _status(
    name: str, level: Level, text: str, hardware_id: str, values: Iterable[tuple[str, Any]]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name,
        level=bytes([level]),  # `byte` is bytes of length one in Python
        message=text,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values],
    )


__all__ = ['Facts', 'diagnostics', 'frame_stats']
