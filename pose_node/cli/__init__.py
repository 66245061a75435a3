"""The command `pose`: each subcommand is a file, imported only when it is called."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

COMMANDS = {
    'demo': 'play the recorded bag through the node; report in out/demo/report.html',
    'run': 'poses in a picture, a folder, a video or a webcam, without ROS',
    'evaluate': 'a bundle against a data set in the BOP format',
    'benchmark': 'how long a bundle takes on this machine, and how that grows',
    'verify': 'check a bundle: manifest, hashes, one run of its networks',
    'build-engine': 'TensorRT engines of a bundle, before a robot needs them',
    'engines': 'the TensorRT engines that are kept; --prune removes the useless',
}


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; a mistake of the user's is one sentence and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog='pose', description='6-D poses of known objects.')
    parsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, text in COMMANDS.items():
        command = parsers.add_parser(name, help=text, description=f'{text[0].upper()}{text[1:]}.')
        # Only the command that is called is imported, so that `pose --help` comes at once.
        if arguments[:1] == [name]:
            _module(name).add_arguments(command)
    options = parser.parse_args(arguments)
    # Imported late as well: it is as heavy as the commands.
    from pose_node.core.errors import PoseNodeError

    try:
        return int(_module(options.command).run(options))
    except (PoseNodeError, OSError) as error:
        print(f'pose {options.command}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _module(command: str) -> Any:
    return import_module(f'.{command.replace("-", "_")}', __name__)
