"""What moving poses to outlines does to them, on a BOP data set; and a picture.

    .venv/bin/python -m training scenes config/recipes/drill.toml --pictures 120 --seed 31
    .venv/bin/python test/contours.py BUNDLE --bop out/scenes_drill [--picture doc/contour.jpg]

True boxes. The picture shows the four targets whose keypoints are the farthest off, enlarged: the
outline of the pose that the keypoints give in yellow, of the aligned one in red.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from scipy import stats

from pose_node.cli.evaluate import boxes_of, most_regions, numbers_of
from pose_node.core import metrics
from pose_node.core.bundle import Bundle
from pose_node.core.camera import Camera
from pose_node.core.mesh import read_ply
from pose_node.core.outline import Shape, outline
from pose_node.runtime.bop import BopDataset
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator

SHOWN, SIDE_PX, MARGIN = 4, 480, 1.25
YELLOW, RED = (255, 220, 0), (255, 40, 40)


@dataclass
class Target:
    """One thing in one picture, looked at in both ways."""

    key: tuple[int, int]
    name: str
    T_cam_obj: tuple[np.ndarray, np.ndarray]  # of the keypoints, aligned
    add: tuple[float, float]  # shares of the diameter
    nees: tuple[float, float]


def looked_at(bundle: Bundle, dataset: BopDataset, names: dict[int, str]) -> list[Target]:
    """All targets that both ways found, and what aligning took."""
    targets = [each for each in dataset.targets if each.object in names]
    regions = boxes_of(dataset, targets, 'gt', names)
    most = most_regions(regions, len(names))
    numbers, found, align_ms, poses = {n: i for i, n in names.items()}, [], [], 0
    with PoseEstimator(bundle) as estimator:
        for key, boxes in regions.items():
            picture = dataset.picture(*key)
            camera = dataset.camera(*key, (picture.shape[1], picture.shape[0]))
            both = []
            for contour in (False, True):
                estimator.options = EstimatorOptions(
                    min_score=0.0, max_objects=most, threads=1, contour=contour
                )
                result = estimator(picture, camera, regions=boxes)
                both.append({pose.object: pose for pose in result.poses})
            align_ms.append(result.stage_ms['align'])
            poses += len(result.poses)
            for truth in dataset.truths(*key):
                name = names.get(truth.object, '')
                pair = [each[name] for each in both if name in each]
                if len(pair) < 2:
                    continue
                model = dataset.model(numbers[name])
                same = truth.T_cam_obj @ model.symmetries.transforms()
                found.append(
                    Target(
                        key,
                        name,
                        tuple(p.T_cam_obj for p in pair),
                        tuple(
                            min(metrics.add(p.T_cam_obj, T, model.vertices_m) for T in same)
                            / model.diameter_m
                            for p in pair
                        ),
                        tuple(
                            min(metrics.nees(p.T_cam_obj, T, p.covariance) for T in same)
                            for p in pair
                        ),
                    )
                )
    print(f'{len(found)} targets; aligning takes {sum(align_ms) / poses:.1f} ms a pose')
    return found


def drawn(dataset: BopDataset, target: Target, shape: Shape) -> np.ndarray:
    """The target with both outlines, enlarged."""
    picture = dataset.picture(*target.key)
    camera = dataset.camera(*target.key, (picture.shape[1], picture.shape[0]))
    seen = outline(shape, target.T_cam_obj[1], camera)
    assert seen is not None
    low, high = seen.points_px.min(axis=0), seen.points_px.max(axis=0)
    zoom = SIDE_PX / (MARGIN * float((high - low).max()))
    A = zoom * np.column_stack((np.eye(2), SIDE_PX / 2.0 / zoom - (low + high) / 2.0))
    tile = cv2.warpAffine(picture, A, (SIDE_PX, SIDE_PX), flags=cv2.INTER_CUBIC)
    large: Camera = camera.transformed(A, (SIDE_PX, SIDE_PX))
    for T, color in zip(target.T_cam_obj, (YELLOW, RED)):
        line = outline(shape, T, large)
        assert line is not None
        for x, y in np.round(line.points_px).astype(int).tolist():
            cv2.circle(tile, (x, y), 1, color, -1, cv2.LINE_AA)
    return tile


def main() -> None:
    """Print the table, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundle', type=Path)
    parser.add_argument('--bop', type=Path, required=True)
    parser.add_argument('--object-id', type=int, help='for a bundle that does not say its own')
    parser.add_argument('--picture', type=Path)
    given = parser.parse_args()
    bundle, dataset = Bundle.load(given.bundle), BopDataset(given.bop)
    found = looked_at(bundle, dataset, numbers_of(bundle, given.object_id))
    print('| | ADD 0.1d | 0.05d | 0.02d | NEES: median | in 50 % region | in 95 % region |')
    for i, way in enumerate(('keypoints', 'aligned')):
        add = np.array([each.add[i] for each in found])
        nees = np.array([each.nees[i] for each in found])[add < 0.5]
        shares = [f'{100 * np.mean(add < limit):.1f} %' for limit in (0.1, 0.05, 0.02)]
        inside = [f'{100 * np.mean(nees < stats.chi2(6).ppf(p)):.1f} %' for p in (0.5, 0.95)]
        print(f'| {way} | {" | ".join(shares)} | {np.median(nees):.1f} | {" | ".join(inside)} |')
    if given.picture:
        tiles = []
        for each in sorted(found, key=lambda each: -each.add[0])[:SHOWN]:
            file = bundle.object(each.name).shape
            assert file is not None
            mesh = read_ply(bundle.read(file))
            shape = Shape.from_mesh(mesh.vertices, mesh.faces)
            tiles.append(drawn(dataset, each, shape))
        cv2.imwrite(
            str(given.picture), np.hstack(tiles)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]
        )


if __name__ == '__main__':
    main()
