"""How sampled poses must spread for their densest regions to hold the truth as often as they say.

Of every held-out view the share of the posterior's mass that is denser than the truth is drawn: of
an honest posterior that share is uniform over views. Scale and freedom of the posterior
(core/amis.py) are those that bring it nearest to that, by Cramér and von Mises above two fifths:
nobody asks for the densest 20 % of the mass, and to match the views whose posteriors are far too
wide would make all others too narrow. Samples are drawn once, of a wide posterior, and weighted
anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize

from pose_node.core.amis import AmisOptions, log_likelihood, pose_costs, sample_poses
from pose_node.core.pose_spec import PosteriorSpec

from ..synth.dataset import View
from ..synth.things import Thing
from .judges import Verdict

_DRAWN_FREEDOM = 4.0  # wide enough for what may be asked
_SCALES = np.geomspace(0.05, 8.0, 14)
_FREEDOMS = np.array((1.5, 2.0, 3.0, 5.0, 8.0, 15.0, 50.0))
_JUDGED_ABOVE = 0.4
_LEAST_VIEWS = 50
LARGEST_FREEDOM = 100.0  # all but a Gaussian


@dataclass
class Posteriors:
    """Of one object's views."""

    costs: list[np.ndarray] = field(default_factory=list)  # (S,) of the samples
    log_unweighted: list[np.ndarray] = field(default_factory=list)  # (S,) of one over the density
    truths: list[float] = field(default_factory=list)  # cost of the truth

    def add(self, view: View, thing: Thing, verdict: Verdict) -> None:
        """One view, if there is a pose in it and a likelihood that can be sampled."""
        given = verdict.likelihood
        if given is None or not view.present:
            return
        rng = np.random.default_rng(len(self.truths))
        shared = given.points_obj, given.points_px, given.covariances_px, verdict.camera
        scale, kernel = given.covariance_scale, given.kernel_sigmas
        options = AmisOptions(kernel_sigmas=kernel, freedom=_DRAWN_FREEDOM)
        try:
            cloud = sample_poses(
                *shared, given.optima, rng, covariance_scale=scale, options=options
            )
        except np.linalg.LinAlgError:
            return
        if cloud is None:
            return
        truths = view.T_cam_obj @ thing.symmetries.transforms()
        costs = pose_costs(*shared, truths, covariance_scale=scale, kernel_sigmas=kernel)
        with np.errstate(divide='ignore'):  # samples of no weight have none by any posterior
            log_weights = np.log(cloud.weights)
        self.costs.append(cloud.costs)
        self.log_unweighted.append(log_weights - log_likelihood(cloud.costs, _DRAWN_FREEDOM))
        self.truths.append(float(costs.min()))

    def masses(self, posterior: PosteriorSpec) -> np.ndarray:
        """(N,), of every view the share that is denser than the truth."""
        if not self.truths:
            return np.zeros(0)
        costs, drawn = np.stack(self.costs), np.stack(self.log_unweighted)
        log_weights = drawn + log_likelihood(costs / posterior.scale, posterior.freedom)
        weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        denser = costs < np.array(self.truths)[:, None]
        return (weights * denser).sum(axis=1) / weights.sum(axis=1)

    def fitted(self) -> PosteriorSpec:
        """The spread that makes the shares uniform; as it is where there are too few views."""
        if len(self.truths) < _LEAST_VIEWS:
            return PosteriorSpec()

        def off(x: Sequence[float]) -> float:
            masses = self.masses(PosteriorSpec(math.exp(x[0]), math.exp(x[1])))
            return unevenness(masses, _JUDGED_ABOVE)

        starts = [(s, f) for s in np.log(_SCALES) for f in np.log(_FREEDOMS)]
        best = min(starts, key=off)
        bounds = [(math.log(0.01), math.log(100.0)), (0.0, math.log(LARGEST_FREEDOM))]
        found = optimize.minimize(off, best, method='Nelder-Mead', bounds=bounds)
        return PosteriorSpec(*np.exp(found.x).tolist())


def unevenness(shares: np.ndarray, above: float = 0.0) -> float:
    """Mean squared distance of shares (N,) from the uniform distribution's quantiles, of those
    `above` that level.
    """
    even = (np.arange(len(shares)) + 0.5) / len(shares)
    return float(np.mean((np.sort(shares) - even)[even > above] ** 2))
