"""Crops: where every pixel comes from, to a fraction of a pixel, at every scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_node.runtime.preprocess import (
    FILL,
    Region,
    crop,
    letterbox,
    map_to_picture,
    to_tensor,
)


def ramp(width: int, height: int) -> np.ndarray:
    """A picture whose red is x / 4, whose green is y / 4: it tells where a pixel was."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack((x / 4, y / 4, np.full_like(x, 200.0)), axis=2).round().astype(np.uint8)


def blob(width: int, height: int, center: tuple[float, float], sigma: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    spot = np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))
    return np.repeat((255 * spot).round().astype(np.uint8)[..., None], 3, axis=2)


def centroid(picture: np.ndarray) -> np.ndarray:
    weights = np.clip(picture[..., 0].astype(float) - FILL, 0.0, None)  # grey has no say
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


def test_region_from_first_pixel_and_size():
    """Pixels 10, 11, 12, 13 have their middle at 11.5."""
    region = Region.from_xywh('drill', (10, 20, 4, 1), 0.5)
    assert region == Region('drill', (11.5, 20.0), (4.0, 1.0), 0.5)


def test_a_crop_at_scale_one_is_a_cut():
    picture = ramp(100, 80)
    region = Region.from_xywh('drill', (30, 20, 32, 16))
    result, A = crop(picture, region, (32, 32), 1.0)
    np.testing.assert_array_equal(result, picture[12:44, 30:62])
    np.testing.assert_allclose(A, [[1, 0, 30], [0, 1, 12]])


def test_region_scale_widens_the_crop():
    picture = ramp(200, 200)
    result, A = crop(picture, Region('drill', (99.5, 99.5), (32, 20)), (64, 64), 2.0)
    np.testing.assert_array_equal(result, picture[68:132, 68:132])
    np.testing.assert_allclose(A @ [31.5, 31.5, 1], [99.5, 99.5])


@pytest.mark.parametrize('side', [20.0, 47.3, 64.0, 100.0, 128.0, 200.7, 259.0, 330.0])
def test_what_is_at_a_place_stays_there(side):
    """A blob's centroid, found in the crop and mapped back, is the blob's own."""
    place = np.array([151.3, 118.6])
    picture = blob(320, 240, tuple(place), max(3.0, 4.0 * side / 64))
    result, A = crop(picture, Region('drill', (155.2, 120.9), (side, side)), (64, 64), 1.0)
    if side < 60:  # the blob does not fit: look where it is brightest
        y, x = np.unravel_index(result[..., 0].argmax(), (64, 64))
        np.testing.assert_allclose(A @ [x, y, 1], place, atol=1.0)
    else:
        np.testing.assert_allclose(A @ [*centroid(result), 1], place, atol=0.02 * side / 64)


@given(
    x=st.floats(-50, 370),
    y=st.floats(-50, 290),
    side=st.floats(0.5, 900),
    width=st.sampled_from([32, 64, 96]),
    height=st.sampled_from([32, 64]),
)
def test_every_pixel_shows_the_place_the_affine_says(x, y, side, width, height):
    picture = ramp(320, 240)
    result, A = crop(picture, Region('drill', (x, y), (side, side / 3)), (width, height), 1.2)
    assert result.shape == (height, width, 3) and result.dtype == np.uint8
    np.testing.assert_allclose(A @ [(width - 1) / 2, (height - 1) / 2, 1], [x, y], atol=1e-9)
    assert A[0, 0] * min(width, height) == pytest.approx(1.2 * side)
    v, u = np.mgrid[:height, :width]
    places = A[:, :2] @ np.stack((u, v)).reshape(2, -1) + A[:, 2:]
    # Away from the border, where grey blends in.
    margin = 2.0 * max(1.0, A[0, 0])
    inside = (places > margin).all(0) & (places[0] < 319 - margin) & (places[1] < 239 - margin)
    seen = result.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(4 * seen[inside, :2], places[:, inside].T, atol=4.1)
    outside = (places < -margin).any(0) | (places[0] > 319 + margin) | (places[1] > 239 + margin)
    assert (seen[outside] == FILL).all()


def test_a_crop_beside_the_picture_is_grey():
    result, _ = crop(ramp(64, 64), Region('drill', (500.0, 30.0), (50, 50)), (32, 32), 1.0)
    assert (result == FILL).all()


def test_reduction_averages_instead_of_skipping(rng):
    """Fine noise vanishes when eight pixels become one; bilinear alone would keep it."""
    picture = np.repeat(rng.integers(0, 256, (512, 512, 1), dtype=np.uint8), 3, axis=2)
    result, _ = crop(picture, Region('drill', (255.5, 255.5), (512, 512)), (64, 64), 1.0)
    assert result.astype(float).std() < 1.5 * 74 / 8


def test_letterbox_of_the_same_shape_is_an_area_resize():
    picture = ramp(640, 480)
    result, A = letterbox(picture, (160, 120))
    np.testing.assert_allclose(A, [[4, 0, 1.5], [0, 4, 1.5]])
    wanted = picture.reshape(120, 4, 160, 4, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(result, wanted, atol=0.51)


def test_letterbox_keeps_the_aspect_and_centres():
    picture = np.full((200, 400, 3), 255, np.uint8)
    result, A = letterbox(picture, (100, 100))
    assert A[0, 0] == A[1, 1] == 4.0
    np.testing.assert_allclose(A @ [49.5, 49.5, 1], [199.5, 99.5])
    assert (result[26:74] == 255).all()
    assert (result[:24] == FILL).all() and (result[76:] == FILL).all()


def test_letterbox_enlarges_small_pictures():
    picture = ramp(40, 30)
    result, A = letterbox(picture, (160, 120))
    np.testing.assert_allclose(A, [[0.25, 0, -0.375], [0, 0.25, -0.375]])
    assert result.shape == (120, 160, 3)


def test_to_tensor():
    batch = np.zeros((2, 4, 6, 3), np.uint8)
    batch[1, 2, 3] = 10, 20, 30
    tensor = to_tensor(batch, (1.0, 2.0, 3.0), (2.0, 4.0, 8.0))
    assert tensor.shape == (2, 3, 4, 6) and tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor[1, :, 2, 3], [4.5, 4.5, 27 / 8])
    np.testing.assert_allclose(tensor[0, :, 0, 0], [-0.5, -0.5, -3 / 8])
    assert batch[1, 2, 3].tolist() == [10, 20, 30]
    assert to_tensor(batch[:0], (1, 2, 3), (1, 1, 1)).shape == (0, 3, 4, 6)


def test_map_pixels_lie_in_the_middle_of_their_cells():
    """Map pixel 0 of stride 4 covers input pixels 0..3, whose middle is 1.5."""
    np.testing.assert_allclose(map_to_picture(np.eye(2, 3), 4), [[4, 0, 1.5], [0, 4, 1.5]])
    A = np.array([[2.0, 0, 10], [0, 2.0, 20]])
    B = map_to_picture(A, 4)
    np.testing.assert_allclose(B @ [7, 9, 1], A @ [7 * 4 + 1.5, 9 * 4 + 1.5, 1])
    np.testing.assert_allclose(A, [[2, 0, 10], [0, 2, 20]])  # not changed
