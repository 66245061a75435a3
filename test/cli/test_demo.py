"""`pose demo`: player, node and recorder as three processes; what they leave, and the verdict."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from known_bundle import draw_scene, make_bundle
from known_scenes import DISTORTED, diameter_m, path, write_bag

from pose_node.cli.graph import GraphOptions, run_graph
from pose_node.cli.truth import DETECTIONS_TOPIC, Frame, Judge, read_frames
from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.ros.bagfile import BagReader, BagWriter

POSES = [*[None] * 3, *path(20), *[None] * 2]


@pytest.fixture
def demo(pose, bundle, tmp_path):
    """`pose demo` of a bag with the known bundle, into tmp_path / 'out'."""
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    usual = ('demo', '--bundle', bundle, '--out', tmp_path / 'out')
    return lambda bag: pose(*usual, '--bag', bag)


def results(folder):
    return json.loads((folder / 'results.json').read_text())


def test_what_it_leaves(demo, tmp_path):
    status, out, err = demo(write_bag(tmp_path / 'bag', POSES))
    assert status == 0, out + err
    assert (out.count('kept  '), out.count('missed  ')) == (3, 0)
    folder = tmp_path / 'out'

    with BagReader(folder / 'recorded') as bag:
        answers = [message for _, message in bag.messages(['/pose_node/detections'])]
        assert [len(each.detections) for each in answers] == [T is not None for T in POSES]
        assert bag.count('/camera/image_raw/compressed') == bag.count('/pose_node/frame_stats')
        assert bag.count('/camera/camera_info') == len(POSES)
        for topic in ('/pose_node/dots/pose', '/pose_node/dots/pose_with_covariance', '/tf'):
            assert bag.count(topic) == 20, topic
        assert bag.count('/pose_node/markers') and bag.count('/diagnostics')
        overlays = bag.count('/pose_node/overlay/compressed')

    assert len(POSES) - 2 <= overlays <= len(POSES)  # it is drawn for whoever listens, not before
    video = cv2.VideoCapture(str(folder / 'overlay.webm'))
    shown = [picture for ok, picture in iter(video.read, (False, None)) if ok]
    assert len(shown) == overlays
    truth = draw_scene(DISTORTED, POSES[-3])[..., ::-1].astype(int)
    assert 0.002 < (np.abs(shown[-3] - truth) > 60).any(axis=2).mean() < 0.3

    said = results(folder)
    assert said['passed'] and said['object'] == 'dots' and len(said['frames']) == len(POSES)
    for frame, T in zip(said['frames'], POSES):
        assert frame['found'] == (T is not None) == (frame['visible'] > 0.0)
        assert frame['stage_ms']['locate'] > 0.0
        if T is not None:
            assert frame['stage_ms']['network'] > 0.0
            assert frame['add_share'] < 0.03 and frame['rotation_deg'] < 1.0
            assert frame['translation_mm'] < 5.0 < 1000.0 * said['diameter_m']

    # Whichever of picture and answer the recorder handles first, the time between them is known.
    latencies_ms = [frame['latency_ms'] for frame in said['frames']]
    assert None not in latencies_ms and 0.0 < np.median(latencies_ms) < 10_000.0

    pictures = [each['jpeg'] for each in said['pictures']]
    assert pictures and sorted(p.name for p in (folder / 'frames').iterdir()) == [
        name.removeprefix('frames/') for name in pictures
    ]
    report = (folder / 'report.html').read_text()
    assert report.count('data:image/jpeg;base64,') == len(pictures)
    for name in ('node', 'player', 'recorder'):
        assert 'Traceback' not in (folder / 'logs' / f'{name}.log').read_text()


def test_a_missed_accuracy_is_a_failure_with_a_report(demo, tmp_path):
    """The truth is beside what is seen by more than a tenth of the diameter."""
    (tmp_path / 'out' / 'frames').mkdir(parents=True)
    (tmp_path / 'out' / 'frames' / 'old.jpg').write_text('of another run')
    bag = write_bag(tmp_path / 'bag', path(8), shift_m=0.12 * diameter_m())
    status, out, err = demo(bag)
    assert status == 1, out + err
    assert (out.count('kept  '), out.count('missed  ')) == (2, 1)
    said = results(tmp_path / 'out')
    assert [check['passed'] for check in said['checks']] == [True, False, True]
    errors = [frame['add_share'] for frame in said['frames']]
    np.testing.assert_allclose(errors, 0.12, atol=0.03)
    assert 'Failed' in (tmp_path / 'out' / 'report.html').read_text()
    assert not (tmp_path / 'out' / 'frames' / 'old.jpg').exists()


def test_a_bag_without_truth_is_refused(demo, tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write('/a', 'std_msgs/msg/String', 1, bag.store.types['std_msgs/msg/String']('text'))
    status, _, err = demo(tmp_path / 'bag')
    assert status == 2 and f'has no ground truth on {DETECTIONS_TOPIC}' in err
    status, _, err = demo(tmp_path)
    assert status == 2 and 'cannot be read as a ROS 2 bag' in err


def test_the_log_of_a_process_that_dies_is_shown(tmp_path):
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    broken = make_bundle(tmp_path / 'dots').folder
    (broken / 'pose.onnx').unlink()
    options = GraphOptions(
        bag=write_bag(tmp_path / 'bag', path(2)),
        bundle=broken,
        out=tmp_path / 'recorded',
        logs=tmp_path / 'logs',
        image='/camera/image_raw',
        camera_info='/camera/camera_info',
    )
    with pytest.raises(PoseNodeError, match=r"(?s)'node' ended with status 1.*onnx is missing"):
        list(run_graph(options, 2))


def answers(folder):
    """The Detection3DArrays of a bag's truth, as if a node had said them."""
    with BagReader(folder) as bag:
        return [message for _, message in bag.messages([DETECTIONS_TOPIC])]


