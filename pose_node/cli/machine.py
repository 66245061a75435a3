"""The machine a figure was measured on: processor, memory, versions, and energy where it is told.

Energy: the counters of Linux' powercap (Intel RAPL, AMD since 5.8) for whole packages, or the
power rails of a Jetson's INA3221 and of other boards that show `power*_input` or voltage and
current in /sys/class/hwmon, read ten times a second.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from importlib import metadata
from pathlib import Path

from pose_node.runtime.backends.onnx import usable_cores

_LIBRARIES = ('numpy', 'opencv-python-headless', 'onnxruntime', 'openvino', 'tensorrt')
_SAMPLE_S = 0.1


def machine() -> dict[str, str]:
    """What to say of this machine, by name."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    board = _read(Path('/proc/device-tree/model')).rstrip('\0')
    return {
        'processor': board or _processor(),
        'cores': f'{usable_cores()} of {os.cpu_count()}',
        'memory': f'{os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30:.0f} GiB',
        'system': f'{platform.system()} {platform.release()}, {platform.machine()}',
        'python': platform.python_version(),
        **versions,
    }


def memory_mb() -> float:
    """What this process holds now, MB (10^6 bytes)."""
    pages = int(_read(Path('/proc/self/statm')).split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


class Energy:
    """Joules between `with` and its end, of all the board reports; `joules` is None where it
    reports nothing, and `source` says what was read or why nothing was.
    """

    def __init__(self, sys_class: Path = Path('/sys/class')) -> None:
        self._packages = [
            zone / 'energy_uj'
            for zone in sorted((sys_class / 'powercap').glob('*-rapl:?'))
            if _read(zone / 'energy_uj')
        ]
        self._rails = [] if self._packages else _rails(sys_class / 'hwmon')
        self.joules: float | None = None
        self.source = 'this machine reports no energy (no readable powercap, no power rails)'
        if self._packages:
            self.source = f'{len(self._packages)} packages of powercap'
        elif self._rails:
            self.source = f'{len(self._rails)} power rails, {1.0 / _SAMPLE_S:.0f} times a second'

    def __enter__(self) -> Energy:
        self._start = self._counters()
        self._watts: list[float] = []
        self._began, self._ended = time.perf_counter(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self._rails:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began
        if self._packages:
            steps = zip(self._packages, self._start, self._counters())
            self.joules = sum(_risen(path, low, high) for path, low, high in steps) / 1e6
        elif self._rails:
            self._ended.set()
            self._thread.join()
            self.joules = seconds * sum(self._watts) / len(self._watts)

    def _counters(self) -> list[int]:
        return [int(_read(path)) for path in self._packages]

    def _watch(self) -> None:
        while True:
            self._watts.append(sum(_watts(rail) for rail in self._rails))
            if self._ended.wait(_SAMPLE_S):
                return


# A rail: one file of microwatts, or one of millivolts and one of milliamperes.
_Rail = tuple[Path, ...]


def _rails(hwmon: Path) -> list[_Rail]:
    rails: list[_Rail] = []
    for sensor in sorted(hwmon.glob('hwmon*')):
        powers = sorted(sensor.glob('power*_input'))
        rails += [(path,) for path in powers if _read(path)]
        if powers or not _read(sensor / 'name').startswith('ina'):
            continue
        for current in sorted(sensor.glob('curr?_input')):
            voltage = current.with_name(current.name.replace('curr', 'in'))
            if _read(current) and _read(voltage):
                rails.append((voltage, current))
    return rails


def _watts(rail: _Rail) -> float:
    values = [float(_read(path) or 0.0) for path in rail]
    return values[0] / 1e6 if len(values) == 1 else values[0] * values[1] / 1e6


def _risen(path: Path, low: int, high: int) -> int:
    """How much a counter rose that may have begun anew once."""
    if high >= low:
        return high - low
    return high - low + int(_read(path.with_name('max_energy_range_uj')) or 0)


def _processor() -> str:
    for line in _read(Path('/proc/cpuinfo')).splitlines():
        name, _, value = line.partition(':')
        if name.strip() == 'model name':
            return value.strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors='replace').strip()
    except OSError:
        return ''
