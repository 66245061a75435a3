"""`pose evaluate`: figures and result files are those of the known data set, on both ways."""

from __future__ import annotations

import csv
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from known_bundle import make_bundle, manifest
from known_scenes import NUMBER, OTHER, box_of, diameter_m, scenes, write_bop

from pose_node.cli.evaluate import on_files
from pose_node.cli.evaluate_ros import compare
from pose_node.cli.figures import Estimate, table
from pose_node.core import metrics
from pose_node.core.bundle import Bundle, write_bundle
from pose_node.core.depth import draw_depth
from pose_node.core.geometry import exp_so3, make_pose
from pose_node.runtime.bop import CSV_HEADER, BopDataset
from pose_node.runtime.preprocess import Region

TRUTH = [
    (scene, image, T)
    for scene, pictures in scenes().items()
    for image, poses in pictures.items()
    for T in poses
]
PERFECT = {
    'targets': 4, 'found': 4, 'ADD(-S) 0.1d': 100, '5 px': 100, 'AR MSSD': 100, 'AR MSPD': 100,
    '5 deg 5 cm': 100,
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_bop(tmp_path_factory.mktemp('bop') / 'dots_set', scenes())


@pytest.fixture
def evaluate(pose, bundle, folder):
    """`pose evaluate` of the known bundle on the known data set, with its own object's number."""
    usual = ('evaluate', bundle, '--bop', folder, '--threads', 1)
    return lambda *arguments: pose(*usual, '--object-id', NUMBER, *arguments)


def write_boxes(file, boxes):
    """boxes: (scene, image, object, [x, y, w, h], score) each."""
    names = ('scene_id', 'image_id', 'category_id', 'bbox', 'score')
    file.write_text(json.dumps([dict(zip(names, box)) for box in boxes]))
    return file


def figures(text):
    """{column: value} of the object's line of the table, and the time below it."""
    lines = [re.split(r'\s{2,}', line.strip()) for line in text.splitlines() if line[:2] == '  ']
    head, row, *below = lines
    assert head[0] == 'object' and row[0] == 'dots'
    shown = {name: float(value) for name, value in zip(head[1:], row[1:], strict=True)}
    return {**shown, **({'ms': float(below[0][0].split()[-2])} if below else {})}


def estimates_of(file):
    """[(scene, image, T_cam_obj)] of a result file, and the seconds of each."""
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row['obj_id'] for row in rows} <= {str(NUMBER)}
    assert all(0.9 < float(row['score']) <= 1.0 for row in rows)
    numbers = [
        (np.array(row['R'].split(), np.float64), np.array(row['t'].split(), np.float64))
        for row in rows
    ]
    return [
        (int(row['scene_id']), int(row['im_id']), make_pose(R.reshape(3, 3), t_mm / 1000.0))
        for row, (R, t_mm) in zip(rows, numbers)
    ], [float(row['time']) for row in rows]


def assert_true(estimates):
    """Every true pose has exactly one estimate near it."""
    left = list(estimates)
    for scene, image, T in TRUTH:
        near = [
            each
            for each in left
            if each[:2] == (scene, image)
            and metrics.translation_error_m(each[2], T) < 0.002
            and np.degrees(metrics.rotation_error_rad(each[2], T)) < 0.5
        ]
        assert len(near) == 1
        left = [each for each in left if each is not near[0]]
    assert not left


def test_boxes_of_the_truth(evaluate, tmp_path):
    status, out, _ = evaluate('--boxes', 'gt', '--csv', tmp_path / 'new' / 'r.csv')
    assert status == 0
    assert 'dots on dots_set, boxes: gt' in out
    shown = figures(out)
    assert {name: shown[name] for name in PERFECT} == PERFECT
    assert shown['turn, deg'] < 0.3 and shown['shift, mm'] < 1.0
    assert 0.1 < shown['ms'] < 10_000.0
    assert (tmp_path / 'new' / 'r.csv').read_text().splitlines()[0] == CSV_HEADER
    estimates, seconds = estimates_of(tmp_path / 'new' / 'r.csv')
    assert_true(estimates)
    # BOP wants the time of the whole picture, the same in all its lines.
    assert seconds[2] == seconds[3] > 0.0


