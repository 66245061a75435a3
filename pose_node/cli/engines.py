"""`pose engines`: the TensorRT engines that are kept, and which of them are of no more use."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.tensorrt.cache import EngineCache, Entry
from pose_node.runtime.backends.tensorrt.flavour import Flavour, load_flavour, machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--engine-cache', default='', help="folder (the user's own cache)")
    parser.add_argument('--prune', action='store_true', help='remove what is of no more use')


def run(options: argparse.Namespace) -> int:
    """Print a line for each engine; remove those that this machine's TensorRT would refuse."""
    cache = EngineCache(options.engine_cache)
    try:
        flavour: Flavour | None = load_flavour()
    except PoseNodeError as error:
        flavour = None
        print(f'Only damage can be told here: {error}')
    # What another process is writing is not half written for good: wait until none does.
    busy = cache.lock(lambda: None) if options.prune else nullcontext()
    with busy:
        entries, freed, removed = cache.entries(), 0, 0
        for entry in entries:
            why = entry.fault or _outdated(entry, flavour)
            print(_line(entry, why))
            if options.prune and why:
                entry.path.unlink(missing_ok=True)
                freed, removed = freed + entry.bytes, removed + 1
    kept_mb = (sum(entry.bytes for entry in entries) - freed) / 1e6
    print(f'{cache.folder}: {len(entries) - removed} engines, {kept_mb:.1f} MB')
    if options.prune:
        print(f'removed: {removed}, {freed / 1e6:.1f} MB')
    return 0


def _outdated(entry: Entry, flavour: Flavour | None) -> str:
    """Why nothing here will ask for an engine; '' when something may."""
    if flavour is None:
        return ''
    mine = {'flavour': flavour.name, 'version': flavour.version, 'machine': machine()}
    other = [
        entry.key.get(name, '?') for name, value in mine.items() if entry.key.get(name) != value
    ]
    return f'of another {" ".join(other)}' if other else ''


def _line(entry: Entry, why: str) -> str:
    built = time.strftime('%Y-%m-%d %H:%M', time.localtime(entry.built))
    parts = ('target', 'precision', 'batch', 'flavour', 'version')
    known = [entry.key.get(name, '?') for name in parts]
    what = f'{", ".join(known[:3])} at once, network {entry.key.get("onnx", "?")[:8]}, '
    what = what + ' '.join(known[3:]) if entry.key else 'unknown'
    note = f': {why}' if why else ''
    return f'{entry.path.name[:12]}  {entry.bytes / 1e6:6.1f} MB  {built}  {what}{note}'
