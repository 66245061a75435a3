"""The engine cache against real serialized engines: what is trusted, and what is built anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from known_bundle import make_bundle

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import EngineOptions
from pose_node.runtime.backends.tensorrt import backend, cache
from pose_node.runtime.backends.tensorrt.backend import engine_for, key_of
from pose_node.runtime.backends.tensorrt.builder import Plan, Watch
from pose_node.runtime.backends.tensorrt.cache import CacheFault, EngineCache
from pose_node.runtime.backends.tensorrt.flavour import load_flavour

FLAVOUR = load_flavour()
PLAN = Plan('fp16', 4, 'sm86')


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> bytes:
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots').read('pose.onnx')


@pytest.fixture(scope='module')
def file(model, tmp_path_factory) -> bytes:
    """What an engine's file holds."""
    options = EngineOptions(cache=str(tmp_path_factory.mktemp('engines')))
    get(model, options)
    return EngineCache(options.cache).path(key_of(FLAVOUR, model, PLAN)).read_bytes()


@pytest.fixture
def options(tmp_path):
    """Options with a cache of their own, and what was said."""
    said: list[str] = []
    return EngineOptions(cache=str(tmp_path / 'engines'), say=said.append), said


def get(model, options, plan=PLAN):
    return engine_for(FLAVOUR, model, plan, options, Watch())


def built(said: list[str]) -> int:
    return sum(line.startswith('The engine was built') for line in said)


def test_built_once_then_read(model, options):
    options, said = options
    first = get(model, options)
    assert built(said) == 1 and len(first.engine) > 10_000
    assert get(model, options) == replace(first, timing=b'') and built(said) == 1
    (entry,) = EngineCache(options.cache).entries()
    assert (entry.fault, entry.key['target'], entry.key['precision']) == ('', 'sm86', 'fp16')
    assert entry.key['version'] == FLAVOUR.version
    assert entry.path.stat().st_mode & 0o077 == 0  # nobody else's to read or change
    assert entry.path.parent.stat().st_mode & 0o077 == 0


def test_every_part_of_the_key_counts(model, monkeypatch):
    key = key_of(FLAVOUR, model, PLAN)
    others = [
        key_of(FLAVOUR, model + b'\0', PLAN),
        key_of(FLAVOUR, model, replace(PLAN, precision='fp32')),
        key_of(FLAVOUR, model, replace(PLAN, max_batch=5)),
        key_of(FLAVOUR, model, replace(PLAN, target='sm89')),
        key_of(FLAVOUR, model, replace(PLAN, dla_core=0)),
    ]
    for name, value in (('GRAPH_VERSION', 99), ('machine', lambda: 'linux-aarch64')):
        with monkeypatch.context() as patch:
            patch.setattr(backend, name, value)
            others.append(key_of(FLAVOUR, model, PLAN))
    monkeypatch.setattr(FLAVOUR.trt, '__version__', '11.4.1')
    others.append(key_of(FLAVOUR, model, PLAN))
    digests = {cache.digest(each) for each in (key, *others)}
    assert len(digests) == 1 + len(others) == 9


def test_another_version_of_tensorrt_builds_its_own(model, options, monkeypatch):
    options, said = options
    get(model, options)
    monkeypatch.setattr(FLAVOUR.trt, '__version__', '1.8.0')
    get(model, options)
    assert built(said) == 2
    versions = {entry.key['version'] for entry in EngineCache(options.cache).entries()}
    assert len(versions) == 2 and '1.8.0' in versions


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def claim(data: bytes, **values: object) -> bytes:
    line, _, engine = data.partition(b'\n')
    return json.dumps({**json.loads(line), **values}).encode() + b'\n' + engine


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (cut, 'bytes instead of'),
        (flip, 'is damaged'),
        (lambda data: data + b'\0', 'bytes instead of'),
        (lambda data: b'', 'is no engine of this version'),
        (lambda data: b'\0' * 200_000, 'is no engine of this version'),
        (lambda data: b'[' * 60_000 + b'\n', 'is no engine of this version'),
        (lambda data: claim(data, bytes=1 << 40), 'bytes instead of'),
        (lambda data: claim(data, bytes=-1), 'is no engine of this version'),
        (lambda data: claim(data, format=2), 'is no engine of this version'),
        (lambda data: claim(data, tensors={'x': {}}), 'is no engine of this version'),
        (lambda data: claim(data, key={'onnx': 'other'}), 'was built from something else'),
        (lambda data: data.partition(b'\n')[2], 'is no engine of this version'),
    ],
)
def test_what_cannot_be_trusted_is_said_and_built_anew(model, file, options, damage, words):
    options, said = options
    kept, key = EngineCache(options.cache), key_of(FLAVOUR, model, PLAN)
    kept.folder.mkdir()
    kept.path(key).write_bytes(file)
    whole = kept.load(key).engine
    kept.path(key).write_bytes(damage(file))
    with pytest.raises(CacheFault, match=words):
        kept.load(key)
    again = get(model, options)
    assert built(said) == 1 and len(again.engine) == pytest.approx(len(whole), rel=0.05)
    assert words in said[0] and said[0].endswith('it is built anew.')
    assert kept.load(key).engine == again.engine