def test_boxes_of_a_file(evaluate, tmp_path):
    """As many of the surest as there are instances; what is not of the object is passed over."""
    right = [(scene, image, NUMBER, box_of(T), 0.9) for scene, image, T in TRUTH]
    wrong = [(1, 0, NUMBER, [500, 300, 99, 99], 0.8), (1, 3, OTHER, [9, 9, 99, 99], 1.0)]
    file = write_boxes(tmp_path / 'boxes.json', wrong + right)
    status, out, _ = evaluate('--boxes', file, '--csv', tmp_path / 'r.csv')
    assert status == 0 and f'boxes: {file}' in out
    assert PERFECT.items() <= figures(out).items()
    assert_true(estimates_of(tmp_path / 'r.csv')[0])


def test_a_picture_without_a_box_is_a_miss(evaluate, tmp_path):
    one, *_ = TRUTH
    boxes = [(*one[:2], NUMBER, box_of(one[2]), 0.9)]
    status, out, _ = evaluate('--boxes', write_boxes(tmp_path / 'boxes.json', boxes))
    shown = figures(out)
    assert status == 0 and (shown['targets'], shown['found']) == (4, 1)
    assert {value for name, value in shown.items() if PERFECT.get(name) == 100} == {25.0}
    status, out, _ = evaluate('--boxes', write_boxes(tmp_path / 'none.json', []))
    assert status == 0 and figures(out)['ADD(-S) 0.1d'] == 0.0


def shown_for(folder, error, number=NUMBER):
    """The figures when every estimate is the truth times `error`."""
    dataset = BopDataset(folder)
    targets = [t for t in dataset.targets if t.object == number]
    estimates = {}
    for scene, image, T in TRUTH:
        found = Estimate(number, 0.9, T @ error, 0.02)
        estimates.setdefault((scene, image), []).insert(0, found)  # the order tells nothing
    return figures(table(dataset, targets, estimates, {number: 'dots'}))


def test_figures_by_hand(folder):
    """A shift by s along an axis moves all points by s: ADD and MSSD are s."""
    d = diameter_m()
    shown = shown_for(folder, make_pose(np.eye(3), np.array([0.0, 0.0, 0.11 * d])))
    assert (shown['ADD(-S) 0.1d'], shown['found']) == (0.0, 4)
    assert shown['AR MSSD'] == 80.0  # of the thresholds 0.05 to 0.5, all but 0.05 and 0.1
    assert shown['5 deg 5 cm'] == 100.0
    assert shown['shift, mm'] == round(110.0 * d, 1)
    assert (shown['turn, deg'], shown['ms']) == (0.0, 20.0)
    shown = shown_for(folder, make_pose(exp_so3(np.array([0.0, 0.1, 0.0])), np.zeros(3)))
    assert shown['5 deg 5 cm'] == 0.0
    assert (shown['turn, deg'], shown['shift, mm']) == (5.7, 0.0)


def test_a_symmetry_forgives(folder, tmp_path):
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    assert shown_for(folder, turn)['5 deg 5 cm'] == 0.0
    copy = shutil.copytree(folder, tmp_path / 'copy')
    entry = {'diameter': 1000.0 * diameter_m(), 'symmetries_discrete': [turn.ravel().tolist()]}
    (copy / 'models_eval' / 'models_info.json').write_text(json.dumps({NUMBER: entry}))
    shown = shown_for(copy, turn)
    assert shown['5 deg 5 cm'] == shown['AR MSSD'] == shown['AR MSPD'] == 100.0
    assert shown['turn, deg'] == 0.0


def test_the_estimator_sees_only_what_its_boxes_show(bundle, folder):
    regions = {(1, 0): [Region('dots', (20.0, 20.0), (60.0, 60.0))]}
    assert on_files(Bundle.load(bundle), BopDataset(folder), regions, {NUMBER: 'dots'}) == {
        (1, 0): []
    }


def test_the_number_of_the_object_is_in_the_bundle(pose, bundle, folder, tmp_path):
    status, _, err = pose('evaluate', bundle, '--bop', folder, '--boxes', 'gt')
    assert status == 2 and 'does not say its BOP number; give --object-id' in err
    data = manifest()
    data['objects'][0]['bop_id'] = NUMBER
    files = {p.name: p.read_bytes() for p in bundle.iterdir() if p.name != 'bundle.json'}
    write_bundle(tmp_path / 'b', data, files)
    status, out, _ = pose('evaluate', tmp_path / 'b', '--bop', folder, '--boxes', 'gt')
    assert status == 0 and PERFECT.items() <= figures(out).items()


