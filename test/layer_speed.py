"""How fast the probabilistic PnP layer is, beside its slow twin and beside a network.

    .venv/bin/python test/layer_speed.py [--threads 2]

Wall and processor seconds of forward and backward, the best of a few; on a busy machine the
processor's are nearer to the truth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from slow_pnp_layer import Problem, divergence, random_start
from torch import Tensor

from training.nets.dense import DenseUNet
from training.nets.epro import rotation
from training.nets.epro.cost import correspondences
from training.nets.pnp_layer import LayerDraws, LayerOptions, PnpLayer, target_poses
from training.nets.resnet import ResNet

BATCH, POINTS = 32, 512


def scene(batch: int, points: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """points_obj, points_px with an error of one pixel, weights, K, T_cam_obj."""
    torch.manual_seed(0)
    X = 0.1 * torch.rand(batch, points, 3) - 0.05
    q = torch.randn(batch, 4)
    T = torch.eye(4).repeat(batch, 1, 1)
    T[:, :3, :3] = rotation.to_matrix(q / q.norm(dim=1, keepdim=True))
    T[:, 2, 3] = 0.8
    K = torch.tensor([[600.0, 0.0, 63.5], [0.0, 600.0, 63.5], [0.0, 0.0, 1.0]])
    p = (X @ T[:, :3, :3].mT + T[:, None, :3, 3]) @ K.T
    px = p[..., :2] / p[..., 2:] + torch.randn(batch, points, 2)
    weights = torch.full((batch, points, 2), 0.3)
    return X.requires_grad_(), px, weights.requires_grad_(), K.expand(batch, 3, 3), T


def seconds(step: Callable[[], None], times: int) -> tuple[float, float]:
    """(wall, processor), the best of so many after one to warm up."""
    step()
    walls, busy = [], []
    for _ in range(times):
        wall, own = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        busy.append(time.process_time() - own)
    return min(walls), min(busy)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--times', type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    X, px, w, K, T = scene(BATCH, POINTS)
    layer = PnpLayer(LayerOptions())

    def fast() -> None:
        found = layer(X, px, w, K, T)
        (found.divergence + found.translation + found.rotation).backward()

    def slow() -> None:
        problem, seen = Problem(X, px, w, K), correspondences(X, px, w, K)
        draws = LayerDraws.new(seen, 1, layer.options)
        with torch.no_grad():
            start = random_start(problem, draws, layer.options, target_poses(T, X))
        divergence(problem, seen, start, T, draws, layer.options).mean().backward()

    network = DenseUNet(torch.tensor([[[-0.1] * 3, [0.1] * 3]]), encoder=ResNet(18)).train()
    pictures = torch.randn(BATCH, 3, 128, 128)
    surface = 0.05 * torch.randn(BATCH, 3, 32, 32)
    labels = torch.ones(BATCH, dtype=torch.bool), K, T[:, None], surface

    def whole() -> None:
        network.zero_grad(set_to_none=True)
        network.loss(network(pictures), labels).backward()

    def without() -> None:
        network.zero_grad(set_to_none=True)
        maps, log_scale, _ = network(pictures)
        (maps.mean() + log_scale.mean()).backward()

    rows = {
        f'the layer, batch {BATCH}, {POINTS} points, {layer.options.samples} samples': fast,
        'its slow twin': slow,
        'a training step: ResNet-18, 128 px, with the layer': whole,
        '... without it': without,
    }
    print(f'{"forward and backward":58s} {"wall, s":>9s} {"cpu, s":>9s}')
    taken = {}
    for name, step in rows.items():
        taken[name] = seconds(step, arguments.times)
        print(f'{name:58s} {taken[name][0]:9.3f} {taken[name][1]:9.3f}', flush=True)
    (fast_s, slow_s, whole_s, without_s) = taken.values()
    for i, kind in enumerate(('wall', 'cpu')):
        share = 1.0 - without_s[i] / whole_s[i]
        print(f'{kind}: {slow_s[i] / fast_s[i]:.1f} times as fast, {share:.0%} of a step')


if __name__ == '__main__':
    main()
