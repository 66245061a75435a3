"""What a training says while it runs: a CSV file, TensorBoard's files and a progress bar."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_Batch = TypeVar('_Batch')


class FitLog:
    """Lines of two kinds: losses of the steps since the last line, and figures of a validation.

    Lines after step `first` in an older file are of steps that will be done again: they go.
    TensorBoard's files are written where its package is installed. Without a path nothing is said:
    for the other processes of a training by many.
    """

    def __init__(
        self, path: Path | None, columns: Sequence[str], *, first: int, last: int, title: str
    ) -> None:
        old = [line for line in read_log(path) if line['step'] <= first] if path else []
        self._file = (path or Path(os.devnull)).open('w', newline='')
        self._lines = csv.DictWriter(self._file, ('step', *columns), extrasaction='ignore')
        self._lines.writeheader()
        self._lines.writerows(old)
        self._board = path and _tensorboard(path.parent / 'tensorboard' / path.stem, first)
        self._progress = _progress(disable=not path)
        self._bar = self._progress.add_task(title, total=last, completed=first, loss='')
        self._start_lap()

    def _start_lap(self) -> None:
        self._losses: list[Sequence[float]] = []
        self._waited, self._since = 0.0, time.monotonic()

    def timed(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """The batches, while the time that is spent waiting for them is counted."""
        iterator = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.monotonic() - asked
            yield batch

    def add(self, losses: Sequence[float]) -> None:
        """The parts of one step's loss."""
        self._losses.append(losses)

    def losses(self, step: int, names: Sequence[str], batch: int, **more: float) -> None:
        """A line about the steps since the last one."""
        elapsed = time.monotonic() - self._since
        means = np.ma.masked_invalid(self._losses).mean(axis=0).filled(np.nan).round(4).tolist()
        self._write(step, {
            **dict(zip(names, means, strict=True)),
            'pictures_per_s': round(len(self._losses) * batch / elapsed, 1),
            'waited_share': round(self._waited / elapsed, 3),
            **more,
        })  # fmt: skip
        self._progress.update(self._bar, completed=step, loss=' '.join(map(str, means)))
        self._start_lap()

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """A line about a validation."""
        self._write(step, figures)
        self._start_lap()

    def _write(self, step: int, figures: dict[str, float]) -> None:
        self._lines.writerow({'step': step, **figures})
        self._file.flush()
        if self._board:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> FitLog:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._file.close()
        if self._board:
            self._board.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a log, without what they leave empty; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    lines = [{k: float(v) for k, v in row.items() if v} for row in rows]
    return [{**line, 'step': int(line['step'])} for line in lines]


def _tensorboard(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=first + 1)


def _progress(*, disable: bool) -> Progress:
    columns = (
        '[progress.description]{task.description}',
        BarColumn(),
        '{task.completed}/{task.total}',
        TextColumn('{task.fields[loss]}'),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, disable=disable)
