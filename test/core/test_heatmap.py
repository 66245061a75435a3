"""Heatmaps: what is encoded is decoded, and the covariance knows when it is not."""

from __future__ import annotations

import numpy as np
import plain_heatmap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pose_node.core.errors import PoseNodeError
from pose_node.core.heatmap import DecodeOptions, Keypoints, decode, encode, without_prior

SIZE = (64, 48)


def softmax_like(maps: np.ndarray) -> np.ndarray:
    return maps / maps.sum(axis=(-2, -1), keepdims=True)


def test_encode_is_the_gaussian_at_every_pixel():
    points = np.array([[10.25, 20.75], [40.0, 5.5]])
    maps = encode(points, SIZE, 1.5)
    assert maps.shape == (2, 48, 64) and maps.dtype == np.float32
    for k, y, x in [(0, 20, 10), (0, 21, 12), (1, 5, 40), (1, 8, 37)]:
        u, v = points[k]
        wanted = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 1.5**2))
        assert maps[k, y, x] == pytest.approx(wanted, rel=1e-5)


def test_encode_of_points_outside_or_unknown():
    points = np.array([[-200.0, 10.0], [np.nan, 10.0], [10.0, np.inf], [-1.0, 10.0]])
    maps = encode(points, SIZE, 1.0)
    assert not maps[:3].any()
    assert maps[3].argmax() == 10 * SIZE[0]  # the flank that reaches in


