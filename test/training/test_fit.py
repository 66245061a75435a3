"""The loop: interrupted work goes on to the same result, bad steps are skipped, the best kept."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from torch import Tensor

from pose_node.core.errors import PoseNodeError
from training.nets import keypoint_pose
from training.nets.decode import Decoded, decode
from training.objects.ply import write_ply
from training.recipe import Recipe, load_recipe
from training.steps import fit as fit_module
from training.steps.checkpoint import begin, load_trained
from training.steps.engine import open_engine
from training.steps.feed import Batches, loader
from training.steps.fit import fit, losses, train_step
from training.steps.fit_log import FitLog, read_log
from training.synth.background import Backgrounds
from training.synth.mesh import primitive

RECIPE = """
name = "box"
description = "x"
keypoints = 6
[[objects]]
name = "box"
mesh = "box.ply"
[dataset]
input_size = [64, 64]
[dataset.scene]
distractors = [0, 1]
[locator_dataset]
input_size = [96, 64]
[pose]
{0}
[locate]
{0}
"""
TWELVE_STEPS = """
samples = 24
batch = 2
warmup = 4
frozen = 1
"""
VALIDATED = TWELVE_STEPS + 'validate_every = 8\nvalidate_on = 4\n'


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A box 20 cm long, in small pictures before few backgrounds."""
    monkeypatch.setattr(Backgrounds.__init__, '__defaults__', (None, 4))
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'cache'))
    box = primitive('box')
    box = dataclasses.replace(box, vertices_m=0.2 * box.vertices_m)
    write_ply(tmp_path / 'box.ply', box)
    (tmp_path / 'box.toml').write_text(RECIPE.format(TWELVE_STEPS))
    return load_recipe(tmp_path / 'box.toml')


def one_batch(recipe: Recipe, kind: str) -> tuple[Tensor, ...]:
    return next(iter(loader(Batches(recipe, kind, 0, 1), 0)))


def same(a: object, b: object) -> bool:
    """Equal to the last bit, all the way down."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_parts_that_are_kept_stay_as_they_were(recipe: Recipe) -> None:
    """Weights, statistics and their averages; also in a run that goes on."""
    kept = 'kept = ["encoder._blocks.15", "up16"]'
    recipe.path.write_text(RECIPE.format(f'{TWELVE_STEPS}{kept}'))
    recipe = load_recipe(recipe.path)
    batch = one_batch(recipe, 'pose')
    run = begin(recipe, 'pose', torch.device('cpu'))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    recipe.cache.mkdir(parents=True)
    for _ in range(2):
        fit_module.train_step(run, 'pose', batch, recipe.pose)
        run.save(recipe.cache / 'pose.pt')
        run = begin(recipe, 'pose', torch.device('cpu'))
    for network in (run.network, run.average):
        moved = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
        assert 'up8.layers.0.weight' in moved
        assert 'encoder._blocks.14._bn2.running_mean' in moved
        assert not [n for n in moved if n.startswith(('encoder._blocks.15.', 'up16.'))]
    options = dataclasses.replace(recipe.pose, kept=('encoder._blocks.16',))
    with pytest.raises(PoseNodeError, match=r"kept names 'encoder._blocks.16', wanted parts"):
        begin(dataclasses.replace(recipe, pose=options), 'pose', torch.device('cpu'))


def test_interrupted_work_goes_on_to_the_same_result(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve steps at once, and six, a power cut, and six more: one checkpoint, bit for bit."""
    recipe.path.write_text(RECIPE.format(VALIDATED))
    recipe = load_recipe(recipe.path)
    fit(recipe, 'pose', workers=0, threads=1)
    at_once = torch.load(recipe.cache / 'pose.pt', weights_only=True)
    log = read_log(recipe.cache / 'pose.csv')
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'other'))

    def six(batches: Batches, workers: int) -> Iterator[tuple[Tensor, ...]]:
        for number, batch in enumerate(loader(batches, workers)):
            if number == 6:
                raise KeyboardInterrupt
            monkeypatch.setattr(fit_module, '_SAVE_EVERY_S', 0.0 if number == 5 else 60.0)
            yield batch

    monkeypatch.setattr(fit_module, 'loader', six)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, 'pose', workers=0, threads=1)
    path = recipe.cache / 'pose.pt'
    assert torch.load(path, weights_only=True)['step'] == 6
    monkeypatch.setattr(fit_module, 'loader', loader)
    fit(recipe, 'pose', workers=0, threads=1)
    resumed = torch.load(path, weights_only=True)
    assert resumed['step'] == 12 and resumed['best'] is not None
    assert same(at_once, resumed)
    figures = [line for line in log if 'waited_share' not in line]
    assert [line['step'] for line in figures] == [4, 8, 12]
    later = read_log(recipe.cache / 'pose.csv')
    assert [line for line in later if 'waited_share' not in line] == figures


