"""The node while TensorRT builds: parameters passed on, log and diagnostics alive, an end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pose_node.core.errors import PoseNodeError
from pose_node.ros import engines
from pose_node.ros.engines import Progress, engine_options
from pose_node.ros.parameters import Parameters


class Clock:
    def __init__(self, monkeypatch):
        self.now_s = 100.0
        monkeypatch.setattr(engines.time, 'monotonic', lambda: self.now_s)


def test_progress_is_told_once_a_second_and_logged_now_and_then(monkeypatch):
    clock, told, logged = Clock(monkeypatch), [], []
    logger = SimpleNamespace(info=logged.append)
    progress = Progress(logger, 10.0, told.append, lambda: False)
    for tick in range(60):  # half a minute
        clock.now_s = 100.0 + 0.5 * tick
        progress(f'building an engine, {tick} %')
    assert len(told) == 29
    assert logged == ['Building an engine, 20 %.', 'Building an engine, 40 %.']


def test_a_signal_ends_it():
    progress = Progress(SimpleNamespace(), 10.0, print, lambda: True)
    with pytest.raises(PoseNodeError, match='building an engine, 3 %: stopped by a signal'):
        progress('building an engine, 3 %')


def test_parameters_are_passed_on():
    parameters = replace(Parameters(), precision='fp32', engine_cache='/there', dla_core=1)
    said = []
    options = engine_options(parameters, SimpleNamespace(info=said.append), print, said.append)
    options.say('done.')
    assert (options.precision, options.cache, options.dla_core) == ('fp32', '/there', 1)
    options.warn('not used.')
    assert said == ['done.', 'not used.']
