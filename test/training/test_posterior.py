"""The posterior's spread is found again from views whose truths were drawn by it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pose_node.core.amis import log_likelihood
from pose_node.core.pose_spec import PosteriorSpec

pytest.importorskip('torch')
from training.steps.posterior import LARGEST_FREEDOM, Posteriors, unevenness

_VIEWS, _SAMPLES = 1000, 256


def views(rng: np.random.Generator, scale: float, freedom: float) -> Posteriors:
    """Six numbers that are Gaussian, to a scale that is Gamma's: what a pose is to a good lens.
    Samples are Student's with four degrees of freedom, a cost is half a squared distance.
    """
    found = Posteriors()
    for _ in range(_VIEWS):
        costs = 3.0 * stats.f(6, 4).rvs(_SAMPLES, random_state=rng)
        costs[0] = 0.0  # the optimum
        width = scale if np.isinf(freedom) else scale * freedom / rng.chisquare(freedom)
        found.costs.append(costs)
        found.log_unweighted.append(-log_likelihood(costs, 4.0))
        found.truths.append(float(0.5 * width * rng.chisquare(6)))
    return found


@pytest.mark.parametrize(('scale', 'freedom'), [(1.0, 4.0), (0.5, 8.0), (2.0, 3.0)])
def test_the_spread_is_found_again(rng, scale: float, freedom: float) -> None:
    """And the densest regions then hold what they say."""
    posteriors = views(rng, scale, freedom)
    fitted = posteriors.fitted()
    assert fitted.scale == pytest.approx(scale, rel=0.25)
    assert fitted.freedom == pytest.approx(freedom, rel=0.6)
    shares = views(rng, scale, freedom).masses(fitted)
    for level in (0.5, 0.9, 0.95):
        assert (shares <= level).mean() == pytest.approx(level, abs=0.06)


def test_a_gaussian_stays_one(rng) -> None:
    """Truths without tails ask for all the freedom that there is, or nearly."""
    fitted = views(rng, 1.0, np.inf).fitted()
    assert fitted.scale == pytest.approx(1.0, rel=0.15)
    assert 15.0 < fitted.freedom <= LARGEST_FREEDOM * (1.0 + 1e-9)


def test_few_views_change_nothing(rng) -> None:
    """Two numbers are not fitted to a handful."""
    few = views(rng, 4.0, 3.0)
    few.costs, few.log_unweighted, few.truths = (
        few.costs[:9],
        few.log_unweighted[:9],
        few.truths[:9],
    )
    assert few.fitted() == PosteriorSpec()


def test_unevenness_is_cramer_and_von_mises(rng) -> None:
    """SciPy's statistic, less its constant, a view."""
    shares = rng.beta(2.0, 1.0, 80)
    wanted = stats.cramervonmises(shares, 'uniform').statistic - 1.0 / (12 * 80)
    assert unevenness(shares) == pytest.approx(wanted / 80, rel=1e-9)
