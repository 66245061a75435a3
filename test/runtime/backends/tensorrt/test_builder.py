"""Every network that is shipped or can be exported is taken by the real parser and builder.

TensorRT for RTX builds ahead of time, for GPUs that are not here: a Turing (SM75), two Ampere and
Ada desktops (SM86, SM89) and a Blackwell (SM120).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from known_bundle import make_bundle
from onnx import TensorProto, helper

from pose_node.core.bundle import Bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import EngineOptions, open_backend
from pose_node.runtime.backends.tensorrt import backend, flavour
from pose_node.runtime.backends.tensorrt.builder import Built, Plan, Watch, build
from pose_node.runtime.backends.tensorrt.cuda import Gpu, NoDriver
from pose_node.runtime.backends.tensorrt.flavour import Flavour, load_flavour
from pose_node.runtime.backends.tensorrt.graph import prepare
from pose_node.runtime.estimator import engine_batches
from training.nets.locator import Locator
from training.nets.published import PublishedUNet
from training.nets.resnet import ResNet
from training.nets.unet import HeatmapUNet
from training.steps.bounds import with_bounds
from training.steps.export import _Maps, _Scores, to_onnx

FLAVOUR = load_flavour()
TARGETS = ('sm75', 'sm86', 'sm89', 'sm120')
BUNDLES = Path(__file__).parents[4] / 'bundles'
SHIPPED = sorted(BUNDLES.glob('*/*.onnx'))


def compiled(graph: bytes, precision: str, target: str, batch: int = 16) -> Built:
    made = build(FLAVOUR, graph, Plan(precision, batch, target), Watch())
    assert {each.dtype for each in made.tensors.values()} <= {'float32', 'int64'}
    assert all(each.shape[0] == -1 for each in made.tensors.values())
    return made


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_what_is_shipped_compiles_everywhere(path):
    model = path.read_bytes()
    bundle = Bundle.load(path.parent)
    spec = next(
        each for each in (bundle.pose_network, bundle.locator) if each and each.file == path.name
    )
    half, whole = prepare(model, 'fp16'), prepare(model, 'fp32')
    batch = engine_batches(bundle, 16)[path.name]  # as the node has it
    sizes = {}
    for target in TARGETS:
        made = compiled(half, 'fp16', target, batch)
        assert made.tensors[spec.input].shape[1:] == (3, *spec.input_size[::-1])
        sizes[target] = len(made.engine)
    # TensorRT for RTX multiplies no float32 matrices on Turing; networks of several objects do.
    turing = 'object' not in made.tensors
    served = ','.join(TARGETS if turing else TARGETS[1:])
    made = compiled(whole, 'fp32', served, batch)  # one that serves them all
    assert made.tensors[spec.input].shape[1:] == (3, *spec.input_size[::-1])
    for target in TARGETS:
        made = compiled(prepare(model, 'int8'), 'int8', target, batch)
        assert made.tensors[spec.input].shape[1:] == (3, *spec.input_size[::-1])
    # Half the bytes in the weights, not TF32 by another name.
    assert sizes['sm86'] < 0.65 * len(compiled(whole, 'fp32', 'sm86', batch).engine)


def exported(name: str) -> bytes:
    torch.manual_seed(0)
    if name == 'locator':
        return to_onnx(_Scores(Locator(2, pretrained=False)), (64, 64), ['centers', 'boxes'])
    if name == 'published':
        network = PublishedUNet(3, ResNet(18), held=False)
        return to_onnx(_Maps(network), (64, 64), ['heatmaps'])
    network = HeatmapUNet(3, 3)
    return to_onnx(_Maps(network), (64, 64), ['heatmaps'], 3)


@pytest.mark.parametrize('name', ['unet of three', 'published', 'locator'])
def test_every_architecture_compiles_everywhere(name):
    """Of one object HeatmapUNet is shipped; of three it is told which."""
    model = exported(name)
    picture = {'picture': np.zeros((1, 3, 64, 64), np.float32)}
    if name == 'unet of three':
        picture['object'] = np.array([0])
    model = with_bounds(model, [picture])
    for precision in ('fp16', 'fp32', 'int8'):
        graph = prepare(model, precision)
        # TensorRT for RTX multiplies no float32 matrices on Turing; in half precision it does.
        turing = precision != 'fp32' or name != 'unet of three'
        made = compiled(graph, precision, ','.join(TARGETS if turing else TARGETS[1:]))
        assert ('object' in made.tensors) == (name == 'unet of three')
        if not turing:
            with pytest.raises(PoseNodeError, match='FP32 GEMM is not supported'):
                compiled(graph, precision, 'sm75')


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> bytes:
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots').read('pose.onnx')


def small(*nodes: onnx.NodeProto, shape: tuple = ('n', 3, 8, 8), **constants) -> bytes:
    """A network of these nodes from 'picture' to 'y'."""
    graph = helper.make_graph(
        list(nodes),
        'small',
        [helper.make_tensor_value_info('picture', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opset = [helper.make_opsetid('', 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def try_to_build(model: bytes, **plan: object) -> None:
    whole = Plan(**{'precision': 'fp32', 'max_batch': 4, 'target': 'sm86', **plan})
    build(FLAVOUR, prepare(model, whole.precision), whole, Watch())


def test_refusals_are_sentences(model):
    det = small(helper.make_node('Det', ['picture'], ['y'], name='/head/Det'))
    with pytest.raises(PoseNodeError, match=r'operator Det at .*set backend to onnx'):
        try_to_build(det)
    narrow = small(helper.make_node('Relu', ['picture'], ['y']), shape=('n', 3, 'h', 'w'))
    with pytest.raises(PoseNodeError, match=r"'picture' .*its first axis alone"):
        try_to_build(narrow)
    with pytest.raises(PoseNodeError, match=r'builds for sm75, .*not for sm87'):
        try_to_build(model, target='sm87')
    with pytest.raises(PoseNodeError, match=r'DLA core 0 cannot be had .* set dla_core to -1'):
        try_to_build(model, dla_core=0)
    with pytest.raises(PoseNodeError, match='ONNX model cannot be loaded'):
        try_to_build(b'noise')
    options = EngineOptions()
    with pytest.raises(PoseNodeError, match="precision is 'int4'; give one of: fp16, fp32"):
        backend.engine_for(FLAVOUR, model, Plan('int4', 4, 'sm86'), options, Watch())


def test_progress_is_told_and_a_build_can_be_stopped(model):
    shares = []

    class Observed(Watch):
        def step(self, phase: str, step: int) -> None:
            super().step(phase, step)
            shares.append(self.share)

    build(FLAVOUR, prepare(model, 'fp32'), Plan('fp32', 4, 'sm86'), Observed())
    assert len(shares) > 10 and all(0.0 <= share <= 1.0 for share in shares)
    assert shares[-1] > 0.7
    watch = Watch()
    watch.stop.set()
    with pytest.raises(PoseNodeError, match='was stopped'):
        build(FLAVOUR, prepare(model, 'fp32'), Plan('fp32', 4, 'sm86'), watch)


def test_without_a_gpu_auto_says_why_and_tensorrt_fails(model, monkeypatch):
    def fails(words: str, *, expected: bool) -> None:
        said: list[str] = []
        warned: list[str] = []
        options = EngineOptions(say=said.append, warn=warned.append)
        network = open_backend('auto', model, 1, options)
        said, other = (said, warned) if expected else (warned, said)
        assert network.name == 'onnx' and len(said) == 1 and not other
        assert said[0].startswith('TensorRT is not used: ') and words in said[0]
        assert said[0].endswith('ONNX Runtime runs the networks.')
        with pytest.raises(PoseNodeError, match=words):
            open_backend('tensorrt', model)

    def no_driver() -> None:
        raise NoDriver('no NVIDIA driver is installed.')

    monkeypatch.setattr(backend, 'need_driver', no_driver)
    fails('no NVIDIA driver is installed', expected=True)
    monkeypatch.setattr(backend, 'need_driver', lambda: None)
    monkeypatch.setattr(flavour, 'MODULES', ('no_such_tensorrt',))
    load_flavour.cache_clear()
    fails('no TensorRT for Python is installed', expected=False)
    load_flavour.cache_clear()


class Members:
    """An enumeration with these members."""

    def __init__(self, *names: str) -> None:
        self.__members__ = {name: i for i, name in enumerate(names)}


def other_flavour(version: str, flags: tuple, builder_flags: tuple = ()) -> Flavour:
    trt = SimpleNamespace(
        __name__='tensorrt',
        __version__=version,
        NetworkDefinitionCreationFlag=Members(*flags),
        BuilderFlag=Members(*builder_flags),
    )
    return Flavour(trt, None)


def test_versions_differ_where_they_say():
    """What create_network is given, and whether types are law, by NVIDIA's migration guides."""
    gpu = Gpu('Orin', (8, 7), 8000)
    for version, flags, builder_flags, wanted_flags, wanted in (
        ('8.6.2', ('EXPLICIT_BATCH',), ('FP16',), 1, ('weak', 'weak')),
        ('10.3.0', ('EXPLICIT_BATCH', 'STRONGLY_TYPED'), ('FP16',), 2, ('strong', 'weak')),
        ('11.4.1', ('EXPLICIT_BATCH', 'STRONGLY_TYPED'), (), 2, ('strong', 'strong')),
    ):
        found = other_flavour(version, flags, builder_flags)
        assert found.title == f'TensorRT {version}' and found.targets == ()
        assert found.network_flags(strongly_typed=True) == wanted_flags
        plans = [
            backend.plan_for(found, gpu, EngineOptions(dla_core=dla_core)) for dla_core in (-1, 0)
        ]
        assert {plan.target for plan in plans} == {'Orin sm87'}
        assert tuple(backend.key_of(found, b'', plan)['typing'] for plan in plans) == wanted
    assert backend.plan_for(FLAVOUR, gpu, EngineOptions()).target == 'sm87'
    assert FLAVOUR.rtx and set(TARGETS) <= set(FLAVOUR.targets)
