"""What a demo bag says of its object, and how far the node's answers are from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pose_node.core import metrics
from pose_node.core.mesh import read_ply
from pose_node.ros.messages import matrix_of

if TYPE_CHECKING:
    from pose_node.core.bundle import Bundle
    from pose_node.ros.bagfile import BagReader

DETECTIONS_TOPIC = '/ground_truth/detections'


@dataclass
class Frame:
    """One picture of the bag: the truth, and what the node answered."""

    index: int
    stamp_ns: int
    visible: float  # share of the object's pixels; 0 when it is not in the picture
    T_cam_obj: np.ndarray | None  # the truth
    received_ns: int | None = None  # when the recorder got the picture
    answered_ns: int | None = None  # and the answer; which it handles first is chance
    score: float | None = None
    objects: int = 0
    add_share: float | None = None  # ADD over the diameter
    rotation_deg: float | None = None
    translation_mm: float | None = None
    sigma_mm: float | None = None  # of the position, as the node claims
    nees: float | None = None
    stage_ms: dict[str, float] = field(default_factory=dict)

    @property
    def latency_ms(self) -> float | None:
        """From picture to answer, as the recorder received them."""
        if self.received_ns is None or self.answered_ns is None:
            return None
        return (self.answered_ns - self.received_ns) * 1e-6


class Judge:
    """Measures answers on the bundle's own mesh."""

    def __init__(self, bundle: Bundle) -> None:
        self.object = bundle.objects[0]
        self.diameter_m = self.object.diameter_m
        mesh = self.object.mesh
        self._points_obj = (
            read_ply(bundle.read(mesh)).vertices if mesh else self.object.keypoints_obj_m
        )

    def take(self, frame: Frame, message: Any, time_ns: int) -> None:
        """Fill in what a Detection3DArray answers to the frame's picture."""
        frame.answered_ns = time_ns
        frame.objects = len(message.detections)
        results = [d.results[0] for d in message.detections]
        results = [r for r in results if r.hypothesis.class_id == self.object.name]
        if not results:
            return
        best = max(results, key=lambda r: r.hypothesis.score)
        frame.score = float(best.hypothesis.score)
        covariance = np.array(best.pose.covariance, np.float64).reshape(6, 6)
        frame.sigma_mm = 1000.0 * float(np.sqrt(np.trace(covariance[:3, :3])))
        if frame.T_cam_obj is None:
            return
        T = matrix_of(best.pose.pose)
        frame.add_share = metrics.add(T, frame.T_cam_obj, self._points_obj) / self.diameter_m
        frame.rotation_deg = float(np.degrees(metrics.rotation_error_rad(T, frame.T_cam_obj)))
        frame.translation_mm = 1000.0 * metrics.translation_error_m(T, frame.T_cam_obj)
        frame.nees = metrics.nees(T, frame.T_cam_obj, covariance)

    def checks(self, frames: list[Frame]) -> list[dict[str, Any]]:
        """The demo's promises, and whether they were kept."""
        seen = [f for f in frames if f.visible >= 0.5]
        empty = [f for f in frames if f.visible == 0.0]
        found = _share(seen, lambda f: f.score is not None)
        right = _share(seen, lambda f: f.add_share is not None and f.add_share < 0.1)
        false = _share(empty, lambda f: f.score is not None)
        half = 'where half of it or more is visible'
        return [
            _check(f'a pose {half}', found, '>= 97 %', found >= 0.97),
            _check(f'ADD below a tenth of the diameter {half}', right, '>= 90 %', right >= 0.90),
            _check('a pose where there is no object', false, '<= 2 %', false <= 0.02),
        ]


def read_frames(bag: BagReader) -> list[Frame]:
    """The frames of a bag with ground truth, in order."""
    frames: list[Frame] = []
    for _, message in bag.messages([DETECTIONS_TOPIC]):
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        visible, T = 0.0, None
        if message.detections:
            result = message.detections[0].results[0]
            visible, T = float(result.hypothesis.score), matrix_of(result.pose.pose)
        frames.append(Frame(len(frames), stamp_ns, visible, T))
    return frames


def _share(frames: list[Frame], holds: Any) -> float:
    return sum(map(holds, frames)) / len(frames) if frames else 0.0


def _check(name: str, value: float, wanted: str, passed: bool) -> dict[str, Any]:
    return {'name': name, 'value': value, 'wanted': wanted, 'passed': passed}
