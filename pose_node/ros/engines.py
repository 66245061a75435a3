"""What TensorRT is told by the parameters, and what it tells while it builds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from .parameters import Parameters

_TELL_S = 1.0  # between diagnostics


class Progress:
    """Keeps log and diagnostics alive while an engine is built: minutes on a Jetson."""

    def __init__(
        self,
        logger: Any,
        log_period_s: float,
        tell: Callable[[str], None],
        stop_wanted: Callable[[], bool],
    ) -> None:
        self._logger, self._log_period_s = logger, log_period_s
        self._tell, self._stop_wanted = tell, stop_wanted
        self._told_s = self._logged_s = time.monotonic()

    def __call__(self, doing: str) -> None:
        """Raises PoseNodeError, which ends the build, when the process is to end."""
        if self._stop_wanted():
            raise PoseNodeError(f'{doing}: stopped by a signal.')
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            self._tell(doing)
        if now_s - self._logged_s >= self._log_period_s:
            self._logged_s = now_s
            self._logger.info(f'{doing[0].upper()}{doing[1:]}.')


def engine_options(
    parameters: Parameters, logger: Any, progress: Progress, warn: Callable[[str], None]
) -> EngineOptions:
    """The parameters as TensorRT's options."""
    return EngineOptions(
        precision=parameters.precision,
        cache=parameters.engine_cache,
        dla_core=parameters.dla_core,
        say=logger.info,
        warn=warn,
        progress=progress,
    )


__all__ = ['Progress', 'engine_options']
