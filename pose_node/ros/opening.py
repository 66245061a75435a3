"""Something slow (a network that is compiled takes minutes) in a thread of its own: whoever waits
for it can go on telling how it stands, and leave when it must.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Opened = TypeVar('Opened')
_THREAD = 'opening'


class Opening(Generic[Opened]):
    """Runs `action`. Whoever does not ask for its result leaves it behind: the thread ends with
    the process at the latest.
    """

    def __init__(self, action: Callable[[], Opened]) -> None:
        self._action = action
        self._result: Opened | None = None
        self._error: BaseException | None = None
        self._begin = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
        self._thread.start()

    @property
    def age_s(self) -> float:
        """Since it began, s."""
        return time.monotonic() - self._begin

    def done(self, timeout_s: float) -> bool:
        """Wait for so long at most; returns whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def result(self) -> Opened:
        """What the action returned, once done; raises what it raised."""
        if self._error is not None:
            raise self._error
        assert self._result is not None, 'not done yet'
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._action()
        except BaseException as error:  # noqa: BLE001 - it is the waiting thread's
            self._error = error


def opening_goes_on() -> bool:
    """Whether something was left behind that is still being opened."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


__all__ = ['Opening', 'opening_goes_on']
