"""What rviz shows of a pose: the object's mesh and its axes. Vanished ones are deleted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from pose_node.core.geometry import make_pose

from .environment import PACKAGE
from .messages import pose_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pose_node.core.bundle import Bundle
    from pose_node.core.manifest import ObjectSpec
    from pose_node.runtime.results import ObjectPose

_BODY = (0.35, 0.85, 0.45, 0.6)  # RGBA; see-through, so that a cloud or picture behind shows
_AXES = ((0.94, 0.2, 0.2, 1.0), (0.2, 0.8, 0.2, 1.0), (0.25, 0.4, 1.0, 1.0))


class Markers:
    """Makes the markers of one bundle's objects and remembers what rviz shows."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._meshes = {
            each.name: '' if each.mesh is None else resource_of(bundle.folder / each.mesh)
            for each in bundle.objects
        }
        self._markers: dict[tuple[str, int], tuple[Marker, Marker, np.ndarray | None]] = {}
        self._shown: set[tuple[str, int]] = set()  # (ns, id)

    def update(self, header: Any, poses: Sequence[ObjectPose], lifetime_s: float) -> MarkerArray:
        """Markers of the poses, and the deletion of those of the last picture that are gone."""
        array = MarkerArray()
        for pose in poses:
            body, axes, T_obj_body = self._made(pose)
            axes.pose = pose_message(pose.T_cam_obj)
            body.pose = axes.pose
            if T_obj_body is not None:
                body.pose = pose_message(pose.T_cam_obj @ T_obj_body)
            array.markers += [body, axes]
        seconds, rest = divmod(lifetime_s, 1.0)
        for marker in array.markers:
            marker.header = header
            marker.lifetime.sec, marker.lifetime.nanosec = int(seconds), int(rest * 1e9)
        shown = {(marker.ns, marker.id) for marker in array.markers}
        array.markers.extend(_deletions(header, self._shown - shown))
        self._shown = shown
        return array

    def _made(self, pose: ObjectPose) -> tuple[Marker, Marker, np.ndarray | None]:
        """Body and axes of a thing, made once and used again: all but pose and header stays."""
        key = pose.object, pose.instance
        if key not in self._markers:
            spec = self._bundle.object(pose.object)
            body, T_obj_body = _body(spec, self._meshes[spec.name], pose.instance)
            self._markers[key] = body, _axes(spec, pose.instance), T_obj_body
        return self._markers[key]


def _deletions(header: Any, gone: set[tuple[str, int]]) -> list[Marker]:
    markers = []
    for namespace, number in sorted(gone):
        marker = Marker(header=header, ns=namespace, id=number, action=Marker.DELETE)
        marker.pose.orientation.w = 1.0
        markers.append(marker)
    return markers


def _body(spec: ObjectSpec, mesh: str, number: int) -> tuple[Marker, np.ndarray | None]:
    """The mesh, or its box where the bundle has none, and then the box's pose in the object."""
    marker = Marker(ns=spec.name, id=number, action=Marker.ADD)
    marker.color = _color(_BODY)
    if mesh:
        marker.type = Marker.MESH_RESOURCE
        marker.mesh_resource = mesh
        marker.scale = Vector3(x=1.0, y=1.0, z=1.0)
        return marker, None
    low, high = spec.bounds_obj_m
    x, y, z = (high - low).tolist()
    marker.type = Marker.CUBE
    marker.scale = Vector3(x=x, y=y, z=z)
    return marker, make_pose(np.eye(3), 0.5 * (low + high))


def _axes(spec: ObjectSpec, number: int) -> Marker:
    """Three lines, half as long as the object: x red, y green, z blue."""
    marker = Marker(ns=f'{spec.name}/axes', id=number, type=Marker.LINE_LIST, action=Marker.ADD)
    marker.scale.x = 0.02 * spec.diameter_m
    marker.color = _color(_AXES[0])
    for axis, rgba in zip(np.eye(3), _AXES):
        x, y, z = (float(value) for value in 0.5 * spec.diameter_m * axis)
        marker.points += [Point(), Point(x=x, y=y, z=z)]
        marker.colors += [_color(rgba)] * 2
    return marker


def _color(rgba: tuple[float, float, float, float]) -> ColorRGBA:
    r, g, b, a = rgba
    return ColorRGBA(r=r, g=g, b=b, a=a)


def resource_of(file: Path) -> str:
    """The URL rviz reads a file by: of the package where it is installed, or of this machine."""
    try:
        from ament_index_python.packages import get_package_share_directory

        share = Path(get_package_share_directory(PACKAGE)).resolve()
        return f'package://{PACKAGE}/{file.relative_to(share).as_posix()}'
    except (ImportError, LookupError, OSError, ValueError):  # no ROS, not installed, elsewhere
        return file.as_uri()


__all__ = ['Markers', 'resource_of']
