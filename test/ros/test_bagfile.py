"""Bags: what was written is read, broken ones are refused, and so are orders nobody can follow."""

from __future__ import annotations

import shutil
import signal
import threading

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from pose_node.core.errors import PoseNodeError
from pose_node.ros import bag as command
from pose_node.ros.bagfile import RELIABLE, BagReader, BagWriter, typestore

STRING, PICTURE = 'std_msgs/msg/String', 'sensor_msgs/msg/CompressedImage'
FIRST_NS = 1_700_000_000_123_456_789


def write_strings(folder, *messages):
    """(topic, time in ns after the first, text) each."""
    with BagWriter(folder) as bag:
        for topic, time_ns, text in messages:
            message = bag.store.types[STRING](data=text)
            bag.write(topic, STRING, FIRST_NS + time_ns, message)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_strings(tmp_path / 'bag', ('/a', 0, 'one'), ('/b', 5, 'two'), ('/a', 9, 'three'))


def test_messages_come_in_the_order_of_their_times(tmp_path):
    folder = write_strings(tmp_path / 'bag', ('/a', 20, 'c'), ('/b', 0, 'a'), ('/a', 10, 'b'))
    with BagReader(folder) as bag:
        heard = [(r.topic, r.type, r.time_ns - FIRST_NS, m.data) for r, m in bag.messages()]
        assert bag.duration_s == pytest.approx(20e-9, abs=1.1e-9)  # the end is after the last
    assert heard == [
        ('/b', STRING, 0, 'a'), ('/a', STRING, 10, 'b'), ('/a', STRING, 20, 'c')
    ]  # fmt: skip


def test_topics(folder):
    with BagReader(folder) as bag:
        assert {(t.name, t.type, t.count) for t in bag.topics.values()} == {
            ('/a', STRING, 2), ('/b', STRING, 1)
        }  # fmt: skip
        assert all(topic.qos == RELIABLE for topic in bag.topics.values())
        assert (bag.count('/a'), bag.count('/none')) == (2, 0)
        assert [m.data for _, m in bag.messages(['/a', '/none'])] == ['one', 'three']
        assert list(bag.raw(['/none'])) == list(bag.raw([])) == []


def test_others_read_it_too(folder):
    with Reader(folder) as reader:
        assert [time_ns - FIRST_NS for _, time_ns, _ in reader.messages()] == [0, 5, 9]
        assert {c.msgdef.data.strip() for c in reader.connections} == {'string data'}
    (mcap,) = folder.glob('*.mcap')
    with BagReader(mcap) as bag:  # without metadata.yaml
        assert sum(1 for _ in bag.raw()) == 3


def test_a_picture_comes_back_with_its_header(tmp_path, rng):
    picture = rng.integers(0, 256, (24, 32, 3), np.uint8)
    data = cv2.imencode('.png', picture)[1].ravel()
    with BagWriter(tmp_path / 'bag') as bag:
        types = bag.store.types
        stamp = types['builtin_interfaces/msg/Time'](1_700_000_000, 999_999_999)
        header = types['std_msgs/msg/Header'](stamp, 'camera_optical_frame')
        bag.write('/camera', PICTURE, FIRST_NS, types[PICTURE](header, 'rgb8; png', data))
    with BagReader(tmp_path / 'bag') as bag:
        ((recorded, message),) = bag.messages(['/camera'])
    assert (recorded.type, recorded.time_ns) == (PICTURE, FIRST_NS)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 999_999_999)
    assert (message.header.frame_id, message.format) == ('camera_optical_frame', 'rgb8; png')
    np.testing.assert_array_equal(cv2.imdecode(message.data, cv2.IMREAD_COLOR), picture)


def test_raw_bytes_pass_unchanged(folder, tmp_path):
    with BagReader(folder) as bag, BagWriter(tmp_path / 'copy') as copy:
        messages = list(bag.raw())
        for each in messages:
            copy.write_raw(each.topic, each.type, each.time_ns, each.cdr)
    with BagReader(tmp_path / 'copy') as bag:
        assert list(bag.raw()) == messages


def test_detections_are_known_without_ros(tmp_path):
    store = typestore()
    kind = 'vision_msgs/msg/Detection3DArray'
    stamp = store.types['builtin_interfaces/msg/Time'](1, 2)
    header = store.types['std_msgs/msg/Header'](stamp, 'camera')
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write('/found', kind, 1, store.types[kind](header, []))
    with BagReader(tmp_path / 'bag') as bag:
        ((_, message),) = bag.messages()
    assert (message.header.stamp.sec, len(message.detections)) == (1, 0)


def test_a_bag_of_nothing(tmp_path):
    with BagReader(write_strings(tmp_path / 'bag')) as bag:
        assert (bag.topics, bag.duration_s, list(bag.raw())) == ({}, 0.0, [])


