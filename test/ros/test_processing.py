"""One picture from the queue to the topics, with everything round it faked."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray

from pose_node.core.amis import Hypothesis
from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import exp_so3, inverse, make_pose
from pose_node.core.pnp import PnpStatus
from pose_node.core.symmetry import Symmetries
from pose_node.ros.frames import TargetFrame
from pose_node.ros.health import Health, Level
from pose_node.ros.intake import Frame, Intake
from pose_node.ros.parameters import Parameters
from pose_node.ros.pictures import encode_image
from pose_node.ros.processing import Processor, Worker
from pose_node.runtime.preprocess import Region
from pose_node.runtime.results import Distribution, FrameResult, nothing

PICTURE = np.full((4, 6, 3), 50, np.uint8)


def mug(x):
    """The pose of a mug at x, as the estimator gives it."""
    return replace(
        nothing(Region('mug', (0.0, 0.0), (2.0, 2.0)), 4), status=PnpStatus.OK, score=0.9,
        T_cam_obj=make_pose(np.eye(3), np.array([x, 0.0, 1.0])), covariance=1e-6 * np.eye(6),
    )  # fmt: skip


POSE = mug(0.0)


class Outputs:
    """Keeps what would be published."""

    def __init__(self):
        self.answers, self.stats, self.overlays = [], [], []
        self.wrong = ''

    def publish(self, header, poses, parameters, tracks=()):
        self.answers.append((header, tuple(poses)))
        self.tracks = list(tracks)
        return self.wrong

    def publish_stats(self, header, values):
        self.stats.append(values)

    def publish_overlay(self, *arguments):
        self.overlays.append(arguments)


class Logger:
    def __init__(self):
        self.warnings, self.errors = [], []

    def warning(self, text):
        self.warnings.append(text)

    def error(self, text, **_):
        self.errors.append(text)


class World:
    """A processor whose estimator is the function `estimate`."""

    def __init__(self, **parameters):
        self.outputs, self.logger, self.health = Outputs(), Logger(), Health()
        self.looked_at = []
        self.found = (POSE,)
        spec = SimpleNamespace(name='mug', symmetries=Symmetries.none())
        self.bundle = SimpleNamespace(
            objects=(spec,), pose_network=SimpleNamespace(objects=('mug',))
        )
        self.processor = Processor(
            estimator=self,
            cameras=self,
            outputs=self.outputs,
            target=TargetFrame(None, ''),
            health=self.health,
            parameters=Parameters(**{'track': False, **parameters}),
            clock=SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=5_000_000)),
            logger=self.logger,
        )

    def __call__(self, picture, camera, stamp_ns, regions, tracked=()):
        self.looked_at.append((camera, stamp_ns, regions))
        self.tracked = list(tracked)
        times = {'decode': 2.0, 'pnp': 1.0}
        return FrameResult(self.found, (), (), times) if self.found is not None else None

    def region_at(self, name, T_cam_obj, camera):
        return Region(name, tuple(T_cam_obj[:2, 3]), (2.0, 2.0))

    def find(self, frame_id, stamp_ns, size):
        return frame_id, size

    def wait(self, *_):
        pytest.fail('only a deterministic node waits')

    def process(self, boxes=None, frame_id='camera', stamp_ns=3_000_000, **changes):
        message = encode_image(PICTURE, Image(header=Header(frame_id=frame_id)))
        for name, value in changes.items():
            setattr(message, name, value)
        self.processor(Frame(message, stamp_ns=stamp_ns, boxes=boxes))
        return self.outputs.answers[-1][1]


def test_a_good_picture_is_answered_with_its_poses_and_times():
    world = World()
    assert world.process() == (POSE,)
    assert world.looked_at == [(('camera', (6, 4)), 3_000_000, None)]
    (stats,) = world.outputs.stats
    assert stats['heatmaps'] == 2.0  # the network's maps; `decode` is the picture's
    assert stats['age_ms'] == pytest.approx(2.0)
    assert len(world.outputs.overlays) == 1
    assert not world.logger.errors + world.logger.warnings


def test_a_region_is_where_every_object_is_looked_for():
    world = World(region=(1, 1, 4, 2))
    world.process()
    ((*_, regions),) = world.looked_at
    assert regions == [Region('mug', (2.5, 1.5), (4.0, 2.0))]


def test_what_is_tracked_is_not_looked_for_in_the_region():
    world = World(region=(1, 1, 4, 2), track=True)
    for picture in range(3):
        world.process(stamp_ns=picture * 33_000_000)
    assert [len(regions) for *_, regions in world.looked_at] == [1, 0, 0]
    assert len(world.tracked) == 1


def test_a_bad_picture_is_answered_once_with_nothing():
    world = World()
    assert world.process(encoding='cmyk') == ()
    assert world.process(encoding='cmyk') == ()
    assert len(world.outputs.answers) == 2
    assert not world.outputs.stats
    assert len(world.logger.errors) == 1
    snapshot = world.health.snapshot()
    assert snapshot.refused == {'pictures': 2}
    assert snapshot.standing['pictures'].level == Level.ERROR
    assert world.process() == (POSE,)


def test_a_fault_in_the_estimator_does_not_end_the_node():
    world = World()
    world.found = None  # the processor cannot handle that
    assert world.process() == ()
    assert any('Traceback' in text for text in world.logger.errors)
    assert 'estimator' in world.health.snapshot().standing
    world.found = ()
    assert world.process() == ()
    assert len(world.outputs.stats) == 1


def test_missing_camera_info_is_no_alarm_at_the_start(monkeypatch):
    world = World()

    def find(*_):
        raise PoseNodeError('No CameraInfo has come.')

    monkeypatch.setattr(world, 'find', find)
    assert world.process() == ()
    assert world.health.snapshot().standing['camera_info'].level == Level.WARN
    assert not world.logger.errors + world.logger.warnings
    monkeypatch.setattr('pose_node.ros.processing._GRACE_S', 0.0)
    assert world.process() == ()
    assert world.logger.errors == ['No CameraInfo has come.']


def test_boxes_are_looked_into():
    world = World(use_detections=True)
    box = Detection2D()
    box.bbox.size_x = box.bbox.size_y = 2.0
    assert world.process(boxes=Detection2DArray(detections=[box])) == (POSE,)
    ((_, _, (region,)),) = world.looked_at
    assert (region.object, region.size_px) == ('mug', (2.0, 2.0))
    assert world.process(boxes=None) == ()
    assert 'detections_2d' in world.logger.errors[-1]
    broken = Detection2D()
    assert world.process(boxes=Detection2DArray(detections=[broken])) == (POSE,)
    assert 'without size' in world.logger.warnings[-1]


def test_transforms_that_are_wrong_and_frames_that_are_not_known_are_reported(monkeypatch):
    world = World()
    world.outputs.wrong = 'mug hangs from left already'
    assert world.process() == (POSE,)
    assert world.logger.warnings == ['mug hangs from left already']
    assert world.health.snapshot().standing['transforms'].level == Level.WARN

    def no_way(header):
        raise PoseNodeError('tf knows no way')

    looked_at = len(world.looked_at)
    monkeypatch.setattr(world.processor, '_target', SimpleNamespace(T_told_cam=no_way))
    assert world.process() == ()
    assert len(world.looked_at) == looked_at
    assert world.health.snapshot().refused == {'transforms': 1}


def test_old_pictures_are_dropped_and_counted():
    """The clock stands at 5 ms."""
    world = World(max_age=1e-3)
    assert world.process(stamp_ns=4_500_000) == (POSE,)
    world.process(stamp_ns=3_000_000)
    assert len(world.outputs.answers) == 1
    assert world.health.snapshot().dropped == {'too old': 1}
    assert 'raise max_age' in world.logger.warnings[-1]
    for parameters in ({'max_age': 0.0}, {'max_age': 1e-3, 'deterministic': True}):
        world = World(**parameters)
        world.wait = lambda *_: None
        assert world.process(stamp_ns=0) == (POSE,)


def test_pictures_without_a_frame_are_reported():
    world = World()
    assert world.process(frame_id='') == (POSE,)
    assert 'frame_id' in world.logger.warnings[-1]


def steps(world, places, first_ns=0, step_ns=100_000_000):
    """Pictures a tenth of a second apart; what was published of each, and where it looked."""
    seen = []
    for k, x in enumerate(places):
        world.found = () if x is None else (mug(x),)
        poses = world.process(stamp_ns=first_ns + k * step_ns)
        seen.append((poses, world.looked_at[-1][2], world.tracked))
    return seen


def test_a_tracked_thing_is_looked_for_where_it_will_be():
    """The locator is asked at first, every half second, and when the thing was not seen."""
    world = World(track=True, locate_period=0.5)
    places = [0.01 * k for k in range(8)]
    seen = steps(world, [*places, None, 0.09, 0.10])
    asked = [regions is None for _, regions, _ in seen]
    assert asked == [True, *4 * [False], True, False, False, False, True, False]
    assert [len(poses) for poses, _, _ in seen] == [1] * 8 + [0, 1, 1]
    assert not seen[0][2]
    for k in range(3, 11):
        ((box,),) = (tracked for _, _, tracked in [seen[k]])
        assert box.object == 'mug' and box.center_px[0] == pytest.approx(0.01 * k, abs=2e-3)
    (track,) = world.outputs.tracks
    np.testing.assert_allclose(track.motion.twist[0], 0.1, atol=0.02)
    assert seen[-1][0][0].instance == 0
    np.testing.assert_array_equal(seen[-1][0][0].T_cam_obj, track.motion.T_ref_obj)


def test_a_bag_that_loops_begins_anew():
    world = World(track=True)
    steps(world, [0.01 * k for k in range(5)], first_ns=10**11)
    ((pose,), regions, tracked) = steps(world, [0.0], first_ns=10**10)[0]
    assert regions is None and not tracked
    np.testing.assert_array_equal(pose.T_cam_obj, mug(0.0).T_cam_obj)


def test_cameras_are_tracked_apart():
    world = World(track=True)
    for k in range(3):
        world.found = (mug(0.0),)
        world.process(frame_id='left', stamp_ns=k * 10**8)
        assert bool(world.tracked) == (k > 0)
        world.found = (mug(0.3),)
        ((pose,)) = world.process(frame_id='right', stamp_ns=k * 10**8)
        assert pose.instance == 0 and pose.T_cam_obj[0, 3] == pytest.approx(0.3)


@pytest.mark.parametrize('track', [True, False])
def test_what_stands_in_the_target_frame_stands_however_the_camera_moves(track):
    """Told and tracked in the room's frame; looked for and drawn in the camera's."""
    world = World(track=track)
    T_room_mug = make_pose(exp_so3(np.array([0.1, 0.0, 0.2])), np.array([1.0, 2.0, 3.0]))
    for k in range(6):
        T_room_cam = make_pose(
            exp_so3(np.array([0.0, 0.2 * k, 0.0])), np.array([0.1 * k, 0.0, 0.0])
        )
        world.processor._target = SimpleNamespace(
            T_told_cam=lambda header, T=T_room_cam: T,
            header=lambda header: Header(frame_id='room', stamp=header.stamp),
        )
        T_cam_mug = inverse(T_room_cam) @ T_room_mug
        world.found = (replace(mug(0.0), T_cam_obj=T_cam_mug),)
        (pose,) = world.process(stamp_ns=k * 10**8)
        assert world.outputs.answers[-1][0].frame_id == 'room'
        np.testing.assert_allclose(pose.T_cam_obj, T_room_mug, atol=1e-9)
        header, _, _, result = world.outputs.overlays[-1]
        assert header.frame_id == 'camera'
        np.testing.assert_allclose(result.poses[0].T_cam_obj, T_cam_mug, atol=1e-9)
        if track and k > 0:
            (box,) = world.tracked
            np.testing.assert_allclose(box.center_px, T_cam_mug[:2, 3], atol=1e-9)
            np.testing.assert_allclose(world.outputs.tracks[0].motion.twist, 0.0, atol=1e-9)


@pytest.mark.parametrize('track', [True, False])
def test_clouds_are_told_in_the_target_frame(track):
    """Samples and hypotheses as the picture has them, in the room's frame."""
    world = World(track=track)
    T_room_cam = make_pose(exp_so3(np.array([0.3, -0.2, 0.9])), np.array([1.0, 2.0, 3.0]))
    world.processor._target = SimpleNamespace(
        T_told_cam=lambda header: T_room_cam, header=lambda header: Header(frame_id='room')
    )
    places = np.stack([mug(x).T_cam_obj for x in (0.0, 0.4)])
    hypotheses = [Hypothesis(T, 1e-6 * np.eye(6), share) for T, share in zip(places, (0.7, 0.3))]
    for k in range(3):
        world.found = (replace(mug(0.0), distribution=Distribution(places, tuple(hypotheses))),)
        (pose,) = world.process(stamp_ns=k * 10**8)
        np.testing.assert_allclose(pose.distribution.T_cam_obj, T_room_cam @ places)
        told = np.stack([each.T_cam_obj for each in pose.distribution.hypotheses])
        np.testing.assert_allclose(told, T_room_cam @ places)
        np.testing.assert_allclose(pose.T_cam_obj, T_room_cam @ places[0], atol=1e-6)