def test_half_a_file_is_never_under_an_engines_name(model, options, monkeypatch):
    """A process that ends while it writes leaves the name free, and the next one builds."""
    options, said = options

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, 'replace', end)
        with pytest.raises(KeyboardInterrupt):
            get(model, options)
    assert EngineCache(options.cache).entries() == []
    left = EngineCache(options.cache).folder / 'engine-x.tmp'
    left.write_bytes(b'half')  # as a killed process leaves it
    get(model, options)
    assert built(said) == 2
    faults = [entry.fault for entry in EngineCache(options.cache).entries()]
    assert sorted(faults) == ['', 'half written']


@pytest.mark.parametrize('folder', ['/proc/pose_node', '/dev/null/engines'])
def test_a_folder_that_cannot_be_written_is_done_without(model, folder):
    said: list[str] = []
    options = EngineOptions(cache=folder, say=said.append)
    assert len(get(model, options).engine) > 10_000
    assert built(said) == 1
    assert f'The engine cache {folder} cannot be written' in said[0]
    assert 'set engine_cache' in said[0]


def test_a_full_disk_is_done_without(model, options, monkeypatch):
    options, said = options

    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(cache.os, 'fsync', full)
    assert len(get(model, options).engine) > 10_000
    assert built(said) == 1 and 'No space left on device' in said[-1]
    assert list(EngineCache(options.cache).folder.glob('*.tmp')) == []


BUILD = """
import sys
from pose_node.runtime.backends import EngineOptions
from pose_node.runtime.backends.tensorrt.backend import engine_for
from pose_node.runtime.backends.tensorrt.builder import Plan, Watch
from pose_node.runtime.backends.tensorrt.flavour import load_flavour
say = lambda line: print(line, flush=True)
options = EngineOptions(cache=sys.argv[2], say=say)
plan = Plan('fp16', 4, 'sm86')
engine_for(load_flavour(), open(sys.argv[1], 'rb').read(), plan, options, Watch())
say('done')
"""


def test_two_processes_at_once_build_once(model, tmp_path):
    (tmp_path / 'pose.onnx').write_bytes(model)
    command = [sys.executable, '-c', BUILD, tmp_path / 'pose.onnx', tmp_path / 'engines']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    with EngineCache(tmp_path / 'engines').lock(lambda: None):  # both find it taken, and wait
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(2)
        ]
        first = [process.stdout.readline() for process in running]
    said = [line + process.communicate(timeout=60)[0] for line, process in zip(first, running)]
    assert all('Another process builds engines' in each and 'done' in each for each in said)
    assert sum('The engine was built' in each for each in said) == 1


def test_a_killed_builder_leaves_the_lock_to_the_next(tmp_path):
    hold = (
        'import sys; from pose_node.runtime.backends.tensorrt.cache import EngineCache\n'
        'with EngineCache(sys.argv[1]).lock(lambda: None):\n'
        '    print("mine", flush=True); sys.stdin.read()'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, '-c', hold, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as holder:
        assert holder.stdout.readline() == 'mine\n'
        waits = 0

        def waiting() -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                holder.kill()
            assert waits < 200

        with EngineCache(tmp_path).lock(waiting):
            assert waits >= 3


def test_a_wait_can_be_ended(model, options):
    options, _ = options
    watch = Watch()
    with EngineCache(options.cache).lock(lambda: None):
        watch.stop.set()
        with pytest.raises(PoseNodeError, match='waiting for the engine of another process'):
            engine_for(FLAVOUR, model, PLAN, options, watch)


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert EngineCache().folder == tmp_path / 'pose_node' / 'engines'
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative/is/invalid')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert EngineCache().folder == tmp_path / '.cache' / 'pose_node' / 'engines'
    assert EngineCache('~/mine').folder == tmp_path / 'mine'

    def nobody() -> None:
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(cache.Path, 'home', nobody)
    with pytest.raises(PoseNodeError, match='no home folder; set engine_cache'):
        EngineCache()


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_an_engine_of_another_user_is_not_trusted(model, file, options):
    options, said = options
    kept, key = EngineCache(options.cache), key_of(FLAVOUR, model, PLAN)
    kept.folder.mkdir()
    kept.path(key).write_bytes(file)
    os.chown(kept.path(key), 12345, 12345)
    get(model, options)
    assert 'belongs to another user' in said[0] and built(said) == 1
    assert kept.load(key).engine  # the one that was built took its place


def test_timings_are_kept_for_one_version_on_one_gpu(model, options):
    options, _ = options
    kept, key = EngineCache(options.cache), key_of(FLAVOUR, model, PLAN)
    with kept.lock(lambda: None):
        kept.store_timings(key, b'times')
    assert kept.timings(key) == b'times'
    assert kept.timings(key_of(FLAVOUR, model + b'\0', PLAN)) == b'times'  # any network's
    assert kept.timings({**key, 'target': 'sm89'}) == b''
    assert kept.timings({**key, 'version': '11'}) == b''


def test_entries_tell_when(model, file, options):
    options, _ = options
    path = EngineCache(options.cache).path(key_of(FLAVOUR, model, PLAN))
    path.parent.mkdir()
    path.write_bytes(file)
    (entry,) = EngineCache(options.cache).entries()
    assert abs(time.time() - entry.built) < 60 and entry.bytes > 10_000
    entry.path.rename(entry.path.with_name('other.engine'))
    assert EngineCache(options.cache).entries()[0].fault == 'not under its own name'
