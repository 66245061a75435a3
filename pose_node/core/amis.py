"""A pose's distribution as weighted samples: adaptive multiple importance sampling in NumPy.

The twin at run time of training/nets/epro (Chen et al., "EPro-PnP", CVPR 2022; Cornuet et al.,
"Adaptive multiple importance sampling", 2012): an angular central Gaussian for the orientation and
a Student-t for the position, one pair about each known optimum, fitted anew in every round. Here
the position's mean goes with the orientation, as the information at the optimum says: an object
that turns about its middle moves its origin, and samples that do not know that are in vain. What
it adds to a covariance is what a covariance cannot say: two answers, or tails.

The likelihood is exp(-cost) with cost = sum huber(sigmas, kernel_sigmas) / covariance_scale: of
keypoints with covariances, or of dense correspondences as core/dense.py gives them. Where
`freedom` is finite no picture tells its scale exactly: with a Gamma distribution of that many
degrees of freedom for the scale's inverse, a pose of six becomes Student's t about the least cost,
(1 + 2 (cost - least) / freedom) ** -((freedom + 6) / 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .geometry import log_so3, make_pose
from .refine import Problem, linearise

if TYPE_CHECKING:
    from .camera import Camera

_FREEDOM = 3.0  # of the Student-t
_DISPERSION = 1e-3  # how much of a ball the angular Gaussian always has
_PRIOR_SAMPLES = 4.0  # effective samples that the first proposal is worth in a fit
_TYLER_STEPS = 3
_WORST = 1e6  # sigmas of a point that is not in front of the camera
_NEAREST_M = 1e-6
# Residuals computed together: they stay in the cache, and products are too small for BLAS to share
# them out to threads, which on a busy machine costs more than it gains.
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class AmisOptions:
    """How many samples, and how they come about."""

    samples: int = 512
    rounds: int = 4
    kernel_sigmas: float = 2.5  # beyond, a residual counts as an outlier's (Huber)
    freedom: float = math.inf  # of the covariance's scale; infinite where that is known
    least_share: float = 0.1  # of the mass that makes a hypothesis


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One of the answers."""

    T_cam_obj: np.ndarray  # (4, 4), the mean of its samples
    covariance: np.ndarray  # (6, 6) as PoseEstimate's
    share: float  # of the mass, 0..1


@dataclass(frozen=True, eq=False)
class PoseCloud:
    """Weighted poses."""

    T_cam_obj: np.ndarray  # (S, 4, 4)
    weights: np.ndarray  # (S,), of sum one
    costs: np.ndarray  # (S,)
    log_normaliser: float  # log of the integral of the likelihood over m³ and all orientations
    hypotheses: tuple[Hypothesis, ...]  # the likelier first

    @property
    def effective(self) -> float:
        """How many equally weighted samples they are worth."""
        return float(1.0 / np.sum(self.weights**2))

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, 4, 4) poses of equal weight."""
        return self.T_cam_obj[rng.choice(len(self.weights), count, p=self.weights)]


def sample_poses(
    points_obj: np.ndarray,
    points_px: np.ndarray,
    covariances_px: np.ndarray,
    camera: Camera,
    optima: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    covariance_scale: float = 1.0,
    options: AmisOptions | None = None,
) -> PoseCloud | None:
    """The cloud about `optima`, poses (4, 4) that a solver has found; None where no point can be
    used or the likelihood is no number there.
    """
    options = options or AmisOptions()
    problem = _problem(points_obj, points_px, covariances_px, camera)
    if len(problem) == 0 or not len(optima):
        return None
    forms = _forms(problem)
    centres = np.stack([np.asarray(T, dtype=np.float64) for T in optima])
    first = [_laplace(problem, T, covariance_scale, options.kernel_sigmas) for T in centres]
    each = max(1, options.samples // (options.rounds * len(centres)))
    proposals, current = [], first
    t, q = np.zeros((0, 3)), np.zeros((0, 4))
    costs = np.zeros(0)
    for _ in range(options.rounds):
        new_t, new_q = (np.concatenate(x) for x in zip(*(c.draw(each, rng) for c in current)))
        t, q = np.concatenate((t, new_t)), np.concatenate((q, new_q))
        new_costs = _costs(forms, new_t, new_q, options.kernel_sigmas) / covariance_scale
        costs = np.append(costs, new_costs)
        proposals += current
        log_densities = np.stack([p.log_density(t, q) for p in proposals])
        log_weights = log_likelihood(costs, options.freedom) - _log_mean(log_densities)
        top = log_weights.max()
        if not np.isfinite(top):
            return None
        weights = np.exp(log_weights - top)
        log_normaliser = float(top + np.log(weights.mean()))
        weights /= weights.sum()
        answers = log_densities[-len(current) :]
        answers = np.exp(answers - np.logaddexp.reduce(answers, axis=0))
        current = [
            _fitted(c, f, t, q, weights * answer) for c, f, answer in zip(current, first, answers)
        ]
    hypotheses = _hypotheses(t, q, weights, centres, options.least_share)
    return PoseCloud(make_pose(_matrices(q), t), weights, costs, log_normaliser, hypotheses)


def log_likelihood(costs: np.ndarray, freedom: float) -> np.ndarray:
    """(.., S) of poses with these costs, the middle's among them."""
    if math.isinf(freedom):
        return -costs
    least = costs.min(axis=-1, keepdims=True)
    return -least - 0.5 * (freedom + 6.0) * np.log1p(2.0 * (costs - least) / freedom)