def test_truth_is_read_and_answers_are_measured(bundle, tmp_path):
    T = path(2)
    with BagReader(write_bag(tmp_path / 'truth', [T[0], None, T[1]])) as bag:
        frames = read_frames(bag)
    assert [frame.visible for frame in frames] == [1.0, 0.0, 1.0]
    assert frames[1].T_cam_obj is None and frames[1].stamp_ns - frames[0].stamp_ns == 100_000_000
    np.testing.assert_allclose(frames[2].T_cam_obj, T[1], atol=1e-9)

    shift_m, sigmas = 0.03, np.array([0.01, 0.02, 0.02, 0.1, 0.1, 0.1])
    judge = Judge(Bundle.load(bundle))
    for frame, answer in zip(frames, answers(write_bag(tmp_path / 's', [*T, None], shift_m=0.03))):
        for detection in answer.detections:
            detection.results[0].pose.covariance = np.diag(sigmas**2).ravel()
        judge.take(frame, answer, 26_000_000)
        frame.received_ns = 1_000_000
    first, false, missed = frames
    assert (false.objects, missed.objects) == (1, 0)
    assert first.add_share == pytest.approx(shift_m / diameter_m())
    assert first.translation_mm == pytest.approx(30.0)
    assert first.rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert first.sigma_mm == pytest.approx(30.0)  # sqrt(1 + 4 + 4) cm
    assert first.nees == pytest.approx(9.0)  # three sigmas along x
    assert first.latency_ms == pytest.approx(25.0)
    assert (false.score, false.add_share, missed.score) == (1.0, None, None)


def frames_of(count, right, wrong=0, false=0):
    """A hundred visible frames, of which so many are found, and fifty empty ones."""
    seen = [Frame(i, i, 1.0, np.eye(4)) for i in range(count)]
    for i, frame in enumerate(seen[: right + wrong]):
        frame.score, frame.add_share = 0.9, 0.099 if i < right else 0.1
    empty = [Frame(count + i, count + i, 0.0, None) for i in range(50)]
    for frame in empty[:false]:
        frame.score = 0.3
    return seen + empty


@pytest.mark.parametrize(
    ('found', 'passed'),
    [
        ({'right': 97}, [True, True, True]),
        ({'right': 96}, [False, True, True]),
        ({'right': 90, 'wrong': 7}, [True, True, True]),
        ({'right': 89, 'wrong': 11}, [True, False, True]),
        ({'right': 100, 'false': 1}, [True, True, True]),
        ({'right': 100, 'false': 2}, [True, True, False]),
        ({'right': 0}, [False, False, True]),
    ],
)
def test_the_verdict(bundle, found, passed):
    checks = Judge(Bundle.load(bundle)).checks(frames_of(100, **found))
    assert [check['passed'] for check in checks] == passed


def test_hidden_objects_are_not_judged(bundle):
    hidden = [Frame(i, i, 0.49, np.eye(4)) for i in range(200)]
    checks = Judge(Bundle.load(bundle)).checks([*frames_of(100, right=97), *hidden])
    assert all(check['passed'] for check in checks)
