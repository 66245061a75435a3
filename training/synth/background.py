"""Backgrounds: procedural ones made at start-up, and unlabelled photographs from a folder if one
is given.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SUFFIXES = {'.jpg', '.jpeg', '.png', '.webp'}
_POOL_PX = 320


def procedural(rng: np.random.Generator, size_px: int = _POOL_PX) -> np.ndarray:
    """(size, size, 3) uint8: cloudy noise in a few colours, shapes, lines and letters on it."""
    picture = np.zeros((size_px, size_px, 3), np.float32)
    for octave in range(rng.integers(1, 6)):
        cells = int(2 ** (octave + 1)) + 1
        noise = rng.random((cells, cells, 3 if rng.random() < 0.4 else 1)).astype(np.float32) - 0.5
        noise = np.broadcast_to(noise, (cells, cells, 3)).copy()
        picture += (
            cv2.resize(noise, (size_px, size_px), interpolation=cv2.INTER_CUBIC) * rng.random()
        )
    base = rng.random(3) * 255
    picture = np.clip(base + picture * rng.uniform(20, 220), 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 14))):
        _shape(rng, picture)
    return picture


def _shape(rng: np.random.Generator, picture: np.ndarray) -> None:
    size = picture.shape[0]
    color = tuple(int(c) for c in rng.integers(0, 256, 3))
    points = rng.integers(0, size, (4, 2)).astype(np.int32)
    thickness = int(rng.integers(1, 9))
    kind = rng.integers(0, 5)
    if kind == 0:
        cv2.fillConvexPoly(picture, cv2.convexHull(points), color, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(
            picture, points[0].tolist(), int(rng.integers(4, size // 4)), color, -1, cv2.LINE_AA
        )
    elif kind == 2:
        cv2.line(picture, points[0].tolist(), points[1].tolist(), color, thickness, cv2.LINE_AA)
    elif kind == 3:
        text = ''.join(chr(c) for c in rng.integers(48, 91, 6))
        cv2.putText(
            picture, text, points[0].tolist(), 0, rng.uniform(0.5, 3), color, thickness // 2 + 1
        )
    else:
        cv2.rectangle(picture, points[0].tolist(), points[1].tolist(), color, -1)


class Backgrounds:
    """A pool to cut from. Photographs, when present, make up half of what is drawn."""

    def __init__(self, seed: int, folder: Path | None = None, pool: int = 200):
        rng = np.random.default_rng((seed, 11))
        self.made = [procedural(rng) for _ in range(pool)]
        self.photographs = _read_folder(folder) if folder else []

    def sample(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        """(H, W, 3) uint8; often two surfaces that meet in an edge, like a table and a wall."""
        first = self._cut(rng, size)
        if rng.random() < 0.6:
            return first
        width, height = size
        normal = rng.normal(size=2) * (0.4, 1.0)
        normal /= np.linalg.norm(normal)
        x, y = np.arange(width) - width * rng.random(), np.arange(height) - height * rng.random()
        side = (x[None, :] * normal[0] + y[:, None] * normal[1]) > 0
        return np.where(side[..., None], first, self._cut(rng, size))

    def _cut(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        kind = rng.random()
        if kind < 0.12:
            return np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (size[1], size[0], 3))
        pool = self.photographs if self.photographs and kind < 0.56 else self.made
        source = pool[rng.integers(len(pool))]
        height, width = source.shape[:2]
        share = rng.uniform(0.25, 1.0)
        w = max(8, int(share * min(width, height * size[0] / size[1])))
        h = max(8, int(w * size[1] / size[0]))
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        cut = cv2.resize(source[y : y + h, x : x + w], size, interpolation=cv2.INTER_LINEAR)
        return cut[:, ::-1] if rng.random() < 0.5 else cut


def _read_folder(folder: Path) -> list[np.ndarray]:
    paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in SUFFIXES)
    pictures = []
    for path in paths:
        picture = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4)
        if picture is None or min(picture.shape[:2]) < 64:
            continue
        scale = 480 / min(picture.shape[:2])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        pictures.append(np.ascontiguousarray(picture[..., ::-1]))
    return pictures
