"""`pose build-engine`, `pose engines` and `pose verify --parity`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.tensorrt import backend
from pose_node.runtime.backends.tensorrt.cache import EngineCache
from pose_node.runtime.backends.tensorrt.flavour import load_flavour


@pytest.fixture
def no_gpu(monkeypatch):
    """Also on a machine that has one."""

    def no_driver() -> None:
        raise PoseNodeError('no NVIDIA driver is installed.')

    monkeypatch.setattr(backend, 'need_driver', no_driver)
    monkeypatch.setattr('pose_node.cli.build_engine.need_driver', no_driver)


def test_engines_are_built_listed_and_pruned(pose, bundle, tmp_path, monkeypatch):
    cache = ('--engine-cache', tmp_path)
    command = ('build-engine', bundle, '--target', 'sm86,sm120', *cache)
    status, out, err = pose(*command)
    assert status == 0 and err.count('The engine was built') == 4
    lines = [line.split(':')[0] for line in out.splitlines()]
    assert lines == [
        'pose.onnx sm86 fp16',
        'pose.onnx sm120 fp16',
        'locator.onnx sm86 fp16',
        'locator.onnx sm120 fp16',
    ]
    assert all(Path(line.split(', ')[-1]).is_file() for line in out.splitlines())
    assert pose(*command) == (0, out, '')  # nothing is built twice
    (tmp_path / 'engine-cut.tmp').write_bytes(b'half')
    status, out, _ = pose('engines', *cache)
    assert status == 0 and out.count('sm86, fp16, ') == 2
    assert 'engine-cut.t' in out and 'half written' in out
    assert f'{tmp_path}: 5 engines' in out
    status, out, _ = pose('engines', '--prune', *cache)
    assert status == 0 and f'{tmp_path}: 4 engines' in out and 'removed: 1' in out
    monkeypatch.setattr(load_flavour().trt, '__version__', '99.0')
    status, out, _ = pose('engines', '--prune', *cache)
    assert status == 0 and out.count('of another') == 4 and 'removed: 4' in out
    assert EngineCache(tmp_path).entries() == []


def test_mistakes(pose, bundle, tmp_path, no_gpu):
    cache = ('--engine-cache', tmp_path)
    status, _, err = pose('build-engine', bundle, *cache)
    assert status == 2 and 'no NVIDIA driver is installed. For a GPU that is not here' in err
    status, _, err = pose('build-engine', bundle, '--target', 'sm87', *cache)
    assert status == 2 and 'not for sm87' in err
    status, _, err = pose('build-engine', bundle, '--target', 'sm86', '--max-objects', 0, *cache)
    assert status == 2 and '--max-objects is 0; give 1 or more' in err
    status, out, _ = pose('engines', *cache)
    assert (status, out) == (0, f'{tmp_path}: 0 engines, 0.0 MB\n')


def test_parity_without_a_gpu_is_refused_with_the_reason(pose, bundle, no_gpu):
    status, out, err = pose('verify', bundle, '--parity')
    assert (status, out, err) == (2, '', 'pose verify: no NVIDIA driver is installed.\n')


def test_parity_of_a_backend_with_itself(pose, bundle):
    status, out, _ = pose('verify', bundle, '--parity', '--backend', 'onnx')
    assert status == 0 and 'dots on onnx against onnx, 20 pictures' in out
    assert 'differ by 0.0000 px (median; 100 % by at most 0.1 px), by 0.000 of their own' in out


def test_parity_needs_pictures_that_show_something(pose, bundle, tmp_path):
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((240, 320, 3), 96, np.uint8))
    arguments = ('--parity', '--backend', 'onnx', '--pictures', tmp_path)
    status, _, err = pose('verify', bundle, *arguments)
    assert status == 1 and 'nothing was found by both' in err
