"""`pose run`: poses in a picture, a folder of pictures, a video or a webcam, without ROS."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from pose_node.core.camera import Camera
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.distribution import DISTRIBUTIONS, answers
from pose_node.runtime.draw import draw
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator
from pose_node.runtime.preprocess import Region
from pose_node.runtime.results import FrameResult

PICTURES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('bundle', type=Path, help='folder of the bundle')
    parser.add_argument('source', help='picture, folder, video, or number of a webcam')
    camera = parser.add_mutually_exclusive_group(required=True)
    camera.add_argument('--camera', type=Path, help='calibration file of ROS (camera_info YAML)')
    camera.add_argument('--fov', type=float, help='horizontal field of view, degrees')
    camera.add_argument('--f', type=float, help='focal length, px; principal point in the middle')
    parser.add_argument(
        '--box', type=float, nargs=4, metavar=('X', 'Y', 'W', 'H'), help='look here'
    )
    parser.add_argument('--out', type=Path, default=Path('out/run'), help='folder (out/run)')
    parser.add_argument('--min-score', type=float, default=EstimatorOptions.min_score)
    parser.add_argument(
        '--pose-distribution',
        choices=DISTRIBUTIONS,
        default=EstimatorOptions.distribution,
        help='amis: poses.jsonl has every answer of the samples, too (%(default)s)',
    )
    parser.add_argument('--show', action='store_true', help='a window, where there is a display')


def run(options: argparse.Namespace) -> int:
    """Write overlays and poses.jsonl into --out; print a line for every picture."""
    options.out.mkdir(parents=True, exist_ok=True)
    found = 0
    estimator_options = EstimatorOptions(
        min_score=options.min_score, distribution=options.pose_distribution
    )
    with (
        PoseEstimator(options.bundle, options=estimator_options) as estimator,
        (options.out / 'poses.jsonl').open('w', encoding='utf-8') as lines,
        Overlays(options.out, options.show) as overlays,
    ):
        regions = None
        if options.box:
            # A box does not say what it shows; the score will.
            regions = [Region.from_xywh(name, options.box) for name in estimator.objects]
        for name, picture in frames(options.source):
            camera = camera_of(options, (picture.shape[1], picture.shape[0]))
            result = estimator(picture, camera, regions=regions)
            lines.write(json.dumps({'picture': name, 'poses': as_data(result)}) + '\n')
            overlays.add(
                name, draw(picture, camera, result, estimator.bundle), moving(options.source)
            )
            found += bool(result.poses)
            print(f'{name}: {sentence(result)}')
            if overlays.closed:
                break
    print(f'{options.out}: overlays and poses.jsonl; something found in {found} pictures')
    return 0


def moving(source: str) -> bool:
    """Whether the source is a video or a webcam."""
    path = Path(source).expanduser()
    return source.isdigit() or not (path.is_dir() or path.suffix.lower() in PICTURES)


def frames(source: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and picture (H, W, 3) RGB of everything in the source; raises PoseNodeError."""
    path = Path(source).expanduser()
    if not source.isdigit() and not path.exists():
        raise PoseNodeError(f'{source} does not exist; give a picture, folder, video or webcam.')
    if moving(source):
        capture = cv2.VideoCapture(int(source) if source.isdigit() else str(path))
        if not capture.isOpened():
            raise PoseNodeError(f'{source} cannot be opened as a video; convert it, or check it.')
        number = 0
        while (grabbed := capture.read())[0]:
            yield f'{number:06d}', np.ascontiguousarray(grabbed[1][..., ::-1])
            number += 1
        capture.release()
        return
    files = [path] if path.is_file() else sorted(path.iterdir())
    files = [file for file in files if file.suffix.lower() in PICTURES]
    if not files:
        raise PoseNodeError(f'{source} holds no pictures ({", ".join(sorted(PICTURES))}).')
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:
            raise PoseNodeError(f'{file} is no picture; remove it or save it again.')
        yield file.stem, np.ascontiguousarray(picture[..., ::-1])


