"""The node for an hour at full load, with subscribers that come and go: does it stay as it was?

python test/soak.py                  # 60 minutes at 30 Hz; exit status 1 when a promise is broken
python test/soak.py --minutes 5 --bundle bundles/drill

A process of its own plays camera and listens. After a tenth of the time for warming up, the
node's memory may grow by 1 MB an hour, no diagnostics may be lost, and the p99 of its latency in
the last sixth may lie 20 % above that of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')

from pose_node.ros.environment import process_environment

os.environ.update(process_environment())

from diagnostic_msgs.msg import DiagnosticArray
from known_bundle import draw_scene, make_bundle
from ros_peer import CAMERA, T_CAM_OBJ, Node, Peer, camera_info
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from pose_node.ros.pictures import encode_image

_SAMPLE_S = 2.0
_COME_AND_GO_S = 7.0
_MEMORY_MB_PER_H = 1.0
_LATENCY = 1.2


@dataclass
class Record:
    """What was seen, with seconds since the start."""

    memory: list[tuple[float, float]] = field(default_factory=list)  # MB
    latency: list[tuple[float, float]] = field(default_factory=list)  # ms
    diagnostics: int = 0
    answered: int = 0
    found: int = 0
    sent: int = 0


def memory_mb(pid: int) -> float:
    """Resident memory that is the process's own; shared memory of DDS is counted once for all."""
    fields = Path(f'/proc/{pid}/statm').read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf('SC_PAGE_SIZE') / 1e6


def soak(bundle: Path, seconds: float, rate_hz: float, folder: Path) -> Record:
    """Run the node and load it; raises AssertionError when it dies."""
    node, record = Node(folder / 'log.txt', '-p', f'bundle:={bundle}'), Record()
    peer = Peer()
    try:
        node.wait_for('Active')
        begin = time.monotonic()
        _listen(peer, record, begin)
        _load(node, peer, record, begin, seconds, 1.0 / rate_hz)
        assert node.process.poll() is None, node.log
        assert 'Traceback' not in node.log, node.log
    finally:
        peer.close()
        node.stop()
    return record


def _listen(peer: Peer, record: Record, begin: float) -> None:
    def on_stats(message: Any) -> None:
        values = {entry.key: float(entry.value) for entry in message.status[0].values}
        record.latency.append((time.monotonic() - begin, values['latency_ms']))

    def on_diagnostics(message: Any) -> None:
        record.diagnostics += message.status[0].name.startswith('pose_node')

    def on_detections(message: Any) -> None:
        record.answered += 1
        record.found += bool(message.detections)

    peer.node.create_subscription(DiagnosticArray, '/pose_node/frame_stats', on_stats, 100)
    peer.node.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 100)
    peer.node.create_subscription(Detection3DArray, '/pose_node/detections', on_detections, 100)


def _load(
    node: Node, peer: Peer, record: Record, begin: float, seconds: float, period_s: float
) -> None:
    pictures = peer.publisher(Image, '/image')
    infos = peer.publisher(CameraInfo, '/camera_info')
    seen = [draw_scene(CAMERA, T_CAM_OBJ), draw_scene(CAMERA, None)]
    guests: deque[Any] = deque()
    due = sample = change = begin
    while (now := time.monotonic()) - begin < seconds:
        if now >= sample:
            record.memory.append((now - begin, memory_mb(node.process.pid)))
            sample += _SAMPLE_S
        if now >= change:  # somebody looks at the overlay and the markers, and goes again
            change += _COME_AND_GO_S
            if guests:
                peer.node.destroy_subscription(guests.popleft())
            else:
                for kind, topic in ((Image, 'overlay'), (MarkerArray, 'markers')):
                    guests.append(
                        peer.node.create_subscription(kind, f'/pose_node/{topic}', _ignore, 1)
                    )
        if now >= due:
            due += period_s
            header = peer.header()
            infos.publish(camera_info(header))
            # Of ten seconds the object is away for one: tracks end and begin.
            away = (now - begin) % 10.0 < 1.0
            pictures.publish(encode_image(seen[away], Image(header=header)))
            record.sent += 1
        peer.spin_for(min(0.002, max(0.0, due - time.monotonic())))


def _ignore(message: Any) -> None:
    del message


def judge(record: Record, seconds: float) -> dict[str, Any]:
    """The figures, and whether each promise was kept."""
    memory, latency = np.array(record.memory), np.array(record.latency)
    warm = memory[memory[:, 0] > 0.1 * seconds]
    slope = 3600.0 * float(np.polyfit(warm[:, 0], warm[:, 1], 1)[0])
    parts = [
        latency[(latency[:, 0] >= low * seconds) & (latency[:, 0] < high * seconds), 1]
        for low, high in ((0.1, 0.1 + 1 / 6), (5 / 6, 1.0))
    ]
    first, last = (float(np.percentile(part, 99)) for part in parts)
    p50, p90, p99 = np.percentile(latency[:, 1], (50, 90, 99)).tolist()
    return {
        'minutes': seconds / 60.0,
        'sent': record.sent,
        'answered': record.answered,
        'found': record.found,
        'latency_ms_p50_p90_p99': [round(value, 1) for value in (p50, p90, p99)],
        'latency_ms_p99_first_last': [round(first, 1), round(last, 1)],
        'memory_mb_by_tenths': [
            round(float(np.median(p)), 2) for p in np.array_split(warm[:, 1], 10)
        ],
        'memory_mb_per_hour': round(slope, 2),
        'diagnostics': record.diagnostics,
        'kept': {
            'memory': slope < _MEMORY_MB_PER_H,
            'latency': last < _LATENCY * first,
            'diagnostics': record.diagnostics >= int(seconds) - 2,
        },
    }


def main() -> int:
    """Run, print, and say whether all was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--rate', type=float, default=30.0, help='pictures a second')
    parser.add_argument('--bundle', type=Path, help='folder; a network without weights else')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or make_bundle(Path(folder) / 'dots').folder
        seconds = 60.0 * options.minutes
        figures = judge(soak(bundle, seconds, options.rate, Path(folder)), seconds)
    print(json.dumps(figures, indent=1))
    return 0 if all(figures['kept'].values()) else 1


if __name__ == '__main__':
    sys.exit(main())
