"""The probabilistic PnP layer against mathematics, brute force and the numpy solver."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is not installed: run `make test`')

import torch
from slow_pnp_layer import Problem, divergence
from torch import Tensor

from pose_node.core.amis import AmisOptions, sample_poses
from pose_node.core.camera import Camera
from pose_node.core.geometry import angle_between, exp_so3, make_pose
from pose_node.core.pnp import refine_pose, solve_pnp
from training.nets.epro import rotation
from training.nets.epro.amis import Draws, sample
from training.nets.epro.cost import Seen, correspondences, pose_cost
from training.nets.epro.solver import (
    Poses,
    covariance,
    gauss_newton,
    levenberg_marquardt,
    normal_equations,
)
from training.nets.epro.start import StartOptions, best_start, random_starts
from training.nets.pnp_layer import LayerDraws, LayerOptions, PnpLayer, Status, subset

K = np.array([[600.0, 0.0, 63.5], [0.0, 600.0, 63.5], [0.0, 0.0, 1.0]])
SIZE = (128, 128)

pytestmark = pytest.mark.usefixtures('one_thread')


def scene(
    rng: np.random.Generator, batch: int = 4, points: int = 32, noise_px: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """points_obj, points_px, weights, K, T_cam_obj in float64: a 10 cm thing 0.8 m away."""
    X = rng.uniform(-0.05, 0.05, (batch, points, 3))
    R = exp_so3(rng.normal(size=(batch, 3)))
    t = np.array((0.0, 0.0, 0.8)) + rng.normal(size=(batch, 3)) * (0.02, 0.02, 0.1)
    p = X @ R.swapaxes(1, 2) + t[:, None]
    px = (p @ K.T)[..., :2] / p[..., 2:] + noise_px * rng.normal(size=(batch, points, 2))
    weights = rng.uniform(0.3, 1.5, (batch, points, 2))
    arrays = (X, px, weights, np.broadcast_to(K, (batch, 3, 3)), make_pose(R, t))
    return tuple(torch.from_numpy(np.array(x)) for x in arrays)  # type: ignore[return-value]


def poses_of(T: Tensor) -> Poses:
    return Poses(rotation.from_matrix(T[:, None, :3, :3]), T[:, None, :3, 3])


def generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(1 << 30)))


def test_cost_is_its_definition(rng) -> None:
    """Projected, weighted, Huber: one point after the other; with some poses behind the camera."""
    X, px, w, cameras, T = scene(rng, batch=2, points=9, noise_px=6.0)
    seen = correspondences(X, px, w, cameras, 0.1)
    q = torch.from_numpy(rng.normal(size=(2, 5, 4)))
    q = q / q.norm(dim=-1, keepdim=True)
    t = T[:, None, :3, 3].repeat(1, 5, 1) * torch.tensor((1.0, 1.2, 0.7, 1.0, 2.0))[:, None]
    got = pose_cost(seen, rotation.to_matrix(q), t)
    for b in range(2):
        delta = 0.1 * w[b].mean() * px[b].var(0, correction=0).sum().sqrt()
        for s in range(5):
            p = X[b] @ rotation.to_matrix(q[b, s]).T + t[b, s]
            r = w[b] * ((p[:, :2] / p[:, 2:]) * 600.0 + 63.5 - px[b])
            norm = r.norm(dim=1)
            huber = torch.where(norm < delta, norm**2 / 2, delta * (norm - delta / 2))
            assert got[b, s].item() == pytest.approx(huber.sum().item(), rel=1e-10)


def test_the_mirror_image_behind_the_camera_is_no_optimum(rng) -> None:
    """Every point at -p projects where p does; it costs more the farther behind it is."""
    X, px, w, cameras, T = scene(rng, batch=1, noise_px=0.0)
    seen = correspondences(-X, px, w, cameras)
    R, t = T[:, None, :3, :3], T[:, None, :3, 3]
    right, mirror = pose_cost(correspondences(X, px, w, cameras), R, t), pose_cost(seen, R, -t)
    farther = pose_cost(seen, R, -1.2 * t)
    assert right < 1e-9 and mirror > 1e3 and farther > mirror


def test_cost_gradient_is_numeric(rng) -> None:
    """gradcheck in float64, inliers, outliers and a pose behind the camera among them."""
    X, px, w, cameras, T = scene(rng, batch=1, points=4, noise_px=8.0)
    R = T[:, None, :3, :3].repeat(1, 3, 1, 1)
    t = T[:, None, :3, 3] * torch.tensor((1.0, 1.1, -0.2), dtype=torch.float64)[:, None]

    def cost(X: Tensor, px: Tensor, w: Tensor) -> Tensor:
        return pose_cost(correspondences(X, px, w, cameras, 0.3), R, t)

    inputs = [x.clone().requires_grad_() for x in (X, px, w)]
    assert torch.autograd.gradcheck(cost, inputs)


def test_loss_gradient_is_numeric(rng) -> None:
    """The divergence with frozen samples, and the derivative regularisation, by every input."""
    X, px, w, cameras, T = scene(rng, batch=1, points=5, noise_px=2.0)
    options = LayerOptions(samples=32, rounds=2, iterations=20)
    seen = correspondences(X, px, w, cameras)
    draws = LayerDraws.new(seen, 1, options, generator(rng))
    optimum, _ = levenberg_marquardt(seen, poses_of(T), 20)
    samples = sample(seen, optimum, draws.amis)
    log_mixture = -samples.log_weights - pose_cost(seen, samples.poses.R, samples.poses.t)

    def divergence(X: Tensor, px: Tensor, w: Tensor) -> Tensor:
        moved = correspondences(X, px, w, cameras)
        costs = pose_cost(moved, samples.poses.R, samples.poses.t)
        normaliser = torch.logsumexp(-costs - log_mixture, dim=1)
        return normaliser + pose_cost(moved, T[:, None, :3, :3], T[:, None, :3, 3])[:, 0]

    inputs = [x.clone().requires_grad_() for x in (X, px, w)]
    assert torch.autograd.gradcheck(divergence, inputs)
    # The layer's own gradient is that of these samples.
    layer = PnpLayer(options)
    gradients = torch.autograd.grad(divergence(*inputs).mean(), inputs)
    loss = layer(*inputs, cameras, T, draws=draws)
    for mine, wanted in zip(torch.autograd.grad(loss.divergence, inputs), gradients, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-2, atol=1e-3 * float(wanted.abs().max()))
    loss = layer(*inputs, cameras, T, draws=draws)
    for gradient in torch.autograd.grad(loss.translation + loss.rotation, inputs):
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_optimum_and_covariance_are_the_numpy_solvers(rng) -> None:
    """Least squares without a kernel: pose to 1e-8, covariance to 1e-8 of itself."""
    X, px, w, cameras, T = scene(rng, batch=8, noise_px=0.8)
    seen = correspondences(X, px, w, cameras, None)
    found, _ = levenberg_marquardt(seen, poses_of(T), 30)
    newton = gauss_newton(seen, poses_of(T), 12)
    sigma = covariance(normal_equations(seen, found)[0])[:, 0].numpy()
    for b in range(8):
        covariances = np.stack([np.diag(1.0 / np.square(row)) for row in w[b].numpy()])
        args = (X[b].numpy(), px[b].numpy(), covariances, Camera(K, SIZE))
        theirs = refine_pose(*args, solve_pnp(*args).T_cam_obj)
        for _ in range(3):
            theirs = refine_pose(*args, theirs.T_cam_obj)
        if not theirs.inliers.all():
            continue
        for mine in (found, newton):
            assert np.abs(mine.t[b, 0].numpy() - theirs.T_cam_obj[:3, 3]).max() < 1e-8
            assert angle_between(mine.R[b, 0].numpy(), theirs.T_cam_obj[:3, :3]) < 1e-8
        spread = np.sqrt(np.diag(theirs.covariance))
        unit = spread[:, None] * spread
        assert np.abs(sigma[b] / unit - theirs.covariance / unit).max() < 1e-6


def test_start_finds_poses_it_was_told_nothing_of(rng) -> None:
    """From random samples alone nearly all of 64 scenes come within a degree of the truth."""
    X, px, w, cameras, T = scene(rng, batch=64, points=128, noise_px=0.5)
    options = StartOptions(proposals=16, iterations=6)
    seen = correspondences(X, px, w, cameras)
    g = generator(rng)
    order = torch.rand(64, 16, 128, generator=g, dtype=X.dtype)
    turns = torch.randn(64, 16, 4, generator=g, dtype=X.dtype)
    start = best_start(seen, random_starts(seen, order, turns, options))
    found, _ = levenberg_marquardt(seen, start, 5)
    off = angle_between(found.R[:, 0].numpy(), T[:, :3, :3].numpy())
    assert (off < math.radians(1.5)).mean() > 0.9


def brute_force(seen: Seen, optimum: Poses, nodes: int = 11, reach: float = 4.5) -> float:
    """log Z of one object by the rectangle rule, in steps of 0.9 sigma about the optimum: on what
    is nearly Gaussian that is exact to 1e-6.
    """
    sigma = covariance(normal_equations(seen, optimum)[0])[0, 0]
    L = torch.linalg.cholesky(sigma)
    axis = torch.linspace(-reach, reach, nodes, dtype=L.dtype)
    dof = L.shape[0]
    grid = torch.cartesian_prod(*[axis] * dof)
    step = grid @ L.T
    turn = step[:, 3:]
    if optimum.up is not None:
        density = torch.full((len(step),), 1.0 / (2.0 * math.pi), dtype=L.dtype)
    else:
        angle = turn.norm(dim=1).clamp(min=1e-12)
        density = 2.0 * (1.0 - angle.cos()) / angle**2 / (8.0 * math.pi**2)
    total = []
    for part, weight in zip(step.split(1 << 17), density.split(1 << 17), strict=True):
        poses = optimum.moved(part[None])
        total.append(-pose_cost(seen, poses.R, poses.t)[0] + weight.log())
    volume = L.diagonal().log().sum() + dof * math.log(float(axis[1] - axis[0]))
    return float(torch.logsumexp(torch.cat(total), 0) + volume)


@pytest.mark.parametrize('about_an_axis', [True, False])
def test_log_normaliser_is_the_integral(rng, about_an_axis: bool) -> None:
    """A proposal that is fitted to samples is high where they are, so they weigh too little: with
    512 samples Z is a few percent low, with 4096 it is not.
    """
    X, px, w, cameras, T = scene(rng, batch=1, points=12, noise_px=1.0)
    seen = correspondences(X, px, w, cameras, None)
    up = torch.tensor([[0.0, -0.8, -0.6]], dtype=X.dtype) if about_an_axis else None
    start = poses_of(T)
    optimum, _ = levenberg_marquardt(seen, Poses(start.q, start.t, up), 30)
    wanted = brute_force(seen, optimum)
    for count, calls, bias in ((512, 64, 0.08), (4096, 16, 0.015)):
        many = Seen(*(x.repeat(calls, *(1,) * (x.dim() - 1)) for x in vars(seen).values()))
        axes = None if up is None else up.repeat(calls, 1)
        optima = Poses(optimum.q.repeat(calls, 1, 1), optimum.t.repeat(calls, 1, 1), axes)
        draws = Draws.new(4, count, many.delta, about=about_an_axis, generator=generator(rng))
        samples = sample(many, optima, draws)
        off = samples.log_normaliser - wanted
        effective = float(samples.effective.mean())
        print(f'{count}: bias {off.mean():+.4f}, spread {off.std():.4f} nat, ESS {effective:.0f}')
        assert abs(float(off.mean())) < bias and float(off.std()) < 0.15
        assert effective > 0.2 * count


def test_what_stands_turns_about_its_axis_alone(rng) -> None:
    """Optimum and samples keep the axis; four steps' covariance is the six's, given that the other
    two turns are none; gradients are finite. Nobody tells the start the angle.
    """
    X, px, w, cameras, T = scene(rng, points=24, noise_px=0.3)
    up_cam = torch.tensor([[0.0, -0.8, -0.6]], dtype=X.dtype).repeat(len(X), 1)
    inputs = [x.clone().requires_grad_() for x in (X, px, w)]
    layer = PnpLayer(LayerOptions(relative_delta=None, iterations=20))
    loss = layer(*inputs, cameras, T, up_cam=3.0 * up_cam)
    assert loss.used.all() and loss.covariance.shape == (len(X), 4, 4)
    for poses in (loss.poses, loss.samples.poses):
        turned = poses.R @ T[:, None, :3, :3].mT @ up_cam[:, None, :, None]
        expected = up_cam[:, None, :, None].expand_as(turned)
        torch.testing.assert_close(turned, expected, rtol=0.0, atol=1e-9)
    seen = correspondences(X, px, w, cameras, None)
    free = normal_equations(seen, Poses(loss.poses.q, loss.poses.t))[0][:, 0]
    basis = torch.zeros(len(X), 6, 4, dtype=X.dtype)
    basis[:, :3, :3], basis[:, 3:, 3] = torch.eye(3, dtype=X.dtype), up_cam
    wanted = torch.linalg.inv(basis.mT @ free @ basis)
    torch.testing.assert_close(loss.covariance, wanted, rtol=1e-6, atol=0.0)
    for gradient in torch.autograd.grad(loss.total, inputs):
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize(
    'harm', ['three points', 'no weights', 'nan', 'behind', 'planar', 'line', 'one place', 'huge']
)
def test_bad_input_is_counted_and_harms_nothing_else(rng, harm: str) -> None:
    """One object of two is spoiled: finite gradients, the other one's loss as if it were alone."""
    X, px, w, cameras, T = (x.float() for x in scene(rng, batch=2, points=16))
    T = T.clone()
    wanted = Status.OK
    if harm in ('three points', 'no weights'):
        w[1, 3 if harm == 'three points' else 0 :] = 0.0
        wanted = Status.TOO_FEW_POINTS
    elif harm == 'nan':
        px[1, :13], X[1, 13], w[1, 14] = torch.nan, torch.inf, -1.0
        wanted = Status.TOO_FEW_POINTS
    elif harm == 'behind':
        T[1, 2, 3] *= -1.0
    elif harm == 'planar':
        X[1, :, 2] = 0.0
    elif harm == 'line':
        X[1, :, 1:] = 0.0
        wanted = Status.DEGENERATE
    elif harm == 'one place':
        X[1] = 0.01
        wanted = Status.DEGENERATE
    elif harm == 'huge':
        w[1] = 1e30
    inputs = [x.requires_grad_() for x in (X, px, w)]
    layer = PnpLayer(LayerOptions(samples=64))
    loss = layer(*inputs, cameras, T)
    assert loss.status.tolist() == [Status.OK, wanted]
    assert layer.by_status.sum() == 2 and layer.by_status[wanted] >= 1
    total = loss.divergence + loss.translation + loss.rotation
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, inputs):
        assert gradient.isfinite().all() and gradient[0].abs().sum() > 0.0
        if wanted is Status.TOO_FEW_POINTS:
            assert not gradient[1].any()
    if wanted is Status.TOO_FEW_POINTS:
        assert float(loss.divergence.detach()) == pytest.approx(
            float(-loss.log_posterior[0]), rel=1e-5
        )


