"""The executable `pose_node`: start, run until SIGINT or SIGTERM, leave cleanly."""

from __future__ import annotations

import os
import signal
import sys
import threading
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

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code.

    0 after a signal; 1 when a parameter is no good or `autostart` could not start it.
    """
    # Signals are waited for by a thread of their own. rclpy's handlers would close the context
    # under the worker while it publishes. Threads made later inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
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
    stop = Future(executor=executor)
    threading.Thread(target=_wait_for_signal, args=(stop,), name='signals', daemon=True).start()
    try:
        node = PoseNode()
    except PoseNodeError as error:
        get_logger('pose_node').fatal(str(error))
        return 1
    try:
        if node.get_parameter('autostart').value and not _autostart(node):
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


def _wait_for_signal(stop: Future) -> None:
    signal.sigwait(_SIGNALS)
    stop.set_result(None)
    number = signal.sigwait(_SIGNALS)  # somebody is impatient
    os._exit(128 + number)


if __name__ == '__main__':
    sys.exit(main())
