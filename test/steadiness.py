"""What tracking does to poses: on the demo's bag against its truth, and to things that stand.

python test/steadiness.py [BUNDLE] [--pose-distribution amis]

Without ROS: the estimator on the bag's pictures, with the node's own rules for where to look. "in
the room": as with target_frame, the camera's way taken from the truth; "still" as the parameter.
jitter: median length of the steps of the error from picture to picture, so that motion itself does
not count. lag: median of the error along the velocity, in ms of that velocity.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from demo_film import CHECKOUT, demo_film, read

from pose_node.core import metrics
from pose_node.core.camera import Camera
from pose_node.core.geometry import inverse
from pose_node.core.mesh import read_ply
from pose_node.ros.frames import moved
from pose_node.ros.parameters import Parameters
from pose_node.ros.tracking import Tracks
from pose_node.runtime.distribution import DISTRIBUTIONS
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator

if TYPE_CHECKING:
    from pose_node.runtime.results import ObjectPose

_HELD, _TIMES, _PERIOD_NS = 12, 60, 33_000_000
_NOISE = 4.0  # grey levels of fresh noise on held pictures
_MOVES_M_S = 0.05


def found(
    estimator: PoseEstimator,
    film: list[tuple[int, np.ndarray]],
    camera: Camera,
    parameters: Parameters,
    T_room_cam: list[np.ndarray] | None = None,
) -> list[ObjectPose | None]:
    """The surest pose of every picture of a film (stamp, picture), as the node would have it."""
    tracks = Tracks({each.name: each.symmetries for each in estimator.bundle.objects})
    poses: list[ObjectPose | None] = []
    for number, (stamp_ns, picture) in enumerate(film):
        if not parameters.track:
            result = estimator(picture, camera, stamp_ns)
            poses.append(next(iter(result.poses), None))
            continue
        T = np.eye(4) if T_room_cam is None else T_room_cam[number]
        expected, locate = tracks.expect('', stamp_ns, parameters)
        places = [(t.object, inverse(T) @ t.motion.T_ref_obj) for t in expected]
        boxes = [estimator.region_at(*place, camera) for place in places]
        tracked = [box for box in boxes if box is not None]
        regions: Any = None if locate or not tracked else ()
        result = estimator(picture, camera, stamp_ns, regions, tracked)
        seen = tracks.update('', moved(result.poses, T))
        poses.append(next(iter(moved([each.as_pose() for each in seen], inverse(T))), None))
    return poses


def way(frames: list[Any]) -> list[np.ndarray]:
    """T_room_cam of every frame, the room's origin being the thing that stands in it; where there
    is none in the picture, the last one.
    """
    last, T_room_cam = np.eye(4), []
    for frame in frames:
        last = last if frame.T_cam_obj is None else inverse(frame.T_cam_obj)
        T_room_cam.append(last)
    return T_room_cam


def on_film(
    frames: list[Any], poses: list[ObjectPose | None], vertices_m: np.ndarray, diameter_m: float
) -> str:
    """One row: against the truth of every frame."""
    shares, nees, steps, lags, last = [], [], [], [], None
    seen = [pose is not None for f, pose in zip(frames, poses, strict=True) if f.visible >= 0.5]
    half = [
        pose is not None for f, pose in zip(frames, poses, strict=True) if 0.3 <= f.visible < 0.7
    ]
    for frame, pose in zip(frames, poses, strict=True):
        if pose is None or frame.T_cam_obj is None:
            last = None
            continue
        if frame.visible >= 0.5:
            shares.append(metrics.add(pose.T_cam_obj, frame.T_cam_obj, vertices_m) / diameter_m)
        nees.append(metrics.nees(pose.T_cam_obj, frame.T_cam_obj, pose.covariance))
        place = frame.T_cam_obj[:3, 3]
        error = pose.T_cam_obj[:3, 3] - place
        if last is not None:
            velocity = (place - last[1]) / ((frame.stamp_ns - last[2]) / 1e9)
            speed = float(np.linalg.norm(velocity))
            steps.append(np.linalg.norm(error - last[0]))
            if speed > _MOVES_M_S:
                lags.append(-error @ velocity / speed**2)
        last = error, place, frame.stamp_ns
    part = np.array(shares)
    return (
        f'{100 * np.mean(seen):.1f} | {100 * np.mean(half):.1f} | {100 * (part < 0.1).mean():.1f} '
        f'| {100 * (part < 0.05).mean():.1f} | {np.mean(nees):.1f}, {np.median(nees):.1f}, '
        f'{100 * np.mean(np.array(nees) < 12.59):.1f} | {1e3 * np.median(steps):.1f} '
        f'| {1e3 * np.median(lags):.1f}'
    )


def held(
    estimator: PoseEstimator, pictures: list[np.ndarray], camera: Camera, parameters: Parameters
) -> float:
    """Median step, mm, of things on pictures that are shown again and again with fresh noise."""
    steps = []
    for number, picture in enumerate(pictures):
        rng = np.random.default_rng(number)
        film = []
        for k in range(_TIMES):
            noise = rng.normal(0.0, _NOISE, picture.shape)
            noisy = np.clip(picture + noise, 0, 255).astype(np.uint8)
            film.append((k * _PERIOD_NS, noisy))
        places = [p.T_cam_obj[:3, 3] for p in found(estimator, film, camera, parameters) if p]
        # A second for the filter to settle.
        steps += np.linalg.norm(np.diff(places[_TIMES // 2 :], axis=0), axis=1).tolist()
    return 1e3 * float(np.median(steps))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundle', nargs='?', type=Path, default=CHECKOUT / 'bundles' / 'drill')
    parser.add_argument('--pose-distribution', choices=DISTRIBUTIONS, default='gaussian')
    given = parser.parse_args()
    frames, files, camera = demo_film()
    pictures = [read(file) for file in files]
    film = [(frame.stamp_ns, picture) for frame, picture in zip(frames, pictures, strict=True)]
    options = EstimatorOptions(distribution=given.pose_distribution)
    with PoseEstimator(given.bundle, options=options) as estimator:
        mesh = estimator.bundle.objects[0].mesh
        assert mesh is not None
        vertices_m = read_ply(estimator.bundle.read(mesh)).vertices
        print('film | found % | 30 to 70 % visible | ADD 0.1d | 0.05d | NEES | jitter mm | lag ms')
        alone, tracked, still = Parameters(track=False), Parameters(), Parameters(still=True)
        for name, parameters, T_room_cam in (
            ('every picture for itself', alone, None),
            ('tracked', tracked, None),
            ('tracked in the room', tracked, way(frames)),
            ('tracked in the room, still', still, way(frames)),
        ):
            poses = found(estimator, film, camera, parameters, T_room_cam)
            row = on_film(frames, poses, vertices_m, estimator.bundle.objects[0].diameter_m)
            print(f'{name} | {row}')
        clear = [p for f, p in zip(frames, pictures, strict=True) if f.visible > 0.9]
        shown = clear[:: max(1, len(clear) // _HELD)][:_HELD]
        jitter = [held(estimator, shown, camera, each) for each in (alone, tracked, still)]
        print('held pictures, jitter mm:', ', '.join(f'{each:.2f}' for each in jitter))


if __name__ == '__main__':
    main()
