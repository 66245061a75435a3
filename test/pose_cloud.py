"""What it costs to sample poses, and a picture of a cloud with two answers.

    .venv/bin/python test/pose_cloud.py [--picture doc/pose_cloud.png]

The picture: a tag of 6 cm in 80 cm, its corners known to half a pixel; on the left as the camera
sees it, with the normals of the samples, on the right from the side, each sample a line.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from pose_node.core import dense
from pose_node.core.camera import Camera
from pose_node.core.geometry import angle_between, apply, exp_so3, make_pose
from pose_node.core.pnp import PnpStatus, solve_pnp
from pose_node.core.symmetry import Symmetries
from pose_node.runtime.distribution import sampled
from pose_node.runtime.preprocess import Region
from pose_node.runtime.results import Likelihood, ObjectPose, nothing

F, SIDE_PX, ZOOM = 600.0, 64, 7
TAG_M, FAR_M, CORNERS = 0.06, 0.8, 6
TILT = np.array([0.32, 0.08, 0.0])
COLORS = ((96, 224, 64), (64, 160, 255))  # BGR: the likelier answer, the other one
WHITE, GREY, YELLOW = (255, 255, 255), (150, 150, 150), (64, 224, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def camera(zoom: float = 1.0) -> Camera:
    """The middle of a picture, also enlarged."""
    c = zoom * SIDE_PX / 2.0 - 0.5
    K = np.array([[zoom * F, 0.0, c], [0.0, zoom * F, c], [0.0, 0.0, 1.0]])
    return Camera(K, (int(zoom * SIDE_PX),) * 2)


def found(
    points_obj: np.ndarray, T: np.ndarray, sigma_px: float, rng: np.random.Generator
) -> tuple[ObjectPose, np.ndarray]:
    """The solver's pose with its likelihood, not sampled yet; and where the points were seen."""
    px = camera().project(apply(T, points_obj))
    px = px + sigma_px * rng.normal(size=px.shape)
    covariances = np.tile(sigma_px**2 * np.eye(2), (len(px), 1, 1))
    estimate = solve_pnp(points_obj, px, covariances, camera())
    optima = [T for T in (estimate.T_cam_obj, estimate.T_cam_obj_other) if T is not None]
    pose = replace(
        nothing(Region('tag', (0.0, 0.0), (1.0, 1.0)), 4),
        T_cam_obj=estimate.T_cam_obj,
        covariance=estimate.covariance,
        status=estimate.status,
        likelihood=Likelihood(points_obj, px, covariances, tuple(optima), dense.KERNEL_SIGMAS),
    )
    return pose, px


def tag(rng: np.random.Generator) -> tuple[ObjectPose, np.ndarray]:
    """One look at the tag that leaves two answers."""
    side = TAG_M * np.linspace(-0.5, 0.5, CORNERS)
    corners = np.stack((*np.meshgrid(side, side), np.zeros((CORNERS, CORNERS))), axis=-1)
    T = make_pose(exp_so3(TILT), np.array([0.0, 0.0, FAR_M]))
    while True:
        pose, px = found(corners.reshape(-1, 3), T, 0.5, rng)
        if pose.status is PnpStatus.AMBIGUOUS:
            pose = sampled(pose, camera(), Symmetries.none(), 0)
            if pose.distribution is not None and len(pose.distribution.hypotheses) == 2:
                return pose, px


def of_which(pose: ObjectPose) -> np.ndarray:
    """(S,) which answer every sample is of."""
    assert pose.distribution is not None
    turns = pose.distribution.T_cam_obj[:, :3, :3]
    known = [each.T_cam_obj[:3, :3] for each in pose.distribution.hypotheses]
    return np.stack([angle_between(turns, R) for R in known]).argmin(axis=0)


