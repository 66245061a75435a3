"""How the node fares: counts, rates, times, complaints. Free of ROS; diagnostics.py shows it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

# Rates are over this time, and a complaint counts as standing this long after its last picture.
_WINDOW_S = 5.0
_STANDING_S = 3.0
_STAGE_MEMORY = 500  # pictures


class Level(IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Complaint:
    """What is wrong and what to do."""

    level: Level
    sentence: str
    at: float = 0.0  # monotonic s


@dataclass(frozen=True)
class Snapshot:
    """All of it at one moment."""

    arrived: int
    arrived_hz: float
    processed: int
    processed_hz: float
    dropped: dict[str, int]  # never processed, by reason
    refused: dict[str, int]  # answered with no detections, by what was wrong
    stages_ms: dict[str, tuple[float, float]]  # p50, p99
    standing: dict[str, Complaint]  # by task
    last: Complaint | None
    since_arrival_s: float  # since the last picture, or since the start


class Health:
    """Collects from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            now = time.monotonic()
            self._start = self._last_arrival = now
            self._arrivals: deque[float] = deque(maxlen=2000)
            self._done: deque[float] = deque(maxlen=2000)
            self._counts: Counter[str] = Counter()
            self._dropped: Counter[str] = Counter()
            self._refused: Counter[str] = Counter()
            self._stages: dict[str, deque[float]] = {}
            self._standing: dict[str, Complaint] = {}
            self._last: Complaint | None = None
            self._logged: dict[str, float] = {}

    def arrived(self) -> None:
        """A picture came in."""
        with self._lock:
            self._last_arrival = time.monotonic()
            self._arrivals.append(self._last_arrival)
            self._counts['arrived'] += 1

    def processed(self, stages_ms: Mapping[str, float]) -> None:
        """A picture was processed, in these times."""
        with self._lock:
            self._done.append(time.monotonic())
            self._counts['processed'] += 1
            for name, duration_ms in stages_ms.items():
                known = self._stages.setdefault(name, deque(maxlen=_STAGE_MEMORY))
                known.append(duration_ms)

    def dropped(self, reason: str, count: int = 1) -> None:
        """Pictures were not processed."""
        with self._lock:
            self._dropped[reason] += count

    def refused(self, task: str) -> None:
        """A picture was answered with no detections because `task` was wrong."""
        with self._lock:
            self._refused[task] += 1

    def complain(
        self,
        task: str,
        sentence: str,
        level: Level = Level.ERROR,
        *,
        log_period_s: float | None = 10.0,
    ) -> bool:
        """Note what is wrong with `task`; returns whether it is time to log it.

        One sentence, whatever its numbers, is logged once in log_period_s; never when None.
        """
        with self._lock:
            complaint = Complaint(level, sentence, time.monotonic())
            self._standing[task] = self._last = complaint
            if log_period_s is None:
                return False
            kind = f'{task}: ' + re.sub(r'\d+', '#', sentence)
            if complaint.at - self._logged.get(kind, -np.inf) < log_period_s:
                return False
            if len(self._logged) > 100:
                self._logged.clear()
            self._logged[kind] = complaint.at
            return True

    @property
    def age_s(self) -> float:
        """Since the start, s."""
        with self._lock:
            return time.monotonic() - self._start

    def snapshot(self) -> Snapshot:
        """How things stand now."""
        with self._lock:
            now = time.monotonic()
            return Snapshot(
                arrived=self._counts['arrived'],
                arrived_hz=_rate(self._arrivals, now, self._start),
                processed=self._counts['processed'],
                processed_hz=_rate(self._done, now, self._start),
                dropped=dict(self._dropped),
                refused=dict(self._refused),
                stages_ms={
                    name: (float(np.percentile(known, 50)), float(np.percentile(known, 99)))
                    for name, known in self._stages.items()
                },
                standing={
                    task: complaint
                    for task, complaint in self._standing.items()
                    if now - complaint.at < _STANDING_S
                },
                last=self._last,
                since_arrival_s=now - self._last_arrival,
            )


def memory_mb() -> float:
    """Resident memory of this process; NaN where the system does not tell."""
    try:
        pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    except (OSError, ValueError, IndexError):
        return np.nan
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def _rate(times: deque[float], now: float, start: float) -> float:
    """Events a second over the window, or since the start when that is shorter."""
    window_s = min(_WINDOW_S, max(now - start, 1e-3))
    return sum(now - at < window_s for at in times) / window_s


def supply_complaint(
    *,
    topic: str,
    publishers: int,
    transport: str,
    other_topic: str,
    other_publishers: int,
    arrived: int,
    silent_s: float,
    timeout_s: float,
) -> Complaint | None:
    """What keeps pictures from arriving, if nothing has arrived for timeout_s.

    other_topic: where pictures would be under the other image_transport. arrived: how many ever.
    """
    if silent_s < timeout_s:
        return None
    if publishers and arrived:
        return Complaint(
            Level.WARN,
            f'No picture has come on {topic} for {silent_s:.0f} s; look at the camera driver.',
        )
    if publishers:
        # Raw pictures are larger than the shared memory Fast DDS sets up by itself.
        return Complaint(
            Level.ERROR,
            f'Pictures are announced on {topic}, and none has arrived for {silent_s:.0f} s; '
            'if the camera runs, start it and this node with '
            'FASTDDS_DEFAULT_PROFILES_FILE=<share>/config/fastdds.xml (the launch files do), or '
            'use image_transport:=compressed, or set the reliability of both ends alike '
            f'(qos_overrides.{topic}.subscription.reliability).',
        )
    if other_publishers:
        other = 'raw' if transport == 'compressed' else 'compressed'
        return Complaint(
            Level.WARN,
            f'Nobody publishes {topic}, but there is {other_topic}; '
            f'set image_transport to {other}.',
        )
    return Complaint(
        Level.WARN,
        f'Nobody publishes {topic}; start the camera, or remap image to its topic.',
    )


__all__ = ['Complaint', 'Health', 'Level', 'Snapshot', 'memory_mb', 'supply_complaint']
