"""VSD by hand: rows of pixels, each in one of the cases of the definition."""

from __future__ import annotations

import numpy as np
import pytest

from pose_node.core.errors import PoseNodeError
from pose_node.core.vsd import VSD_TAUS, average_recall_vsd, ray_lengths, vsd

TAUS_M = np.array([0.01, 0.1])


def of_rows(estimated, true, scene, taus_m=TAUS_M):
    """Errors of one row of pixels whose rays are all straight."""
    rows = [np.array([row], float) for row in (estimated, true, scene)]
    return vsd(*rows, np.ones_like(rows[0]), taus_m)


def test_each_pixel_counts_once():
    """Right; 5 cm off; only true; only estimated; neither: 5 cm is an error to 1 cm alone."""
    errors = of_rows([1, 1.05, 0, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 2, 2])
    np.testing.assert_allclose(errors, [3 / 4, 2 / 4])


def test_the_tolerance_itself_is_an_error():
    np.testing.assert_array_equal(of_rows([1.5], [1.0], [1.0], np.array([0.5, 0.5001])), [1, 0])


def test_what_is_hidden_does_not_count():
    """Behind an occluder neither is visible; 14 mm behind it still is, 16 mm is not."""
    assert of_rows([1, 1], [1, 1.2], [1, 0.5]).tolist() == [0, 0]
    assert of_rows([1, 0], [1, 1.014], [1, 1])[0] == 0.5
    assert of_rows([1, 0], [1, 1.016], [1, 1])[0] == 0.0


def test_an_estimate_behind_the_visible_truth_is_visible():
    """The object itself is what the camera measured there; it hides no estimate of itself."""
    assert of_rows([1.05], [1.0], [1.0]).tolist() == [1.0, 0.0]
    # Where the truth is not, the table hides it.
    assert of_rows([1, 1.05], [1, 0], [1, 1]).tolist() == [0, 0]


def test_a_pixel_without_a_measurement_hides_nothing():
    assert of_rows([1, 0], [1, 1], [0, 0])[0] == 0.5


def test_nothing_to_see_is_a_miss():
    np.testing.assert_array_equal(of_rows([0, 2], [0, 2], [1, 1]), [1, 1])


def test_distances_are_measured_along_the_ray():
    """A ray of length 2 at z = 1 doubles a difference of depth."""
    one = np.ones((1, 1))
    assert vsd(1.06 * one, one, one, 2 * one, np.array([0.1]))[0] == 1.0
    assert vsd(1.06 * one, one, one, one, np.array([0.1]))[0] == 0.0


def test_rays():
    K = np.array([[2.0, 0, 1], [0, 4.0, 0], [0, 0, 1]])
    lengths = ray_lengths(K, (3, 5))
    assert lengths.shape == (5, 3)
    assert lengths[0, 1] == 1.0
    assert lengths[4, 1] == pytest.approx(np.sqrt(2.0))
    assert lengths[0, 2] == pytest.approx(np.sqrt(1.25))


def test_average_recall():
    """Of ten thresholds 0.05 to 0.5 an error of 0.27 is below five."""
    assert average_recall_vsd(np.full((3, len(VSD_TAUS)), 0.27)) == 0.5
    half = np.stack((np.zeros(10), np.ones(10)))
    assert average_recall_vsd(half) == 0.5
    with pytest.raises(PoseNodeError, match='no errors'):
        average_recall_vsd(np.zeros((0, 10)))


def test_maps_of_two_pictures():
    maps = [np.ones((2, 2))] * 3
    with pytest.raises(PoseNodeError, match='maps of one picture'):
        vsd(*maps, np.ones((2, 3)), TAUS_M)