@pytest.mark.parametrize('sigma', [0.7, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize('normalise', [False, True])
def test_circle(rng, sigma, normalise):
    margin = 4 * sigma
    points = rng.uniform(margin, np.array(SIZE) - 1 - margin, (400, 2))
    maps = encode(points, SIZE, sigma)
    found = decode(softmax_like(maps) if normalise else maps, sigma)
    np.testing.assert_allclose(found.points_px, points, atol=0.005)
    assert found.counts.all()
    # Nothing is uncertain about them: the covariance is at its floor.
    np.testing.assert_allclose(
        found.covariances_px, np.broadcast_to(0.01 * np.eye(2), (400, 2, 2)), atol=5e-4
    )


@given(
    x=st.floats(5.0, 57.0),
    y=st.floats(5.0, 41.0),
    sigma=st.floats(0.8, 1.25),
    floor=st.floats(0.0, 0.1),
    gain=st.floats(1e-6, 1e6),
)
def test_circle_on_a_floor_and_at_any_scale(x, y, sigma, floor, gain):
    maps = gain * (encode(np.array([[x, y]]), SIZE, sigma) + np.float32(floor))
    np.testing.assert_allclose(decode(maps, sigma).points_px, [[x, y]], atol=0.02)


def test_leading_axes_are_kept(rng):
    points = rng.uniform(8, 40, (3, 5, 2))
    maps = encode(points, SIZE, 1.0)
    found = decode(maps, 1.0)
    assert found.covariances_px.shape == (3, 5, 2, 2) and found.counts.shape == (3, 5)
    for i in range(3):
        alone = decode(maps[i], 1.0)
        np.testing.assert_allclose(found.points_px[i], alone.points_px)
        np.testing.assert_allclose(found.covariances_px[i], alone.covariances_px)


def test_no_maps_give_no_keypoints():
    found = decode(np.zeros((0, 4, 16, 16), np.float32), 1.0)
    assert found.points_px.shape == (0, 4, 2) and found.counts.shape == (0, 4)


@pytest.mark.parametrize('belief', [0.5, 1.0, 2.0, 4.0])
def test_covariance_is_that_of_the_belief_without_the_targets_blur(belief):
    maps = softmax_like(encode(np.array([[31.3, 24.6]]), SIZE, np.hypot(belief, 1.0)))
    found = decode(maps, 1.0)
    np.testing.assert_allclose(
        found.covariances_px[0], belief**2 * np.eye(2), rtol=0.03, atol=0.02
    )


def test_covariance_of_a_slanted_belief():
    C = np.array([[6.0, 2.5], [2.5, 2.0]])
    y, x = np.mgrid[:48, :64]
    density = stats.multivariate_normal([30.4, 22.2], C + np.eye(2))
    maps = density.pdf(np.stack((x, y), axis=-1))[None]
    found = decode(maps, 1.0)
    np.testing.assert_allclose(found.points_px, [[30.4, 22.2]], atol=0.02)
    np.testing.assert_allclose(found.covariances_px[0], C, atol=0.1)


def test_covariance_is_true_for_a_network_that_knows_its_error(rng):
    """The belief is drawn round the truth, the map shows it blurred: chi²(2) must come out."""
    spread = rng.uniform(0.4, 2.5, 2000)
    truth = rng.uniform(16, 32, (2000, 2))
    seen = truth + spread[:, None] * rng.standard_normal((2000, 2))
    maps = np.stack([encode(p[None], SIZE, np.hypot(s, 1.0))[0] for p, s in zip(seen, spread)])
    found = decode(softmax_like(maps), 1.0)
    error = found.points_px - truth
    squared = np.einsum('ki,kij,kj->k', error, np.linalg.inv(found.covariances_px), error)
    assert squared.mean() == pytest.approx(2.0, abs=0.15)
    assert 0.93 < np.mean(squared < stats.chi2(2).ppf(0.95)) < 0.97


def test_a_second_mode_takes_information_away():
    one, other = encode(np.array([[15.2, 24.0], [45.0, 24.0]]), SIZE, 1.0)
    alone = decode(one[None], 1.0)
    weights = [0.1, 0.5, 0.9]
    traces = []
    for weight in weights:
        found = decode((one + weight * other)[None], 1.0)
        np.testing.assert_allclose(found.points_px, [[15.2, 24.0]], atol=0.01)
        np.testing.assert_allclose(
            found.covariances_px, alone.covariances_px * (1 + weight), rtol=0.02
        )
        traces.append(np.trace(found.covariances_px[0]))
    assert np.trace(alone.covariances_px[0]) < traces[0] < traces[1] < traces[2]


def test_a_flat_map_says_anywhere(rng):
    flat = np.ones((1, 48, 64), np.float32)
    noisy = flat + 0.2 * rng.random((1, 48, 64), dtype=np.float32)
    for maps in (flat, noisy):
        sigmas = np.sqrt(np.linalg.eigvalsh(decode(maps, 1.0).covariances_px[0]))
        assert (sigmas > 8.0).all() and (sigmas < 64.0).all()


def test_a_blob_at_the_edge_is_found_and_less_sure():
    points = np.array([[0.0, 24.3], [63.0, 0.0], [30.0, 24.0]])
    found = decode(encode(points, SIZE, 1.0), 1.0)
    np.testing.assert_allclose(found.points_px, points, atol=1.0)
    assert (found.points_px >= 0).all() and (found.points_px <= [63, 47]).all()


def test_which_keypoints_count():
    maps = (
        encode(np.full((4, 2), 20.0), SIZE, 1.0) * np.array([1.0, 0.3, 0.29, 0.0])[:, None, None]
    )
    found = decode(maps, 1.0, DecodeOptions(threshold=0.3))
    np.testing.assert_array_equal(found.counts, [True, True, False, False])
    np.testing.assert_allclose(found.confidences, [1.0, 0.3, 0.29, 0.0])


def test_the_floor_of_the_covariance():
    maps = encode(np.array([[20.0, 20.0]]), SIZE, 1.0)
    found = decode(maps, 1.0, DecodeOptions(min_variance_px2=0.25))
    np.testing.assert_allclose(found.covariances_px[0], 0.25 * np.eye(2), rtol=1e-3)


@pytest.mark.parametrize('noise_px', [0.5, 1.0, 3.0])
def test_without_the_prior_is_the_likelihood(rng, noise_px):
    """Points drawn from a prior, seen with noise, and told as their posterior: the noise is back,
    and nothing is pulled to the middle any more.
    """
    prior_px, middle = 8.0, 0.5 * (np.array(SIZE) - 1.0)
    true = rng.normal(0.0, prior_px, (20_000, 2))
    seen = true + rng.normal(0.0, noise_px, true.shape)
    share = prior_px**2 / (prior_px**2 + noise_px**2)
    posterior = Keypoints(
        middle + share * seen,
        np.tile(share * noise_px**2 * np.eye(2), (len(true), 1, 1)),
        np.ones(len(true)),
        np.ones(len(true), bool),
    )
    found = without_prior(posterior, SIZE, prior_px)
    np.testing.assert_allclose(found.points_px, middle + seen, atol=1e-9)
    np.testing.assert_allclose(found.covariances_px[0], noise_px**2 * np.eye(2), rtol=1e-9)
    slope = ((found.points_px - middle) * true).sum() / (true**2).sum()
    assert abs(slope - 1.0) < 0.02


def test_a_keypoint_that_may_be_anywhere_is_not_thrown_far_out():
    """Half of its variance is the prior's: the offset grows by a sixth, not to the double."""
    where = np.array([[40.0, 20.0]])
    lost = Keypoints(where, 32.0 * np.eye(2)[None], np.ones(1), np.ones(1, bool))
    middle = 0.5 * (np.array(SIZE) - 1.0)
    gain = (without_prior(lost, SIZE, 8.0).points_px - middle) / (where - middle)
    np.testing.assert_allclose(gain, 1.0 / 0.85, rtol=1e-9)


def test_no_prior_leaves_keypoints_and_every_object_has_its_own(rng):
    maps = np.stack([encode(rng.uniform(8, 40, (5, 2)), SIZE, 2.0)] * 2)
    found = decode(maps, 1.0)
    for each, wanted in zip(
        vars(without_prior(found, SIZE, np.inf)).values(), vars(found).values(), strict=True
    ):
        np.testing.assert_array_equal(each, wanted)
    both = without_prior(found, SIZE, np.array([np.inf, 6.0]))
    np.testing.assert_array_equal(both.points_px[0], found.points_px[0])
    middle = 0.5 * (np.array(SIZE) - 1.0)
    gain = (both.points_px[1] - middle) / (found.points_px[1] - middle)
    np.testing.assert_allclose(gain, 1.0 / (1.0 - 3.0 / 36.0), rtol=0.02)


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf])
def test_a_poisoned_map_spoils_only_itself(poison):
    maps = encode(np.array([[20.0, 20.0], [30.0, 30.0]]), SIZE, 1.0)
    clean = decode(maps, 1.0)
    maps[1, 5, 5] = poison
    found = decode(maps, 1.0)
    assert_same(found, clean, 0)
    if poison > 0 or np.isnan(poison):
        assert np.isnan(found.points_px[1]).all() and not found.counts[1]
        assert found.confidences[1] == 0.0
    assert np.isfinite(found.covariances_px).all()


