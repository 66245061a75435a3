"""Child processes that cannot outlive this one, each with a log of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pose_node.core.errors import PoseNodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_LOG_TAIL = 20
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == 'linux' else None


class Processes:
    """Named processes; leaving the `with` block ends them, in the order they were started last.

    logs: folder where what each says goes, as NAME.log.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.logs = logs
        self.logs.mkdir(parents=True, exist_ok=True)
        self._environment = dict(environment)
        # The children import this very package, wherever the parent was started.
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, self._environment.get('PYTHONPATH', '').split(os.pathsep))]
        self._environment['PYTHONPATH'] = os.pathsep.join(dict.fromkeys(paths))
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, module: str, arguments: Sequence[str], *, talks: bool = False
    ) -> subprocess.Popen[bytes]:
        """Run `python -m module arguments`. talks: its stdout is a pipe, else part of the log."""
        with self.log(name).open('wb') as log:
            child = subprocess.Popen(
                [sys.executable, '-u', '-m', module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                env=self._environment,
                # Ctrl-C reaches this process alone, which then ends the others in good order.
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, takes no lock
            )
        self._children[name] = child
        return child

    def log(self, name: str) -> Path:
        """Where the process writes its log."""
        return self.logs / f'{name}.log'

    def check(self) -> None:
        """Raise PoseNodeError, with the end of its log, when a process has failed."""
        for name, child in self._children.items():
            status = child.poll()
            if status not in (None, 0):
                raise PoseNodeError(self.obituary(name, status))

    def obituary(self, name: str, status: int | None) -> str:
        """What to say of a process that ended."""
        how = f'signal {-status}' if status is not None and status < 0 else f'status {status}'
        return f'The process {name!r} ended with {how}. The end of its log:\n{self.tail(name)}'

    def tail(self, name: str) -> str:
        """The last lines of its log, indented."""
        text = self.log(name).read_text(encoding='utf-8', errors='replace')
        lines = text.splitlines()[-_LOG_TAIL:] or ['(nothing)']
        return '\n'.join(f'    {line}' for line in lines)

    def ended(self, name: str) -> bool:
        """Whether it has ended."""
        return self._children[name].poll() is not None

    def end(self, name: str, patience_s: float = 10.0) -> None:
        """Close its stdin, ask it to stop, and insist when it does not."""
        child = self._children[name]
        _close(child.stdin)
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        deadline = time.monotonic() + 10.0
        for name in reversed(self._children):
            self.end(name, max(0.5, deadline - time.monotonic()))
        for child in self._children.values():
            _close(child.stdout)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        try:
            pipe.close()
        except BrokenPipeError:  # it had ended with something unread
            pass


def _die_with_parent() -> None:
    """Let the kernel stop a child whose parent was killed and could not do it."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


__all__ = ['Processes']
