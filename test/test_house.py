"""The rules of the house, read from the files themselves: who may import whom, and how large.

Stairs go up only: core knows nothing above it, runtime imports core, ros imports both, cli may
import all. The workshop (training) imports core and runtime; nothing in pose_node imports it.
Inside the workshop synth and nets do not know each other: steps joins them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES_PER_FILE = 400
LINES_PER_FUNCTION = 70
CHECKOUT_BYTES = 40e6

# Which of our floors a floor may import besides itself.
MAY_IMPORT = {
    'pose_node': set(),
    'pose_node.core': set(),
    'pose_node.runtime': {'pose_node.core'},
    'pose_node.ros': {'pose_node.core', 'pose_node.runtime'},
    'pose_node.cli': {'pose_node.core', 'pose_node.runtime', 'pose_node.ros'},
    'training.synth': {'pose_node.core', 'pose_node.runtime'},
    'training.nets': {'pose_node.core', 'pose_node.runtime'},
    'training.objects': {'pose_node.core', 'training.synth'},
    'training': {'pose_node.core', 'pose_node.runtime', 'training.synth', 'training.nets'},
    'training.steps': {
        'pose_node.core', 'pose_node.runtime', 'training', 'training.objects', 'training.synth',
        'training.nets',
    },
}  # fmt: skip

# Where a library may be imported at all; a prefix of the module's name.
ONLY_IN = {
    'rclpy': ('pose_node.ros', 'pose_node.cli'),
    'rosbags': ('pose_node.ros.bag', 'training.steps'),
    'torch': ('training',),
    'moderngl': ('training.synth',),
    'mitsuba': ('training.synth', 'training.steps'),
    'onnxruntime': ('pose_node.runtime.backends', 'training.steps'),
    'onnx': ('training.steps', 'pose_node.runtime.backends'),
    'tensorrt': ('pose_node.runtime.backends.tensorrt',),
    'cuda': ('pose_node.runtime.backends.tensorrt',),
    'ray': ('training.steps',),
    'lightning_fabric': ('training.steps',),
    'cv_bridge': ('pose_node.ros',),
    'transforms3d': ('pose_node.ros', 'pose_node.cli'),
    'rich': ('pose_node.cli', 'training'),
    'bpy': (),
}

MESSAGES = re.compile(r'\w+_(msgs|srvs|interfaces)\b')
FROM_ROS = re.compile(r'rclpy|cv_bridge|ament_index_python|\w+_(msgs|srvs|interfaces)')


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


SOURCES = {
    module_name(path): path
    for top in ('pose_node', 'training')
    for path in sorted((ROOT / top).rglob('*.py'))
}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in SOURCES.items()}


def imports(module: str, *, at_load: bool = False) -> Iterator[tuple[str, int]]:
    """(imported module, line) of a module's imports; `at_load`: of those that run at import."""
    package = module if SOURCES[module].name == '__init__.py' else module.rpartition('.')[0]
    for node in _statements(TREES[module]) if at_load else ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                above = package.split('.')[: len(package.split('.')) - node.level + 1]
                base = '.'.join([*above, base]).rstrip('.')
            for alias in node.names:
                whole = f'{base}.{alias.name}'
                yield whole if whole in SOURCES else base, node.lineno


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below `node` that is executed at import: no function bodies, no type checking."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.unparse(child.test):
            continue
        yield child
        yield from _statements(child)


def floor_of(module: str) -> str:
    """'pose_node.core.pnp' -> 'pose_node.core'; a file directly in a top folder -> that folder."""
    parts = module.split('.')
    floor = '.'.join(parts[:2])
    return floor if floor in MAY_IMPORT else parts[0]


def where(module: str, line: int) -> str:
    return f'{SOURCES[module].relative_to(ROOT)}:{line}'


@pytest.mark.parametrize('module', SOURCES)
def test_imports_climb_no_stairs_down(module):
    floor = floor_of(module)
    allowed = MAY_IMPORT[floor] | {floor}
    entrance = module == 'training.__main__'  # the command line joins the steps
    for other, line in imports(module):
        if other.split('.')[0] in ('pose_node', 'training') and not entrance:
            assert floor_of(other) in allowed | {'pose_node'}, (
                f'{where(module, line)}: {floor} may not import {other}'
            )
        assert other.split('.')[0] not in ('test', 'tools'), where(module, line)


@pytest.mark.parametrize('module', SOURCES)
def test_libraries_stay_on_their_floor(module):
    for other, line in imports(module):
        library = other.split('.')[0]
        if library in ONLY_IN:
            assert module.startswith(ONLY_IN[library]), (
                f'{where(module, line)}: {library} belongs to {ONLY_IN[library] or "no floor"}'
            )


def test_messages_stay_above_the_second_floor():
    for module in SOURCES:
        for other, line in imports(module):
            if MESSAGES.match(other):
                assert module.startswith(('pose_node.ros', 'pose_node.cli')), where(module, line)


def test_no_circles():
    graph = {
        module: {other for other, _ in imports(module, at_load=True) if other in SOURCES}
        for module in SOURCES
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f'circle: {" -> ".join((*trail, module))}'
        if module not in done:
            for other in sorted(graph[module] - {module}):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def tracked() -> list[Path]:
    """The files that git would put into a clone; where there is no git, no such list."""
    try:
        listed = subprocess.run(
            ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('not a git checkout: what is tracked is unknown')
    return [ROOT / name for name in listed.stdout.split('\0') if name and (ROOT / name).is_file()]


def test_files_are_small_enough_to_read():
    for path in tracked():
        if path.suffix == '.py':
            lines = len(path.read_text().splitlines())
            assert lines <= LINES_PER_FILE, f'{path.relative_to(ROOT)} has {lines} lines'


def test_functions_are_small_enough_to_read():
    for path in tracked():
        if path.suffix != '.py':
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= LINES_PER_FUNCTION, (
                    f'{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines'
                )


def test_checkout_is_small():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked()}
    largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
    assert sum(sizes.values()) < CHECKOUT_BYTES, f'largest: {[str(path) for path in largest]}'


def test_no_pickles_and_no_paths_of_one_machine():
    home = re.compile(r'(?<![\w.])/(?:home|Users|work|root)/[\w.-]+')
    for path in tracked():
        assert path.suffix not in ('.pkl', '.pickle', '.pt', '.pth', '.npz'), path
        if path.suffix in ('.py', '.toml', '.yaml', '.md', '.txt', '.xml', '.cfg', '.json', ''):
            found = home.search(path.read_text(errors='replace'))
            assert not found, f'{path.relative_to(ROOT)} names {found and found[0]}'


def test_package_xml_names_what_the_node_imports_from_ros():
    package = ET.parse(ROOT / 'package.xml').getroot()
    named = {element.text for element in package.iter('exec_depend')}
    for module in SOURCES:
        if module.startswith(('pose_node.ros', 'pose_node.cli')):
            for other, line in imports(module):
                library = other.split('.')[0]
                if FROM_ROS.fullmatch(library):
                    assert library in named, f'{where(module, line)}: package.xml lacks {library}'


def test_every_package_folder_is_installed():
    """A folder without __init__.py would be missing from what colcon installs."""
    for top in ('pose_node', 'training'):
        for path in (ROOT / top).rglob('*.py'):
            assert (path.parent / '__init__.py').is_file(), f'{path.parent} lacks __init__.py'
