"""`pose verify`: good bundles are good, and whatever was tampered with is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from known_bundle import make_bundle, manifest

from pose_node.core.bundle import write_bundle

BUNDLES = Path(__file__).parents[2] / 'bundles'
NAME = lambda path: path.name


def test_the_known_bundle_is_good(pose, bundle):
    status, out, err = pose('verify', bundle)
    assert (status, err) == (0, '')
    assert 'dots: 3 files' in out and 'hashes right' in out
    assert 'objects: dots; locator: yes' in out
    assert 'networks run on onnx' in out


def test_a_bundle_may_have_no_locator(pose, tmp_path):
    status, out, _ = pose('verify', make_bundle(tmp_path / 'b', locator=False).folder)
    assert status == 0 and 'locator: no' in out


@pytest.mark.parametrize(
    'folder', sorted(p.parent for p in BUNDLES.glob('*/bundle.json')), ids=str
)
def test_what_is_shipped_is_good(pose, folder):
    status, out, err = pose('verify', folder)
    assert (status, err) == (0, '')
    assert out.startswith(f'{folder.name}: ')


def flip_a_bit(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


def change_a_promise(folder):
    data = json.loads((folder / 'bundle.json').read_text())
    data['pose_network']['stride'] = 8
    (folder / 'bundle.json').write_text(json.dumps(data))


@pytest.mark.parametrize(
    ('tamper', 'words'),
    [
        (lambda b: flip_a_bit(b, 'pose.onnx'), 'pose.onnx has SHA-256'),
        (lambda b: flip_a_bit(b, 'locator.onnx'), 'locator.onnx has SHA-256'),
        (lambda b: flip_a_bit(b, 'dots.ply'), 'dots.ply has SHA-256'),
        (lambda b: (b / 'locator.onnx').unlink(), 'locator.onnx is missing'),
        (lambda b: (b / 'extra.py').write_text(''), 'extra.py is not listed'),
        (change_a_promise, "pose.onnx gives 'heatmaps' as float32 (2, 12, 32, 32)"),
        (shutil.rmtree, 'bundle.json does not exist; give the folder of a bundle'),
    ],
)
def test_what_was_tampered_with_is_named(pose, bundle, tmp_path, tamper, words):
    copy = shutil.copytree(bundle, tmp_path / 'copy')
    tamper(copy)
    status, out, err = pose('verify', copy)
    assert (status, out) == (2, '')
    assert err.startswith('pose verify: ') and words in err


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('pose.onnx', b'noise', 'cannot be loaded'),
        ('locator.onnx', b'noise', 'cannot be loaded'),
        ('dots.ply', b'noise', 'is no PLY file'),
    ],
)
def test_hashes_alone_make_no_bundle(pose, bundle, tmp_path, name, content, words):
    files = {p.name: p.read_bytes() for p in bundle.iterdir() if p.name != 'bundle.json'}
    write_bundle(tmp_path / 'b', manifest(), {**files, name: content})
    status, _, err = pose('verify', tmp_path / 'b')
    assert status == 2 and words in err


def test_a_backend_that_does_not_exist(pose, bundle):
    status, _, err = pose('verify', bundle, '--backend', 'abacus')
    assert status == 2 and 'abacus' in err and 'onnx' in err
