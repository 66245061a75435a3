"""Past one machine: two local processes, by torch.distributed and by Ray, do what one does."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')
pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from torch import Tensor, nn

from pose_node.core.errors import PoseNodeError
from training.__main__ import main
from training.objects.ply import write_ply
from training.recipe import Recipe, load_recipe
from training.steps import shards as shards_module
from training.steps.checkpoint import Run, begin
from training.steps.feed import Batches, loader
from training.steps.fit import _follow, fit, losses, schedule
from training.steps.shards import Shards, rendered, write_shards
from training.synth.background import Backgrounds
from training.synth.dataset import View
from training.synth.mesh import primitive

ROOT = Path(__file__).parents[2]
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
distractors = [0, 0]
[pose]
samples = 12
batch = 4
frozen = 1
warmup = 2
"""
# What each process does; Fabric starts the second with the same command.
SCRIPT = """
import sys
from pathlib import Path
from training.steps.engine import open_engine

engine = open_engine('cpu', processes=2)

import torch
from training.recipe import load_recipe
from training.steps.fit import fit
from training.synth.background import Backgrounds

Backgrounds.__init__.__defaults__ = (None, 4)
recipe = load_recipe(Path(sys.argv[1]))
run = fit(recipe, 'pose', workers=0, threads=1, engine=engine)
torch.save(run.network.state_dict(), recipe.path.with_name(f'rank{engine.global_rank}.pt'))
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A box 20 cm long, three steps."""
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(Backgrounds.__init__, '__defaults__', (None, 4))
    box = primitive('box')
    write_ply(tmp_path / 'box.ply', dataclasses.replace(box, vertices_m=0.2 * box.vertices_m))
    (tmp_path / 'box.toml').write_text(RECIPE)
    return load_recipe(tmp_path / 'box.toml')


def step_by_halves(run: Run, batch: tuple[Tensor, ...], recipe: Recipe) -> None:
    """One step with the mean of both halves' gradients; statistics are those of the first half."""
    network, options = run.network.train(), recipe.pose
    start = copy.deepcopy(dict(network.named_buffers()))
    gradients, kept = [], start
    for part in (slice(0, 2), slice(2, 4)):
        for name, value in network.named_buffers():
            value.copy_(start[name])
        network.zero_grad()
        half = tuple(column[part] for column in batch)
        torch.stack(losses(run, half, 'fp32')).sum().backward()  # type: ignore[no-untyped-call]
        found = [parameter.grad for parameter in network.parameters()]
        gradients.append([None if g is None else g.clone() for g in found])
        if part.start == 0:
            kept = copy.deepcopy(dict(network.named_buffers()))
    for name, value in network.named_buffers():
        value.copy_(kept[name])
    for parameter, a, b in zip(network.parameters(), *gradients, strict=True):
        parameter.grad = None if a is None or b is None else (a + b) / 2
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    for group in run.optimiser.param_groups:
        group['lr'] = group['top_lr'] * schedule(run.step, 3, options.warmup)
    run.optimiser.step()
    run.step += 1
    _follow(run.average, network, min(options.ema, run.step / (run.step + 10)))


@pytest.mark.slow
def test_two_processes_train_as_one_that_takes_every_batch_by_halves(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Both end with equal weights: those of the mean of the halves' gradients."""
    pytest.importorskip('lightning_fabric', reason='lightning-fabric is not installed')
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, str(script), str(recipe.path)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f'rank{rank}.pt') for rank in (0, 1))
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    (tmp_path / 'cache').rename(tmp_path / 'by_two')
    run = begin(recipe, 'pose', torch.device('cpu'))
    start = copy.deepcopy(run.network.state_dict())
    for batch in loader(Batches(recipe, 'pose', 0, 3), 0):
        step_by_halves(run, batch, recipe)
    for name, parameter in run.network.named_parameters():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], parameter.detach(), rtol=1e-4, atol=1e-6)
    assert (run.network.head.weight != start['head.weight']).any()
    saved = torch.load(next(tmp_path.glob('by_two/*/pose.pt')), weights_only=True)
    assert saved['step'] == 3
    for name, value in run.average.state_dict().items():
        torch.testing.assert_close(saved['average'][name], value, rtol=1e-4, atol=1e-6)


def test_processes_share_every_batch(recipe: Recipe) -> None:
    """Together they see the samples of one process, in its order; what does not divide is said."""
    whole = next(iter(loader(Batches(recipe, 'pose', 2, 3), 0)))
    parts = [
        next(iter(loader(Batches(recipe, 'pose', 2, 3, rank=rank, world=2), 0))) for rank in (0, 1)
    ]
    for column, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(column, torch.cat((first, second)))
    with pytest.raises(PoseNodeError, match='cannot be shared by 3'):
        Batches(recipe, 'pose', 0, 3, world=3)


def test_what_is_not_installed_is_said(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that brings it."""
    for name, command in (
        ('lightning_fabric', ['fit', str(recipe.path), '--processes', '2']),
        ('ray', ['shards', str(recipe.path), '--only', 'pose', '--out', str(recipe.cache)]),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        assert main(command) == 2
        assert 'pip install -r requirements/cluster.txt' in capsys.readouterr().err


def same_views(a: View, b: View) -> bool:
    return all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name))
        for field in dataclasses.fields(View)
    )


@pytest.mark.slow
def test_shards_are_what_would_have_been_rendered(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two processes of Ray; whole shards are kept, lost ones come back the same."""
    pytest.importorskip('ray', reason='ray is not installed')
    folder = tmp_path / 'shards'
    try:
        write_shards(recipe, 'pose', folder, 2 * shards_module.PER_SHARD, processes=2)
    except PoseNodeError as error:
        pytest.skip(f'this machine is too busy for Ray: {error}')
    first, second = sorted((folder / 'pose').glob('*.npz'))
    # Ray's processes have all their backgrounds.
    monkeypatch.setattr(Backgrounds.__init__, '__defaults__', (None, 200))
    look, read = rendered(recipe, 'pose'), Shards(recipe, 'pose', folder)
    for number in (0, 100, 255, 256, 511):
        assert same_views(read(number), look(number))
    assert same_views(read(512 + 7), look(7))
    data, kept = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    shards_module.write_shard(look, folder / 'pose', 1)
    assert second.read_bytes() == data
    write_shards(recipe, 'pose', folder, 2 * shards_module.PER_SHARD, processes=2)
    assert first.stat().st_mtime_ns == kept


def test_a_training_reads_shards(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends where it would have ended; shards of another recipe are refused."""
    monkeypatch.setattr(shards_module, 'PER_SHARD', 6)
    folder = tmp_path / 'shards'
    with pytest.raises(PoseNodeError, match='has no shards'):
        Shards(recipe, 'pose', folder)
    write_shards(recipe, 'pose', folder, 0, processes=1)
    with pytest.raises(PoseNodeError, match='render the shards again'):
        Shards(recipe, 'pose', folder)
    for k in range(2):
        shards_module.write_shard(rendered(recipe, 'pose'), folder / 'pose', k)
    read = fit(recipe, 'pose', workers=0, threads=1, shards=folder)
    monkeypatch.setenv('POSE_NODE_CACHE', str(tmp_path / 'other'))
    made = fit(recipe, 'pose', workers=0, threads=1)
    assert read.step == made.step == 3
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, read.network.state_dict()[name])
    other = dataclasses.replace(recipe, seed=2)
    with pytest.raises(PoseNodeError, match='another recipe'):
        Shards(other, 'pose', folder)
