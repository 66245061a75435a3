"""Bundles: written, read, and refused for every reason we know."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
from known_bundle import KEYPOINTS_OBJ_M, OBJECT, make_bundle, manifest

from pose_node.core.bundle import Bundle, BundleError, write_bundle
from pose_node.core.errors import PoseNodeError
from pose_node.core.mesh import read_ply


@pytest.fixture
def folder(tmp_path):
    make_bundle(tmp_path / 'dots')
    return tmp_path / 'dots'


def edit(folder, change) -> None:
    """Change bundle.json as parsed."""
    data = json.loads((folder / 'bundle.json').read_text())
    change(data)
    (folder / 'bundle.json').write_text(json.dumps(data))


def set_at(path: str, value):
    """A change that sets one entry; numbers in the dotted path are list indices."""

    def change(data):
        *parents, last = [int(key) if key.isdigit() else key for key in path.split('/')]
        for key in parents:
            data = data[key]
        data[last] = value

    return change


def remove(path: str):
    def change(data):
        *parents, last = path.split('/')
        for key in parents:
            data = data[int(key) if key.isdigit() else key]
        del data[last]

    return change


def test_what_was_written_is_read(folder):
    bundle = Bundle.load(folder)
    assert bundle.name == OBJECT and bundle.folder == folder.resolve()
    spec = bundle.object(OBJECT)
    np.testing.assert_array_equal(spec.keypoints_obj_m, KEYPOINTS_OBJ_M)
    assert spec.mesh == 'dots.ply' and not spec.symmetries
    network = bundle.pose_network
    assert network.kind == 'heatmap' and network.map_size == (32, 32)
    assert network.mean == (128.0, 128.0, 128.0) and network.stride == 4
    score = network.calibration['dots'].score
    assert score.weights == {'confidence': 3.0, 'inlier_share': 5.0, 'rms': -0.5}
    assert bundle.locator is not None and bundle.locator.map_size == (40, 30)
    assert bundle.locator.centers == 'centers' and bundle.locator.objects == (OBJECT,)
    assert bundle.manifest.training is None
    assert read_ply(bundle.read('dots.ply')).vertices.shape == (78, 3)


def test_loads_by_the_manifests_own_path_and_by_text(folder):
    assert Bundle.load(folder / 'bundle.json').folder == Bundle.load(str(folder)).folder


def test_data_cannot_be_changed_by_accident(folder):
    bundle = Bundle.load(folder)
    with pytest.raises(ValueError, match='read-only'):
        bundle.objects[0].keypoints_obj_m[0] = 0.0
    with pytest.raises(AttributeError):
        bundle.pose_network.stride = 8


def test_optional_parts(tmp_path):
    data = manifest(locator=False)
    data['objects'][0]['mesh'] = None
    data['objects'][0]['symmetries'] = {
        'symmetries_continuous': [{'axis': [0, 0, 1], 'offset': [0, 0, 0.01]}]
    }
    data['training'] = {
        'recipe': 'recipe.toml',
        'log': None,
        'seed': 1,
        'command': 'python -m training fit',
        'code': 'abc',
    }
    files = {'pose.onnx': b'network', 'recipe.toml': b'seed = 1'}
    bundle = write_bundle(tmp_path / 'b', data, files)
    assert bundle.locator is None and bundle.objects[0].mesh is None
    assert bundle.objects[0].symmetries.continuous[0].offset_m == (0.0, 0.0, 0.01)  # metres
    assert bundle.manifest.training is not None and bundle.manifest.training.seed == 1


def test_writing_again_replaces_all(tmp_path):
    make_bundle(tmp_path / 'b')
    assert (tmp_path / 'b' / 'locator.onnx').exists()
    make_bundle(tmp_path / 'b', locator=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['b']
    assert not (tmp_path / 'b' / 'locator.onnx').exists()


def test_a_failed_write_leaves_the_old_bundle(tmp_path):
    make_bundle(tmp_path / 'b')
    data = manifest()
    data['pose_network']['stride'] = 0
    with pytest.raises(BundleError, match=r'b/bundle.json: pose_network.stride is 0'):
        write_bundle(tmp_path / 'b', data, {'pose.onnx': b'x'})
    data = manifest()
    data['pose_network']['sigma_px'] = np.float64('nan')
    with pytest.raises(BundleError, match='NaN or infinity'):
        write_bundle(tmp_path / 'b', data, {'pose.onnx': b'x'})
    with pytest.raises(BundleError, match='cannot hold'):
        write_bundle(tmp_path / 'b', {**manifest(), 'name': {1, 2}}, {})
    with pytest.raises(BundleError, match='no subfolders'):
        write_bundle(tmp_path / 'b', manifest(), {'../pose.onnx': b'x'})
    assert Bundle.load(tmp_path / 'b').name == OBJECT
    assert sorted(p.name for p in tmp_path.iterdir()) == ['b']


def test_a_folder_of_other_things_is_not_overwritten(tmp_path):
    (tmp_path / 'thesis.txt').write_text('irreplaceable')
    with pytest.raises(BundleError, match='no bundle and not empty'):
        make_bundle(tmp_path)
    assert (tmp_path / 'thesis.txt').exists()


def test_the_manifest_states_size_and_hash(folder):
    listed = json.loads((folder / 'bundle.json').read_text())['files']
    assert set(listed) == {p.name for p in folder.iterdir()} - {'bundle.json'}
    for name, entry in listed.items():
        data = (folder / name).read_bytes()
        assert entry == {'sha256': hashlib.sha256(data).hexdigest(), 'bytes': len(data)}


def flip_last_byte(folder):
    data = bytearray((folder / 'pose.onnx').read_bytes())
    data[-1] ^= 1
    (folder / 'pose.onnx').write_bytes(data)


def link_outside(folder):
    outside = folder.parent / 'pose.onnx'
    shutil.move(folder / 'pose.onnx', outside)
    (folder / 'pose.onnx').symlink_to(outside)


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (flip_last_byte, r'pose\.onnx has SHA-256 .* instead of .*; .*copy the folder again'),
        (lambda f: (f / 'pose.onnx').write_bytes(b''), r'has 0 bytes instead of \d+; copy'),
        (lambda f: (f / 'pose.onnx').unlink(), r'pose\.onnx is missing; copy the whole folder'),
        (link_outside, r'pose\.onnx is a link to .*, outside; put the file itself there'),
        (lambda f: (f / 'x.onnx.data').write_bytes(b'1'), r'x\.onnx\.data is not listed .*remove'),
        (lambda f: (f / 'more').mkdir(), r'more is not listed'),
        (lambda f: (f / 'bundle.json').unlink(), r'bundle\.json does not exist; give the folder'),
        (lambda f: (f / 'bundle.json').write_bytes(b'\xff\xfe'), 'no JSON text'),
        (lambda f: (f / 'bundle.json').write_text('{"schema": 1'), 'no JSON text'),
        (lambda f: (f / 'bundle.json').write_text('[' * 100_000), 'no JSON text'),
        (lambda f: (f / 'bundle.json').write_text('[1]'), 'write a JSON object'),
        (lambda f: (f / 'bundle.json').write_text('{"a": 1, "a": 2}'), "'a' twice"),
        (lambda f: (f / 'bundle.json').write_text('{"a": NaN}'), 'NaN; every number'),
        (lambda f: (f / 'bundle.json').write_text('{"a": -Infinity}'), '-Infinity; every'),
        (lambda f: (f / 'bundle.json').write_text(' ' * 1_000_001), '1000001 bytes; no manifest'),
    ],
)
def test_a_damaged_folder_is_refused(folder, damage, words):
    damage(folder)
    with pytest.raises(BundleError, match=words):
        Bundle.load(folder)


def network(key: str, value):
    return set_at(f'pose_network/{key}', value)


def thing(key: str, value):
    return set_at(f'objects/0/{key}', value)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (set_at('schema', 2), r'schema is 2, and this version reads 1; use the release'),
        (set_at('schema', '1'), "schema is '1'; write a whole number"),
        (set_at('schema', True), 'schema is True'),
        (remove('name'), 'name is missing; add it'),
        (set_at('surprise', 1), 'surprise is a key this version does not know; remove'),
        (set_at('name', 'has space'), 'must match'),
        (set_at('name', '../evil'), 'must match'),
        (set_at('objects', []), 'objects names'),
        (set_at('objects', {}), 'write a list'),
        (thing('name', 'other'), "pose_network.objects names 'dots'; name one of the .*other"),
        (thing('diameter_m', 200.0), 'give it in metres, not in millimetres'),
        (thing('diameter_m', 0.05), r'diameter_m is 0.05, and in bounds_obj_m fit'),
        (thing('diameter_m', -1.0), 'finite number above 0'),
        (thing('diameter_m', None), 'diameter_m is None'),
        (thing('bounds_obj_m', [[0, 0, 0]]), 'write 2 x 3 finite numbers'),
        (thing('bounds_obj_m', [[1, 1, 1], [0, 0, 0]]), 'lowest corner'),
        (thing('keypoints_obj_m', [[0.0, 0.0, 0.0]] * 3), 'four or more points'),
        (thing('keypoints_obj_m', [[0, 0, 0.01 * i] for i in range(9)]), 'on a line'),
        (thing('keypoints_obj_m', [[0, 0], [1]]), 'N x 3 finite numbers'),
        (thing('keypoints_obj_m', [[0, 0, '1']] * 5), 'N x 3 finite numbers'),
        (thing('keypoints_obj_m', [[0, 0, None]] * 5), 'N x 3 finite numbers'),
        (thing('keypoints_obj_m', (1000 * KEYPOINTS_OBJ_M).tolist()), 'give both in metres'),
        (
            thing('symmetries', {'symmetries_discrete': [[1]]}),
            r'symmetries_discrete\[0\] is \[1\]',
        ),
        (thing('symmetries', {'symetries_discrete': []}), 'does not know'),
        (thing('mesh', '../dots.ply'), 'must match'),
        (thing('mesh', 'none.ply'), r'objects\[0\].mesh is .*"files" does not list'),
        (
            network('kind', 'voxels'),
            "kind is 'voxels', and this version knows heatmap, dense, points; use a newer",
        ),
        (network('kind', 'points'), r'pose_network\.points is missing'),
        (network('file', '/etc/passwd'), 'must match'),
        (network('file', 'pose.pt'), r'ending with \.onnx'),
        (network('file', 'none.onnx'), 'does not list'),
        (network('input_size', [128]), 'write 2 finite numbers'),
        (network('input_size', [128, 130]), 'no multiple of stride 4'),
        (network('input_size', [128, 1e9]), '8 to 4096'),
        (network('input_size', [128, 64.5]), '8 to 4096'),
        (network('std', [0.0, 1.0, 1.0]), 'deviation of R, G, B'),
        (network('mean', [1.0, 2.0]), 'write 3 finite numbers'),
        (network('stride', 0), 'a whole number from 1 on'),
        (network('stride', 4.0), 'a whole number from 1 on'),
        (network('sigma_px', 0), 'finite number above 0'),
        (network('threshold', 1.5), 'finite number above 0 up to 1'),
        (network('calibration/dots/covariance_scale', True), 'finite number above 0'),
        (network('calibration/dots/prior_std_px', 0), 'prior_std_px'),
        (network('calibration/dots/posterior', {'scale': 1.0}), r'posterior\.freedom is missing'),
        (network('calibration/dots/posterior', {'scale': 1.0, 'freedom': 0}), 'above 0'),
        (network('calibration/dots/contour', {}), r'contour\.covariance_scale is'),
        (
            network('calibration/dots/contour', {'covariance_scale': 2.0}),
            r'objects\[0\]\.shape is missing; name the PLY whose outline is aligned',
        ),
        (thing('shape', 'none.ply'), r'objects\[0\].shape is .*"files" does not list'),
        (network('calibration/dots/score', {'bias': 0.0}), r'score\.weights is missing'),
        (network('calibration/dots/score/weights/luck', 7), r'weights\.luck is a key this'),
        (network('calibration/cup', {}), r'calibration\.cup is a key this version'),
        (network('objects', ['dots', 'dots']), 'object_input is missing'),
        (thing('bop_id', 0), 'a whole number from 1 on'),
        (set_at('locator/objects', []), 'at least one object'),
        (set_at('locator/objects', ['dots', 'dots']), 'each once'),
        (set_at('locator/objects', ['cup']), "names 'cup'"),
        (set_at('locator/outputs/boxes', 3), r'locator\.outputs\.boxes is 3; write a string'),
        (set_at('locator/threshold', None), r'locator\.threshold is None'),
        (set_at('training', {'command': '', 'code': '', 'log': 'x.json'}), 'training.log is'),
        (set_at('files/pose.pkl', {'sha256': '0' * 64, 'bytes': 1}), 'does not carry'),
        (set_at('files/a.onnx', {'sha256': 'short', 'bytes': 1}), 'must match'),
        (set_at('files/a.onnx', {'sha256': '0' * 64, 'bytes': 0}), 'number from 1 on'),
        (set_at('files/a.onnx', 'text'), 'write a JSON object'),
        (remove('files/pose.onnx'), 'does not list'),
    ],
)
def test_a_wrong_manifest_is_refused(folder, change, words):
    edit(folder, change)
    with pytest.raises(BundleError, match=words) as info:
        Bundle.load(folder)
    assert str(folder / 'bundle.json') in str(info.value)


@pytest.mark.parametrize('name', ['../a.onnx', '/a.onnx', 'sub/a.onnx', '..', '.a', 'a\\b.onnx'])
def test_a_path_that_leaves_the_folder_is_refused(folder, name):
    def change(data):
        data['files'][name] = {'sha256': '0' * 64, 'bytes': 1}

    edit(folder, change)
    with pytest.raises(BundleError, match='is no plain file name; keep every file'):
        Bundle.load(folder)


def test_numbers_too_large_to_be_finite_are_refused(folder):
    text = (folder / 'bundle.json').read_text()
    (folder / 'bundle.json').write_text(text.replace('"sigma_px": 1.0', '"sigma_px": 1e999'))
    with pytest.raises(BundleError, match='sigma_px is inf; write a finite number'):
        Bundle.load(folder)


def test_linked_installation(folder, tmp_path):
    """`colcon build --symlink-install` makes a folder of links: the bundle is where they lead."""
    installed = tmp_path / 'install' / 'dots'
    installed.mkdir(parents=True)
    for file in folder.iterdir():
        (installed / file.name).symlink_to(file)
    assert Bundle.load(installed).folder == folder.resolve()


def test_hidden_files_do_no_harm(folder):
    (folder / '.directory').write_text('a file browser was here')
    assert Bundle.load(folder).name == OBJECT


def test_reading_checks_again_what_changed_since(folder):
    bundle = Bundle.load(folder)
    flip_last_byte(folder)
    with pytest.raises(BundleError, match='SHA-256'):
        bundle.read('pose.onnx')
    with pytest.raises(BundleError, match='is not listed'):
        bundle.read('bundle.json')


def test_loading_without_verifying_reads_the_manifest_only(folder):
    (folder / 'pose.onnx').unlink()
    bundle = Bundle.load(folder, verify=False)
    with pytest.raises(BundleError, match='is missing'):
        bundle.verify()


def test_an_unknown_object_is_named(folder):
    with pytest.raises(BundleError, match="no object is called 'cup'; it knows dots"):
        Bundle.load(folder).object('cup')


def test_one_error_class_catches_all():
    assert issubclass(BundleError, PoseNodeError) and issubclass(PoseNodeError, ValueError)
