"""The executable `pose_node`: start, run until SIGINT or SIGTERM, leave cleanly."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from pose_node.core.errors import PoseNodeError

from .node import PoseNode

if TYPE_CHECKING:
    from collections.abc import Sequence

# A second signal within this time comes from a shell and a launcher passing on the same one.
_SAME_SIGNAL_S = 1.0
# DDS may wait for ever on shared memory that a killed process had locked: then the tracebacks of
# all threads are printed, and the process ends.
_STUCK_S = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code.

    0 after a signal; 1 when a parameter is no good or `autostart` could not start it.
    """
    # rclpy's own handlers would close the context under the worker while it publishes.
    rclpy.init(
        args=list(arguments) if arguments is not None else None,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    try:
        return _run()
    finally:
        rclpy.try_shutdown()


def _run() -> int:
    executor = SingleThreadedExecutor()
    stop: Future[None] = Future(executor=executor)
    _on_signal(stop)
    try:
        node = PoseNode()
    except PoseNodeError as error:
        get_logger('pose_node').fatal(str(error))
        return 1
    node.stop_wanted = stop.done
    try:
        if node.get_parameter('autostart').value and not _autostart(node):
            if stop.done():
                return 0
            node.get_logger().fatal('autostart failed; the reason is above.')
            return 1
        executor.add_node(node)
        executor.spin_until_future_complete(stop)
        return 0
    finally:
        node.close()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()


def _autostart(node: PoseNode) -> bool:
    """Configure and activate; returns whether both went well."""
    success = TransitionCallbackReturn.SUCCESS
    return node.trigger_configure() == success and node.trigger_activate() == success


def _on_signal(stop: Future[None]) -> None:
    """Have SIGINT and SIGTERM end `stop`, even while the main thread waits inside DDS.

    Python runs its handlers in the main thread, when that comes back from C; the wake-up socket
    is written to at once, by whatever thread the signal hits.
    """
    listening, written = socket.socketpair()
    written.setblocking(False)
    signal.set_wakeup_fd(written.fileno())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        with written:  # open as long as this thread lives
            listening.recv(1)
            first = time.monotonic()
            faulthandler.dump_traceback_later(_STUCK_S, exit=True)
            stop.set_result(None)
            while True:
                number = listening.recv(1)[0]
                if time.monotonic() - first > _SAME_SIGNAL_S:  # somebody is impatient
                    os._exit(128 + number)

    threading.Thread(target=wait, name='signals', daemon=True).start()


if __name__ == '__main__':
    sys.exit(main())
