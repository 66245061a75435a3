"""BOP data sets: what is written in millimetres comes out in metres, and errors are sentences."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from known_bundle import _mesh_points, draw_scene
from known_scenes import CAMERA, NUMBER, OTHER, box_of, diameter_m, scenes, write_bop

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import exp_so3, make_pose
from pose_node.runtime.bop import CSV_HEADER, BopDataset, Target, csv_line, read_boxes


@pytest.fixture
def folder(tmp_path):
    return write_bop(tmp_path / 'bop', scenes())


def edit(path, change) -> None:
    """Change a JSON file as parsed."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_pictures_and_cameras(folder):
    dataset = BopDataset(folder)
    for scene, pictures in scenes().items():
        for image, poses in pictures.items():
            picture = dataset.picture(scene, image)
            np.testing.assert_array_equal(picture, draw_scene(CAMERA, np.array(poses)))
            assert dataset.size(scene, image) == CAMERA.size
            camera = dataset.camera(scene, image, dataset.size(scene, image))
            np.testing.assert_array_equal(camera.K, CAMERA.K)
            assert (camera.size, camera.model) == (CAMERA.size, 'none')


def test_truth_is_in_metres(folder):
    dataset = BopDataset(folder)
    other, left, right = dataset.truths(2, 7)
    for truth, T in zip((left, right), scenes()[2][7]):
        np.testing.assert_allclose(truth.T_cam_obj, T, atol=1e-12)
        assert truth.object == NUMBER and truth.box_visible_px == tuple(box_of(T))
    assert (other.object, other.visible, right.visible) == (OTHER, 0.5, 0.75)


def test_models_are_in_metres(folder):
    model = BopDataset(folder).model(NUMBER)
    np.testing.assert_allclose(model.vertices_m, _mesh_points().reshape(-1, 3), atol=1e-9)
    assert model.diameter_m == pytest.approx(diameter_m())
    assert not model.symmetries
    (folder / 'models_eval').rename(folder / 'models')
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    half_turn[0, 3] = 20.0
    edit(
        folder / 'models' / 'models_info.json',
        lambda info: info[str(NUMBER)].update(symmetries_discrete=[half_turn.ravel().tolist()]),
    )
    half_turn[0, 3] = 0.02
    model = BopDataset(folder).model(NUMBER)
    np.testing.assert_allclose(model.symmetries.discrete, half_turn[None])


def test_targets_are_those_listed_else_all_there_are(folder):
    listed = BopDataset(folder).targets
    assert set(listed) == {
        *(Target(*picture, OTHER, 1) for picture in ((1, 0), (1, 3), (2, 7))),
        *(Target(1, 0, NUMBER, 1), Target(1, 3, NUMBER, 1), Target(2, 7, NUMBER, 2)),
    }
    (folder / 'test_targets_bop19.json').unlink()
    (folder / 'test' / 'notes').mkdir()
    assert sorted(map(str, BopDataset(folder).targets)) == sorted(map(str, listed))


def test_grey_pictures_have_three_channels(folder):
    place = folder / 'test' / '000001'
    grey = cv2.imread(str(place / 'rgb' / '000003.png'), cv2.IMREAD_GRAYSCALE)
    shutil.rmtree(place / 'rgb')
    (place / 'gray').mkdir()
    cv2.imwrite(str(place / 'gray' / '000003.tif'), grey)
    np.testing.assert_array_equal(BopDataset(folder).picture(1, 3), np.dstack([grey] * 3))


def test_without_the_visible_box_the_whole_one_is_taken(folder):
    place = folder / 'test' / '000001'
    edit(
        place / 'scene_gt_info.json',
        lambda infos: infos['0'].__setitem__(1, {'bbox_obj': [1, 2, 3, 4]}),
    )
    truth = BopDataset(folder).truths(1, 0)[1]
    assert truth.box_visible_px == (1, 2, 3, 4) and truth.visible is None
    (place / 'scene_gt_info.json').unlink()
    assert BopDataset(folder).truths(1, 0)[1].box_visible_px is None


