"""The node in this process: transitions, parameters, what it says when it cannot start."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fake_gpu import SoftwareGpu
from known_bundle import make_bundle
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from pose_node.core.errors import PoseNodeError
from pose_node.ros.health import Level
from pose_node.ros.node import PoseNode
from pose_node.runtime.backends.tensorrt import backend as tensorrt_backend
from pose_node.runtime.backends.tensorrt.cuda import NoDriver
from pose_node.runtime.estimator import PoseEstimator

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def make_node(known_bundle_folder):
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**overrides):
        overrides.setdefault('bundle', str(known_bundle_folder))
        values = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(PoseNode(context=context, parameter_overrides=values))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.shutdown(context=context)


def topics(node) -> set[str]:
    """What it publishes: asked of itself, for the graph also remembers nodes that were killed."""
    return {publisher.topic_name for publisher in node.publishers}


def subscriptions(node) -> set[str]:
    return {subscription.topic_name for subscription in node.subscriptions}


def test_topics_follow_the_life(make_node):
    node = make_node()
    assert '/pose_node/detections' not in topics(node)
    assert node.trigger_configure() == SUCCESS
    assert {
        '/tf', '/diagnostics', '/pose_node/detections', '/pose_node/dots/pose',
        '/pose_node/dots/pose_with_covariance', '/pose_node/markers', '/pose_node/overlay',
        '/pose_node/frame_stats', '/pose_node/dots/pose_cloud',
    } <= topics(node)  # fmt: skip
    assert '/image' not in subscriptions(node)
    assert node.trigger_activate() == SUCCESS
    assert {'/image', '/camera_info'} <= subscriptions(node)
    assert '/detections_2d' not in subscriptions(node)
    assert node.trigger_deactivate() == SUCCESS
    assert '/image' not in subscriptions(node)
    assert node.trigger_cleanup() == SUCCESS
    assert '/pose_node/detections' not in topics(node)


def test_the_whole_life_can_be_lived_twice(make_node):
    node = make_node()
    for _ in range(2):
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert node.trigger_shutdown() == SUCCESS
    assert node.parameters is None


def test_names_are_relative(make_node):
    node = make_node(image_transport='compressed', use_detections=True)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert {'/image/compressed', '/camera_info', '/detections_2d'} <= subscriptions(node)
    assert '/image' not in subscriptions(node)


@pytest.mark.parametrize(
    ('overrides', 'words'),
    [
        ({'bundle': '/there/is/none'}, '/there/is/none'),
        ({'backend': 'abacus'}, "'abacus'"),
        ({'image_transport': 'theora'}, "'theora'"),
    ],
)
def test_configuring_fails_with_a_sentence_and_may_be_tried_again(
    make_node, known_bundle_folder, capfd, overrides, words
):
    node = make_node(**overrides)
    assert node.trigger_configure() == FAILURE
    log = capfd.readouterr().err
    assert 'Cannot configure' in log
    assert words in log
    assert 'Traceback' not in log
    node.set_parameters(
        [
            Parameter('bundle', value=str(known_bundle_folder)),
            Parameter('backend', value='onnx'),
            Parameter('image_transport', value='raw'),
        ]
    )
    assert node.trigger_configure() == SUCCESS


def test_a_bundle_without_locator_needs_boxes(make_node, tmp_path, capfd):
    folder = str(make_bundle(tmp_path / 'dots', locator=False).folder)
    assert make_node(bundle=folder).trigger_configure() == FAILURE
    assert 'use_detections' in capfd.readouterr().err
    assert make_node(bundle=folder, use_detections=True).trigger_configure() == SUCCESS
    assert make_node(bundle=folder, region=[10, 10, 50, 40]).trigger_configure() == SUCCESS


def test_boxes_and_a_region_exclude_each_other(make_node, capfd):
    node = make_node(use_detections=True, region=[10, 10, 50, 40])
    assert node.trigger_configure() == FAILURE
    assert 'set use_detections to false' in capfd.readouterr().err
    assert set_one(node, 'region', [0, 0, 0, 0]).successful
    assert node.trigger_configure() == SUCCESS
    assert 'use_detections' in set_one(node, 'region', [10, 10, 50, 40]).reason


def test_the_heart_beats_while_a_bundle_is_opened(make_node, monkeypatch):
    """Compiling a network takes minutes."""
    monkeypatch.setattr('pose_node.ros.node._DIAGNOSTICS_PERIOD_S', 0.05)
    node, beats, gate = make_node(), [], threading.Event()
    monkeypatch.setattr(node, '_diagnostics', SimpleNamespace(publish=beats.append))

    def open_slowly(*arguments):
        assert gate.wait(15.0)
        return PoseEstimator(*arguments)

    monkeypatch.setattr('pose_node.ros.node.PoseEstimator', open_slowly)
    threading.Timer(0.5, gate.set).start()
    assert node.trigger_configure() == SUCCESS
    (estimator,) = (each for each in beats[2].status if each.name.endswith('estimator'))
    assert estimator.level == DiagnosticStatus.OK
    assert estimator.message.startswith('Opening ')
    assert {each.key: each.value for each in estimator.values}['state'] == 'configuring'
    assert node._state() == 'inactive'


def test_it_stops_waiting_when_it_must(make_node, monkeypatch, capfd):
    monkeypatch.setattr('pose_node.ros.node._DIAGNOSTICS_PERIOD_S', 0.05)
    node, gate = make_node(), threading.Event()
    monkeypatch.setattr('pose_node.ros.node.PoseEstimator', lambda *_: gate.wait(15.0))
    node.must_stop = lambda: True
    assert node.trigger_configure() == FAILURE
    assert 'told to stop' in capfd.readouterr().err
    gate.set()


def test_a_fault_in_a_transition_is_logged_with_its_traceback(make_node, monkeypatch, capfd):
    node = make_node()

    def fail(*_, **__):
        raise RuntimeError('a fault of ours')

    monkeypatch.setattr('pose_node.ros.node.PoseEstimator', fail)
    assert node.trigger_configure() == FAILURE
    log = capfd.readouterr().err
    assert 'Traceback' in log
    assert 'a fault of ours' in log
    monkeypatch.undo()
    assert node.trigger_configure() == SUCCESS
    monkeypatch.setattr('pose_node.ros.node.Inputs', fail)
    assert node.trigger_activate() == FAILURE
    assert 'Cannot activate' in capfd.readouterr().err
    monkeypatch.undo()
    assert node.trigger_activate() == SUCCESS


def set_one(node, name, value):
    (result,) = node.set_parameters([Parameter(name, value=value)])
    return result


def test_live_parameters_reach_the_estimator_and_others_are_refused(make_node):
    node = make_node()
    assert set_one(node, 'threads', 1).successful
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert set_one(node, 'min_score', 0.9).successful
    assert node.parameters.min_score == 0.9
    assert node._estimator.options.min_score == 0.9
    assert set_one(node, 'pose_distribution', 'amis').successful
    assert node._estimator.options.distribution == 'amis'
    assert 'gaussian, amis' in set_one(node, 'pose_distribution', 'particles').reason
    refused = set_one(node, 'threads', 2)
    assert not refused.successful
    assert 'clean it up' in refused.reason
    assert not set_one(node, 'min_score', 1.5).successful
    assert node.parameters.min_score == 0.9
    assert not set_one(node, 'autostart', False).successful
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS
    assert set_one(node, 'threads', 2).successful


def test_impossible_parameters_are_refused_at_start(make_node):
    with pytest.raises(PoseNodeError, match='min_score'):
        make_node(min_score=7.0)


def test_qos_can_be_overridden(make_node):
    node = make_node(**{'qos_overrides./image.subscription.reliability': 'reliable'})
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    (info,) = node.get_subscriptions_info_by_topic('/image')
    assert info.qos_profile.reliability.name == 'RELIABLE'
    (other,) = node.get_subscriptions_info_by_topic('/camera_info')
    assert other.qos_profile.reliability.name == 'BEST_EFFORT'


def spin_until_log(node, capfd, words: str) -> str:
    """Let the node's timers run until it has said `words`."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    log, end = '', time.monotonic() + 15.0
    while words not in log and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
        log += capfd.readouterr().err
    executor.remove_node(node)
    executor.shutdown()
    assert words in log
    return log


