"""What is learned through the layer is the distribution that was shown, with all its modes."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from torch import Tensor

from pose_node.core.geometry import exp_so3, make_pose
from pose_node.core.symmetry import Symmetries
from training.nets.epro.amis import Draws, Samples, sample
from training.nets.epro.cost import Seen, correspondences, pose_cost
from training.nets.epro.solver import levenberg_marquardt
from training.nets.pnp_layer import LayerOptions, PnpLayer, target_poses

K = torch.tensor([[[600.0, 0.0, 63.5], [0.0, 600.0, 63.5], [0.0, 0.0, 1.0]]])
R0 = exp_so3(np.array([0.3, 0.5, -0.4]))
T0 = make_pose(R0, np.array([0.0, 0.0, 0.8]))
POINTS, BATCH = 16, 16


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads that wait for each other on a busy machine cost more than they give."""
    torch.set_num_threads(1)


class Free:
    """Points and weights that are parameters, at given pixels: a network of one picture."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.px = torch.from_numpy(rng.uniform(30.0, 98.0, (1, POINTS, 2))).float()
        start = rng.normal(size=(1, POINTS, 3)) * 0.03
        self.points_obj = torch.from_numpy(start).float().requires_grad_()
        self.logits = torch.zeros(1, POINTS, 2, requires_grad=True)
        self.log_scale = torch.full((1, 2), math.log(5.0), requires_grad=True)

    @property
    def weights(self) -> Tensor:
        return torch.softmax(self.logits, 1) * self.log_scale.exp()

    @property
    def seen(self) -> Seen:
        return correspondences(self.points_obj.detach(), self.px, self.weights.detach(), K)

    def learn(
        self, rng: np.random.Generator, targets: Tensor, steps: int, samples: int = 128
    ) -> None:
        """From targets (n, 4, 4) or (n, M, 4, 4), by the divergence alone."""
        layer = PnpLayer(LayerOptions(samples=samples, rounds=2, iterations=3))
        groups = [
            {'params': [self.points_obj], 'lr': 6e-3},
            {'params': [self.logits, self.log_scale], 'lr': 0.08},
        ]
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        torch.manual_seed(int(rng.integers(1 << 30)))
        for _ in range(steps):
            shown = targets[torch.randint(len(targets), (BATCH,))]
            many = [x.expand(BATCH, -1, -1) for x in (self.points_obj, self.px, self.weights, K)]
            loss = layer(*many, shown)
            optimiser.zero_grad()
            loss.divergence.backward()
            optimiser.step()
            for group in optimiser.param_groups:
                group['lr'] *= 0.05 ** (1.0 / steps)


def posterior(seen: Seen, centres: Tensor, count: int = 4096) -> tuple[Samples, np.ndarray]:
    """Samples from components at poses (M, 4, 4), and their weights."""
    poses, _ = levenberg_marquardt(seen, target_poses(centres[None], seen.points_obj), 20)
    samples = sample(seen, poses, Draws.new(4, count, seen.delta, centres.shape[0]))
    return samples, torch.softmax(samples.log_weights, 1)[0].numpy()


def turns(samples: Samples) -> np.ndarray:
    """Of each sample about the object's z axis, from the first mode, rad."""
    relative = R0.T @ samples.poses.R[0].numpy()
    return np.arctan2(relative[:, 1, 0] - relative[:, 0, 1], relative[:, 0, 0] + relative[:, 1, 1])


def about(rng: np.random.Generator, symmetries: Symmetries, modes: int) -> Tensor:
    """64 poses near T0, each with those that look the same (64, M, 4, 4)."""
    off = make_pose(exp_so3(0.03 * rng.normal(size=(64, 3))), 0.003 * rng.normal(size=(64, 3)))
    middle = make_pose(np.eye(3), T0[:3, 3])
    near = middle @ off @ np.linalg.inv(middle) @ T0
    every = symmetries.transforms()
    alike = torch.from_numpy(every[np.arange(modes) * len(every) // modes])
    return (torch.from_numpy(near)[:, None] @ alike).float()


def test_the_true_posterior_is_learned(rng) -> None:
    """A teacher's points and weights say how poses are spread; from poses drawn like that a
    student with other pixels comes near to the teacher.
    """
    student = Free(rng)
    X = torch.from_numpy(rng.normal(size=(1, POINTS, 3)) * 0.03).float()
    p = X @ torch.from_numpy(T0[:3, :3].T).float() + torch.from_numpy(T0[:3, 3]).float()
    px = (p @ K[0].T)[..., :2] / p[..., 2:]
    true = correspondences(X, px, torch.full((1, POINTS, 2), 0.7), K)
    samples, w = posterior(true, torch.from_numpy(T0)[None].float())
    drawn = rng.choice(len(w), 512, p=w / w.sum())
    R, t = samples.poses.R[0, drawn], samples.poses.t[0, drawn]
    targets = torch.from_numpy(make_pose(R.numpy(), t.numpy())).float()
    entropy = pose_cost(true, R[None], t[None])[0] + samples.log_normaliser

    def excess() -> float:
        seen = student.seen
        mine, _ = posterior(seen, torch.from_numpy(T0)[None].float())
        return float((pose_cost(seen, R[None], t[None])[0] + mine.log_normaliser - entropy).mean())

    student.learn(rng, targets, 30)
    early = excess()
    student.learn(rng, targets, 150)
    late = excess()
    print(f'divergence from the truth: {early:.2f}, then {late:.2f} nat')
    assert early > 1.5 and late < 0.8


def test_two_modes_of_a_symmetric_object_are_both_learned(rng) -> None:
    """Half a turn about z: the mass is at both modes, not in the middle between them."""
    half = Symmetries(np.diag((-1.0, -1.0, 1.0, 1.0))[None])
    free = Free(rng)
    targets = about(rng, half, 2)
    free.learn(rng, targets, 160)
    samples, w = posterior(free.seen, targets[0])
    off = np.abs(turns(samples))
    first, second = w[off < 0.6].sum(), w[off > math.pi - 0.6].sum()
    between = w[np.abs(off - math.pi / 2.0) < 0.6].sum()
    print(f'mass {first:.2f} and {second:.2f}, between {between:.2f}')
    assert min(first, second) > 0.2 and between < 0.1


def test_all_turns_of_a_rotational_object_are_learned(rng) -> None:
    """A continuous symmetry about z, taught by eight turns: no angle is preferred."""
    bop = {'symmetries_continuous': [{'axis': [0, 0, 1], 'offset': [0, 0, 0]}]}
    free = Free(rng)
    targets = about(rng, Symmetries.from_bop(bop, 1.0), 8)
    assert targets.shape[1] == 8
    free.learn(rng, targets, 160, samples=512)
    samples, w = posterior(free.seen, targets[0])
    # The length of the mean direction is one for a single mode and zero for even ones.
    lengths = [abs(np.sum(w * np.exp(1j * k * turns(samples)))) for k in (1, 2)]
    print('mean direction', np.round(lengths, 2))
    assert max(lengths) < 0.5
