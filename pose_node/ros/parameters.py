"""The node's parameters, each with its default, range, unit and meaning, in one place.

config/pose_node.yaml lists the same ones; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends import BACKENDS, PRECISIONS
from pose_node.runtime.distribution import DISTRIBUTIONS

from .names import check_template

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGEST_PX = 1 << 20


@dataclass(frozen=True)
class Rule:
    """What a value must be, and when it may change."""

    meaning: str
    unit: str = ''
    low: float | None = None  # a number has both ends or none
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False  # takes effect at once; others are read when the node is configured
    read_only: bool = False  # read once, when the process starts

    def limits(self) -> str:
        """Unit and range, or the choices, as people read them; '' when there are none."""
        if self.choices:
            return ' | '.join(self.choices)
        if self.low is None or self.high is None:
            return self.unit
        return f'{self.low:g} to {self.high:g} {self.unit}'.rstrip()


def _parameter(default: Any, meaning: str, **rule: Any) -> Any:
    return field(default=default, metadata={'rule': Rule(meaning, **rule)})


@dataclass(frozen=True)
class Parameters:
    """Values of all parameters, valid."""

    autostart: bool = _parameter(
        True,
        'Configure and activate the node when the process starts; '
        'false leaves that to a lifecycle manager.',
        read_only=True,
    )
    bundle: str = _parameter(
        '', "Folder of the bundle (the trained model); empty for the demo's drill."
    )
    backend: str = _parameter(
        'auto',
        'What runs the networks; auto: TensorRT where it can be had, else ONNX Runtime, and the '
        'log says why.',
        choices=tuple(BACKENDS),
    )
    precision: str = _parameter(
        'fp16',
        'What TensorRT computes in; heads stay in fp32. OpenVINO takes int8, or else fp32.',
        choices=PRECISIONS,
    )
    engine_cache: str = _parameter(
        '', "Folder of TensorRT's engines; empty: pose_node/engines in the user's cache."
    )
    dla_core: int = _parameter(
        -1, 'Accelerator (DLA) of a Jetson that TensorRT is to use; -1: the GPU.', low=-1, high=1
    )
    threads: int = _parameter(
        0, 'Threads of each network; 0 lets the backend decide.', low=0, high=256
    )
    image_transport: str = _parameter(
        'raw',
        'Subscribe to image, or to image/compressed (JPEG, PNG).',
        choices=('raw', 'compressed'),
    )
    input_is_rectified: bool = _parameter(
        False, 'Whether the pictures are rectified: P of CameraInfo holds then, not K and D.'
    )
    deterministic: bool = _parameter(
        False,
        'Process every picture, in order, over reliable topics, for bags and evaluation; '
        'false: the newest picture wins.',
    )
    max_age: float = _parameter(
        0.0,
        'Pictures older than this when their turn comes are dropped, unless deterministic; '
        '0: none is too old.',
        unit='s',
        low=0.0,
        high=3600.0,
        live=True,
    )
    max_backlog: int = _parameter(
        2000,
        'How many pictures may wait when deterministic; more are lost, and reported.',
        unit='pictures',
        low=1,
        high=100000,
    )
    pairing_timeout: float = _parameter(
        2.0,
        'How long a picture waits for its CameraInfo and its 2D boxes when deterministic.',
        unit='s',
        low=0.0,
        high=60.0,
    )
    use_detections: bool = _parameter(
        False,
        'Look into the boxes on detections_2d (same stamp as the picture) instead of asking '
        "the bundle's locator.",
    )
    region: tuple[int, ...] = _parameter(
        (0, 0, 0, 0),
        'Left, top, width and height of the one place where objects are looked for, instead of '
        "asking the bundle's locator; all 0: anywhere.",
        unit='px',
        live=True,
    )
    min_score: float = _parameter(
        0.5,
        'Poses with a lower score are not published; the score is the chance that a pose is '
        'right, as renders have it.',
        low=0.0,
        high=1.0,
        live=True,
    )
    max_objects: int = _parameter(
        8,
        'Regions looked at in one picture, the surest of every object first.',
        low=1,
        high=256,
        live=True,
    )
    pose_distribution: str = _parameter(
        'gaussian',
        'What is told of a pose: mean and covariance or, with amis, samples too (pose_cloud), and '
        'both poses where two explain the picture.',
        choices=DISTRIBUTIONS,
        live=True,
    )
    contour: bool = _parameter(
        True,
        'Move poses to where colours change round the object, if the bundle has its shape and '
        'poses are told as gaussian; false: leave them where the keypoints are.',
        live=True,
    )
    track: bool = _parameter(
        True,
        'Follow things from picture to picture: smoother poses, numbers that stay, twists, and a '
        'locator that is seldom asked; false: every picture for itself.',
        live=True,
    )
    lost_after: float = _parameter(
        1.0, 'A track that is not seen for so long ends.', unit='s', low=0.05, high=60.0, live=True
    )
    locate_period: float = _parameter(
        0.5,
        'While all that is tracked is seen, the locator looks for new things this often.',
        unit='s',
        low=0.0,
        high=60.0,
        live=True,
    )
    acceleration: float = _parameter(
        0.3,
        'How much the speed of things, as the camera sees them, changes in a second; '
        'turns: three times as much, in rad/s². Lower is smoother, higher follows faster.',
        unit='m/s²',
        low=0.01,
        high=100.0,
        live=True,
    )
    still: bool = _parameter(
        False,
        'Things stand in the frame that they are told in (target_frame, or that of a camera that '
        'stands itself) unless somebody moves them: poses become much steadier, and acceleration '
        'is not asked.',
        live=True,
    )
    publish_tf: bool = _parameter(
        True, 'Send the transform from the camera optical frame to each object.', live=True
    )
    child_frame: str = _parameter(
        '{class}',
        'TF frame of an object; {class} is its name, {id} its number. Without {id} the first of '
        'its kind has none, and the others _1, _2 and so on.',
    )
    target_frame: str = _parameter(
        '',
        'Frame that poses, transforms and markers are told in, looked up in TF at the stamp of '
        "the picture; empty: the camera's.",
    )
    invert_tf: bool = _parameter(
        False, 'Send the transform from the object to the camera instead; for one object only.'
    )
    hold_tf: bool = _parameter(
        False, 'Go on sending the last transform of what is not seen; false: send none.'
    )
    marker_lifetime: float = _parameter(
        1.0,
        'How long rviz shows a marker that is not renewed.',
        unit='s',
        low=0.05,
        high=3600.0,
        live=True,
    )
    picture_timeout: float = _parameter(
        5.0,
        'Announced pictures that do not arrive for so long are reported, with the remedy.',
        unit='s',
        low=0.1,
        high=3600.0,
        live=True,
    )
    log_period: float = _parameter(
        10.0,
        'A complaint of one kind is logged once in this time.',
        unit='s',
        low=0.1,
        high=3600.0,
        live=True,
    )

    def __post_init__(self) -> None:
        if self.use_detections and any(self.region):
            raise PoseNodeError(
                'Both use_detections and region say where to look; set use_detections to false, '
                'or region to all 0.'
            )


def rules() -> dict[str, Rule]:
    """The rule of every parameter, by name."""
    return {each.name: each.metadata['rule'] for each in fields(Parameters)}


def defaults() -> dict[str, Any]:
    """The default of every parameter, by name."""
    values = {each.name: each.default for each in fields(Parameters)}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def markdown() -> str:
    """The parameters as a table for people."""
    rows = ['| parameter | default | | |', '| --- | --- | --- | --- |']
    for name, rule in rules().items():
        default = defaults()[name]
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        limits = rule.limits().replace('|', 'or')
        when = 'live' if rule.live else 'at start' if rule.read_only else 'at configure'
        rows.append(
            f'| `{name}` | {f"`{shown}`" if shown else ""} | {limits} | {rule.meaning} ({when}) |'
        )
    return '\n'.join(rows)


def declare(node: Any) -> None:
    """Declare all parameters on `node`; raises PoseNodeError for an override that is no good."""
    from rclpy.exceptions import ParameterException

    for each in fields(Parameters):
        try:
            node.declare_parameter(each.name, defaults()[each.name], _descriptor(each))
        except ParameterException as error:  # wrong type or out of range
            raise PoseNodeError(
                f'Parameter {each.name} cannot be what it was set to ({error}); '
                f'give {_wanted(each)}.'
            ) from None


def read(node: Any) -> Parameters:
    """The values that `node` has now; raises PoseNodeError."""
    values = {
        each.name: _plain(node.get_parameter(each.name).value) for each in fields(Parameters)
    }
    for name, value in values.items():
        check(name, value)
    return Parameters(**values)


def check(name: str, value: Any) -> None:
    """What a descriptor cannot express, as a PoseNodeError; types and ranges rclpy checks."""
    if name == 'child_frame':
        check_template(value)
    elif name == 'region':
        _check_region(value)
    rule = rules().get(name)
    if rule is not None and rule.choices and value not in rule.choices:
        raise PoseNodeError(
            f'Parameter {name} is {value!r}; give one of: {", ".join(rule.choices)}.'
        )


def _check_region(box: Sequence[int]) -> None:
    if len(box) == 4 and (not any(box) or min(box[2:]) > 0) and max(map(abs, box)) < _LARGEST_PX:
        return
    raise PoseNodeError(
        f'Parameter region is {list(box)}; give left, top, width and height in pixels, such as '
        '[100, 80, 320, 240], or four 0.'
    )


def refusal(name: str, value: Any, configured: bool) -> str:
    """Why parameter `name` cannot be set to `value` now; '' when it can."""
    try:
        check(name, value)
    except PoseNodeError as error:
        return str(error)
    rule = rules().get(name)
    if configured and rule is not None and not rule.live:
        return (
            f'Parameter {name} is read when the node is configured: '
            'deactivate it, clean it up, set the parameter, then configure it again.'
        )
    return ''


def _plain(value: Any) -> Any:
    """Lists come as array.array or list from rclpy; a tuple is compared and kept more easily."""
    return value if isinstance(value, str | bool | int | float) else tuple(value)


def _wanted(each: Field[Any]) -> str:
    kinds = {
        bool: 'true or false',
        int: 'a whole number',
        float: 'a number with a point',
        tuple: 'a list of whole numbers',
    }
    kind = kinds.get(type(each.default), 'text')
    limits = each.metadata['rule'].limits()
    return f'{kind}, {limits}' if limits else kind


def _descriptor(each: Field[Any]) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    rule: Rule = each.metadata['rule']
    descriptor = ParameterDescriptor(
        description=rule.meaning,
        additional_constraints=rule.limits(),
        read_only=rule.read_only,
    )
    if rule.low is None or rule.high is None:
        return descriptor
    if isinstance(each.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(rule.low), to_value=float(rule.high))
        ]
    else:
        descriptor.integer_range = [
            IntegerRange(from_value=int(rule.low), to_value=int(rule.high), step=1)
        ]
    return descriptor


__all__ = ['Parameters', 'Rule', 'declare', 'defaults', 'markdown', 'read', 'refusal', 'rules']
