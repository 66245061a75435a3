"""What can be asked of the node: ~/pause and ~/localize_once.

Services are answered in the thread of all callbacks, pictures in the worker's: who asks for one
picture waits, without holding the others up, until the worker has its outcome.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import SetBool, Trigger

if TYPE_CHECKING:
    from collections.abc import Generator

_INACTIVE = 'The node is not active; activate it first.'


@dataclass(eq=False)
class _Request:
    """Somebody waits for one picture."""

    deadline: float
    at: float = field(default_factory=time.monotonic)
    admitted: bool = False  # a picture was let in for it
    found: bool = False
    sentence: str = ''

    def __await__(self) -> Generator[None, None, None]:
        # rclpy asks again whenever its executor wakes up: when answered, and once a second at
        # least, for the diagnostics.
        while not self.sentence and time.monotonic() < self.deadline:
            yield


class Services:
    """Whether pictures are let in, and who waits for one. Closed until opened."""

    def __init__(self, node: Any) -> None:
        self._lock = threading.Lock()
        self._open = self._paused = False
        self.timeout_s = 0.0  # how long a picture is waited for
        self._requests: list[_Request] = []
        self._node = node
        # One that is waited for must not keep the pictures that it waits for from coming.
        group = ReentrantCallbackGroup()
        for kind, name, callback in (
            (SetBool, '~/pause', self._on_pause),
            (Trigger, '~/localize_once', self._on_localize_once),
        ):
            node.create_service(kind, name, callback, callback_group=group)

    @property
    def paused(self) -> bool:
        """Whether pictures are turned away."""
        with self._lock:
            return self._paused

    def open(self) -> None:
        """The node is active."""
        with self._lock:
            self._open, self._paused = True, False

    def close(self) -> None:
        """The node is not active any more."""
        self.answered(float('inf'), False, 'The node was deactivated before a picture came.')
        with self._lock:
            self._open = self._paused = False

    def admit(self) -> bool:
        """Whether a picture that just came is to be processed."""
        with self._lock:
            waiting = [request for request in self._requests if not request.admitted]
            for request in waiting:
                request.admitted = True
            return bool(waiting) or not self._paused

    def answered(self, arrival: float, found: bool, sentence: str) -> None:
        """A picture that came at `arrival` (monotonic s) was processed: with this outcome."""
        with self._lock:
            served = [request for request in self._requests if request.at <= arrival]
            self._requests = [request for request in self._requests if request.at > arrival]
        for request in served:
            request.found, request.sentence = found, sentence
        if served and self._node.executor is not None:
            self._node.executor.wake()

    def _on_pause(self, request: Any, response: Any) -> Any:
        with self._lock:
            response.success = self._open
            if self._open:
                self._paused = bool(request.data)
        if not response.success:
            response.message = _INACTIVE
        else:
            response.message = 'Paused.' if request.data else 'Running.'
            self._node.get_logger().info(response.message)
        return response

    async def _on_localize_once(self, request: Any, response: Any) -> Any:
        del request
        with self._lock:
            timeout_s, is_open = self.timeout_s, self._open
            asked = _Request(time.monotonic() + timeout_s)
            if is_open:
                self._requests.append(asked)
        if not is_open:
            response.message = _INACTIVE
            return response
        await asked
        with self._lock:
            self._requests = [other for other in self._requests if other is not asked]
        response.success = asked.found
        response.message = asked.sentence or (
            f'No picture was answered within {timeout_s:g} s; see /diagnostics.'
        )
        return response


__all__ = ['Services']