def test_pictures_that_are_announced_and_do_not_come(make_node, capfd, monkeypatch):
    monkeypatch.setattr('pose_node.ros.node._CAMERA_INFO_S', 0.2)
    node = make_node(picture_timeout=0.2)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    publisher = node.create_publisher(CompressedImage, '/image/compressed', 1)
    spin_until_log(node, capfd, 'set image_transport to compressed')
    node.destroy_publisher(publisher)
    node.create_publisher(Image, '/image', 1)
    log = spin_until_log(node, capfd, 'Pictures are announced on /image')
    assert 'fastdds.xml' in log
    standing = node._health.snapshot().standing
    assert standing['pictures'].level == Level.ERROR
    assert standing['camera_info'].level == Level.WARN
    assert '/camera_info' in standing['camera_info'].sentence


def test_a_failed_configure_is_on_diagnostics(make_node, capfd):
    node = make_node(bundle='/there/is/none')
    heard = []
    node.create_subscription(DiagnosticArray, '/diagnostics', heard.append, 10)
    assert node.trigger_configure() == FAILURE
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + 15.0
    while not heard and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    executor.remove_node(node)
    executor.shutdown()
    status = {each.name: each for each in heard[0].status}['pose_node: estimator']
    assert status.level == DiagnosticStatus.ERROR
    assert '/there/is/none' in status.message