def camera_of(options: argparse.Namespace, size: tuple[int, int]) -> Camera:
    """The camera of a picture of `size`, from the command line."""
    width, height = size
    if options.camera:
        return read_calibration(options.camera, size)
    if options.fov is not None and not 1.0 < options.fov < 179.0:
        raise PoseNodeError(f'--fov is {options.fov:g}, wanted degrees between 1 and 179.')
    if options.f is not None:
        f = options.f
    else:
        f = width / (2.0 * math.tan(math.radians(options.fov) / 2.0))
    return Camera(np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]]), size)


def read_calibration(path: Path, size: tuple[int, int]) -> Camera:
    """The camera of a picture of `size` from the YAML that camera_calibration of ROS writes."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding='utf-8'))
        return Camera.from_calibration(
            calibration_size=(content['image_width'], content['image_height']),
            K=np.array(content['camera_matrix']['data'], np.float64).reshape(3, 3),
            D=content['distortion_coefficients']['data'],
            model=content['distortion_model'],
            picture_size=size,
        )
    except PoseNodeError:
        raise
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise PoseNodeError(
            f'{path} is no calibration of ROS ({error!r}); it needs image_width, image_height, '
            'camera_matrix, distortion_model and distortion_coefficients.'
        ) from None


def as_data(result: FrameResult) -> list[dict[str, Any]]:
    """The poses as JSON: metres, rows of T_cam_obj, covariance (x, y, z, rx, ry, rz); `answers`,
    the pose's own first, where its distribution was asked for.
    """
    return [
        {
            'object': pose.object,
            **_as_data(pose.T_cam_obj, pose.covariance, pose.score),
            **({'answers': [_as_data(*a) for a in answers(pose)]} if pose.distribution else {}),
        }
        for pose in result.poses
    ]


def _as_data(T_cam_obj: np.ndarray, covariance: np.ndarray, score: float) -> dict[str, Any]:
    return {
        'score': score,
        'T_cam_obj': T_cam_obj.tolist(),
        'covariance': covariance.tolist(),
    }


def sentence(result: FrameResult) -> str:
    """What was found, for a person."""
    if not result.poses:
        return f'nothing found ({len(result.regions)} regions looked at)'
    parts = []
    for pose in result.poses:
        x, y, z = pose.T_cam_obj[:3, 3]
        parts.append(f'{pose.object} at ({x:.3f}, {y:.3f}, {z:.3f}) m, score {pose.score:.2f}')
    return '; '.join(parts)


class Overlays:
    """Pictures one by one, or a video that browsers play; and a window."""

    def __init__(self, folder: Path, show: bool) -> None:
        self.folder, self.show, self.closed = folder, show, False
        self._video: cv2.VideoWriter | None = None

    def add(self, name: str, picture: np.ndarray, video: bool) -> None:
        """Write one overlay (H, W, 3) RGB."""
        bgr = np.ascontiguousarray(picture[..., ::-1])
        if video:
            if self._video is None:
                codec = cv2.VideoWriter.fourcc(*'VP80')
                size = (bgr.shape[1], bgr.shape[0])
                self._video = cv2.VideoWriter(str(self.folder / 'overlay.webm'), codec, 30.0, size)
                if not self._video.isOpened():
                    raise PoseNodeError(
                        'This OpenCV writes no WebM video; install ours from PyPI.'
                    )
            self._video.write(bgr)
        else:
            cv2.imwrite(str(self.folder / f'{name}.jpg'), bgr)
        if self.show:
            cv2.imshow('pose', bgr)
            self.closed = cv2.waitKey(1) in (27, ord('q'))

    def __enter__(self) -> Overlays:
        return self

    def __exit__(self, *_: object) -> None:
        if self._video is not None:
            self._video.release()
