"""Reading a JSON object field by field: every refusal says what, where and what to do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .errors import PoseNodeError

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator


class BundleError(PoseNodeError):
    """A bundle that cannot be used: what is wrong, where, and what to do."""


class Fields:
    """A JSON object whose keys are taken one by one; `done` refuses what nobody took."""

    def __init__(self, data: object, where: str, path: str = '') -> None:
        self.where = where
        self.path = path
        if not isinstance(data, dict):
            self.fail('', f'is {_short(data)}', 'write a JSON object {...} there')
        self.data: dict[str, Any] = data
        self._taken: set[str] = set()

    def fail(self, key: str, got: str, remedy: str) -> NoReturn:
        """Raise BundleError for `key` (or, when empty, for the object itself)."""
        name = f'{self.path}.{key}' if self.path and key else self.path or key
        raise BundleError(f'{self.where}: {name + " " if name else ""}{got}; {remedy}.')

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self.data:
            if key not in self._taken:
                self.fail(key, 'is a key this version does not know', 'remove it or correct it')

    def ignore(self, key: str) -> None:
        """Count `key` as taken."""
        self._taken.add(key)

    def absent(self, key: str) -> bool:
        """Whether `key` is missing or null."""
        self._taken.add(key)
        return self.data.get(key) is None

    def fields(self, key: str) -> Fields:
        """The JSON object under `key`."""
        return Fields(self._take(key), self.where, f'{self.path}.{key}' if self.path else key)

    def list_of_fields(self, key: str) -> Iterator[Fields]:
        """The JSON objects of the list under `key`."""
        values = self._take(key)
        if not isinstance(values, list):
            self.fail(key, f'is {_short(values)}', 'write a list [...] of objects there')
        for i, value in enumerate(values):
            path = f'{self.path}.{key}[{i}]' if self.path else f'{key}[{i}]'
            yield Fields(value, self.where, path)

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        """A string, all of which matches `pattern`."""
        value = self._take(key)
        if not isinstance(value, str):
            self.fail(key, f'is {_short(value)}', 'write a string there')
        if pattern is not None and not pattern.fullmatch(value):
            self.fail(key, f'is {_short(value)}', f'it must match {pattern.pattern}')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._take(key)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.fail(key, f'is {_short(values)}', 'write a list of strings there')
        return tuple(values)

    def whole(self, key: str, at_least: int = 0) -> int:
        """An integer."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            self.fail(key, f'is {_short(value)}', f'write a whole number from {at_least} on')
        return value

    def number(self, key: str, above: float = -math.inf, at_most: float = math.inf) -> float:
        """A finite number in (above, at_most]."""
        value = self._take(key)
        if not _is_number(value) or not above < value <= at_most:
            span = f' above {above:g}' if above > -math.inf else ''
            span += f' up to {at_most:g}' if at_most < math.inf else ''
            self.fail(key, f'is {_short(value)}', f'write a finite number{span} there')
        return float(value)

    def array(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """Nested lists of finite numbers as a read-only array; None stands for any length."""
        value = self._take(key)
        array = _array(value)
        fits = array is not None and array.ndim == len(shape)
        if (
            array is None
            or not fits
            or any(n not in (None, m) for n, m in zip(shape, array.shape))
        ):
            wanted = ' x '.join('N' if n is None else str(n) for n in shape)
            self.fail(key, f'is {_short(value)}', f'write {wanted} finite numbers there')
        array.flags.writeable = False
        return array

    def triple(self, key: str) -> tuple[float, float, float]:
        """Three finite numbers."""
        a, b, c = self.array(key, (3,)).tolist()
        return a, b, c

    def sizes(self, key: str) -> tuple[int, int]:
        """A width and a height in pixels."""
        width, height = self.array(key, (2,)).tolist()
        if (
            width != int(width)
            or height != int(height)
            or not (8 <= width <= 4096 and 8 <= height <= 4096)
        ):
            self.fail(
                key, f'is [{width:g}, {height:g}]', 'write [width, height], 8 to 4096 pixels'
            )
        return int(width), int(height)

    def _take(self, key: str) -> Any:
        self._taken.add(key)
        if key not in self.data:
            self.fail(key, 'is missing', 'add it or export the bundle again')
        return self.data[key]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _array(value: object) -> np.ndarray | None:
    """Nested lists of numbers as an array; None when they are anything else."""

    def numeric(part: object) -> bool:
        return all(map(numeric, part)) if isinstance(part, list) else _is_number(part)

    if not isinstance(value, list) or not numeric(value):
        return None
    try:
        return np.array(value, dtype=np.float64)
    except ValueError:  # rows of different lengths
        return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