def pose_costs(
    points_obj: np.ndarray,
    points_px: np.ndarray,
    covariances_px: np.ndarray,
    camera: Camera,
    T_cam_obj: np.ndarray,
    *,
    covariance_scale: float = 1.0,
    kernel_sigmas: float = AmisOptions.kernel_sigmas,
) -> np.ndarray:
    """(S,) costs of poses (S, 4, 4), as PoseCloud has those of its own."""
    forms = _forms(_problem(points_obj, points_px, covariances_px, camera))
    rows = T_cam_obj[:, :3].reshape(-1, 12)
    return _costs_of_rows(forms, rows, kernel_sigmas) / covariance_scale


@dataclass(frozen=True, eq=False)
class _Proposal:
    """An angular central Gaussian for the orientation and, given that, a Student-t."""

    mean: np.ndarray  # of the position at the orientation `about`
    scale: np.ndarray  # (3, 3)
    turns: np.ndarray  # (4, 4)
    about: np.ndarray  # (4,) quaternion
    lever: np.ndarray  # (3, 3), what the position goes with a turn away from it, m / rad

    @cached_property
    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower Cholesky factors of scale and turns."""
        return np.linalg.cholesky(self.scale), np.linalg.cholesky(self.turns)

    @cached_property
    def whitening(self) -> tuple[np.ndarray, np.ndarray, float]:
        """The factors' inverses, and the logarithm of the factors' determinants."""
        place, turn = self.factors
        sizes = np.log(place.diagonal()).sum() + np.log(turn.diagonal()).sum()
        return np.linalg.inv(place), np.linalg.inv(turn), float(sizes)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        place, turn = self.factors
        width = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (count, 1)))
        t = self.mean + width * rng.standard_normal((count, 3)) @ place.T
        q = rng.standard_normal((count, 4)) @ turn.T
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        return t + self.carried(q), q

    def carried(self, q: np.ndarray) -> np.ndarray:
        """(S, 3), by how much the orientations move the position: nearly linear in a small turn,
        and nowhere large.
        """
        sides = np.where(q @ self.about < 0.0, -2.0, 2.0)
        return sides[:, None] * (q @ (_tangent(self.about) @ self.lever.T))

    def log_density(self, t: np.ndarray, q: np.ndarray) -> np.ndarray:
        """(S,), over orientations of mass one."""
        place, turn, sizes = self.whitening
        half = 0.5 * (_FREEDOM + 3.0)
        norm = math.lgamma(half) - math.lgamma(0.5 * _FREEDOM) - 1.5 * math.log(_FREEDOM * math.pi)
        off = t - self.mean - self.carried(q)
        position = norm - half * np.log1p(_squares(off @ place.T) / _FREEDOM)
        return position - 2.0 * np.log(_squares(q @ turn.T)) - sizes


def _problem(
    points_obj: np.ndarray, points_px: np.ndarray, covariances_px: np.ndarray, camera: Camera
) -> Problem:
    """In normalised coordinates, where every covariance is a unit; only what is usable."""
    xy, J = camera.unproject_with_jacobian(points_px)
    covariances = J @ covariances_px @ np.swapaxes(J, 1, 2)
    usable = np.isfinite(points_obj).all(axis=1) & np.isfinite(covariances).all(axis=(1, 2))
    usable[usable] = np.linalg.eigvalsh(covariances[usable])[:, 0] > 0.0
    whitening = np.linalg.inv(np.linalg.cholesky(covariances[usable]))
    return Problem(
        np.ascontiguousarray(points_obj[usable].T, dtype=np.float64),
        xy[usable].T,
        whitening.transpose(1, 2, 0),
    )


def _forms(problem: Problem) -> np.ndarray:
    """(3, 12, N): what a pose, its three rows [R | t] one after the other, is multiplied by to be
    the whitened residuals in x and y, times the depth, and the depth.
    """
    points = np.concatenate((problem.points_obj, np.ones((1, len(problem)))))
    columns, seen = problem.columns, problem.whitened_xy
    forms = np.zeros((3, 3, 4, len(problem)))
    forms[:2, :2] = columns.swapaxes(0, 1)[:, :, None] * points
    forms[:2, 2] = -seen[:, None] * points
    forms[2, 2] = points
    return forms.reshape(3, 12, -1)


def _costs(forms: np.ndarray, t: np.ndarray, q: np.ndarray, kernel: float) -> np.ndarray:
    """(S,)."""
    rows = np.concatenate((_matrices(q), t[:, :, None]), axis=2).reshape(-1, 12)
    return _costs_of_rows(forms, rows, kernel)


def _costs_of_rows(forms: np.ndarray, rows: np.ndarray, kernel: float) -> np.ndarray:
    step = max(1, _AT_ONCE // forms.shape[-1])
    parts = [rows[i : i + step] for i in range(0, len(rows), step)]
    return np.concatenate([_costs_of(forms, part, kernel) for part in parts])


def _costs_of(forms: np.ndarray, rows: np.ndarray, kernel: float) -> np.ndarray:
    x, y, z = (rows @ form for form in forms)
    hidden = z <= _NEAREST_M
    x *= x
    y *= y
    x += y
    s = np.sqrt(x, out=x)
    s /= np.maximum(z, _NEAREST_M, out=z)
    s[hidden] = _WORST
    np.minimum(s, _WORST, out=s)
    most = np.minimum(s, kernel, out=y)
    s -= 0.5 * most
    return np.einsum('sn,sn->s', most, s)


def _laplace(problem: Problem, T: np.ndarray, scale: float, kernel: float) -> _Proposal:
    """As wide as the information at T says."""
    squared, system = linearise(problem, T[:3, :3], T[:3, 3])
    J = system[:6]
    slope = np.minimum(1.0, kernel / np.sqrt(np.maximum(squared, 1e-30)))
    normal = (J * slope).reshape(6, -1) @ J.reshape(6, -1).T / scale
    unit = 1.0 / np.sqrt(np.maximum(normal.diagonal(), 1e-12))
    scaled = normal * unit[:, None] * unit + 1e-9 * np.eye(6)
    sigma = np.linalg.inv(scaled) * unit[:, None] * unit
    # Given the orientation: an object whose origin is far from its points swings with a turn.
    held = np.linalg.inv(scaled[:3, :3]) * unit[:3, None]
    lever = -held @ scaled[:3, 3:] / unit[3:]
    q = _quaternions(T[None, :3, :3])[0]
    E = _tangent(q)
    inner = sigma[3:, 3:] @ np.linalg.inv(np.eye(3) + sigma[3:, 3:])
    turns = _ball(np.outer(q, q) + E @ inner @ E.T)
    return _Proposal(T[:3, 3], _rounded(held * unit[:3]), turns, q, lever)


def _fitted(
    current: _Proposal, first: _Proposal, t: np.ndarray, q: np.ndarray, w: np.ndarray
) -> _Proposal:
    """To samples of weights (S,); few effective ones are drawn towards the first proposal."""
    total = w.sum()
    if not total > 1e-12:
        return current
    w = w / total
    effective = 1.0 / np.sum(w**2)
    share = effective / (effective + _PRIOR_SAMPLES)
    t = t - current.carried(q)
    mean = share * (w @ t) + (1.0 - share) * current.mean
    off = t - mean
    scale = share * (off * w[:, None]).T @ off + (1.0 - share) * first.scale
    turns = np.eye(4) / 4.0
    prior = first.turns / np.trace(first.turns)
    for _ in range(_TYLER_STEPS):
        u = w / _squares(q @ np.linalg.inv(np.linalg.cholesky(turns)).T)
        matrix = (q * u[:, None]).T @ q
        turns = _ball(share * matrix / np.trace(matrix) + (1.0 - share) * prior)
    return replace(current, mean=mean, scale=_rounded(scale), turns=turns)


def _rounded(matrix: np.ndarray) -> np.ndarray:
    """Symmetric, and of no direction that is known for certain."""
    matrix = 0.5 * (matrix + matrix.T)
    return matrix + (1e-12 + 1e-9 * np.trace(matrix)) * np.eye(len(matrix))


def _ball(matrix: np.ndarray) -> np.ndarray:
    """Of trace one, with a little of a ball."""
    matrix = 0.5 * (matrix + matrix.T) / np.trace(matrix)
    size = max(np.linalg.det(matrix), 0.0) ** 0.25
    return matrix + (_DISPERSION * size + 1e-10) * np.eye(4)


def _log_mean(values: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(values, axis=0) - math.log(len(values))


def _hypotheses(
    t: np.ndarray, q: np.ndarray, weights: np.ndarray, centres: np.ndarray, least_share: float
) -> tuple[Hypothesis, ...]:
    """Samples fall to the optimum that they are turned least against."""
    nearest = np.abs(q @ _quaternions(centres[:, :3, :3]).T).argmax(axis=1)
    found = []
    for k in range(len(centres)):
        own = nearest == k
        share = float(weights[own].sum())
        if share < least_share:
            continue
        w, places, turns = weights[own] / share, t[own], q[own]
        place = w @ places
        # The mean of rotations: Markley et al., "Averaging quaternions", 2007.
        mean = np.linalg.eigh((turns * w[:, None]).T @ turns)[1][:, -1]
        R = _matrices(mean[None])[0]
        off = np.hstack((places - place, log_so3(_matrices(turns) @ R.T)))
        found.append(Hypothesis(make_pose(R, place), (off * w[:, None]).T @ off, share))
    return tuple(sorted(found, key=lambda each: -each.share))


def _squares(rows: np.ndarray) -> np.ndarray:
    """(S, n) -> (S,), the squared lengths."""
    return np.einsum('si,si->s', rows, rows)


def _quaternions(R: np.ndarray) -> np.ndarray:
    """(S, 3, 3) -> (S, 4), x y z w."""
    vectors = log_so3(R)
    half = 0.5 * np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.concatenate((0.5 * vectors * np.sinc(half / np.pi), np.cos(half)), axis=-1)


def _tangent(q: np.ndarray) -> np.ndarray:
    """(4, 3), by which a small turn moves the quaternion, twice."""
    x, y, z, w = q
    return np.array(((w, z, -y), (-z, w, x), (y, -x, w), (-x, -y, -z)))


def _matrices(q: np.ndarray) -> np.ndarray:
    """(S, 4) -> (S, 3, 3)."""
    x, y, z, w = q.T
    rows = (
        *(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)),
        *(2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)),
        *(2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)),
    )
    return np.stack(rows, axis=-1).reshape(-1, 3, 3)


__all__ = [
    'AmisOptions',
    'Hypothesis',
    'PoseCloud',
    'log_likelihood',
    'pose_costs',
    'sample_poses',
]
