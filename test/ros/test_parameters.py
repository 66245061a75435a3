"""The parameters: YAML, declaration and rules say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pose_node.core.errors import PoseNodeError
from pose_node.ros import parameters

YAML = Path(__file__).resolve().parents[2] / 'config' / 'pose_node.yaml'


def test_yaml_lists_every_parameter_with_its_default():
    listed = yaml.safe_load(YAML.read_text())['/**']['ros__parameters']
    assert listed == parameters.defaults()
    for name, value in listed.items():
        assert type(value) is type(parameters.defaults()[name]), name


def test_the_reference_page_lists_them_as_they_are_declared():
    assert parameters.markdown() in (YAML.parents[1] / 'doc' / 'node.md').read_text()


@pytest.mark.parametrize('name', parameters.rules())
def test_yaml_comment_gives_limits_meaning_and_when_it_may_change(name):
    above, _, _ = YAML.read_text().partition(f'\n    {name}:')
    comment = above.rpartition('\n\n')[2].replace('ros__parameters:', '')
    words = ' '.join(re.sub(r'^\s*#', '', line).strip() for line in comment.splitlines())
    rule = parameters.rules()[name]
    assert rule.limits() in words
    assert rule.meaning in words
    assert ('(live)' in words) == rule.live
    assert ('(read only)' in words) == rule.read_only


def test_numbers_have_ranges_that_hold_their_defaults():
    for name, default in parameters.defaults().items():
        rule = parameters.rules()[name]
        if isinstance(default, bool | str | list):
            assert rule.low is None
        else:
            assert rule.low is not None, name
            assert rule.low <= default <= rule.high


def test_refusals():
    assert parameters.refusal('min_score', 0.7, configured=True) == ''
    assert parameters.refusal('threads', 2, configured=False) == ''
    assert 'clean it up' in parameters.refusal('threads', 2, configured=True)
    sentence = parameters.refusal('image_transport', 'theora', configured=False)
    assert 'raw, compressed' in sentence
    assert parameters.refusal('use_sim_time', True, configured=True) == ''


@pytest.mark.parametrize(
    ('box', 'good'),
    [
        ([0, 0, 0, 0], True),
        ([10, 20, 300, 200], True),
        ([-40, 20, 300, 200], True),  # half outside is a place, too
        ([10, 20, 0, 200], False),
        ([10, 20, 300, -1], False),
        ([10, 20, 300], False),
        ([], False),
        ([10, 20, 1 << 40, 200], False),
    ],
)
def test_a_region_is_a_box(box, good):
    sentence = parameters.refusal('region', box, configured=True)
    assert (sentence == '') == good
    assert good or 'give left, top, width and height in pixels' in sentence


def test_boxes_and_a_region_exclude_each_other():
    with pytest.raises(PoseNodeError, match='use_detections and region'):
        parameters.Parameters(use_detections=True, region=(1, 2, 3, 4))


@pytest.fixture
def make_node():
    rclpy = pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**overrides):
        from rclpy.parameter import Parameter

        values = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(rclpy.create_node('any', context=context, parameter_overrides=values))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_declared_values_and_descriptors(make_node):
    node = make_node(min_score=0.25, threads=3, region=[1, 2, 30, 40])
    parameters.declare(node)
    values = parameters.read(node)
    assert values == parameters.Parameters(min_score=0.25, threads=3, region=(1, 2, 30, 40))
    descriptor = node.describe_parameter('marker_lifetime')
    assert descriptor.floating_point_range[0].to_value == 3600.0
    assert descriptor.description
    assert descriptor.additional_constraints == '0.05 to 3600 s'
    assert node.describe_parameter('threads').integer_range[0].from_value == 0
    assert node.describe_parameter('autostart').read_only


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('min_score', 1.5, 'a number with a point, 0 to 1'),
        ('min_score', 1, 'a number with a point, 0 to 1'),
        ('min_score', float('nan'), 'a number with a point, 0 to 1'),
        ('threads', 'many', 'a whole number, 0 to 256'),
        ('bundle', 3, 'text'),
        ('region', [0.5, 0.5, 10.0, 10.0], 'a list of whole numbers, px'),
    ],
)
def test_impossible_overrides_are_refused_with_a_sentence(make_node, name, value, words):
    node = make_node(**{name: value})
    with pytest.raises(PoseNodeError, match=f'Parameter {name} .*{words}'):
        parameters.declare(node)


def test_choices_are_checked_when_read(make_node):
    node = make_node(backend='abacus')
    parameters.declare(node)
    with pytest.raises(PoseNodeError, match=r"backend is 'abacus'; give one of: .*onnx"):
        parameters.read(node)


def test_other_distributions_are_refused():
    """Live, with the words that there are."""
    assert parameters.refusal('pose_distribution', 'amis', configured=True) == ''
    sentence = parameters.refusal('pose_distribution', 'particles', configured=True)
    assert sentence == ("Parameter pose_distribution is 'particles'; give one of: gaussian, amis.")
