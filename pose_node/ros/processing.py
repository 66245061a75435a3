"""One picture from the queue to the topics: decode, find the camera, estimate, publish.

A picture that cannot be used is answered with an empty detections message and a complaint; the
next one is a new start.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pose_node.core.errors import PoseNodeError
from pose_node.core.geometry import inverse
from pose_node.runtime.preprocess import Region

from . import messages
from .frames import moved
from .health import Health, Level
from .names import frame_name
from .pictures import decode_compressed, decode_image
from .tracking import Tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from pose_node.runtime.estimator import PoseEstimator
    from pose_node.runtime.results import FrameResult, ObjectPose
    from pose_node.runtime.track import Track

    from .cameras import Cameras
    from .frames import TargetFrame
    from .intake import Frame, Intake
    from .outputs import Outputs
    from .parameters import Parameters

# Pictures may come a little before the first CameraInfo: that is no reason to alarm anybody.
_GRACE_S = 2.0


class _Refusal(Exception):
    """A picture that gets no poses: which task failed, and the sentence."""

    def __init__(self, task: str, sentence: str) -> None:
        super().__init__(sentence)
        self.task = task


class Processor:
    """Processes pictures, one at a time.

    parameters: replaced by the node when a live one changes. answered: told of every picture when
    it came, whether something was found, and what, in words.
    """

    def __init__(
        self,
        *,
        estimator: PoseEstimator,
        cameras: Cameras,
        outputs: Outputs,
        target: TargetFrame,
        health: Health,
        parameters: Parameters,
        clock: Any,
        logger: Any,
        answered: Callable[[float, bool, str], None] = lambda arrival, found, sentence: None,
    ) -> None:
        self.parameters = parameters
        self._estimator = estimator
        self._cameras = cameras
        self._outputs = outputs
        self._target = target
        self._health = health
        self._clock = clock
        self._logger = logger
        self._answered = answered
        self._tracks = Tracks({o.name: o.symmetries for o in estimator.bundle.objects})

    def __call__(self, frame: Frame) -> None:
        """Answer one picture; raises nothing that a picture can cause."""
        header = frame.message.header
        try:
            if not self._is_too_old(frame):
                self._process(frame)
        except _Refusal as refusal:
            self._refuse(header, refusal.task, str(refusal))
            self._answered(frame.arrival, False, str(refusal))
        except Exception as error:  # noqa: BLE001 - one bad picture must not end the node
            self._logger.error(traceback.format_exc(), throttle_duration_sec=10.0)
            self._refuse(
                header,
                'estimator',
                f'A picture made the estimator fail ({type(error).__name__}: {error}); '
                'the traceback is in the log, please report it.',
            )
            self._answered(frame.arrival, False, f'The estimator failed: {error}')

    def _process(self, frame: Frame) -> None:
        parameters, header = self.parameters, frame.message.header
        start = time.perf_counter()
        waited_ms = 1000.0 * (time.monotonic() - frame.arrival)
        picture = self._picture(frame)
        decoded = time.perf_counter()
        camera = self._camera(frame, (picture.shape[1], picture.shape[0]))
        regions = self._regions(frame)
        T_told_cam = self._told_from(header)
        try:
            result, tracks = self._estimate(frame, picture, camera, regions, T_told_cam)
        except PoseNodeError as error:
            raise _Refusal('estimator', str(error)) from None
        if result.poses and not header.frame_id:
            self._complain(
                'pictures',
                'The pictures have no frame_id, so no transforms can be sent; '
                "set the camera driver's frame.",
                Level.WARN,
            )
        estimated = time.perf_counter()
        told = self._target.header(header)
        poses = [track.as_pose() for track in tracks] or moved(result.poses, T_told_cam)
        wrong = self._outputs.publish(told, poses, parameters, tracks)
        if wrong:
            self._complain('transforms', wrong, Level.WARN)
        published = time.perf_counter()
        self._answered(frame.arrival, bool(result.poses), _in_words(told, poses))

        stages = {'heatmaps' if k == 'decode' else k: v for k, v in result.stage_ms.items()}
        times = {
            'wait': waited_ms,
            'decode': 1000.0 * (decoded - start),
            **stages,
            'publish': 1000.0 * (published - estimated),
            'total_ms': 1000.0 * (published - start),
            'latency_ms': waited_ms + 1000.0 * (published - start),
            'age_ms': (self._clock.now().nanoseconds - frame.stamp_ns) / 1e6,
        }
        self._health.processed(times)
        self._outputs.publish_stats(header, times)
        self._outputs.publish_overlay(header, picture, camera, result)

    def _is_too_old(self, frame: Frame) -> bool:
        """Dropped without an answer: an empty one would say that nothing is there now."""
        limit_s = self.parameters.max_age
        age_s = (self._clock.now().nanoseconds - frame.stamp_ns) / 1e9
        if limit_s == 0.0 or self.parameters.deterministic or age_s <= limit_s:
            return False
        self._health.dropped('too old')
        self._complain(
            'pictures',
            f'Pictures are {age_s:.1f} s old when their turn comes, and max_age is {limit_s:g} s; '
            'set the clocks of camera and robot alike, or raise max_age.',
            Level.WARN,
        )
        return True

    def _told_from(self, header: Any) -> np.ndarray:
        try:
            return self._target.T_told_cam(header)
        except PoseNodeError as error:
            raise _Refusal('transforms', str(error)) from None

    def _estimate(
        self, frame: Frame, picture: Any, camera: Any, regions: Any, T_told_cam: np.ndarray
    ) -> tuple[FrameResult, list[Track]]:
        """What is in the picture, in the camera's frame; where things are tracked, their tracks
        too, in the frame in which they are told, and poses that are the tracks'.
        """
        parameters, stamp_ns = self.parameters, frame.stamp_ns
        searched = self._searched() if regions is None else regions
        if not parameters.track:
            return self._estimator(picture, camera, stamp_ns, searched), []
        frame_id = frame.message.header.frame_id
        expected, locate = self._tracks.expect(frame_id, stamp_ns, parameters)
        T_cam_told = inverse(T_told_cam)
        tracked = []
        if regions is None:  # boxes from outside say themselves where to look
            places = [(each.object, T_cam_told @ each.motion.T_ref_obj) for each in expected]
            boxes = [self._estimator.region_at(*place, camera) for place in places]
            tracked = [box for box in boxes if box is not None]
            searched = searched if locate or not tracked else ()
        result = self._estimator(picture, camera, stamp_ns, searched, tracked)
        tracks = self._tracks.update(frame_id, moved(result.poses, T_told_cam))
        seen = moved([track.as_pose() for track in tracks], T_cam_told)
        return replace(result, poses=seen), tracks

    def _searched(self) -> list[Region] | None:
        """The place to look for every object when one is set; None when the locator is asked."""
        box = self.parameters.region
        if not any(box):
            return None
        objects = self._estimator.bundle.pose_network.objects
        return [Region.from_xywh(name, box) for name in objects]

    def _picture(self, frame: Frame) -> Any:
        raw = self.parameters.image_transport == 'raw'
        try:
            return (decode_image if raw else decode_compressed)(frame.message)
        except PoseNodeError as error:
            raise _Refusal('pictures', str(error)) from None

    def _camera(self, frame: Frame, size: tuple[int, int]) -> Any:
        frame_id = frame.message.header.frame_id
        try:
            if self.parameters.deterministic:
                self._cameras.wait(frame_id, frame.stamp_ns, self.parameters.pairing_timeout)
            return self._cameras.find(frame_id, frame.stamp_ns, size)
        except PoseNodeError as error:
            raise _Refusal('camera_info', str(error)) from None

    def _regions(self, frame: Frame) -> Any:
        """Regions from the boxes that came with the picture; None when the locator is asked."""
        if not self.parameters.use_detections:
            return None
        if frame.boxes is None:
            raise _Refusal(
                'boxes',
                'No boxes came on detections_2d with the stamp of the picture; let the detector '
                "copy the picture's header and publish an empty message when it sees nothing.",
            )
        regions, unusable = messages.regions_of(frame.boxes, self._estimator.bundle)
        if unusable:
            self._complain(
                'boxes',
                f'{unusable} boxes on detections_2d are NaN or without size; see the detector.',
                Level.WARN,
            )
        return regions

    def _refuse(self, header: Any, task: str, sentence: str) -> None:
        self._health.refused(task)
        early = task == 'camera_info' and self._health.age_s < _GRACE_S
        self._complain(task, sentence, Level.WARN if early else Level.ERROR, quiet=early)
        self._outputs.publish(header, (), self.parameters)

    def _complain(self, task: str, sentence: str, level: Level, *, quiet: bool = False) -> None:
        period_s = None if quiet else self.parameters.log_period
        if not self._health.complain(task, sentence, level, log_period_s=period_s):
            return
        if level == Level.WARN:  # rclpy wants one severity per line of code
            self._logger.warning(sentence)
        else:
            self._logger.error(sentence)


def _in_words(header: Any, poses: Sequence[ObjectPose]) -> str:
    places = [
        f'{frame_name(pose)} at {" ".join(f"{x:.3f}" for x in pose.T_cam_obj[:3, 3])} m in '
        f'{header.frame_id} (score {pose.score:.2f})'
        for pose in poses
    ]
    return '; '.join(places) or 'nothing found'


class Worker:
    """The thread that takes pictures from the intake and has them processed."""

    def __init__(self, intake: Intake, processor: Processor, logger: Any) -> None:
        self._intake = intake
        self._processor = processor
        self._logger = logger
        self._thread = threading.Thread(target=self._run, name='pictures', daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Let it finish its picture; returns whether it did."""
        self._intake.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (frame := self._intake.take()) is not None:
            try:
                self._processor(frame)
            except Exception:  # noqa: BLE001 - not even the empty answer went out
                self._logger.error(traceback.format_exc())


__all__ = ['Processor', 'Worker']
