"""The managed node `pose_node`: its life, and who is connected to whom.

unconfigured -- configure --> inactive: parameters read, bundle verified, networks open
inactive -- activate --> active: subscriptions and the worker thread
"""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import EngineOptions
from pose_node.runtime.estimator import EstimatorOptions, PoseEstimator

from . import parameters as parameter_rules
from .cameras import Cameras
from .diagnostics import Facts, diagnostics
from .environment import default_bundle
from .frames import TargetFrame
from .health import Health, Level
from .inputs import Inputs, picture_topics
from .intake import Intake
from .messages import camera_of
from .opening import Opening
from .outputs import Outputs
from .processing import Processor, Worker
from .services import Services

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .health import Snapshot
    from .parameters import Parameters

_DIAGNOSTICS_PERIOD_S = 1.0
_PROGRESS_S = 10.0  # between words in the log about what takes long
_CAMERA_INFO_S = 2.0  # without any CameraInfo, until that is said

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


class PoseNode(LifecycleNode):
    """Camera pictures in, object poses out."""

    def __init__(self, **options: Any) -> None:
        """Raises PoseNodeError when a parameter was set to something it cannot be."""
        super().__init__('pose_node', **options)
        self.parameters: Parameters | None = None  # while configured
        self._health = Health()
        self._estimator: PoseEstimator | None = None
        self._outputs: Outputs | None = None
        self._target: TargetFrame | None = None
        self._intake: Intake | None = None
        self._cameras: Cameras | None = None
        self._inputs: Inputs | None = None
        self._processor: Processor | None = None
        self._worker: Worker | None = None
        self._failure = ''  # why the last transition failed
        self._progress = ''  # of what is being configured
        self._doing = ''  # the part of it that takes so long
        self.must_stop: Callable[[], bool] = lambda: False  # asked while configuring takes long
        self._no_tensorrt = ''  # why the GPU that is there is not used
        parameter_rules.declare(self)
        self._own_services = Services(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=10)
        )
        # Not ROS time: the state of a node must be seen while the clock of a simulation stands.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)

    # -- transitions: rclpy swallows what they raise, so each says itself what went wrong

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the bundle. SUCCESS, or FAILURE (the node stays unconfigured)."""
        if self._attempt('configure', self._configure):
            return super().on_configure(state)
        self._release()
        return FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and work. SUCCESS, or FAILURE (the node stays inactive)."""
        result = super().on_activate(state)  # publishers first: a picture may come at once
        if self._attempt('activate', self._activate):
            return result
        self._attempt('deactivate', self._stop)
        super().on_deactivate(state)
        return FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the picture at hand and fall silent. SUCCESS or ERROR."""
        done = self._attempt('deactivate', self._stop)
        return super().on_deactivate(state) if done else ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the bundle. SUCCESS or ERROR."""
        done = self._attempt('clean up', self._release)
        return super().on_cleanup(state) if done else ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from whatever state. SUCCESS or ERROR."""
        done = self._attempt('shut down', self.close)
        return super().on_shutdown(state) if done else ERROR

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back. SUCCESS (unconfigured again) or FAILURE (the end)."""
        del state
        return SUCCESS if self._attempt('recover', self.close) else FAILURE

    def close(self) -> None:
        """Stop the worker and give everything back; harmless when there is nothing."""
        self._stop()
        self._release()

    def _attempt(self, what: str, action: Callable[[], None]) -> bool:
        """Run one part of a transition; a failure is logged, kept for /diagnostics, and False."""
        try:
            action()
        except PoseNodeError as error:  # a sentence for the user
            self._failure = f'Cannot {what}: {error}'
            self.get_logger().error(self._failure)
            return False
        except Exception as error:  # noqa: BLE001 - a fault of ours: where it was matters
            self._failure = f'Cannot {what} ({type(error).__name__}: {error}); see the log.'
            self.get_logger().error(f'Cannot {what}:\n{traceback.format_exc()}')
            return False
        self._failure = ''
        return True

    # -- what the transitions do

    def _configure(self) -> None:
        parameters = parameter_rules.read(self)
        folder = parameters.bundle or default_bundle()
        self._no_tensorrt = ''
        options = EstimatorOptions(
            min_score=parameters.min_score,
            max_objects=parameters.max_objects,
            threads=parameters.threads,
            distribution=parameters.pose_distribution,
            contour=parameters.contour,
            engines=self._engine_options(parameters),
        )
        estimator = self._estimator = self._open(
            lambda: PoseEstimator(folder, parameters.backend, options), folder
        )
        told_where = parameters.use_detections or any(parameters.region)
        if estimator.locator is None and not told_where:
            raise PoseNodeError(
                f'Bundle {estimator.bundle.name!r} has no locator; set use_detections and '
                'publish 2D boxes on detections_2d, or set region.'
            )
        self._target = TargetFrame(self, parameters.target_frame)
        self._outputs = Outputs(self, estimator.bundle, keep_all=parameters.deterministic)
        self.parameters = parameters
        names = ', '.join(each.name for each in estimator.bundle.objects)
        self.get_logger().info(
            f'Bundle {estimator.bundle.name!r} from {estimator.bundle.folder}: {names}; '
            f'backend {estimator.backend}.'
        )

    def _open(self, action: Callable[[], PoseEstimator], folder: Path | str) -> PoseEstimator:
        """The heart beats while a bundle is opened, and a signal ends the waiting."""
        opening = Opening(action)
        try:
            while not opening.done(_DIAGNOSTICS_PERIOD_S):
                if self.must_stop():
                    raise PoseNodeError('the process was told to stop.')
                doing = f': {self._doing}' if self._doing else ''
                self._progress = f'Opening {folder} for {opening.age_s:.0f} s{doing}.'
                self.get_logger().info(self._progress, throttle_duration_sec=_PROGRESS_S)
                self._publish_diagnostics()
            return opening.result()
        finally:
            self._progress = self._doing = ''

    def _engine_options(self, parameters: Parameters) -> EngineOptions:
        """The parameters as TensorRT's options."""

        def progress(doing: str) -> None:
            if self.must_stop():
                raise PoseNodeError(f'{doing}: stopped by a signal.')
            self._doing = doing

        def say(sentence: str) -> None:
            self.get_logger().info(sentence)

        def warn(why: str) -> None:
            self._no_tensorrt = why
            self.get_logger().warning(why)

        return EngineOptions(
            precision=parameters.precision,
            cache=parameters.engine_cache,
            dla_core=parameters.dla_core,
            say=say,
            warn=warn,
            progress=progress,
        )

    def _activate(self) -> None:
        parameters, estimator, outputs = self.parameters, self._estimator, self._outputs
        target = self._target
        if parameters is None or estimator is None or outputs is None or target is None:
            raise PoseNodeError('the node is not configured; configure it first.')
        self._health.reset()
        self._intake = Intake(
            keep_all=parameters.deterministic,
            with_boxes=parameters.use_detections,
            patience_s=parameters.pairing_timeout,
            capacity=parameters.max_backlog,
            dropped=self._on_dropped,
        )
        rectified = parameters.input_is_rectified
        self._cameras = Cameras(
            lambda info, size: camera_of(info, size, rectified=rectified),
            self.resolve_topic_name('camera_info'),
            memory=100 + (parameters.max_backlog if parameters.deterministic else 0),
        )
        self._processor = Processor(
            estimator=estimator,
            cameras=self._cameras,
            outputs=outputs,
            target=target,
            health=self._health,
            parameters=parameters,
            clock=self.get_clock(),
            logger=self.get_logger(),
            answered=self._own_services.answered,
        )
        self._own_services.timeout_s = parameters.picture_timeout
        self._own_services.open()
        self._worker = Worker(self._intake, self._processor, self.get_logger())
        self._inputs = Inputs(
            self, parameters, self._intake, self._cameras, self._health, self._own_services.admit
        )
        order = 'every picture in order' if parameters.deterministic else 'the newest picture'
        self.get_logger().info(f'Active: {order} of {self._inputs.picture_topic}.')

    def _stop(self) -> None:
        inputs, worker = self._inputs, self._worker
        self._inputs = self._worker = self._intake = self._cameras = self._processor = None
        self._own_services.close()
        if inputs is not None:
            inputs.destroy()
        if worker is not None and not worker.stop():
            raise PoseNodeError('the networks have not answered for 10 s; restart the node.')

    def _release(self) -> None:
        outputs, estimator, target = self._outputs, self._estimator, self._target
        self._outputs = self._estimator = self._target = self.parameters = None
        if target is not None:
            target.close()
        if outputs is not None:
            outputs.destroy()
        if estimator is not None:
            estimator.close()

    # -- events

    def _on_set_parameters(self, changed: list[Any]) -> SetParametersResult:
        configured = self.parameters
        for each in changed:
            reason = parameter_rules.refusal(each.name, each.value, configured is not None)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        rules = parameter_rules.rules()
        values = {each.name: each.value for each in changed if each.name in rules}
        if configured is not None and values:
            try:
                self._apply(replace(configured, **values))
            except PoseNodeError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Parameters) -> None:
        """Let live parameters take effect from the next picture on."""
        self.parameters = parameters
        self._own_services.timeout_s = parameters.picture_timeout
        if self._processor is not None:
            self._processor.parameters = parameters
        if self._estimator is not None:
            self._estimator.options = replace(
                self._estimator.options,
                min_score=parameters.min_score,
                max_objects=parameters.max_objects,
                distribution=parameters.pose_distribution,
                contour=parameters.contour,
            )

    def _on_dropped(self, reason: str, count: int) -> None:
        self._health.dropped(reason, count)
        if reason == 'backlog':
            sentence = (
                'More than max_backlog pictures wait, so some are lost; '
                'play the bag more slowly or raise max_backlog.'
            )
            if self._health.complain('pictures', sentence):
                self.get_logger().error(sentence)

    def _publish_diagnostics(self) -> None:
        parameters, inputs = self.parameters, self._inputs
        snapshot = self._health.snapshot()
        if parameters is not None and inputs is not None:
            self._look_at_supply(inputs, parameters, snapshot)
        elif self._failure and not self._progress:
            self._health.complain('estimator', self._failure)
        transport = self.get_parameter('image_transport').value
        estimator = self._estimator
        facts = Facts(
            state=self._state(),
            progress=self._progress,
            picture_topic=picture_topics(self, transport)[0],
            publishers=inputs.publishers() if inputs is not None else 0,
            camera_info_topic=self.resolve_topic_name('camera_info'),
            camera_frames=self._cameras.frames if self._cameras is not None else (),
            waiting=self._intake.waiting if self._intake is not None else 0,
            bundle=estimator.bundle.name if estimator is not None else '',
            backend=estimator.backend if estimator is not None else '',
            use_detections=parameters is not None and parameters.use_detections,
            no_tensorrt=self._no_tensorrt,
        )
        stamp = self.get_clock().now().to_msg()
        snapshot = self._health.snapshot()
        self._diagnostics.publish(diagnostics(self.get_name(), stamp, snapshot, facts))

    def _look_at_supply(self, inputs: Inputs, parameters: Parameters, now: Snapshot) -> None:
        """Say what keeps pictures and CameraInfo from arriving, if nothing arrives."""
        missing = self._cameras is not None and not self._cameras.frames
        unsaid = missing and 'camera_info' not in now.standing
        if unsaid and self._health.age_s > _CAMERA_INFO_S:
            topic = self.resolve_topic_name('camera_info')
            sentence = f'No CameraInfo has come on {topic}; remap camera_info to its topic.'
            # Logged when a picture needs it.
            self._health.complain('camera_info', sentence, Level.WARN, log_period_s=None)
        complaint = inputs.complaint(now.arrived, now.since_arrival_s, parameters.picture_timeout)
        if complaint is None:
            return
        # Said once, not every ten seconds: nothing changes until somebody acts.
        if self._health.complain(
            'pictures', complaint.sentence, complaint.level, log_period_s=float('inf')
        ):
            if complaint.level == Level.WARN:
                self.get_logger().warning(complaint.sentence)
            else:
                self.get_logger().error(complaint.sentence)

    def _state(self) -> str:
        if self._inputs is not None:
            return 'paused' if self._own_services.paused else 'active'
        if self._progress:
            return 'configuring'
        return 'inactive' if self.parameters is not None else 'unconfigured'


__all__ = ['PoseNode']
