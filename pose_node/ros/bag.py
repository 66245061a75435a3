"""Play and record bags where `ros2 bag` is not installed.

python -m pose_node.ros.bag play BAG [--rate 1] [--loop]
python -m pose_node.ros.bag record OUT TOPIC [TOPIC ...]
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from pose_node.core.errors import PoseNodeError


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    # Ctrl-C and a polite kill end both commands the same way, with the bag closed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        count = options.run(options)
    except PoseNodeError as error:
        sys.stderr.write(f'{error}\n')
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()
    sys.stderr.write(f'{count} messages\n')
    return 0


def _play(given: argparse.Namespace) -> int:
    from .player import PlayOptions, play

    options = PlayOptions(
        rate=given.rate,
        loop=given.loop,
        topics=tuple(given.topics),
        subscribers=dict(_counted(text) for text in given.wait_for),
        patience_s=given.patience,
        answers=given.answers,
        pictures=given.pictures,
        window=given.window,
    )
    return play(given.bag, options, attached=given.attached, progress=_Bar().show)


def _record(given: argparse.Namespace) -> int:
    from .recorder import RecordOptions, record

    options = RecordOptions(
        topics=tuple(dict.fromkeys((*given.topics, *given.jpeg))),
        jpeg=tuple(given.jpeg),
        echo=given.echo,
    )
    if not options.topics:
        raise PoseNodeError('There is nothing to record; name at least one topic.')
    return record(given.out, options, attached=given.attached)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('python -m pose_node.ros.bag', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='play | record')
    play = commands.add_parser('play', help='send the messages of a bag')
    play.set_defaults(run=_play)
    play.add_argument('bag', help='folder of the bag')
    play.add_argument(
        '--rate',
        type=float,
        default=1.0,
        help='times as fast as recorded (%(default)g); 0 with --answers: as fast as they come',
    )
    play.add_argument('--loop', action='store_true', help='begin again at the end')
    play.add_argument('--topics', nargs='+', default=[], help='only these')
    play.add_argument(
        '--wait-for',
        nargs='+',
        default=[],
        metavar='TOPIC=N',
        help='start when TOPIC has N subscribers (default: when any has one)',
    )
    play.add_argument(
        '--patience', type=float, default=30.0, help='longest wait for others, s (%(default)g)'
    )
    play.add_argument('--answers', default='', metavar='TOPIC', help='one message a picture')
    play.add_argument('--pictures', default='', metavar='TOPIC', help='what is answered')
    play.add_argument(
        '--window', type=int, default=4, help='how many pictures may be unanswered (%(default)d)'
    )
    record = commands.add_parser('record', help='write topics into a new bag')
    record.set_defaults(run=_record)
    record.add_argument('out', help='folder of the new bag')
    record.add_argument('topics', nargs='*', help='topics; their types are asked of the graph')
    record.add_argument(
        '--jpeg',
        nargs='+',
        default=[],
        metavar='TOPIC',
        help='raw pictures that are kept as JPEG, as TOPIC/compressed',
    )
    record.add_argument(
        '--echo', action='store_true', help='write every message to stdout too, as JSON'
    )
    for each in (play, record):
        each.add_argument(
            '--attached',
            action='store_true',
            help='stop at the end of stdin; play starts when a line comes on it',
        )
    return parser


def _counted(text: str) -> tuple[str, int]:
    topic, _, number = text.rpartition('=')
    if not topic or not number.isdigit():
        raise PoseNodeError(f'--wait-for was given {text!r}; write TOPIC=N.')
    return topic, int(number)


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        self._drawn = 0.0

    def show(self, share: float) -> None:
        """Draw it, a share of 0 to 1 long."""
        now = time.monotonic()
        if sys.stderr.isatty() and (now - self._drawn > 0.1 or share >= 1.0):
            self._drawn = now
            filled = round(30 * share)
            end = '\n' if share >= 1.0 else ''
            sys.stderr.write(f'\r[{"#" * filled:.<30}] {share:4.0%}{end}')
            sys.stderr.flush()


if __name__ == '__main__':
    sys.exit(main())
