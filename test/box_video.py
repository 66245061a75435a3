"""Does it hold a biscuit box that is moved by hand, through the whole film?

POSE_NODE_REAL=FOLDER python test/box_video.py BUNDLE [--sheet PICTURE.png]

FOLDER/box_video holds OpenCV's film of the box and a pose of every picture from its ORB features,
which is no measured truth (median residual 1.3 px), but does not drift. BUNDLE is what
config/recipes/biscuit_box.toml makes from one photograph of the box.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from steadiness import found

from pose_node.core import metrics
from pose_node.core.camera import Camera
from pose_node.core.geometry import apply, make_pose
from pose_node.ros.parameters import Parameters
from pose_node.runtime.draw import draw
from pose_node.runtime.estimator import PoseEstimator
from pose_node.runtime.results import FrameResult

if TYPE_CHECKING:
    from pose_node.runtime.results import ObjectPose

_RATE_HZ = 30.0
_SIZE_M = np.array((0.258, 0.189, 0.075))
# The film's box has its corner at the origin and its first two axes the other way round: its pose
# times this is the pose of ours, whose origin is a corner, too.
_TURN = np.array(((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
_T_THEIRS_OURS = make_pose(_TURN, _SIZE_M[[1, 0, 2]] / 2.0 - _TURN @ (_SIZE_M / 2.0))


def read_film(folder: Path) -> tuple[list[tuple[int, np.ndarray]], list[np.ndarray], Camera]:
    """(stamp, picture) and T_cam_obj of every picture, and the camera."""
    known = json.loads((folder / 'pseudo_gt_orb_pnp.json').read_text())
    film, truth = [], []
    video = cv2.VideoCapture(str(folder / 'box.mp4'))
    while (read := video.read())[0]:
        film.append((round(1e9 * len(film) / _RATE_HZ), cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)))
    for number in range(len(film)):
        pose = known['frames'][str(number)]
        R = cv2.Rodrigues(np.array(pose['rvec'], float))[0]
        truth.append(make_pose(R, np.array(pose['t_cm'], float) / 100.0) @ _T_THEIRS_OURS)
    height, width = film[0][1].shape[:2]
    K = np.array(known['K'], float).reshape(3, 3)
    return film, truth, Camera(K, (width, height), 'plumb_bob', (0.0,) * 5)


def row(
    poses: list[ObjectPose | None], truth: list[np.ndarray], camera: Camera, corners_m: np.ndarray
) -> str:
    """Found, longest time without, and errors against the film's poses."""
    gaps = [len(list(run)) for lost, run in groupby(p is None for p in poses) if lost]
    pairs = [(p.T_cam_obj, T) for p, T in zip(poses, truth, strict=True) if p is not None]
    diameter_m = float(np.linalg.norm(_SIZE_M))
    add = np.array([metrics.add(T, wanted, corners_m) for T, wanted in pairs]) / diameter_m
    shift = [np.linalg.norm(T[:3, 3] - wanted[:3, 3]) for T, wanted in pairs]
    px = [
        np.linalg.norm(
            camera.project(apply(T, corners_m)) - camera.project(apply(wanted, corners_m)), axis=1
        ).mean()
        for T, wanted in pairs
    ]
    return (
        f'{100.0 * len(pairs) / len(poses):.1f} % | {max(gaps, default=0)} | '
        f'{100.0 * (add < 0.1).mean():.1f} % | {np.median(px):.1f}, {np.percentile(px, 95):.1f} | '
        f'{1e3 * np.median(shift):.0f} | {steps_mm(poses, truth):.1f}'
    )


def steps_mm(poses: list[ObjectPose | None], truth: list[np.ndarray]) -> float:
    """Median step of the error from picture to picture, mm."""
    errors = [
        None if p is None else p.T_cam_obj[:3, 3] - T[:3, 3]
        for p, T in zip(poses, truth, strict=True)
    ]
    steps = [np.linalg.norm(b - a) for a, b in pairwise(errors) if a is not None and b is not None]
    return 1e3 * float(np.median(steps))


def main() -> None:
    """Print the table; draw every 45th picture where a sheet is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundle', type=Path)
    parser.add_argument('--sheet', type=Path)
    options = parser.parse_args()
    film, truth, camera = read_film(Path(os.environ['POSE_NODE_REAL']) / 'box_video')
    corners_m = _SIZE_M * np.array(np.meshgrid((0, 1), (0, 1), (0, 1))).reshape(3, 8).T
    print(
        f'{len(film)} pictures | found | longest without | ADD 0.1d | corners px: median, 95 % '
        '| shift mm | step mm'
    )
    with PoseEstimator(options.bundle) as estimator:
        for name, track in (('every picture for itself', False), ('tracked', True)):
            poses = found(estimator, film, camera, Parameters(track=track))
            print(f'{name} | {row(poses, truth, camera, corners_m)}')
        if options.sheet is not None:
            shown = [
                draw(
                    picture,
                    camera,
                    FrameResult((pose,) * (pose is not None), (), (), {}),
                    estimator.bundle,
                )
                for (_, picture), pose in list(zip(film, poses, strict=True))[::45]
            ]
            shown += [np.zeros_like(shown[0])] * (-len(shown) % 4)
            rows = [np.hstack(shown[k : k + 4]) for k in range(0, len(shown), 4)]
            sheet = cv2.resize(np.vstack(rows), None, fx=0.5, fy=0.5)
            cv2.imwrite(str(options.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == '__main__':
    main()