def test_boxes(tmp_path):
    one = {'scene_id': 1, 'image_id': 3, 'category_id': 5, 'bbox': [1, 2.5, 3, 4], 'score': 0.5}
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps([one, {**one, 'score': 1, 'time': -1}]))
    first, second = read_boxes(path)
    assert (first.scene, first.image, first.object) == (1, 3, 5)
    assert (first.xywh_px, first.score, second.score) == ((1.0, 2.5, 3.0, 4.0), 0.5, 1.0)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda box: box.pop('score'), "'score'"),
        (lambda box: box.update(bbox=[1, 2, 3]), 'x, y, width, height'),
        (lambda box: box.update(bbox=None), 'x, y, width, height'),
        (lambda box: box.update(image_id='first'), "'first'"),
    ],
)
def test_boxes_that_are_none(tmp_path, change, words):
    box = {'scene_id': 1, 'image_id': 3, 'category_id': 5, 'bbox': [1, 2, 3, 4], 'score': 0.5}
    change(box)
    (tmp_path / 'boxes.json').write_text(json.dumps([box]))
    with pytest.raises(PoseNodeError, match=f'is no list of detections .*{words}'):
        read_boxes(tmp_path / 'boxes.json')


@pytest.mark.parametrize(
    ('text', 'words'),
    [(None, 'cannot be read: No such file'), ('[{', 'is not JSON'), ('[1]', 'is no list of det')],
)
def test_files_of_boxes_that_are_none(tmp_path, text, words):
    if text:
        (tmp_path / 'boxes.json').write_text(text)
    with pytest.raises(PoseNodeError, match=rf'/boxes\.json {words}'):
        read_boxes(tmp_path / 'boxes.json')


def test_a_line_of_a_result_file(rng):
    T = make_pose(exp_so3(rng.normal(size=3)), rng.normal(size=3))
    score = rng.uniform()  # np.float64, which repr() shows with its type
    line = csv_line(Target(48, 1, 8, 1), score, T, 0.0123456)
    columns = dict(zip(CSV_HEADER.split(','), line.split(','), strict=True))
    assert list(columns) == ['scene_id', 'im_id', 'obj_id', 'score', 'R', 't', 'time']
    assert [columns[name] for name in ('scene_id', 'im_id', 'obj_id')] == ['48', '1', '8']
    assert float(columns['score']) == score and columns['time'] == '0.012346'
    R = np.array(columns['R'].split(' '), np.float64)
    np.testing.assert_array_equal(R, T[:3, :3].ravel())
    t_mm = np.array(columns['t'].split(' '), np.float64)
    np.testing.assert_allclose(t_mm, 1000.0 * T[:3, 3], rtol=1e-15)


def read_all(dataset: BopDataset) -> None:
    """Everything that is to be known for one picture."""
    assert dataset.targets
    dataset.camera(1, 0, dataset.size(1, 0))
    dataset.truths(1, 0)
    dataset.model(NUMBER)


SCENE = 'test/000001'
INFO = 'models_eval/models_info.json'


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('test_targets_bop19.json', '[{"scene_id": 1, "im_id": 0}]', "'obj_id'"),
        ('test_targets_bop19.json', '{"scene_id": 1}', 'does not say what'),
        (f'{SCENE}/scene_camera.json', None, 'cannot be read'),
        (f'{SCENE}/scene_camera.json', '{', 'is not JSON'),
        (f'{SCENE}/scene_camera.json', '{"1": {}}', "'0'"),
        (f'{SCENE}/scene_camera.json', '{"0": {}}', "'cam_K'"),
        (f'{SCENE}/scene_camera.json', '{"0": {"cam_K": [1, 2]}}', 'reshape'),
        (f'{SCENE}/scene_gt.json', None, 'cannot be read'),
        (f'{SCENE}/scene_gt.json', '[]', 'does not say what'),
        (f'{SCENE}/scene_gt.json', '{"0": [{"obj_id": 5}]}', "'cam_R_m2c'"),
        (f'{SCENE}/scene_gt_info.json', '[]', 'does not say what'),
        (f'{SCENE}/rgb/000000.png', 'no picture', 'is no picture'),
        (f'{SCENE}/rgb/000000.png', None, 'holds no picture 000000'),
        (INFO, None, 'cannot be read'),
        (INFO, '{"1": {"diameter": 3}}', 'has no object 5'),
        (INFO, '{"5": {}}', "'diameter'"),
        ('models_eval/obj_000005.ply', 'ply', 'is no PLY'),
    ],
)
def test_what_cannot_be_used_is_named(folder, name, text, words):
    path = folder / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(PoseNodeError, match=words) as caught:
        read_all(BopDataset(folder))
    assert str(path).partition('/rgb/')[0] in str(caught.value)


def test_a_folder_that_is_no_data_set(folder):
    with pytest.raises(PoseNodeError, match=r'bop/train does not exist; .* that holds train/'):
        BopDataset(folder, 'train')
