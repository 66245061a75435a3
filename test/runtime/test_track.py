"""Who is who from picture to picture: numbers that stay, gaps that are bridged, bags that loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pose_node.core import metrics
from pose_node.core.amis import Hypothesis
from pose_node.core.geometry import exp_so3, make_pose
from pose_node.core.motion import MotionOptions
from pose_node.core.pnp import PnpStatus
from pose_node.core.symmetry import Symmetries
from pose_node.runtime.distribution import answers
from pose_node.runtime.preprocess import Region
from pose_node.runtime.results import Distribution, nothing
from pose_node.runtime.track import Tracker, TrackOptions

STEP_NS = 100_000_000
C = np.diag((0.002, 0.002, 0.006, 0.02, 0.02, 0.01)) ** 2
REGION = Region('thing', (0.0, 0.0), (10.0, 10.0))


def seen(T, name='thing'):
    """A pose as the estimator gives it."""
    return replace(
        nothing(replace(REGION, object=name), 4), T_cam_obj=T, covariance=C, score=0.9,
        status=PnpStatus.OK,
    )  # fmt: skip


def at(x, z=1.0, turn=0.0):
    return make_pose(exp_so3(np.array([0.0, 0.0, turn])), np.array([x, 0.0, z]))


@pytest.fixture
def tracker():
    return Tracker({'thing': Symmetries.none(), 'other': Symmetries.none()})


def test_numbers_stay_when_the_order_of_poses_changes(tracker, rng):
    """Two of a kind that pass each other, seen in a random order."""
    names = {}
    for step in range(20):
        poses = [seen(at(-0.2 + 0.02 * step, 0.8)), seen(at(0.2 - 0.02 * step, 1.2))]
        order = rng.permutation(2)
        tracks = tracker([poses[i] for i in order], step * STEP_NS)
        for which, track in zip(order, tracks):
            assert names.setdefault(int(which), track.id) == track.id
    assert sorted(names.values()) == [0, 1]


def test_a_gap_is_bridged_where_the_thing_went_on(tracker):
    """Three pictures without it, then where its speed has carried it: the same number."""
    for step in range(10):
        (track,) = tracker([seen(at(0.03 * step))], step * STEP_NS)
    for step in range(10, 13):
        assert tracker([], step * STEP_NS) == []
        np.testing.assert_allclose(
            tracker.tracks[0].motion.T_ref_obj[:3, 3], (0.03 * step, 0.0, 1.0), atol=0.01
        )
    (again,) = tracker([seen(at(0.39))], 13 * STEP_NS)
    assert again.id == track.id
    np.testing.assert_allclose(again.motion.twist[:3], (0.3, 0.0, 0.0), atol=0.05)


def test_what_is_lost_frees_its_number(tracker):
    """So that the only thing of its kind is always number 0."""
    tracker([seen(at(0.0))], 0)
    for step in range(1, 12):
        tracker([], step * STEP_NS)
    assert not tracker.tracks
    (track,) = tracker([seen(at(0.3))], 12 * STEP_NS)
    assert track.id == 0 and not track.motion.twist.any()


def test_a_pose_beyond_the_gate_is_not_believed_at_once(tracker):
    """One wrong pose is swallowed, and the track goes on."""
    for step in range(5):
        tracker([seen(at(0.0))], step * STEP_NS)
    assert tracker([seen(at(0.5))], 5 * STEP_NS) == []
    (track,) = tracker([seen(at(0.0))], 6 * STEP_NS)
    assert track.id == 0 and len(tracker.tracks) == 1
    np.testing.assert_allclose(track.motion.T_ref_obj[:3, 3], (0.0, 0.0, 1.0), atol=1e-3)


def test_what_jumps_keeps_its_number(tracker):
    """Seen twice at its new place, it is believed: pushed, or a flip of the first poses."""
    for step in range(5):
        tracker([seen(at(0.0))], step * STEP_NS)
    assert tracker([seen(at(0.5))], 5 * STEP_NS) == []
    (track,) = tracker([seen(at(0.5))], 6 * STEP_NS)
    assert track.id == 0 and len(tracker.tracks) == 1
    np.testing.assert_allclose(track.motion.T_ref_obj[:3, 3], (0.5, 0.0, 1.0), atol=1e-3)


def test_a_second_of_its_kind_is_seen_at_once(tracker):
    """Nothing that is there goes unseen, so it can be nothing else."""
    for step in range(5):
        tracker([seen(at(0.0))], step * STEP_NS)
    tracks = tracker([seen(at(0.5)), seen(at(0.0))], 5 * STEP_NS)
    assert [track.id for track in tracks] == [1, 0]


def test_late_pictures_change_nothing(tracker):
    """Stragglers are answered as measured, under their numbers."""
    for step in range(5):
        tracker([seen(at(0.02 * step))], step * STEP_NS)
    (before,) = tracker.tracks
    for stamp_ns in (4 * STEP_NS - 1, 2 * STEP_NS):
        (track,) = tracker([seen(at(0.081))], stamp_ns)
        assert track.id == 0
        np.testing.assert_array_equal(track.as_pose().T_cam_obj, at(0.081))
        np.testing.assert_array_equal(track.as_pose().covariance, C)
    assert tracker.tracks == [before]


def test_a_camera_that_does_not_stamp_is_told_picture_by_picture(tracker):
    """Where time stands still nothing can be followed, and nothing may be held back."""
    for step in range(6):
        (track,) = tracker([seen(at(0.4 * (step % 2)))], 0)
        assert track.id == 0
        np.testing.assert_array_equal(track.as_pose().T_cam_obj, at(0.4 * (step % 2)))


def test_objects_are_counted_apart(tracker):
    tracks = tracker([seen(at(0.0)), seen(at(0.0), 'other')], 0)
    assert [(track.object, track.id) for track in tracks] == [('thing', 0), ('other', 0)]


@pytest.mark.parametrize('jump_ns', [-20 * STEP_NS, 100 * STEP_NS])
def test_a_clock_that_jumps_begins_anew(tracker, jump_ns):
    """A bag that loops, or stands still for long, is no motion."""
    for step in range(5):
        tracker([seen(at(0.05 * step))], step * STEP_NS)
    (track,) = tracker([seen(at(0.2))], 4 * STEP_NS + jump_ns)
    assert track.id == 0 and len(tracker.tracks) == 1
    assert not track.motion.twist.any()
    np.testing.assert_array_equal(track.motion.pose_covariance, C)


def test_symmetric_things_keep_their_twin(rng):
    """A thing whose other side looks the same, told upside down every second time."""
    half = make_pose(exp_so3(np.array([0.0, 0.0, np.pi])), np.zeros(3))
    tracker = Tracker({'thing': Symmetries(half[None])})
    for step in range(12):
        T = at(0.0, turn=0.05 * step)
        (track,) = tracker([seen(T @ half if step % 2 else T)], step * STEP_NS)
        assert track.id == 0
        assert metrics.rotation_error_rad(track.motion.T_ref_obj, T) < 0.1


def test_a_still_thing_shakes_three_times_less(rng):
    """Against the truth, with errors that are fresh in every picture."""
    options = TrackOptions(motion=MotionOptions(0.05, 0.1, correlation=0.0))
    tracker, raw, smooth = Tracker({'thing': Symmetries.none()}, options), [], []
    for step in range(200):
        error = rng.multivariate_normal(np.zeros(6), C)
        T = make_pose(exp_so3(error[3:]), np.array([0.0, 0.0, 1.0]) + error[:3])
        (track,) = tracker([seen(T)], step * STEP_NS // 3)
        raw.append(T[:3, 3])
        smooth.append(track.motion.T_ref_obj[:3, 3])
        assert track.as_pose().covariance.shape == (6, 6)
    steps = [np.diff(places[50:], axis=0) for places in (raw, smooth)]
    shake = [np.linalg.norm(each, axis=1).mean() for each in steps]
    assert shake[0] > 3.0 * shake[1]


def test_of_two_answers_a_track_goes_on_with_its_own(tracker):
    """The likelier one is now this, now that: the thing does not jump, and is never held back."""
    left, right = (make_pose(exp_so3(np.array([0.0, tilt, 0.0])), (0, 0, 1.0)) for tilt in (-1, 1))
    for step in range(20):
        share = 0.8 if step % 5 == 0 else 0.4
        hypotheses = [Hypothesis(left, C, share), Hypothesis(right, C, 1.0 - share)]
        hypotheses.sort(key=lambda each: -each.share)
        pose = replace(
            seen(hypotheses[0].T_cam_obj),
            distribution=Distribution(np.stack((left, right)), tuple(hypotheses)),
        )
        (track,) = tracker([pose], step * STEP_NS)
        assert track.id == 0
        assert metrics.rotation_error_rad(track.motion.T_ref_obj, left) < 1e-6
        (T, covariance, score), (other, _, less) = answers(track.as_pose())
        np.testing.assert_array_equal(T, track.motion.T_ref_obj)
        np.testing.assert_array_equal(covariance, track.motion.pose_covariance)
        np.testing.assert_array_equal(other, right)
        assert (score, less) == pytest.approx((0.9 * share, 0.9 * (1.0 - share)))
