"""A bag through the real node: player, node and recorder as three processes on DDS.

Nothing is short-circuited. This process has no part in the traffic: it starts the three, and reads
on a pipe what the recorder writes into its bag.
"""

from __future__ import annotations

import base64
import json
import queue
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pose_node.core.errors import PoseNodeError
from pose_node.ros.environment import process_environment

from .processes import Processes

NODE = '/pose_node'
DETECTIONS = f'{NODE}/detections'
FRAME_STATS = f'{NODE}/frame_stats'
OVERLAY = f'{NODE}/overlay'

_START_S = 30.0  # longest wait until everybody has found everybody
_SILENCE_S = 10.0  # longest wait for the next answer while pictures go out
_GRACE_S = 2.0  # how long after the last picture an answer may come


@dataclass(frozen=True)
class GraphOptions:
    """What is played, through which node, and what is recorded."""

    bag: Path
    bundle: Path
    out: Path  # folder of the new bag
    logs: Path
    image: str  # topic of the pictures in the bag, without /compressed
    camera_info: str
    compressed: bool = True
    boxes: str = ''  # topic of 2D boxes to look into, instead of the locator
    record: tuple[str, ...] = ()  # besides pictures, detections and frame_stats
    jpeg: tuple[str, ...] = ()
    rate: float = 1.0
    lossless: bool = False  # every picture is processed, in order, as fast as the node can
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def pictures(self) -> str:
        """The topic with the pictures."""
        return f'{self.image}/compressed' if self.compressed else self.image


@dataclass(frozen=True)
class Heard:
    """A message that the recorder received."""

    topic: str
    type: str
    time_ns: int  # when DDS received it
    stamp_ns: int  # of its header
    cdr: bytes | None  # None when it is large


def run_graph(options: GraphOptions, pictures: int) -> Iterator[Heard]:
    """Play the bag and yield what the recorder hears, until all `pictures` have gone through.

    Raises PoseNodeError when a process dies or nothing arrives; the processes end, and the bag is
    closed, whatever happens.
    """
    environment = process_environment(
        dds_profile=True, discovery_range='LOCALHOST', domain_id=free_domain()
    )
    with Processes(options.logs, environment) as processes:
        processes.start('node', 'pose_node.ros.main', node_arguments(options))
        recorder = processes.start(
            'recorder', 'pose_node.ros.bag', recorder_arguments(options), talks=True
        )
        player = processes.start('player', 'pose_node.ros.bag', player_arguments(options))
        yield from _Conductor(options, processes, recorder, player, pictures).events()
        processes.end('player')
        processes.end('recorder')


def node_arguments(options: GraphOptions) -> list[str]:
    """The node's command line: remappings and parameters."""
    parameters = {
        'bundle': str(options.bundle),
        'image_transport': 'compressed' if options.compressed else 'raw',
        'deterministic': 'true' if options.lossless else 'false',
        'use_detections': 'true' if options.boxes else 'false',
        **options.parameters,
    }
    remaps = {'image': options.image, 'camera_info': options.camera_info}
    if options.boxes:
        remaps['detections_2d'] = options.boxes
    arguments = ['--ros-args']
    for name, topic in remaps.items():
        arguments += ['-r', f'{name}:={topic}']
    for name, value in parameters.items():
        arguments += ['-p', f'{name}:={value}']
    return arguments


def recorder_arguments(options: GraphOptions) -> list[str]:
    """The recorder's command line."""
    topics = dict.fromkeys((options.pictures, DETECTIONS, FRAME_STATS, *options.record))
    jpeg = ['--jpeg', *options.jpeg] if options.jpeg else []
    return ['record', str(options.out), *topics, *jpeg, '--echo', '--attached']


def player_arguments(options: GraphOptions) -> list[str]:
    """The player's command line: node and recorder must listen before it starts."""
    arguments = ['play', str(options.bag), '--attached', '--patience', str(_START_S)]
    arguments += ['--wait-for', f'{options.pictures}=2', f'{options.camera_info}=1']
    if options.boxes:
        arguments += [f'{options.boxes}=1']
    if options.lossless:
        return [*arguments, '--rate', '0', '--answers', DETECTIONS, '--pictures', options.pictures]
    return [*arguments, '--rate', str(options.rate)]


