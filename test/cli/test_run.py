"""`pose run`: poses and overlays out of pictures, folders and videos; mistakes are sentences."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import yaml
from known_bundle import OBJECT, draw_scene
from known_scenes import DISTORTED, path

from pose_node.core import metrics

POSES = path(3)
PICTURES = [draw_scene(DISTORTED, T) for T in POSES]


def save(file, picture):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), picture[..., ::-1])
    return file


@pytest.fixture
def calibration(tmp_path):
    """Write what camera_calibration of ROS writes, with entries changed."""

    def write(**changes):
        content = {
            'image_width': 640,
            'image_height': 480,
            'camera_name': 'camera',
            'camera_matrix': {'rows': 3, 'cols': 3, 'data': DISTORTED.K.ravel().tolist()},
            'distortion_model': 'plumb_bob',
            'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': list(DISTORTED.D)},
        }
        file = tmp_path / 'camera.yaml'
        file.write_text(yaml.safe_dump({**content, **changes}))
        return file

    return write


@pytest.fixture
def run(pose, bundle, tmp_path):
    """`pose run` with the known bundle, into tmp_path / 'out'."""
    return lambda *arguments: pose('run', bundle, *arguments, '--out', tmp_path / 'out')


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / 'out' / 'poses.jsonl').open()]


def assert_near(line, T):
    (found,) = line['poses']
    assert found['object'] == OBJECT and 0.9 < found['score'] <= 1.0
    estimate = np.array(found['T_cam_obj'])
    assert metrics.translation_error_m(estimate, T) < 0.003
    assert np.degrees(metrics.rotation_error_rad(estimate, T)) < 1.0
    assert (np.linalg.eigvalsh(found['covariance']) > 0.0).all()


def assert_drawn(overlay, picture):
    """The overlay is the picture, but for some lines."""
    assert overlay.shape == picture.shape
    changed = (np.abs(overlay[..., ::-1].astype(int) - picture) > 60).any(axis=2).mean()
    assert 0.002 < changed < 0.3


def test_a_picture(run, tmp_path, calibration):
    picture = save(tmp_path / 'one.png', PICTURES[0])
    status, out, _ = run(picture, '--camera', calibration())
    assert status == 0
    (line,) = lines(tmp_path)
    assert line['picture'] == 'one'
    assert_near(line, POSES[0])
    x, y, z = np.array(line['poses'][0]['T_cam_obj'])[:3, 3]
    assert f'one: dots at ({x:.3f}, {y:.3f}, {z:.3f}) m, score 0.99' in out
    assert 'something found in 1 pictures' in out
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['one.jpg', 'poses.jsonl']
    assert_drawn(cv2.imread(str(tmp_path / 'out' / 'one.jpg')), PICTURES[0])


def test_answers_are_told_where_asked_for(run, tmp_path, calibration):
    """The pose's own, with all of its score where there is but one."""
    picture = save(tmp_path / 'one.png', PICTURES[0])
    assert run(picture, '--camera', calibration(), '--pose-distribution', 'amis')[0] == 0
    (line,) = lines(tmp_path)
    assert_near(line, POSES[0])
    (pose,) = line['poses']
    (answer,) = pose.pop('answers')
    assert answer['score'] == pytest.approx(pose['score'])
    assert answer['T_cam_obj'] == pose['T_cam_obj']


@pytest.mark.parametrize('name', ['shots', 'shots.2024'])
def test_a_folder(run, tmp_path, calibration, name):
    for i, (suffix, picture) in enumerate(zip(('png', 'bmp', 'PNG'), PICTURES)):
        save(tmp_path / name / f'{i}.{suffix}', picture)
    save(tmp_path / name / '3.png', draw_scene(DISTORTED, None))
    (tmp_path / name / 'notes.txt').write_text('not a picture')
    status, out, _ = run(tmp_path / name, '--camera', calibration())
    assert status == 0 and 'something found in 3 pictures' in out
    *found, nothing = lines(tmp_path)
    assert [line['picture'] for line in found] == ['0', '1', '2']
    for line, T in zip(found, POSES, strict=True):
        assert_near(line, T)
    assert nothing == {'picture': '3', 'poses': []}
    assert '3: nothing found' in out
    names = {p.name for p in (tmp_path / 'out').iterdir()}
    assert names == {'poses.jsonl', '0.jpg', '1.jpg', '2.jpg', '3.jpg'}


def test_a_video(run, tmp_path, calibration):
    file = tmp_path / 'film.avi'
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'MJPG'), 10.0, DISTORTED.size)
    assert video.isOpened()
    for picture in PICTURES:
        video.write(np.ascontiguousarray(picture[..., ::-1]))
    video.release()
    status, _, _ = run(file, '--camera', calibration())
    assert status == 0
    found = lines(tmp_path)
    assert [line['picture'] for line in found] == ['000000', '000001', '000002']
    for line, T in zip(found, POSES, strict=True):
        assert_near(line, T)
    overlay = cv2.VideoCapture(str(tmp_path / 'out' / 'overlay.webm'))
    for picture in PICTURES:
        ok, frame = overlay.read()
        assert ok
        assert_drawn(frame, picture)
    assert not overlay.read()[0]


