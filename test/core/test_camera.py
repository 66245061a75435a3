"""Cameras: as OpenCV projects, there and back, cropped, resized, and from every CameraInfo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_node.core.camera import Camera
from pose_node.core.distortion import undistort
from pose_node.core.errors import PoseNodeError

K = np.array([[610.0, 0.0, 322.5], [0.0, 605.0, 238.25], [0.0, 0.0, 1.0]])
SIZE = (640, 480)
# Real lenses: a webcam, a wide one, the rational model of a depth camera, a fisheye.
LENSES = {
    'none': ('none', ()),
    'webcam': ('plumb_bob', (0.12, -0.25, 0.001, -0.0008, 0.09)),
    'four': ('plumb_bob', (-0.2, 0.05, 0.002, 0.001)),
    'barrel': ('plumb_bob', (-0.33, 0.13, 0.0005, -0.0003, -0.03)),
    'rational': ('rational_polynomial', (0.5, -2.6, 0.0008, -0.0002, 1.5, 0.38, -2.4, 1.4)),
    'fisheye': ('equidistant', (-0.02, 0.01, -0.008, 0.002)),
}
lenses = pytest.mark.parametrize('lens', LENSES)


def make(lens: str) -> Camera:
    return Camera(K, SIZE, *LENSES[lens])


def calibration(**changes) -> dict:
    fields = {
        'calibration_size': SIZE, 'K': K, 'D': [0.1, -0.2, 0.001, 0.002, 0.05],
        'model': 'plumb_bob', 'picture_size': SIZE,
    }  # fmt: skip
    return {**fields, **changes}


def grid_px(size: tuple[int, int] = SIZE, step: int = 40) -> np.ndarray:
    u, v = np.meshgrid(np.arange(0, size[0], step), np.arange(0, size[1], step))
    return np.stack((u.ravel(), v.ravel()), axis=1).astype(float)


def points_in_view(rng, count: int = 200) -> np.ndarray:
    xy = rng.uniform((-0.45, -0.35), (0.45, 0.35), (count, 2))
    z = rng.uniform(0.2, 5.0, (count, 1))
    return np.hstack((xy * z, z))


@lenses
def test_project_is_opencvs(lens, rng):
    camera, points = make(lens), points_in_view(rng)
    D = np.array(camera.D) if camera.D else None
    zero = np.zeros(3)
    if camera.model == 'equidistant':
        wanted = cv2.fisheye.projectPoints(points[:, None], zero, zero, K, D)[0]
    else:
        wanted = cv2.projectPoints(points, zero, zero, K, D)[0]
    np.testing.assert_allclose(camera.project(points), wanted[:, 0], atol=1e-9)


@lenses
def test_unproject_undoes_project(lens):
    camera, pixels = make(lens), grid_px()
    xy = camera.unproject(pixels)
    assert np.isfinite(xy).all()
    again = camera.project(np.c_[xy, np.ones(len(xy))])
    np.testing.assert_allclose(again, pixels, atol=1e-6)


@lenses
def test_unproject_is_opencvs(lens):
    camera, pixels = make(lens), grid_px()
    if camera.model == 'equidistant':
        wanted = cv2.fisheye.undistortPoints(pixels[:, None], K, np.array(camera.D))
    else:
        D = np.array(camera.D) if camera.D else None
        wanted = cv2.undistortPointsIter(
            pixels, K, D, None, None, (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)
        )
    np.testing.assert_allclose(camera.unproject(pixels), wanted[:, 0], atol=2e-7)


@lenses
def test_jacobians_are_the_slopes(lens, rng):
    camera, points = make(lens), points_in_view(rng, 50)
    step = 1e-6
    J = camera.project_jacobian(points)
    for axis in range(3):
        ahead, back = points.copy(), points.copy()
        ahead[:, axis] += step
        back[:, axis] -= step
        slope = (camera.project(ahead) - camera.project(back)) / (2 * step)
        np.testing.assert_allclose(J[:, :, axis], slope, rtol=1e-5, atol=1e-3)
    pixels, step = grid_px(), 1e-3
    J = camera.unproject_jacobian(pixels)
    for axis in range(2):
        shift = step * np.eye(2)[axis]
        slope = (camera.unproject(pixels + shift) - camera.unproject(pixels - shift)) / (2 * step)
        np.testing.assert_allclose(J[:, :, axis], slope, rtol=1e-3, atol=1e-8)


@lenses
def test_what_cannot_be_seen_is_nan(lens):
    camera = make(lens)
    seen = camera.project(np.array([[0.1, 0.1, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert np.isnan(seen[:2]).all()
    np.testing.assert_allclose(seen[2], K[:2, 2])
    back = camera.unproject(np.array([[np.nan, 3.0], [np.inf, 3.0], [10.0, 10.0]]))
    assert np.isnan(back[:2]).all() and np.isfinite(back[2]).all()


def test_where_the_picture_folds_there_is_no_way_back():
    """A barrel lens maps no ray to pixels far outside: NaN, not a wrong ray."""
    camera = make('barrel')
    folded = camera.unproject(np.array([[4000.0, 240.0], [640.0, 480.0]]))
    assert np.isnan(folded[0]).all() and np.isfinite(folded[1]).all()


@given(
    u=st.floats(0, 639), v=st.floats(0, 479), k1=st.floats(-0.35, 0.35), k2=st.floats(-0.2, 0.2),
    p1=st.floats(-0.005, 0.005),
)  # fmt: skip
def test_round_trip_or_nan_for_any_lens(u, v, k1, k2, p1):
    camera = Camera(K, SIZE, 'plumb_bob', (k1, k2, p1, -p1, 0.0))
    xy = camera.unproject(np.array([[u, v]]))
    if np.isfinite(xy).all():
        again = camera.project(np.c_[xy, 1.0])
        np.testing.assert_allclose(again, [[u, v]], atol=1e-5)


@lenses
def test_crop_and_resize_move_the_pixels(lens, rng):
    camera, points = make(lens), points_in_view(rng, 50)
    pixels = camera.project(points)
    cropped = camera.cropped(30, 50, 200, 100)
    np.testing.assert_allclose(cropped.project(points), pixels - (30, 50))
    assert cropped.size == (200, 100)
    half = camera.resized(320, 240)
    np.testing.assert_allclose(half.project(points), (pixels + 0.5) * 0.5 - 0.5)
    twice = camera.resized(320, 240).resized(640, 480)
    np.testing.assert_allclose(twice.K, camera.K)


def test_the_half_pixel_rule_is_that_of_opencvs_resize():
    """A blob seen at a place is, in the picture that cv2.resize made, where `resized` says."""
    size = (160, 120)
    camera = Camera(np.array([[150.0, 0, 80.2], [0, 150.0, 60.7], [0, 0, 1]]), size)
    point = np.array([[0.05, -0.03, 1.0]])
    u, v = camera.project(point)[0]
    x, y = np.meshgrid(np.arange(160), np.arange(120))
    picture = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 6.0**2))
    small = cv2.resize(picture, (80, 40), interpolation=cv2.INTER_AREA)
    x, y = np.meshgrid(np.arange(80), np.arange(40))
    centre = np.array([(small * x).sum(), (small * y).sum()]) / small.sum()
    np.testing.assert_allclose(centre, camera.resized(80, 40).project(point)[0], atol=2e-3)


def test_calibration_raw_and_rectified():
    P = np.array([[580.0, 0, 320.0, -35.0], [0, 580.0, 240.0, 0], [0, 0, 1, 0]])
    raw = Camera.from_calibration(**calibration(P=P))
    assert raw.model == 'plumb_bob' and raw.D == (0.1, -0.2, 0.001, 0.002, 0.05)
    np.testing.assert_array_equal(raw.K, K)
    rectified = Camera.from_calibration(**calibration(P=P, rectified=True))
    assert rectified.model == 'none'
    np.testing.assert_array_equal(rectified.K, P[:, :3])


@pytest.mark.parametrize(
    ('model', 'D', 'wanted'),
    [
        ('', [], ('none', ())),
        ('none', [0.0] * 5, ('none', ())),
        ('plumb_bob', [], ('none', ())),
        ('plumb_bob', [0.1, 0, 0, 0], ('plumb_bob', (0.1, 0, 0, 0))),
        ('plumb_bob', [0.1, 0, 0, 0, 0, 0, 0, 0], ('plumb_bob', (0.1, 0, 0, 0, 0))),
        ('equidistant', [0.1, 0, 0, 0], ('equidistant', (0.1, 0, 0, 0))),
    ],
)
def test_coefficients_as_drivers_send_them(model, D, wanted):
    camera = Camera.from_calibration(**calibration(model=model, D=D))
    assert (camera.model, camera.D) == wanted


def test_roi_and_binning_by_hand():
    """REP 104: the roi counts unbinned pixels; binning joins 2 x 2 of them."""
    camera = Camera.from_calibration(
        **calibration(roi=(100, 40, 400, 300), binning=(2, 2), picture_size=(200, 150))
    )
    points = np.array([[0.1, 0.05, 1.0], [-0.2, 0.1, 2.0]])
    full = Camera.from_calibration(**calibration()).project(points)
    # Binned pixel 0 covers pixels 100 and 101: its centre is at 100.5.
    np.testing.assert_allclose(camera.project(points), (full - (100.5, 40.5)) / 2.0)
    assert camera.size == (200, 150)


def test_roi_without_a_size_reaches_to_the_border():
    camera = Camera.from_calibration(**calibration(roi=(100, 40, 0, 0), picture_size=(540, 440)))
    np.testing.assert_allclose(camera.K[:2, 2], K[:2, 2] - (100, 40))


def test_binning_zero_means_one():
    camera = Camera.from_calibration(**calibration(binning=(0, 0)))
    np.testing.assert_array_equal(camera.K, K)


def test_an_evenly_scaled_picture_gets_a_scaled_camera():
    camera = Camera.from_calibration(**calibration(picture_size=(1280, 960)))
    assert camera.size == (1280, 960)
    np.testing.assert_allclose(camera.K[0, 0], 1220.0)
    np.testing.assert_allclose(camera.K[:2, 2], (K[:2, 2] + 0.5) * 2 - 0.5)


NAN_K = K.copy()
NAN_K[0, 2] = np.nan


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'K': np.zeros((3, 3))}, 'not calibrated'),
        ({'K': NAN_K}, 'finite'),
        ({'K': np.diag([-600.0, 600.0, 1.0])}, 'positive'),
        ({'K': np.diag([600.0, 600.0, 2.0])}, 'rows'),
        ({'calibration_size': (0, 0)}, 'width and height'),
        ({'model': 'double_sphere'}, 'double_sphere'),
        ({'D': [np.nan] * 5}, 'finite'),
        ({'D': [0.1, 0.2]}, '4 or 5'),
        ({'model': 'equidistant', 'D': [0.1] * 5}, '4 finite'),
        ({'model': 'none'}, '0 finite'),
        ({'rectified': True}, 'input_is_rectified'),
        ({'rectified': True, 'P': np.zeros((3, 4))}, 'input_is_rectified'),
        ({'picture_size': (640, 360)}, '640 x 360'),
        ({'roi': (600, 0, 100, 100)}, 'roi'),
        ({'roi': (-1, 0, 100, 100)}, 'roi'),
        ({'binning': (2, 2)}, None),  # a full picture though the driver says binned: a resize
        ({'binning': (2, 1)}, '320 x 480'),
    ],
)
def test_what_no_camera_can_be_is_refused_in_a_sentence(changes, says):
    if says is None:
        np.testing.assert_allclose(Camera.from_calibration(**calibration(**changes)).K, K)
        return
    with pytest.raises(PoseNodeError, match=says) as caught:
        Camera.from_calibration(**calibration(**changes))
    assert str(caught.value).endswith('.')


def test_a_camera_is_a_value():
    mine = K.copy()
    camera = Camera(mine, SIZE)
    mine[0, 0] = 1.0
    assert camera.K[0, 0] == 610.0
    with pytest.raises(ValueError, match='read-only'):
        camera.K[0, 0] = 1.0
    with pytest.raises(PoseNodeError, match='scales and shifts'):
        camera.transformed(np.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.0]]), SIZE)


@pytest.mark.parametrize('k1', [-0.3, 0.0, 0.4, 40.0])
def test_where_the_way_back_begins_is_of_no_matter(monkeypatch, rng, k1):
    """From OpenCV's answer, and from the distorted point itself; far outside, too."""
    D = (k1, 0.05, 0.001, -0.002, 0.01)
    points = rng.normal(0.0, 0.6, (200, 2))
    xy, J = undistort('plumb_bob', D, points)
    monkeypatch.setattr(cv2, 'undistortPoints', lambda points, K, D: points)
    plain, plain_J = undistort('plumb_bob', D, points)
    np.testing.assert_allclose(xy, plain, atol=1e-7)
    np.testing.assert_allclose(J, plain_J, rtol=1e-3, atol=1e-7)
    assert np.isfinite(xy).all(axis=1).sum() > 50