def free_domain() -> int:
    """A ROS_DOMAIN_ID that nobody on this machine uses.

    A participant of domain d holds UDP port 7410 + 250 d + 2 k for some small k (RTPS 2.5,
    9.6.1.1); above 101 the ports would meet those that Linux gives to everybody.
    """
    for _ in range(50):
        domain = random.SystemRandom().randint(1, 101)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7410 + 250 * domain))
            except OSError:
                continue
        return domain
    raise PoseNodeError('No ROS_DOMAIN_ID from 1 to 101 is free; end some ROS processes.')


class _Conductor:
    """Watches the three, gives the player the sign, and knows when it is over."""

    def __init__(
        self,
        options: GraphOptions,
        processes: Processes,
        recorder: subprocess.Popen[bytes],
        player: subprocess.Popen[bytes],
        pictures: int,
    ) -> None:
        self._options = options
        self._processes = processes
        self._player = player
        self._pictures = pictures
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._ready = False
        self._seen = self._answered = 0
        self._last_answer = self._last_event = time.monotonic()
        threading.Thread(target=self._read, args=(recorder.stdout,), daemon=True).start()

    def events(self) -> Iterator[Heard]:
        while True:
            try:
                line = self._lines.get(timeout=0.05)
            except queue.Empty:
                self._processes.check()
                if self._over():
                    return
                continue
            if line is None:
                self._processes.check()
                status = 0  # an orderly end that nobody asked for
                raise PoseNodeError(self._processes.obituary('recorder', status))
            event = self._parse(line)
            if event is not None:
                yield event

    def _read(self, stream: Iterator[bytes]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def _parse(self, line: bytes) -> Heard | None:
        content = json.loads(line)
        self._last_event = time.monotonic()
        if 'ready' in content:
            self._ready = True
            self._last_answer = time.monotonic()
            assert self._player.stdin is not None
            self._player.stdin.write(b'go\n')
            self._player.stdin.flush()
            return None
        cdr = base64.b64decode(content['cdr']) if 'cdr' in content else None
        event = Heard(
            content['topic'], content['type'], content['time_ns'], content['stamp_ns'], cdr
        )
        if event.topic == DETECTIONS:
            self._answered += 1
            self._last_answer = time.monotonic()
        elif event.topic == self._options.pictures:
            self._seen += 1
        return event

    def _over(self) -> bool:
        """Whether all has gone through; raises PoseNodeError when nothing moves."""
        now = time.monotonic()
        if not self._ready:
            if now - self._last_event > _START_S:
                raise PoseNodeError(
                    f"The node's topics did not show within {_START_S:g} s. The end of its log:\n"
                    f'{self._processes.tail("node")}'
                )
            return False
        if self._processes.ended('player'):
            complete = self._answered >= self._pictures
            quiet_s = now - self._last_event
            if (complete and quiet_s > 0.3) or quiet_s > _GRACE_S:
                self._refuse_silence()
                return True
        elif now - self._last_answer > _SILENCE_S + 1.0 / max(self._options.rate, 1e-3):
            self._refuse_silence(always=True)
        return False

    def _refuse_silence(self, *, always: bool = False) -> None:
        if self._answered and not always:
            return
        if not self._seen:
            raise PoseNodeError(
                f'No picture of {self._options.pictures} arrived: Fast DDS found the player but '
                'carried nothing. Look whether /dev/shm is writable and has 64 MB free. '
                f"The end of the player's log:\n{self._processes.tail('player')}"
            )
        raise PoseNodeError(
            f'{self._seen} pictures went out and the node answered {self._answered}. '
            f'The end of its log:\n{self._processes.tail("node")}'
        )


__all__ = ['DETECTIONS', 'FRAME_STATS', 'NODE', 'OVERLAY', 'GraphOptions', 'Heard', 'run_graph']