@pytest.mark.parametrize('kind', ['pose', 'locator'])
def test_a_step_without_a_finite_gradient_changes_no_weight(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Pictures of NaN: counted, and neither weights nor moments nor statistics keep a trace."""
    torch.set_num_threads(1)
    options = recipe.fit_options(kind)
    run = begin(recipe, kind, torch.device('cpu'))
    batch = one_batch(recipe, kind)
    nowhere = torch.full((len(batch[0]), 3, *batch[0].shape[1:3]), np.nan)
    for _ in range(2):
        train_step(run, kind, batch, options)
    assert run.skipped == 0
    parameters = [p.detach().clone() for p in run.network.parameters()]
    average = {k: v.clone() for k, v in run.average.state_dict().items()}
    moments = [v.clone() for s in run.optimiser.state.values() for v in s.values()]
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, 'normalise', lambda pictures, network: nowhere)
        assert not np.isfinite(train_step(run, kind, batch, options)).all()
    assert (run.step, run.skipped) == (3, 1)
    assert same(parameters, [p.detach() for p in run.network.parameters()])
    assert same(average, run.average.state_dict())
    assert same(moments, [v for s in run.optimiser.state.values() for v in s.values()])
    assert all(torch.isfinite(v).all() for v in run.network.state_dict().values())
    assert np.isfinite(train_step(run, kind, batch, options)).all()


def test_skipped_steps_are_logged_and_said(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every line of the log, and in a sentence at the end."""
    calls: list[int] = []

    def sometimes(*arguments: object) -> list[Tensor]:
        calls.append(1)
        parts = losses(*arguments)  # type: ignore[arg-type]
        return [np.nan * part for part in parts] if len(calls) in (3, 5) else parts

    monkeypatch.setattr(fit_module, 'losses', sometimes)
    fit(recipe, 'pose', workers=0, threads=1)
    line = next(line for line in read_log(recipe.cache / 'pose.csv') if 'skipped' in line)
    assert line['skipped'] == 2 and np.isfinite(line['loss'])
    assert 'pose: 2 of 12 steps were skipped' in capsys.readouterr().out


def test_what_the_pose_loss_left_out_is_logged_and_said(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keypoints that do not count are no points: every object that is there is missed, aloud."""
    recipe.path.write_text(RECIPE.format(TWELVE_STEPS + 'pose_loss = 0.1\n'))
    recipe = load_recipe(recipe.path)

    def blind(*arguments: object) -> Decoded:
        found = decode(*arguments)  # type: ignore[arg-type]
        return dataclasses.replace(found, counts=torch.zeros_like(found.counts))

    monkeypatch.setattr(keypoint_pose, 'decode', blind)
    run = fit(recipe, 'pose', workers=0, threads=1)
    line = next(line for line in read_log(recipe.cache / 'pose.csv') if 'skipped' in line)
    there = sum(int(batch[5].sum()) for batch in loader(Batches(recipe, 'pose', 0, 12), 0))
    assert line['too_few_points'] == there > 12 and line['degenerate'] == line['not_finite'] == 0
    assert f'pose: {there} objects were left out of the pose loss: too few' in (
        capsys.readouterr().out
    )
    assert run.skipped == 0 and np.isfinite(line['loss'])


def test_the_best_average_is_the_one_that_is_used(recipe: Recipe) -> None:
    """Without validation the last, with it the one with the highest figure."""
    run = begin(recipe, 'pose', torch.device('cpu'))
    recipe.cache.mkdir(parents=True)
    for figure, value in ((None, 1.0), (0.4, 2.0), (0.9, 3.0), (0.5, 4.0)):
        torch.nn.init.constant_(run.average.head.bias, value)  # type: ignore[arg-type]
        if figure is not None:
            run.keep(figure)
        run.save(recipe.cache / 'pose.pt')
        used = load_trained(recipe, 'pose').head.bias
        assert (used == min(value, 3.0)).all()


def test_bfloat16_is_near(recipe: Recipe) -> None:
    """The same loss to a few parts in a hundred, gradients that point the same way."""
    batch = one_batch(recipe, 'pose')
    gradients = []
    found = {}
    for precision in ('fp32', 'bf16'):
        torch.manual_seed(0)
        run = begin(recipe, 'pose', torch.device('cpu'))
        run.network.train()
        (loss,) = losses(run, batch, precision)
        assert loss.dtype == torch.float32
        loss.backward()  # type: ignore[no-untyped-call]
        assert run.network.head.weight.grad is not None
        gradients.append(run.network.head.weight.grad.flatten())
        found[precision] = float(loss.detach())
    assert found['bf16'] == pytest.approx(found['fp32'], rel=0.03)
    assert found['bf16'] != found['fp32']
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_log_goes_to_tensorboard_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as in the CSV file; lines of steps that come again are gone from it."""
    sent = []

    class Writer:
        def __init__(self, folder: Path, purge_step: int) -> None:
            assert purge_step == 11

        def add_scalar(self, name: str, value: float, step: int) -> None:
            sent.append((name, value, step))

        def close(self) -> None:
            sent.append(('closed', 0.0, 0))

    path = tmp_path / 'pose.csv'
    path.write_text('step,loss\n5,3.0\n10,2.0\n15,1.0\n')
    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', module)
    with FitLog(path, ('loss', 'own_ap'), first=10, last=20, title='') as log:
        log.add([4.0])
        log.add([5.0])
        log.losses(12, ('loss',), 8)
        log.figures(12, {'own_ap': 0.5})
    assert ('loss', 4.5, 12) in sent and ('own_ap', 0.5, 12) in sent
    assert sent[-1][0] == 'closed'
    first, second, third, last = read_log(path)
    assert (first, second) == ({'step': 5, 'loss': 3.0}, {'step': 10, 'loss': 2.0})
    assert (third['step'], third['loss']) == (12, 4.5)
    assert last == {'step': 12, 'own_ap': 0.5}
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with FitLog(path, ('loss',), first=5, last=20, title=''):
        pass
    assert read_log(path) == [first]


def test_devices_have_names() -> None:
    """A GPU that is not there is said."""
    assert open_engine('cpu').device == torch.device('cpu')
    if not torch.cuda.is_available():
        assert open_engine('auto').device == torch.device('cpu')
        with pytest.raises(PoseNodeError, match='no GPU'):
            open_engine('cuda')