def test_half_precision_in_gives_float32_inside(rng) -> None:
    """bf16 maps under autocast: the loss of the same numbers in float32."""
    X, px, w, cameras, T = (x.float() for x in scene(rng, batch=3))
    X, w = X.bfloat16(), w.bfloat16()
    options = LayerOptions(samples=64)
    draws = LayerDraws.new(correspondences(X, px, w, cameras), 1, options, generator(rng))
    with torch.autocast('cpu', torch.bfloat16):
        half = PnpLayer(options)(X, px, w, cameras, T, draws=draws)
    full = PnpLayer(options)(X.float(), px, w.float(), cameras, T, draws=draws)
    assert half.divergence.dtype == torch.float32
    torch.testing.assert_close(half.divergence, full.divergence)


def test_a_subset_of_the_points_means_the_same(rng) -> None:
    """The mean cost over random subsets is that of all points."""
    X, px, w, cameras, T = scene(rng, batch=1, points=64, noise_px=3.0)
    R, t = T[:, None, :3, :3], T[:, None, :3, 3]
    whole = pose_cost(correspondences(X, px, w, cameras, None), R, t)
    torch.manual_seed(0)
    many = [x.expand(400, -1, -1) for x in (X, px, w)]
    few = subset(16, *many[:2], weights=many[2])
    seen = correspondences(*few, cameras.expand(400, 3, 3), None)
    costs = pose_cost(seen, R.expand(400, 1, 3, 3), t.expand(400, 1, 3))
    assert few[0].shape == (400, 16, 3)
    assert float(costs.mean()) == pytest.approx(float(whole), rel=0.1)


