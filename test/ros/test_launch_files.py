"""The launch files, read by the real launch where it is installed."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = sorted((CHECKOUT / 'launch').glob('*.launch.py'))


def load(file: Path):
    spec = importlib.util.spec_from_file_location(file.name.replace('.', '_'), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch():
    pytest.importorskip('launch_ros', reason='launch_ros is not installed here')
    return pytest.importorskip('launch', reason='launch is not installed here')


def actions_of(launch, name: str, **arguments: str):
    """What a launch file does with these arguments."""
    module = load(CHECKOUT / 'launch' / name)
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments)
    description = module.generate_launch_description()
    return [each for entity in description.entities for each in entity.visit(context) or ()]


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_python_reads_them_and_each_has_its_entry(file):
    tree = ast.parse(file.read_text(), file.name)
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert 'generate_launch_description' in functions


def test_there_are_two():
    assert [file.name for file in FILES] == ['pose_node.launch.py', 'replay.launch.py']


def test_node_with_a_camera(launch, monkeypatch):
    from launch_ros.actions import Node

    monkeypatch.delenv('FASTDDS_DEFAULT_PROFILES_FILE', raising=False)

    actions = actions_of(launch, 'pose_node.launch.py', image='/cam/image_raw', bundle='/b')
    (node,) = (each for each in actions if isinstance(each, Node))
    assert node.node_package == node.node_executable == 'pose_node'
    set_here = [launch.actions.SetEnvironmentVariable]
    names = [each.name[0].text for each in actions if each.__class__ in set_here]
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' in names


def test_dds_profile_can_be_turned_off_and_rviz_on(launch):
    actions = actions_of(launch, 'pose_node.launch.py', dds_profile='false', rviz='true')
    kinds = [each.__class__.__name__ for each in actions]
    assert kinds == ['Node', 'Node']
    with pytest.raises(ValueError, match='neither true nor false'):
        actions_of(launch, 'pose_node.launch.py', rviz='maybe')


def test_replay_includes_the_node_and_plays_the_bag(launch, tmp_path):
    with pytest.raises(FileNotFoundError, match='bag:='):
        actions_of(launch, 'replay.launch.py', bag='/there/is/none')
    actions = actions_of(launch, 'replay.launch.py', bag=str(tmp_path))
    kinds = {each.__class__.__name__ for each in actions}
    assert kinds == {'IncludeLaunchDescription', 'RegisterEventHandler', 'TimerAction'}


def test_rviz_shows_what_the_node_publishes():
    view = yaml.safe_load((CHECKOUT / 'config' / 'pose_node.rviz').read_text())
    displays = view['Visualization Manager']['Displays']
    shown = {each['Class']: each.get('Topic', {}).get('Value') for each in displays}
    assert shown['rviz_default_plugins/MarkerArray'] == '/pose_node/markers'
    assert shown['rviz_default_plugins/PoseWithCovariance'].startswith('/pose_node/drill/')
    assert shown['rviz_default_plugins/PoseArray'] == '/pose_node/drill/pose_cloud'
    pictures = [each['Topic']['Value'] for each in displays if each['Class'].endswith('/Image')]
    assert pictures == ['/pose_node/overlay', '/image']
    assert 'rviz_default_plugins/TF' in shown


def test_foxglove_shows_what_the_node_publishes():
    layout = json.loads((CHECKOUT / 'config' / 'foxglove.json').read_text())
    view = layout['configById']
    scene = view['3D!pose_node']
    rviz = yaml.safe_load((CHECKOUT / 'config' / 'pose_node.rviz').read_text())
    shown = {each['Topic']['Value'] for each in rviz['Visualization Manager']['Displays'][2:5]}
    assert set(scene['topics']) <= shown | {'/pose_node/drill/pose_with_covariance'}
    assert scene['followTf'] == rviz['Visualization Manager']['Global Options']['Fixed Frame']
    assert view['Image!overlay']['imageMode']['imageTopic'] == '/pose_node/overlay'
    assert view['DiagnosticSummary!pose_node']['topicToRender'] == '/diagnostics'

    def panels(part):
        return {part} if isinstance(part, str) else panels(part['first']) | panels(part['second'])

    assert panels(layout['layout']) == set(view)
