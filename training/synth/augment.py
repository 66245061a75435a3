"""What a camera does to a picture: colour, exposure, blur, resolution, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_NOISE_PX = 512
# OpenCV names a pattern by its second row and column; keys are where red is.
_DEMOSAICING = {
    (0, 0): cv2.COLOR_BayerBG2RGB,
    (0, 1): cv2.COLOR_BayerGB2RGB,
    (1, 0): cv2.COLOR_BayerGR2RGB,
    (1, 1): cv2.COLOR_BayerRG2RGB,
}


@dataclass(frozen=True)
class AugmentOptions:
    """Strengths; 0 switches a part off."""

    color: float = 1.0  # contrast, brightness, gamma and white balance
    blur: float = 0.35  # share of pictures that are blurred (defocus or motion)
    resolution: float = 0.3  # share of pictures that went through a smaller size
    vignette: float = 0.0  # share of pictures that are darker towards one side or all round
    bayer: float = 0.0  # share of pictures that went through a colour filter and back
    noise: float = 12.0  # largest standard deviation of the read noise, in grey levels
    shot_noise: float = 0.0  # the same of the noise of light itself, at half of full brightness
    jpeg: float = 0.3  # share of pictures that went through JPEG
    cutout: float = 0.2  # share of pictures with a flat patch pasted over
    sharpen: float = 0.0  # share of pictures whose edges the camera made harder
    # Whether all that is done at the camera's own resolution, where that is lower, and the picture
    # enlarged afterwards, as a region of a photograph is: noise then has no finer grain than it.
    native: bool = False


class Augmenter:
    """Holds the noise bank, so that noise costs an addition."""

    def __init__(self, options: AugmentOptions, seed: int, size: tuple[int, int]):
        """size: width and height of the pictures to come."""
        self.options = options
        rng = np.random.default_rng((seed, 7))
        side = max(_NOISE_PX, *size)
        self.bank = rng.normal(size=(side, side, 3)).astype(np.float32)

    def __call__(
        self,
        rng: np.random.Generator,
        picture: np.ndarray,
        blur: float = 1.0,
        enlarged: float = 1.0,
    ) -> np.ndarray:
        """(H, W, 3) uint8 -> the same, as a camera might have delivered it; `blur` is how much of
        the options' share of blurred pictures is to be had yet, `enlarged` how many of its pixels
        are one of the camera's.
        """
        if not self.options.native or enlarged <= 1.0:
            return self._seen(rng, picture, blur)
        height, width = picture.shape[:2]
        size = (max(8, round(width / enlarged)), max(8, round(height / enlarged)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        small = self._seen(rng, small, blur)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)

    def _seen(self, rng: np.random.Generator, picture: np.ndarray, blur: float) -> np.ndarray:
        options = self.options
        if rng.random() < options.cutout:
            picture = _cutout(rng, picture)
        if rng.random() < blur * options.blur:
            picture = _blur(rng, picture)
        if rng.random() < options.resolution:
            picture = _resolution(rng, picture)
        if options.vignette > 0 and rng.random() < options.vignette:
            picture = _vignette(rng, picture)
        if options.color > 0:
            picture = cv2.LUT(picture, _tone_curves(rng, options.color))
        if options.noise > 0 or options.shot_noise > 0:
            picture = self._noise(rng, picture)
        if options.bayer > 0 and rng.random() < options.bayer:
            picture = _bayer(rng, picture)
        if options.sharpen > 0 and rng.random() < options.sharpen:
            picture = _sharpen(rng, picture)
        if rng.random() < options.jpeg:
            picture = _jpeg(rng, picture)
        return picture

    def _noise(self, rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        y, x = rng.integers(0, len(self.bank) - np.array((height, width)) + 1)
        read = self.options.noise * rng.random() ** 2
        noise = self.bank[y : y + height, x : x + width] * np.float32(read)
        if self.options.shot_noise > 0:
            # Of n photons the count varies by the root of n; grey levels are about its root, too,
            # so that the noise is nearly even but for the darkest.
            shot = self.options.shot_noise * rng.random() ** 2
            level = np.sqrt(np.arange(256) / 127.5)
            sigma = np.sqrt(read**2 + (shot * np.minimum(level, 1.0)) ** 2).astype(np.float32)
            noise = self.bank[y : y + height, x : x + width] * sigma[picture]
        return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _tone_curves(rng: np.random.Generator, strength: float) -> np.ndarray:
    """(1, 256, 3) uint8 look-up table: gamma, contrast and brightness for all channels, a gain for
    each.
    """
    level = np.linspace(0.0, 1.0, 256)
    curve = level ** np.exp(rng.normal(0, 0.3 * strength))
    curve = (curve - 0.5) * np.exp(rng.normal(0, 0.2 * strength)) + 0.5
    curve = curve * np.exp(rng.normal(0, 0.2 * strength)) + rng.normal(0, 0.06 * strength)
    curves = curve[:, None] * np.exp(rng.normal(0, 0.08 * strength, 3))
    return (np.clip(curves, 0, 1) * 255 + 0.5).astype(np.uint8)[None]


def _vignette(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Darker with the square of the distance from a point in or beside the picture."""
    height, width = picture.shape[:2]
    x0, y0 = rng.uniform(-0.5, 1.5, 2)
    x, y = np.arange(width) / width - x0, np.arange(height) / height - y0
    squared = (y[:, None] ** 2 + x[None, :] ** 2).astype(np.float32)
    gain = 1.0 - rng.uniform(0.1, 0.6) * squared / squared.max()
    return (picture * gain[..., None]).astype(np.uint8)


def _bayer(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """One colour a pixel, the others guessed from its neighbours, as most sensors do."""
    mosaic = picture[..., 1].copy()
    red_y, red_x = rng.integers(0, 2, 2)
    mosaic[red_y::2, red_x::2] = picture[red_y::2, red_x::2, 0]
    mosaic[1 - red_y :: 2, 1 - red_x :: 2] = picture[1 - red_y :: 2, 1 - red_x :: 2, 2]
    return np.asarray(cv2.demosaicing(mosaic, _DEMOSAICING[red_y, red_x]))


def _sharpen(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """An unsharp mask: what a blur takes away is added once more."""
    strength = rng.uniform(0.2, 1.5)
    soft = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 1.2))
    return cv2.addWeighted(picture, 1.0 + strength, soft, -strength, 0.0)


def _blur(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    if rng.random() < 0.6:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6))
    length = int(rng.integers(3, 8))
    kernel = np.zeros((length, length), np.float32)
    end = (np.array((np.cos(a := rng.uniform(0, np.pi)), np.sin(a))) + 1) / 2 * (length - 1)
    cv2.line(
        kernel,
        np.round(end).astype(int).tolist(),
        np.round(length - 1 - end).astype(int).tolist(),
        1.0,
    )
    return cv2.filter2D(picture, -1, kernel / kernel.sum())


def _resolution(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = rng.uniform(0.4, 0.95)
    small = (max(8, round(scale * width)), max(8, round(scale * height)))
    small_picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(small_picture, (width, height), interpolation=cv2.INTER_LINEAR)


def _jpeg(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    quality = int(rng.integers(35, 96))
    # Channel order does not matter to what JPEG does here.
    _, data = cv2.imencode('.jpg', picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _cutout(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    picture = picture.copy()
    center = (rng.random(2) * (width, height)).astype(int)
    w, h = (rng.uniform(0.08, 0.3, 2) * (width, height)).astype(int)
    x0, y0 = np.maximum(center - (w // 2, h // 2), 0)
    picture[y0 : y0 + h, x0 : x0 + w] = rng.integers(0, 256, 3)
    return picture
