"""Assignment: as cheap as SciPy's, for every shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pose_node.core.assignment import assigned


@pytest.mark.parametrize('shape', [(0, 0), (0, 3), (1, 1), (2, 2), (3, 7), (8, 5), (12, 12)])
@pytest.mark.parametrize('kind', ['any', 'whole', 'gated'])
def test_as_cheap_as_scipys(rng, shape, kind):
    for _ in range(40):
        prices = rng.uniform(0.0, 30.0, shape)
        if kind == 'whole':  # many that cost the same
            prices = np.floor(prices / 8.0)
        if kind == 'gated':  # as the tracker has them
            prices = np.where(prices < 10.0, prices, 1e9)
        pairs = assigned(prices)
        assert len(pairs) == min(shape)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        rows, columns = linear_sum_assignment(prices)
        wanted = prices[rows, columns].sum()
        assert sum(prices[i, j] for i, j in pairs) == pytest.approx(wanted, rel=1e-12)