def test_a_focal_length_or_a_field_of_view_is_camera_enough(run, tmp_path):
    """Without distortion, and the principal point in the middle: the two say the same."""
    picture = save(tmp_path / 'one.png', PICTURES[1])
    assert run(picture, '--f', 600.0)[0] == 0
    (one,) = lines(tmp_path)
    assert run(picture, '--fov', 2.0 * np.degrees(np.arctan(320.0 / 600.0)))[0] == 0
    (other,) = lines(tmp_path)
    T = np.array(one['poses'][0]['T_cam_obj'])
    np.testing.assert_allclose(other['poses'][0]['T_cam_obj'], T, atol=1e-6)
    assert metrics.translation_error_m(T, POSES[1]) < 0.03


def test_a_calibration_of_a_larger_picture_is_scaled(run, tmp_path, calibration):
    picture = save(
        tmp_path / 'half.png', cv2.resize(PICTURES[1], (320, 240), interpolation=cv2.INTER_AREA)
    )
    assert run(picture, '--camera', calibration())[0] == 0
    (line,) = lines(tmp_path)
    assert np.linalg.norm(np.array(line['poses'][0]['T_cam_obj'])[:3, 3] - POSES[1][:3, 3]) < 0.01


def test_a_box_tells_where_to_look(run, tmp_path, calibration):
    picture = save(tmp_path / 'one.png', PICTURES[1])
    x, y = DISTORTED.project(POSES[1][None, :3, 3])[0] - 110.0
    assert run(picture, '--camera', calibration(), '--box', x, y, 220, 220)[0] == 0
    assert_near(lines(tmp_path)[0], POSES[1])
    status, out, _ = run(picture, '--camera', calibration(), '--box', 0, 0, 60, 60)
    assert (status, lines(tmp_path)[0]['poses']) == (0, [])
    assert 'nothing found (1 regions looked at)' in out


def test_what_is_no_source_is_named(run, tmp_path):
    (tmp_path / 'empty').mkdir()
    for name in ('no.png', 'no.mp4', 'README'):
        (tmp_path / name).write_text('text')
    for name, words in {
        'gone': 'does not exist; give a picture, folder, video or webcam.',
        'empty': 'holds no pictures (.bmp, ',
        'no.png': 'is no picture; remove it or save it again.',
        'no.mp4': 'cannot be opened as a video',
        'README': 'cannot be opened as a video',
    }.items():
        status, _, err = run(tmp_path / name, '--fov', 60)
        assert status == 2 and f'pose run: {tmp_path / name} {words}' in err


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'camera_matrix': {'data': [600.0, 0.0, 320.0]}}, 'is no calibration of ROS'),
        ({'camera_matrix': {'data': ['x'] * 9}}, 'is no calibration of ROS'),
        ({'camera_matrix': None}, 'is no calibration of ROS'),
        ({'camera_matrix': {'data': [0.0] * 9}}, 'the camera is not calibrated'),
        ({'distortion_coefficients': {'data': 'abc'}}, 'is no calibration of ROS'),
        ({'distortion_model': 'banana'}, "is 'banana', wanted one of none, plumb_bob"),
        ({'image_width': 600}, 'The picture is 640 x 480 px and CameraInfo describes 600 x 480'),
        ({'image_width': 'wide'}, 'is no calibration of ROS'),
    ],
)
def test_a_calibration_that_cannot_be_used(run, tmp_path, calibration, changes, words):
    picture = save(tmp_path / 'one.png', PICTURES[0])
    status, _, err = run(picture, '--camera', calibration(**changes))
    assert status == 2 and words in err


def test_files_that_are_no_calibration(run, tmp_path):
    picture = save(tmp_path / 'one.png', PICTURES[0])
    for content in (None, b'\xff\xfe\x00', b'{{{', b'- 1', b''):
        if content is not None:
            (tmp_path / 'camera.yaml').write_bytes(content)
        status, _, err = run(picture, '--camera', tmp_path / 'camera.yaml')
        assert status == 2 and 'camera.yaml is no calibration of ROS' in err


@pytest.mark.parametrize(
    ('camera', 'words'),
    [
        ((), 'one of the arguments --camera --fov --f is required'),
        (('--fov', '60', '--f', '600'), 'not allowed with argument'),
        (('--fov', '180'), '--fov is 180, wanted degrees between 1 and 179.'),
        (('--f', '0'), 'The focal lengths are 0 and 0 px, wanted positive ones'),
        (('--f', 'nan'), 'wanted 3 x 3 finite numbers'),
    ],
)
def test_without_a_camera(run, tmp_path, camera, words):
    status, _, err = run(save(tmp_path / 'one.png', PICTURES[0]), *camera)
    assert status == 2 and words in err


def test_a_place_that_cannot_be_written(pose, bundle, tmp_path):
    picture = save(tmp_path / 'one.png', PICTURES[0])
    status, _, err = pose('run', bundle, picture, '--fov', 60, '--out', picture)
    assert status == 2 and str(picture) in err
