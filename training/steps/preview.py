"""A contact sheet to look at before training: python -m training preview RECIPE [--out FILE]."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..recipe import Recipe
from ..synth.dataset import Dataset, Sample

_SHOWN_PX = 192


def preview(recipe: Recipe, out: Path, *, columns: int = 8, rows: int = 6) -> None:
    """Crops with their keypoints above, whole pictures with their boxes below, to `out`."""
    pose = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, recipe.seed)
    # Numbers from the ramp's end on: what training sees for most of its time.
    first = recipe.dataset.ramp
    tiles = [_tile(pose.crop(first + n)) for n in range(columns * rows)]
    sheet = [np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)]
    if recipe.locator:
        whole = Dataset(recipe.locator_dataset, recipe.objects, recipe.keypoints, recipe.seed)
        tiles = [_tile(whole.whole(first + n)) for n in range(2 * (columns - 2))]
        for r in range(2):
            row = np.hstack(tiles[r * (columns - 2) : (r + 1) * (columns - 2)])
            sheet.append(
                np.pad(row, ((0, 0), (0, max(0, sheet[0].shape[1] - row.shape[1])), (0, 0)))
            )
            sheet[-1] = sheet[-1][:, : sheet[0].shape[1]]
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), np.vstack(sheet)[..., ::-1])


def _tile(sample: Sample) -> np.ndarray:
    scale = _SHOWN_PX / sample.picture.shape[0]
    tile = cv2.resize(sample.picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    if not sample.present:
        return tile
    count = len(sample.keypoints_px)
    hues = np.array([[(i * 180 // count, 255, 255) for i in range(count)]], np.uint8)
    colors = cv2.cvtColor(hues, cv2.COLOR_HSV2RGB)[0]
    for point, color in zip(sample.keypoints_px, colors, strict=True):
        center = ((point + 0.5) * scale - 0.5).round().astype(int)
        cv2.circle(tile, center.tolist(), 3, color.tolist(), -1)
    low = (sample.box_center_px - sample.box_size_px / 2 + 0.5) * scale
    high = (sample.box_center_px + sample.box_size_px / 2 + 0.5) * scale
    cv2.rectangle(tile, low.astype(int).tolist(), high.astype(int).tolist(), (255, 255, 255), 1)
    return tile
