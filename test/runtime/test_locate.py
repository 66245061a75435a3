"""The locator: boxes picked from maps worked out by hand, then found in pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from known_bundle import BALL_RADIUS_M, draw_scene, make_bundle
from scipy.spatial.transform import Rotation

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.core.manifest import LocatorSpec
from pose_node.runtime.backends import open_backend
from pose_node.runtime.locate import Locator, in_turn, pick_boxes
from pose_node.runtime.preprocess import Region

SPEC = LocatorSpec(
    file='locator.onnx',
    input='picture',
    centers='centers',
    boxes='boxes',
    input_size=(160, 120),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    stride=8,
    objects=('drill', 'cup'),
    threshold=0.3,
)


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Nothing anywhere; every box is 16 x 24 and in its cell's middle."""
    boxes = np.zeros((4, 15, 20), np.float32)
    boxes[2], boxes[3] = np.log(16.0), np.log(24.0)
    return np.zeros((2, 15, 20), np.float32), boxes


def test_a_peak_becomes_a_box():
    centers, boxes = maps()
    centers[0, 4, 7] = 0.9
    boxes[:, 4, 7] = 0.25, -0.5, np.log(40.0), np.log(20.0)
    ((name, score, box),) = pick_boxes(centers, boxes, SPEC)
    # Cell 7 covers pixels 56..63, middle 59.5; cell 4 covers 32..39, middle 35.5.
    assert name == 'drill' and score == pytest.approx(0.9)
    np.testing.assert_allclose(box, [59.5 + 2.0, 35.5 - 4.0, 40.0, 20.0], rtol=1e-6)


def test_only_peaks_above_the_threshold():
    centers, boxes = maps()
    centers[0, 4, 7], centers[0, 4, 8], centers[0, 12, 2] = 0.9, 0.8, 0.29
    assert [score for _, score, _ in pick_boxes(centers, boxes, SPEC)] == [pytest.approx(0.9)]


def test_peaks_at_the_border_count():
    centers, boxes = maps()
    centers[0, 0, 0], centers[0, 14, 19] = 0.8, 0.7
    assert len(pick_boxes(centers, boxes, SPEC)) == 2


def test_one_object_is_found_once_but_two_kinds_may_share_a_place():
    centers, boxes = maps()
    centers[0, 4, 7], centers[0, 4, 9], centers[1, 4, 7] = 0.8, 0.9, 0.7
    boxes[2:] = np.log(100.0)  # two cells apart they overlap almost wholly
    found = pick_boxes(centers, boxes, SPEC)
    assert [(name, round(score, 3)) for name, score, _ in found] == [('drill', 0.9), ('cup', 0.7)]


def test_neighbours_that_overlap_little_are_two():
    centers, boxes = maps()
    centers[0, 4, 7], centers[0, 4, 9] = 0.8, 0.9
    assert len(pick_boxes(centers, boxes, SPEC)) == 2  # 16 px apart, 16 px wide


def test_a_plateau_is_one_object():
    centers, boxes = maps()
    centers[0, 4:6, 7:9] = 0.9
    boxes[2:] = np.log(50.0)
    assert len(pick_boxes(centers, boxes, SPEC)) == 1


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf])
def test_poisoned_maps_find_nothing_but_do_not_raise(poison):
    centers, boxes = maps()
    assert pick_boxes(np.full_like(centers, poison), boxes, SPEC) == []
    centers[0, 4, 7], centers[0, 10, 3] = 0.9, 0.8
    boxes[0, 4, 7] = poison
    assert [round(score, 3) for _, score, _ in pick_boxes(centers, boxes, SPEC)] == [0.8]


def test_nothing_to_find():
    assert pick_boxes(*maps(), SPEC) == []


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp('b') / 'dots')


@pytest.fixture(scope='module')
def locator(bundle):
    return Locator(open_backend('onnx', bundle.read('locator.onnx'), 1), bundle.locator)


def camera(width: int, height: int) -> Camera:
    K = np.array([[0.9 * width, 0, width / 2], [0, 0.9 * width, height / 2], [0, 0, 1]])
    return Camera(K=K, size=(width, height), model='none', D=())


@pytest.mark.parametrize('size', [(640, 480), (320, 240), (1280, 720), (480, 640), (641, 479)])
def test_finds_the_known_object_in_pictures_of_any_shape(rng, locator, size):
    cam = camera(*size)
    for _ in range(5):
        T = np.eye(4)
        T[:3, :3] = Rotation.random(random_state=rng.integers(1 << 31)).as_matrix()
        T[:3, 3] = *rng.uniform(-0.15, 0.15, 2), rng.uniform(0.6, 1.0)
        (region,) = locator(draw_scene(cam, T))
        place = cam.project(T[None, :3, 3])[0]
        width = 2 * BALL_RADIUS_M * cam.K[0, 0] / T[2, 3]
        assert region.object == 'dots' and region.score > 0.3
        np.testing.assert_allclose(region.center_px, place, atol=0.1 * width)
        assert 0.7 < region.size_px[0] / width < 1.5


def test_no_object_hides_another():
    """Three of one, two of another, all surer: still the third comes with the first of each."""
    told = [('cup', 0.9), ('cup', 0.8), ('cup', 0.7), ('drill', 0.6), ('drill', 0.5), ('can', 0.1)]
    regions = [Region(name, (0.0, 0.0), (9.0, 9.0), score) for name, score in reversed(told)]
    found = [(region.object, region.score) for region in in_turn(regions)]
    assert found == [told[i] for i in (0, 3, 5, 1, 4, 2)]
    assert in_turn([]) == []


def test_finds_several_the_surest_first(locator):
    places = [(-0.3, -0.2), (0.3, -0.2), (-0.3, 0.2), (0.3, 0.2)]
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, :2, 3], poses[:, 2, 3] = places, 1.0
    found = locator(draw_scene(camera(640, 480), poses))
    assert len(found) == 4
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    assert len({r.center_px for r in found}) == 4


def test_finds_nothing_in_an_empty_picture(rng, locator):
    assert locator(draw_scene(camera(640, 480), None, noise=8.0, rng=rng)) == []
    assert locator(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'centers': 'heat'}, r"has outputs \['boxes', 'centers'\], and the bundle says 'heat'"),
        ({'objects': ('dots', 'cup')}, r"gives 'centers' as float32 \(2, 1, 30, 40\)"),
        ({'stride': 16}, r'promises float32 \(2, 1, 15, 20\)'),
        ({'input': 'image'}, r"has inputs \['picture'\]"),
        ({'input_size': (160, 120)}, 'refuses its input'),
    ],
)
def test_a_network_that_is_not_what_the_bundle_says_is_refused(bundle, change, words):
    backend = open_backend('onnx', bundle.read('locator.onnx'), 1)
    with pytest.raises(PoseNodeError, match=words):
        Locator(backend, dataclasses.replace(bundle.locator, **change))