def test_still_things_move_less_and_can_be_moved():
    """Noise is averaged away; a thing that somebody moved is followed after one picture."""
    jitter = {}
    for still in (False, True):
        world = World(track=True, still=still)
        rng = np.random.default_rng(5)
        seen = steps(world, rng.normal(0.0, 1e-3, 60))
        places = [poses[0].T_cam_obj[0, 3] for poses, _, _ in seen[30:] if poses]
        jitter[still] = np.abs(np.diff(places)).mean()
        moved = steps(world, [0.3] * 3, first_ns=60 * 10**8)
        assert moved[-1][0][0].T_cam_obj[0, 3] == pytest.approx(0.3, abs=1e-2)
        assert moved[-1][0][0].instance == 0
    assert jitter[True] < 0.4 * jitter[False]


def test_boxes_from_outside_say_where_to_look_even_when_tracked():
    world = World(track=True, use_detections=True)
    box = Detection2D()
    box.bbox.size_x = box.bbox.size_y = 2.0
    world.found = (mug(0.0),)
    for k in range(3):
        world.process(boxes=Detection2DArray(detections=[box]), stamp_ns=k * 10**8)
        assert len(world.looked_at[-1][2]) == 1 and not world.tracked
    assert world.process(boxes=Detection2DArray(), stamp_ns=3 * 10**8)
    assert world.looked_at[-1][2] == []


def test_tracking_can_be_switched_while_running():
    world = World(track=True)
    steps(world, [0.0, 0.0])
    world.processor.parameters = replace(world.processor.parameters, track=False)
    (pose,), regions, tracked = steps(world, [0.2], first_ns=3 * 10**8)[0]
    assert regions is None and not tracked and not world.outputs.tracks
    np.testing.assert_array_equal(pose.T_cam_obj, mug(0.2).T_cam_obj)


def test_the_worker_outlives_faults_and_stops_when_told():
    logger, intake, seen, both = Logger(), Intake(keep_all=True), [], threading.Event()

    def process(frame):
        seen.append(frame.stamp_ns)
        if len(seen) == 2:
            both.set()
        raise RuntimeError('not even the empty answer went out')

    worker = Worker(intake, process, logger)
    intake.put(Frame(None, 1))
    intake.put(Frame(None, 2))
    assert both.wait(5.0)
    assert worker.stop(5.0)
    assert seen == [1, 2]
    assert len(logger.errors) == 2
