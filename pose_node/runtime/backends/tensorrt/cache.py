"""Engines on disk, each under the SHA-256 of all that it depends on.

A file is a line of JSON (what it was built from, its inputs and outputs, size and SHA-256 of the
engine), then the engine. It appears under its name in one step, so half a file has another name. A
lock, held by the kernel and so freed when its holder dies, keeps two processes from building at
once: they would time each other's kernels.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pose_node.core.errors import PoseNodeError

from .builder import Built, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_FORMAT = 1
_HEADER_BYTES = 1 << 16
_ENGINE_BYTES = 2 << 30  # no network of ours comes near
_TIMING_BYTES = 64 << 20
_SUFFIX, _HALF_WRITTEN = '.engine', '.tmp'
_LOCK = 'lock'
_POLL_S = 0.05

Key = dict[str, str]  # what an engine depends on, in words


class CacheFault(Exception):
    """Why an entry cannot be used; a sentence's end, for the log."""


@dataclass(frozen=True)
class Entry:
    """One file of the cache, as `pose engines` lists it."""

    path: Path
    bytes: int
    built: float  # seconds since 1970
    key: Key
    fault: str = ''  # why it is of no use to anybody


def default_folder() -> Path:
    """The user's own: $XDG_CACHE_HOME/pose_node/engines."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    try:
        root = Path(base) if os.path.isabs(base) else Path.home() / '.cache'
    except RuntimeError:  # a number without a name, as in containers
        raise PoseNodeError('this user has no home folder; set engine_cache.') from None
    return root / 'pose_node' / 'engines'


def digest(key: Mapping[str, str]) -> str:
    """The SHA-256 of a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


class EngineCache:
    """A folder of engines. It need not exist, nor be writable."""

    def __init__(self, folder: str | Path = '') -> None:
        self.folder = Path(folder).expanduser() if folder else default_folder()

    def path(self, key: Key) -> Path:
        """Where the engine of this key is kept."""
        return self.folder / f'{digest(key)}{_SUFFIX}'

    def load(self, key: Key) -> Built:
        """The engine of `key`; raises CacheFault where there is none that can be trusted."""
        header, engine = _read(self.path(key))
        if header['key'] != key:
            raise CacheFault('was built from something else')
        tensors = {
            name: Tensor(each['dtype'], tuple(each['shape']), each['is_input'])
            for name, each in header['tensors'].items()
        }
        return Built(engine, tensors)

    def store(self, key: Key, built: Built) -> None:
        """Keep an engine; raises OSError."""
        header = {
            'format': _FORMAT,
            'key': key,
            'tensors': {name: asdict(tensor) for name, tensor in built.tensors.items()},
            'bytes': len(built.engine),
            'sha256': hashlib.sha256(built.engine).hexdigest(),
        }
        line = json.dumps(header, sort_keys=True).encode() + b'\n'
        self._write(self.path(key), line, built.engine)

    def discard(self, key: Key) -> None:
        """Forget the engine of `key`, if that is allowed."""
        with suppress(OSError):
            self.path(key).unlink()

    def timings(self, key: Key) -> bytes:
        """Kernel timings of this TensorRT on this GPU; TensorRT checks them itself."""
        path = self._timings(key)
        try:
            return path.read_bytes() if path.stat().st_size <= _TIMING_BYTES else b''
        except OSError:
            return b''

    def store_timings(self, key: Key, timing: bytes) -> None:
        """Keep them; raises OSError."""
        if 0 < len(timing) <= _TIMING_BYTES:
            self._write(self._timings(key), timing)

    def _timings(self, key: Key) -> Path:
        own = {name: key[name] for name in ('flavour', 'version', 'target', 'machine')}
        return self.folder / f'{digest(own)}.timing'

    def _write(self, path: Path, *parts: bytes) -> None:
        handle, name = tempfile.mkstemp(_HALF_WRITTEN, 'engine-', self.folder)
        try:
            with os.fdopen(handle, 'wb') as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    @contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Be the only process that builds; `waiting` is called while another one does.

        Makes the folder. Raises OSError where that or the lock cannot be had. What `waiting`
        raises ends the wait.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / _LOCK).open('ab') as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(_POLL_S)
            yield  # closing the file opens the lock

    def entries(self) -> list[Entry]:
        """All engines, good or not, and what is left of builds that were cut off."""
        entries = []
        for path in sorted(self.folder.glob('*')):
            if path.suffix not in (_SUFFIX, _HALF_WRITTEN):
                continue
            try:
                status = path.stat()
            except OSError:  # another process has just removed it
                continue
            key: Key = {}
            fault = ''
            try:
                if path.suffix == _HALF_WRITTEN:
                    raise CacheFault('half written')
                key = _read(path)[0]['key']
                if path != self.path(key):
                    raise CacheFault('not under its own name')
            except CacheFault as error:
                fault = str(error)
            entries.append(Entry(path, status.st_size, status.st_mtime, key, fault))
        return entries


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and engine, checked; nothing is read before its size is known to be sane."""
    try:
        with path.open('rb') as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (0, os.geteuid()):
                raise CacheFault('belongs to another user')  # it holds code for the GPU
            size = status.st_size
            line = file.readline(_HEADER_BYTES)
            header = _header(line)
            wanted = header['bytes']
            if wanted > _ENGINE_BYTES or size != len(line) + wanted:
                raise CacheFault(f'has {size - len(line)} bytes instead of {wanted}')
            engine = file.read(wanted)
    except FileNotFoundError:
        raise CacheFault('is not there') from None
    except OSError as error:
        raise CacheFault(f'cannot be read ({error.strerror})') from None
    if hashlib.sha256(engine).hexdigest() != header['sha256']:
        raise CacheFault('is damaged')
    return header, engine


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        good = (
            header['format'] == _FORMAT
            and type(header['bytes']) is int
            and header['bytes'] > 0
            and isinstance(header['sha256'], str)
            and all(type(value) is str for value in header['key'].values())
            and all(
                set(each) == {'dtype', 'shape', 'is_input'}
                and all(type(length) is int for length in each['shape'])
                for each in header['tensors'].values()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise CacheFault('is no engine of this version of pose_node')
    return dict(header)


__all__ = ['CacheFault', 'EngineCache', 'Entry', 'Key', 'default_folder', 'digest']
