"""The demo's bag as it is: frames with their truth, files of pictures, and the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pose_node.cli.truth import read_frames
from pose_node.core.camera import Camera
from pose_node.ros.bagfile import BagReader

CHECKOUT = Path(__file__).resolve().parents[1]


def demo_film() -> tuple[list[Any], list[Any], Camera]:
    """One CompressedImage a frame."""
    with BagReader(CHECKOUT / 'demo' / 'drill_bag') as bag:
        frames = read_frames(bag)
        files = [message for _, message in bag.messages(['/camera/image_raw/compressed'])]
        info = next(message for _, message in bag.messages(['/camera/camera_info']))
    K, size = np.array(info.k).reshape(3, 3), (info.width, info.height)
    return frames, files, Camera(K, size, info.distortion_model, tuple(info.d))


def read(file: Any) -> np.ndarray:
    """(H, W, 3) RGB."""
    return cv2.cvtColor(cv2.imdecode(np.asarray(file.data, np.uint8), 1), cv2.COLOR_BGR2RGB)
