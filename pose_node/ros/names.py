"""What the TF frames of objects are called. Free of ROS, for the parameters' sake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pose_node.core.errors import PoseNodeError

if TYPE_CHECKING:
    from pose_node.runtime.results import ObjectPose


def frame_name(pose: ObjectPose, template: str = '{class}') -> str:
    """The TF frame of an object. Where the template has no {id}, the first of its kind goes
    without and the others have it added.
    """
    name = template.replace('{class}', pose.object).replace('{id}', str(pose.instance))
    return name if '{id}' in template or pose.instance == 0 else f'{name}_{pose.instance}'


def check_template(template: str) -> None:
    """Raises PoseNodeError where objects of different kinds would share a frame."""
    if '{class}' not in template or template.startswith('/') or template != template.strip():
        raise PoseNodeError(
            f'Parameter child_frame is {template!r}; give a name with {{class}} in it, and '
            '{id} where you like, without a leading slash or blanks.'
        )


__all__ = ['check_template', 'frame_name']