def assert_same(a: Keypoints, b: Keypoints, k: int) -> None:
    np.testing.assert_allclose(a.points_px[k], b.points_px[k])
    np.testing.assert_allclose(a.covariances_px[k], b.covariances_px[k])
    assert a.counts[k] == b.counts[k]


def test_empty_and_negative_maps():
    found = decode(np.stack((np.zeros((48, 64)), np.full((48, 64), -1.0))), 1.0)
    assert np.isnan(found.points_px).all() and not found.counts.any()
    assert np.isfinite(found.covariances_px).all()


def test_ringing_below_zero_is_no_mass():
    maps = encode(np.array([[20.3, 20.6]]), SIZE, 1.0)
    maps[:, :, 40:] -= 0.3
    np.testing.assert_allclose(decode(maps, 1.0).points_px, [[20.3, 20.6]], atol=0.02)


@given(seed=st.integers(0, 2**32 - 1))
def test_covariances_of_any_map_are_positive_and_finite(seed):
    rng = np.random.default_rng(seed)
    maps = rng.random((4, 16, 24), dtype=np.float32) ** rng.integers(1, 40)
    found = decode(maps, float(rng.uniform(0.5, 3.0)))
    assert (np.linalg.eigvalsh(found.covariances_px) > 0.0).all()
    assert np.isfinite(found.covariances_px).all() and np.isfinite(found.points_px).all()


def test_wrong_input_is_refused_with_a_sentence():
    with pytest.raises(PoseNodeError, match=r'int64 \(1, 8, 8\), wanted floating point'):
        decode(np.zeros((1, 8, 8), np.int64), 1.0)
    with pytest.raises(PoseNodeError, match=r'\(8, 8\), wanted'):
        decode(np.zeros((8, 8)), 1.0)
    with pytest.raises(PoseNodeError, match='sigma_px is 0'):
        decode(np.zeros((1, 8, 8)), 0.0)
    with pytest.raises(PoseNodeError, match=r'shape \(3,\), wanted'):
        encode(np.zeros(3), SIZE, 1.0)


def test_the_order_in_memory_does_not_matter(rng):
    """Torch may hand out maps whose channels lie together."""
    maps = encode(rng.uniform(5.0, 40.0, (7, 2)), SIZE, 1.5)
    mixed = np.ascontiguousarray(maps.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert not mixed.flags.c_contiguous
    for plain, other in zip(vars(decode(maps, 1.5)).values(), vars(decode(mixed, 1.5)).values()):
        np.testing.assert_array_equal(plain, other)


def test_inputs_stay_as_they_were(rng):
    maps = rng.random((2, 16, 16), dtype=np.float32)
    copy = maps.copy()
    decode(maps, 1.0)
    np.testing.assert_array_equal(maps, copy)


@pytest.mark.parametrize('size', [(64, 48), (30, 41), (9, 7)])
@pytest.mark.parametrize('sharpness', [1.0, 6.0, 25.0])
def test_fast_and_plain_decoding_agree(rng, size, sharpness):
    """Blobs on noise: clean, blurred, doubled, cut by the border, empty, and nothing but noise."""
    width, height = size
    points = rng.uniform(-2.0, np.array(size) + 1.0, (3, 8, 2))
    maps = encode(points, size, 1.3) + 0.6 * encode(points[::-1], size, 2.5)
    maps = (maps + 0.5 * rng.random((3, 8, height, width), dtype=np.float32)) ** sharpness
    maps[0, 0], maps[1, 1] = 0.0, -maps[1, 1]
    maps[2, 2, 0, 0] = np.nan
    options = DecodeOptions(threshold=0.2)
    fast, plain = decode(maps, 1.3, options), plain_heatmap.decode(maps, 1.3, options)
    np.testing.assert_allclose(fast.points_px, plain.points_px, atol=2e-4)
    np.testing.assert_allclose(fast.covariances_px, plain.covariances_px, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fast.confidences, plain.confidences, rtol=1e-6)
    np.testing.assert_array_equal(fast.counts, plain.counts)
