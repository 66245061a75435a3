"""Tell a waiting person what is happening (standard library only: used before pip has run)."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time

BAR = 24


class Progress:
    """A bar that is redrawn in place on a terminal; two plain lines where there is none."""

    def __init__(self, title: str):
        self.title = title
        self._stream = sys.stderr
        self._live = self._stream.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0
        if not self._live:
            print(f'{title} ...', file=self._stream, flush=True)

    def show(self, share: float | None, note: str = '') -> None:
        """Draw `share` (0 to 1; None when nobody knows how much is left) and a short note."""
        now = time.monotonic()
        if not self._live or now - self._drawn < 0.1:
            return
        self._drawn = now
        if share is None:  # a mark that wanders shows that something is alive
            place = int(now * 8) % BAR
            bar = '.' * place + '#' + '.' * (BAR - place - 1)
        else:
            bar = ('#' * round(BAR * min(max(share, 0.0), 1.0))).ljust(BAR, '.')
        self._line(f'{self.title} [{bar}] {now - self._began:4.0f} s  {note}')

    def done(self) -> None:
        """Say how long it took and leave the line."""
        text = f'{self.title}: done in {time.monotonic() - self._began:.0f} s'
        if self._live:
            self._line(text)
            print(file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)

    def broken(self) -> None:
        """Leave the line as it is: what went wrong is printed below it."""
        if self._live:
            print(file=self._stream, flush=True)

    def _line(self, text: str) -> None:
        print(f'\r\x1b[2K{text[:99]}', end='', file=self._stream, flush=True)


def watch(command: list, progress: Progress, read_line, environment=None) -> tuple[int, list[str]]:
    """Run a command under a bar; returns its exit status and its output, which nobody has seen.

    read_line(line) -> (share or None, note), or None when the line tells nothing. It is asked with
    an empty line, too, while the command is silent.
    """
    lines: queue.Queue[str | None] = queue.Queue()

    def pump(stream) -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    output: list[str] = []
    state: tuple[float | None, str] = (None, '')
    with subprocess.Popen(
        [str(word) for word in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    ) as process:
        threading.Thread(target=pump, args=(process.stdout,), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                line = ''
            if line is None:
                break
            output.append(line)
            state = read_line(line) or state
            progress.show(*state)
    return process.returncode, output