def test_tensorrt_is_demanded_or_done_without(make_node, known_bundle_folder, capfd, monkeypatch):
    def no_driver() -> None:
        raise NoDriver('no NVIDIA driver is installed.')

    monkeypatch.setattr(tensorrt_backend, 'need_driver', no_driver)
    bundle = str(known_bundle_folder)
    assert make_node(backend='tensorrt', bundle=bundle).trigger_configure() == FAILURE
    assert 'Cannot configure: no NVIDIA driver is installed.' in capfd.readouterr().err
    node = make_node(bundle=bundle)
    assert node.trigger_configure() == SUCCESS
    log = capfd.readouterr().err
    assert log.count('TensorRT is not used: no NVIDIA driver') == 1
    assert 'backend onnx.' in log

    def no_tensorrt() -> None:  # the machine has a GPU, and nobody uses it
        raise PoseNodeError('no TensorRT for Python is installed.')

    monkeypatch.setattr(tensorrt_backend, 'need_driver', lambda: None)
    monkeypatch.setattr(tensorrt_backend, 'load_flavour', no_tensorrt)
    node = make_node(bundle=bundle)
    assert node.trigger_configure() == SUCCESS
    assert '[WARN]' in capfd.readouterr().err
    assert 'no TensorRT for Python is installed' in node._no_tensorrt


def test_an_engine_is_built_kept_and_given_back(make_node, tmp_path, monkeypatch):
    """On a GPU in software."""
    gpu = SoftwareGpu(tmp_path, monkeypatch)
    gpu.slow_s = 0.2
    monkeypatch.setattr(tensorrt_backend, '_TOLD_EVERY_S', 0.02)
    monkeypatch.setattr('pose_node.ros.node._DIAGNOSTICS_PERIOD_S', 0.05)
    node, beats = make_node(backend='tensorrt', engine_cache=str(tmp_path / 'engines')), []
    monkeypatch.setattr(node, '_diagnostics', SimpleNamespace(publish=beats.append))
    assert node.trigger_configure() == SUCCESS
    assert gpu.builds == 2  # of the pose network and of the locator
    texts = [status.message for each in beats for status in each.status]
    assert any('building an engine, 40 %' in text for text in texts)
    node._publish_diagnostics()
    values = {pair.key: pair.value for status in beats[-1].status for pair in status.values}
    assert (values['state'], values['backend']) == ('inactive', 'tensorrt')
    assert node.trigger_cleanup() == SUCCESS
    assert gpu.cuda.open == 0
    node.must_stop = lambda: True  # a signal, while it builds for another precision
    gpu.slow_s = 30.0
    node.set_parameters([Parameter('precision', value='fp32')])
    assert node.trigger_configure() == FAILURE
    assert 'stop' in node._failure


def test_what_is_compiled_is_told_and_can_be_stopped(make_node, monkeypatch):
    """By the options that the backend is given: they tell the node how far the compiler is."""
    monkeypatch.setattr('pose_node.ros.node._DIAGNOSTICS_PERIOD_S', 0.05)
    node, beats = make_node(precision='fp32', engine_cache='/there', dla_core=1), []
    monkeypatch.setattr(node, '_diagnostics', SimpleNamespace(publish=beats.append))

    def compile_slowly(folder, backend, options):
        engines = options.engines
        assert (engines.precision, engines.cache, engines.dla_core) == ('fp32', '/there', 1)
        while len(beats) < 3:
            engines.progress('building an engine, 40 %')
            time.sleep(0.02)
        node.must_stop = lambda: True
        engines.progress('building an engine, 60 %')

    monkeypatch.setattr('pose_node.ros.node.PoseEstimator', compile_slowly)
    assert node.trigger_configure() == FAILURE
    (estimator,) = (each for each in beats[2].status if each.name.endswith('estimator'))
    assert estimator.message.startswith('Opening ')
    assert estimator.message.endswith(': building an engine, 40 %.')
