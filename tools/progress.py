"""One line that tells a waiting person what is happening (standard library only: used before pip)."""

from __future__ import annotations

import sys
import time


class Progress:
    """A bar that is redrawn in place on a terminal, and a line per step where there is none."""

    def __init__(self, title: str, stream=sys.stderr):
        self.title = title
        self._stream = stream
        self._live = stream.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0
        if not self._live:
            print(f'{title} ...', file=stream, flush=True)

    def show(self, share: float | None, note: str = '') -> None:
        """Draw `share` (0..1, or None when nobody knows how much is left) and a short note."""
        now = time.monotonic()
        if not self._live or now - self._drawn < 0.1:
            return
        self._drawn = now
        filled = int(now * 4) % 25 if share is None else round(24 * min(max(share, 0.0), 1.0))
        bar = '·' * filled + '#' + '·' * (24 - filled) if share is None else '#' * filled
        self._line(f'{self.title} [{bar:·<24.24}] {now - self._began:4.0f} s  {note}')

    def done(self, note: str = '') -> None:
        """Say how long it took and leave the line."""
        took = time.monotonic() - self._began
        text = f'{self.title}: done in {took:.0f} s {note}'.rstrip()
        if self._live:
            self._line(text)
            print(file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)

    def broken(self) -> None:
        """Leave the line as it is, so that the error can be printed below."""
        if self._live:
            print(file=self._stream, flush=True)

    def _line(self, text: str) -> None:
        print(f'\r\x1b[2K{text[:99]}', end='', file=self._stream, flush=True)