def test_a_bag_is_never_overwritten(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(PoseNodeError, match=r'bag cannot be written .*name a folder that does'):
        BagWriter(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(PoseNodeError, match='cannot be written'):
        BagWriter(folder / 'metadata.yaml' / 'bag')


def test_a_type_that_nobody_installed_is_named(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        with pytest.raises(PoseNodeError, match=r'no_msgs/msg/No\.msg is in none of .*install no'):
            bag.write_raw('/a', 'no_msgs/msg/No', 1, b'')


def mcap(folder):
    (path,) = folder.glob('*.mcap')
    return path


@pytest.mark.parametrize(
    'damage',
    [
        shutil.rmtree,
        lambda bag: (bag / 'metadata.yaml').unlink(),
        lambda bag: (bag / 'metadata.yaml').write_text('{{{'),
        lambda bag: (bag / 'metadata.yaml').write_text('[1]'),
        lambda bag: (bag / 'metadata.yaml').write_text('rosbag2_bagfile_information: {}'),
        lambda bag: mcap(bag).unlink(),
        lambda bag: mcap(bag).write_bytes(b''),
        lambda bag: mcap(bag).write_bytes(mcap(bag).read_bytes()[:-20]),  # it was cut off
        lambda bag: mcap(bag).write_bytes(b'\x89MCAP0\r\n' + bytes(500)),
    ],
    ids=['gone', 'no metadata', 'no yaml', 'a list', 'half', 'no mcap', 'empty', 'cut', 'zeros'],
)  # fmt: skip
def test_what_is_no_bag_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(
        PoseNodeError, match=r'(?s)does not exist; give|cannot be read .*; give'
    ) as e:
        BagReader(folder)
    assert str(e.value).startswith(f'{folder} ')


@pytest.fixture
def bag(capsys):
    """The command, as (exit status, what it says); it leaves the signals as they were."""
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments) -> tuple[int, str]:
        status = command.main([str(each) for each in arguments])
        return status, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('--topics', '/a', '/c'), 'holds no messages of /c; it has /a, /b.'),
        (('--wait-for', '/c=1'), 'holds no messages of /c'),
        (('--wait-for', '/a'), "was given '/a'; write TOPIC=N"),
        (('--wait-for', '/a=many'), 'write TOPIC=N'),
        (('--rate', '0'), 'The rate is 0; give a positive number'),
        (('--rate', '-1'), 'The rate is -1'),
        (('--rate', 'nan'), 'The rate is nan'),
        (('--answers', '/b'), 'Name both'),
        (('--pictures', '/a'), 'Name both'),
        (('--pictures', '/c', '--answers', '/b'), 'holds no messages of /c'),
        (('--pictures', '/a', '--answers', '/b', '--window', '0'), 'window is 0'),
        (('--patience', '0.1'), 'Nobody listens: after 0.1 s still missing are subscribers of /a'),
        (('--patience', '0.1', '--wait-for', '/b=2'), '2 of 2 subscribers of /b'),
        (
            ('--patience', '0.1', '--wait-for', '/a=0', '--answers', '/x', '--pictures', '/a'),
            'Nobody publishes /x after 0.1 s',
        ),
    ],
)
def test_orders_the_player_refuses(bag, folder, arguments, words):
    status, said = bag('play', folder, *arguments)
    assert status == 1 and words in said and said.count('\n') == 1


def test_what_is_no_bag_is_not_played(bag, tmp_path):
    status, said = bag('play', tmp_path)
    assert status == 1 and f'{tmp_path} cannot be read as a ROS 2 bag' in said


def test_orders_the_recorder_refuses(bag, folder, tmp_path):
    status, said = bag('record', tmp_path / 'new')
    assert status == 1 and 'name at least one topic' in said
    assert not (tmp_path / 'new').exists()
    status, said = bag('record', folder, '/a')
    assert status == 1 and 'name a folder that does not exist yet' in said


def test_what_is_played_is_heard_and_nothing_runs_on(bag, folder, peer):
    """A thread left behind would abort the player as its process ends."""
    from std_msgs.msg import String

    peer.listen(String, '/a')
    peer.publisher(String, '/answer')
    threads = threading.enumerate()
    status, said = bag(
        *('play', folder, '--rate', '0', '--topics', '/a', '--wait-for', '/a=1'),
        *('--answers', '/answer', '--pictures', '/a', '--window', '2'),
    )
    assert (status, said) == (0, '2 messages\n')
    assert threading.enumerate() == threads
    peer.spin_until(lambda: len(peer.heard['/a']) == 2)
    assert [message.data for message in peer.heard['/a']] == ['one', 'three']