def test_the_mean_scale_follows_and_divides(rng) -> None:
    """Begun at the first scale, then a hundredth of the way each time."""
    X, px, w, cameras, T = (x.float() for x in scene(rng, batch=2))
    layer = PnpLayer(LayerOptions(samples=32))
    draws = LayerDraws.new(correspondences(X, px, w, cameras), 1, layer.options)
    first = layer(X, px, w, cameras, T, torch.full((2, 2), 4.0), draws=draws).divergence
    assert float(layer.mean_scale) == 4.0
    layer(X, px, w, cameras, T, torch.full((2, 2), 104.0), draws=draws)
    assert float(layer.mean_scale) == pytest.approx(5.0)
    layer.eval()
    again = layer(X, px, w, cameras, T, torch.full((2, 2), 9.0), draws=draws).divergence
    assert float(layer.mean_scale) == pytest.approx(5.0)
    assert float(again) == pytest.approx(float(first) * 4.0 / 5.0, rel=1e-5)


def test_quaternions_are_rotations(rng) -> None:
    """There and back, products, and turns near zero and near pi."""
    vectors = rng.normal(size=(50, 3))
    vectors[:10] *= 1e-7
    vectors[10:20] *= (math.pi - 1e-6) / np.linalg.norm(vectors[10:20], axis=1, keepdims=True)
    q = rotation.from_vector(torch.from_numpy(vectors))
    R = rotation.to_matrix(q).numpy()
    np.testing.assert_allclose(R, exp_so3(vectors), atol=1e-12)
    back = rotation.from_matrix(torch.from_numpy(R))
    assert ((back * q).sum(-1).abs() > 1.0 - 1e-12).all()
    for a, b in pairwise(range(50)):
        product = rotation.to_matrix(rotation.multiply(q[a], q[b])).numpy()
        np.testing.assert_allclose(product, R[a] @ R[b], atol=1e-12)
    step = torch.from_numpy(1e-6 * rng.normal(size=(50, 3)))
    moved = rotation.multiply(rotation.from_vector(step), q) - q
    wanted = 0.5 * (rotation.tangent(q) @ step[..., None])[..., 0]
    torch.testing.assert_close(moved, wanted, atol=1e-11, rtol=0)