def front(pose: ObjectPose, px: np.ndarray) -> np.ndarray:
    """The tag as the camera has it, the normals of the samples in it."""
    assert pose.distribution is not None
    near = camera(ZOOM)
    canvas = np.full((near.size[1], near.size[0], 3), 40, np.uint8)
    T = make_pose(exp_so3(TILT), np.array([0.0, 0.0, FAR_M]))
    cells = CORNERS - 1
    for i, j in np.ndindex(cells, cells):
        cell = np.array([(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]) / cells - 0.5
        flat = np.column_stack((TAG_M * cell, np.zeros(4)))
        corners = np.round(8 * near.project(apply(T, flat))).astype(int)
        shade = (70, 70, 70) if (i + j) % 2 else (190, 190, 190)
        cv2.fillConvexPoly(canvas, corners, shade, cv2.LINE_AA, 3)
    stick = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -0.7 * TAG_M]])
    for k, each in zip(of_which(pose), pose.distribution.T_cam_obj):
        a, b = np.round(8 * near.project(apply(each, stick))).astype(int)
        cv2.line(canvas, tuple(a.tolist()), tuple(b.tolist()), COLORS[k], 1, cv2.LINE_AA, 3)
    for point in np.round(8 * (ZOOM * (px + 0.5) - 0.5)).astype(int):
        cv2.circle(canvas, tuple(point.tolist()), 20, YELLOW, -1, cv2.LINE_AA, 3)
    cv2.putText(canvas, 'what the camera sees', (10, 22), FONT, 0.5, WHITE, 1, cv2.LINE_AA)
    return canvas


def side(pose: ObjectPose) -> np.ndarray:
    """The samples from the camera's right: depth to the right, down is down."""
    assert pose.distribution is not None
    size = SIDE_PX * ZOOM
    canvas = np.full((size, size, 3), 40, np.uint8)
    scale = 0.7 * size / TAG_M / 1.6  # px / m

    def line(T: np.ndarray, color: tuple[int, ...], width: int) -> None:
        ends = apply(T, np.array([[0.0, -0.5 * TAG_M, 0.0], [0.0, 0.5 * TAG_M, 0.0]]))
        places = np.stack((ends[:, 2] - FAR_M, ends[:, 1]), axis=1) * scale + size / 2
        a, b = np.round(8 * places).astype(int)
        cv2.line(canvas, tuple(a.tolist()), tuple(b.tolist()), color, width, cv2.LINE_AA, 3)

    for k, each in zip(of_which(pose), pose.distribution.T_cam_obj):
        line(each, tuple(int(0.6 * c) for c in COLORS[k]), 1)
    known = pose.distribution.hypotheses
    for each, color in zip(known, COLORS):
        line(each.T_cam_obj, color, 3)
    mean = sum(each.share * each.T_cam_obj for each in known)
    u, _, vt = np.linalg.svd(mean[:3, :3])
    line(make_pose(u @ vt, mean[:3, 3]), WHITE, 1)
    texts = [('from the side: the camera looks to the right', WHITE)]
    texts += [(f'{each.share:.0%} of the mass', color) for each, color in zip(known, COLORS)]
    texts.append(('the mean of both, which nothing speaks for', WHITE))
    for i, (text, color) in enumerate(texts):
        cv2.putText(canvas, text, (10, 22 + 20 * i), FONT, 0.5, color, 1, cv2.LINE_AA)
    cv2.arrowedLine(canvas, (10, size - 20), (70, size - 20), GREY, 1, cv2.LINE_AA, 0, 0.15)
    length = round(0.01 * scale)
    cv2.line(canvas, (size - 20 - length, size - 20), (size - 20, size - 20), GREY, 2)
    at = (size - 20 - length, size - 28)
    cv2.putText(canvas, '1 cm', at, FONT, 0.45, GREY, 1, cv2.LINE_AA)
    return canvas


def milliseconds(action: Callable[[], object], times: int = 40) -> float:
    """Of the processor, the least of so many."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
    return 1e3 * min(taken)


def costs(rng: np.random.Generator) -> None:
    """Print a line for keypoints, a line for dense correspondences."""
    print(f'{"points":>8}{"solver, ms":>12}{"samples, ms":>13}{"ratio":>7}')
    for count in (20, 512):
        points = rng.uniform(-0.02, 0.02, (count, 3))
        T = make_pose(exp_so3(rng.normal(size=3)), np.array([0.0, 0.0, FAR_M]))
        pose, px = found(points, T, 1.0, rng)
        covariances = np.tile(np.eye(2), (count, 1, 1))
        solver = milliseconds(partial(solve_pnp, points, px, covariances, camera()))
        samples = milliseconds(partial(sampled, pose, camera(), Symmetries.none(), 0))
        print(f'{count:8d}{solver:12.2f}{samples:13.2f}{samples / solver:7.1f}')


def main() -> None:
    """Costs, and the picture where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--picture', type=Path)
    options = parser.parse_args()
    costs(np.random.default_rng(0))
    if options.picture:
        pose, px = tag(np.random.default_rng(3))
        cv2.imwrite(str(options.picture), np.hstack((front(pose, px), side(pose))))


if __name__ == '__main__':
    main()