def test_vsd_where_there_is_depth(evaluate, folder, tmp_path):
    """Right poses keep all of it, poses two tolerances too far next to nothing; without depth
    pictures there is no such column.
    """
    deep = shutil.copytree(folder, tmp_path / 'dots_set')
    dataset = BopDataset(deep)
    for scene, image in {each[:2] for each in TRUTH}:
        camera = dataset.camera(scene, image, dataset.size(scene, image))
        model = dataset.model(NUMBER)
        drawn = [
            draw_depth(model.vertices_m, model.faces, truth.T_cam_obj, camera.K, camera.size)
            for truth in dataset.truths(scene, image)
            if truth.object == NUMBER
        ]
        nearest_m = np.min([np.where(each > 0, each, np.inf) for each in drawn], axis=0)
        path = deep / 'test' / f'{scene:06d}' / 'depth' / f'{image:06d}.png'
        path.parent.mkdir(exist_ok=True)
        steps = np.where(np.isfinite(nearest_m), nearest_m * 1000.0, 0.0)
        cv2.imwrite(str(path), steps.round().astype(np.uint16))
    status, out, _ = evaluate('--bop', deep, '--boxes', 'gt')
    assert status == 0 and figures(out)['AR VSD'] > 90.0
    assert 'AR VSD' not in figures(evaluate('--boxes', 'gt')[1])
    away = make_pose(np.eye(3), np.array([0.0, 0.0, diameter_m()]))
    wrong = {}
    for scene, image, T in TRUTH:
        wrong.setdefault((scene, image), []).append(Estimate(NUMBER, 1.0, away @ T, 0.1))
    targets = [t for t in dataset.targets if t.object == NUMBER]
    assert figures(table(dataset, targets, wrong, {NUMBER: 'dots'}))['AR VSD'] < 5.0


def test_without_boxes_the_own_locator_looks(evaluate, pose, folder, tmp_path):
    """Into the same pictures, with the same poses; a bundle that has no locator says so."""
    status, out, _ = evaluate('--csv', tmp_path / 'r.csv')
    assert status == 0 and "dots on dots_set, boxes: the bundle's own locator" in out
    assert PERFECT.items() <= figures(out).items()
    assert_true(estimates_of(tmp_path / 'r.csv')[0])
    make_bundle(tmp_path / 'blind', locator=False)
    blind = ('evaluate', tmp_path / 'blind', '--bop', folder, '--object-id', NUMBER)
    status, _, err = pose(*blind)
    assert status == 2 and 'has no locator; give a file of 2D boxes with --boxes' in err


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('--boxes', 'gone.json'), 'gone.json cannot be read: No such file'),
        (('--boxes', 'gt', '--object-id', '77'), 'has no targets of object 77; name another'),
        (('--boxes', 'gt', '--object-id', 'drill'), "invalid int value: 'drill'"),
        (('--boxes', 'gt', '--split', 'train'), 'dots_set/train does not exist'),
        (('--boxes', 'gt', '--bop', 'nowhere'), 'nowhere/test does not exist'),
    ],
)
def test_wrong_arguments(evaluate, arguments, words):
    status, _, err = evaluate(*arguments)
    assert status == 2 and words in err


def test_a_truth_without_boxes_says_so(evaluate, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / 'copy')
    (copy / 'test' / '000001' / 'scene_gt_info.json').unlink()
    status, _, err = evaluate('--bop', copy, '--boxes', 'gt')
    assert status == 2 and 'no boxes of picture 0, scene 1' in err and '--boxes' in err


def test_differences_of_the_two_ways_are_found():
    T = np.eye(4)
    one = {(1, 0): [Estimate(NUMBER, 0.9, T, 0.1)], (1, 1): []}
    assert compare(one, one) == (0.0, compare(one, one)[1])
    moved = {**one, (1, 0): [Estimate(NUMBER, 0.9, make_pose(np.eye(3), np.full(3, 1e-6)), 0.1)]}
    assert compare(one, moved)[0] == pytest.approx(1e-6)
    worst, sentence = compare(one, {(1, 0): []})
    assert worst == np.inf and '1 of 2 pictures with the same number of poses' in sentence


@pytest.mark.parametrize('boxes', [('--boxes', 'gt'), ()])
def test_through_the_ros_graph_the_poses_are_the_same(evaluate, tmp_path, boxes):
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    status, out, err = evaluate(*boxes, '--via-ros', '--out', tmp_path / 'out')
    assert status == 0, err
    on_disk, through_ros = out.split('through the ROS graph:')
    assert PERFECT.items() <= figures(on_disk).items()
    assert PERFECT.items() <= figures(through_ros).items()
    assert '3 of 3 pictures with the same number of poses' in through_ros
    assert float(through_ros.split()[-1]) < 1e-12
    assert (tmp_path / 'out' / 'recorded' / 'metadata.yaml').is_file()