def test_the_slow_twin_says_the_same(rng) -> None:
    """The published structure under the same draws: loss and gradients in float64."""
    X, px, w, cameras, T = scene(rng, batch=2, points=12, noise_px=2.0)
    inputs = [x.clone().requires_grad_() for x in (X, px, w)]
    options = LayerOptions(samples=64, iterations=12)
    seen = correspondences(*inputs, cameras)
    draws = LayerDraws.new(seen, 1, options, generator(rng))
    mine = PnpLayer(options)(*inputs, cameras, T, draws=draws).divergence
    problem = Problem(*inputs, cameras)
    theirs = divergence(problem, seen, poses_of(T), T, draws, options).mean()
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-5)
    for got, wanted in zip(
        torch.autograd.grad(mine, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_the_run_times_sampler_says_the_same(rng) -> None:
    """pose_node/core/amis.py, on the same likelihood: log Z as the layer has it."""
    X, px, w, cameras, T = scene(rng, batch=1, points=16)
    seen = correspondences(X, px, w, cameras, None)
    optimum, _ = levenberg_marquardt(seen, poses_of(T), 20)
    samples = sample(seen, optimum, Draws.new(4, 8192, X, generator=generator(rng)))
    pose = make_pose(optimum.R[0, 0].numpy(), optimum.t[0, 0].numpy())
    covariances = np.stack([np.diag(1.0 / np.square(row)) for row in w[0].numpy()])
    cloud = sample_poses(
        X[0].numpy(), px[0].numpy(), covariances, Camera(K, SIZE), [pose], rng,
        options=AmisOptions(samples=8192, kernel_sigmas=1e3),
    )  # fmt: skip
    assert cloud is not None
    assert cloud.log_normaliser == pytest.approx(float(samples.log_normaliser), abs=0.05)
    assert cloud.effective > 0.8 * float(samples.effective)
