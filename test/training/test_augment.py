"""What a camera does to a picture: each part alone, against what it must keep and may change."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('moderngl', reason='moderngl is not installed: run `make test`')

from training.synth.augment import Augmenter, AugmentOptions

OFF = {
    'color': 0.0, 'blur': 0.0, 'resolution': 0.0, 'vignette': 0.0, 'bayer': 0.0, 'noise': 0.0,
    'shot_noise': 0.0, 'jpeg': 0.0, 'cutout': 0.0, 'sharpen': 0.0,
}  # fmt: skip


def augmenter(**on: float) -> Augmenter:
    return Augmenter(AugmentOptions(**{**OFF, **on}), 1, (96, 64))


def textured(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(30, 220, (64, 96, 3), dtype=np.uint8)


def test_all_off_changes_nothing(rng: np.random.Generator) -> None:
    assert {*OFF, 'native'} == set(AugmentOptions.__dataclass_fields__), (
        'a new part is not switched off'
    )
    picture = textured(rng)
    np.testing.assert_array_equal(augmenter()(rng, picture.copy()), picture)


@pytest.mark.parametrize('part', OFF)
def test_every_part_does_something_and_keeps_the_form(rng: np.random.Generator, part: str) -> None:
    picture = textured(rng)
    before = picture.copy()
    changed = augmenter(**{part: 10.0 if 'noise' in part else 1.0})(rng, picture)
    np.testing.assert_array_equal(picture, before)  # the caller's picture is his
    assert changed.shape == picture.shape and changed.dtype == np.uint8
    assert (changed != picture).any()


@pytest.mark.parametrize('part', ['blur', 'resolution', 'bayer'])
def test_an_even_picture_stays_even(rng: np.random.Generator, part: str) -> None:
    """Blur, scaling and a colour filter change edges only, and no colour."""
    picture = np.full((64, 96, 3), (200, 100, 30), np.uint8)
    for _ in range(10):
        changed = augmenter(**{part: 1.0})(rng, picture)
        inner = changed[4:-4, 4:-4].astype(int)
        assert np.abs(inner - picture[4:-4, 4:-4]).max() <= 1


def test_vignette_only_darkens(rng: np.random.Generator) -> None:
    picture = textured(rng)
    for _ in range(10):
        changed = augmenter(vignette=1.0)(rng, picture)
        assert (changed <= picture).all()
        assert changed.max() > 0.8 * picture.max()


def test_noise_has_the_width_that_was_asked_for(rng: np.random.Generator) -> None:
    """Read noise is even; the noise of light is less where it is dark."""
    picture = np.full((64, 96, 3), 128, np.uint8)
    picture[:32] = 8
    widths = []
    for _ in range(300):
        changed = augmenter(shot_noise=20.0)(rng, picture).astype(float)
        widths.append((changed[:32].std(), changed[32:].std()))
    dark, bright = np.array(widths).T
    assert bright.max() == pytest.approx(20.0, rel=0.15)
    loud = bright > 5.0
    assert (dark[loud] < 0.6 * bright[loud]).all()


def test_grain_of_an_enlarged_picture_is_the_cameras(rng: np.random.Generator) -> None:
    """Neighbours that are one pixel of the camera have one noise; places stay."""

    def grain(native: bool, enlarged: float) -> float:
        camera = Augmenter(AugmentOptions(**{**OFF, 'noise': 80.0}, native=native), 1, (96, 64))
        flat = np.full((64, 96, 3), 128, np.uint8)
        noise = camera(np.random.default_rng(3), flat, 1.0, enlarged).astype(float)
        noise -= noise.mean()
        return float((noise[:, 1:] * noise[:, :-1]).mean() / (noise**2).mean())

    assert abs(grain(False, 2.0)) < 0.05 and abs(grain(True, 0.8)) < 0.05
    assert grain(True, 2.0) > 0.5
    spot = np.zeros((64, 96, 3), np.uint8)
    spot[20:31, 40:61] = 200
    soft = Augmenter(AugmentOptions(**OFF, native=True), 1, (96, 64))(rng, spot, 1.0, 2.5)
    y, x = np.indices(soft.shape[:2])
    weights = soft[..., 0] / soft[..., 0].sum()
    assert abs((weights * x).sum() - 50.0) < 0.1 and abs((weights * y).sum() - 25.0) < 0.1
