"""Networks side by side on the same pictures and boxes: heatmaps, dense ones, and OpenCV's RANSAC.

python test/dense_rivals.py BUNDLE BUNDLE.. --bop FOLDER --boxes FILE

Every bundle is evaluated as it is, and a dense one again with its coordinates alone: the pixels
that weigh at least half as much as the median of what is used, cv2.solvePnPRansac, no weights. The
first line's bundle is what the others are compared with, target by target; the error of a
difference is that of a bootstrap over pictures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pose_node.cli.evaluate import boxes_of, numbers_of, on_files
from pose_node.cli.figures import Errors, Estimates, Regions, errors_of, figures
from pose_node.core import metrics
from pose_node.core.bundle import Bundle
from pose_node.core.geometry import make_pose
from pose_node.core.pnp import PnpOptions, PoseEstimate, refine_pose
from pose_node.runtime import estimator as run_time
from pose_node.runtime.bop import BopDataset
from pose_node.runtime.readers import READERS, DenseReader, Sight

if TYPE_CHECKING:
    from pose_node.core.camera import Camera

_REPROJECTION_PX = 3.0
_DRAWS = 2000
_SHOWN = ('found', 'ADD(-S) 0.1d', 'AUC 10 cm', 'AR MSSD', 'AR MSPD', '5 deg 5 cm')


class RansacReader(DenseReader):
    """What a dense network without a pose loss is usually read by."""

    def pose(self, sight: Sight, camera: Camera, options: PnpOptions) -> PoseEstimate:
        """EPnP on samples, least squares on the inliers. Only the pose counts here: what is said
        of its covariance is that of points known to a pixel.
        """
        used = sight.confidences >= 0.5 * np.median(sight.confidences)
        used &= sight.counts
        points_obj, points_px = sight.points_obj[used], sight.points_px[used]
        nothing = super().pose(sight, camera, PnpOptions(inliers_min=10**6))
        if used.sum() < 6:
            return nothing
        cv2.setRNGSeed(0)
        ok, rotvec, t, _ = cv2.solvePnPRansac(
            points_obj, points_px, camera.K, np.array(camera.D),
            iterationsCount=200, reprojectionError=_REPROJECTION_PX, flags=cv2.SOLVEPNP_EPNP,
        )  # fmt: skip
        if not ok or t[2, 0] <= 0.0:
            return nothing
        T = make_pose(cv2.Rodrigues(rotvec)[0], t[:, 0])
        off = camera.project(sight.points_obj @ T[:3, :3].T + T[:3, 3]) - sight.points_px
        inliers = sight.counts & (np.linalg.norm(off, axis=1) < _REPROJECTION_PX)
        unit = np.broadcast_to(np.eye(2), (len(off), 2, 2))
        like = refine_pose(sight.points_obj[inliers], sight.points_px[inliers], unit[inliers],
                           camera, T, PnpOptions(gate_squared=1e6))  # fmt: skip
        covariance = like.covariance if like.ok else np.eye(6)
        return PoseEstimate(T, covariance, inliers, float(_REPROJECTION_PX), like.status, off)


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundles', type=Path, nargs='+')
    parser.add_argument('--bop', type=Path, required=True)
    parser.add_argument('--boxes', default='gt')
    options = parser.parse_args()
    dataset = BopDataset(options.bop)
    reference: Errors | None = None
    print(f'{"":34s}' + ''.join(f'{name:>14s}' for name in _SHOWN))
    for folder in options.bundles:
        bundle = Bundle.load(folder)
        dense = bundle.pose_network.kind == 'dense'
        for reader in (None, RansacReader) if dense else (None,):
            rows = _evaluated(bundle, dataset, options.boxes, reader)
            title = folder.name + (', RANSAC' if reader else '')
            values = figures(rows)
            print(f'{title:34s}' + ''.join(f'{values[name]:14.1f}' for name in _SHOWN))
            if reference is None:
                reference = rows
            else:
                print(f'{"  less the first":34s}' + _difference(rows, reference))


def _evaluated(
    bundle: Bundle, dataset: BopDataset, boxes: str, reader: type[DenseReader] | None
) -> Errors:
    names = numbers_of(bundle)
    targets = [t for t in dataset.targets if t.object in names]
    regions: Regions = boxes_of(dataset, targets, boxes, names)
    before = READERS['dense']
    run_time.READERS['dense'] = reader or before
    try:
        estimates: Estimates = on_files(bundle, dataset, regions, names)
    finally:
        READERS['dense'] = before
    rows = errors_of(dataset, targets, estimates, names)
    return rows['all'] if 'all' in rows else next(iter(rows.values()))


def _difference(rows: Errors, reference: Errors) -> str:
    """Of ADD 0.1d and AR MSSD in points, with one standard error."""
    add = np.subtract(rows['add'] < 0.1, reference['add'] < 0.1, dtype=float)
    mssd = _recalls(rows['mssd']) - _recalls(reference['mssd'])
    picture = rows['scene'] * 1e6 + rows['image']
    said = []
    for name, values in (('ADD 0.1d', add), ('AR MSSD', mssd)):
        said.append(f'{name} {100 * values.mean():+.1f} +- {100 * _error(values, picture):.1f}')
    return '; '.join(said)


def _recalls(errors: np.ndarray) -> np.ndarray:
    """Of each target, over the thresholds."""
    return np.mean([errors < threshold for threshold in metrics.MSSD_THRESHOLDS], axis=0)


def _error(values: np.ndarray, picture: np.ndarray) -> float:
    _, group = np.unique(picture, return_inverse=True)
    total, count = np.bincount(group, values), np.bincount(group)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(total), size=(_DRAWS, len(total)))
    return float(np.std(total[drawn].sum(axis=1) / count[drawn].sum(axis=1)))


if __name__ == '__main__':
    main()
