"""What rviz shows of a pose: the object's mesh and its axes. Vanished ones are deleted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from pose_node.core.geometry import apply

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
        self._shown: set[tuple[str, int]] = set()  # (ns, id)

    def update(self, header: Any, poses: Sequence[ObjectPose], lifetime_s: float) -> MarkerArray:
        """Markers of the poses, and the deletion of those of the last picture that are gone."""
        array = MarkerArray()
        for pose in poses:
            spec = self._bundle.object(pose.object)
            array.markers.append(_body(spec, self._meshes[spec.name], pose))
            array.markers.append(_axes(spec, pose))
        seconds, rest = divmod(lifetime_s, 1.0)
        for marker in array.markers:
            marker.header = header
            marker.action = Marker.ADD
            marker.lifetime.sec, marker.lifetime.nanosec = int(seconds), int(rest * 1e9)
        shown = {(marker.ns, marker.id) for marker in array.markers}
        array.markers.extend(_deletions(header, self._shown - shown))
        self._shown = shown
        return array


def _deletions(header: Any, gone: set[tuple[str, int]]) -> list[Marker]:
    markers = []
    for namespace, number in sorted(gone):
        marker = Marker(header=header, ns=namespace, id=number, action=Marker.DELETE)
        marker.pose.orientation.w = 1.0
        markers.append(marker)
    return markers


def _body(spec: ObjectSpec, mesh: str, pose: ObjectPose) -> Marker:
    """The mesh, or its box where the bundle has none."""
    marker = Marker(ns=spec.name, id=pose.instance)
    marker.color = _color(_BODY)
    if mesh:
        marker.type = Marker.MESH_RESOURCE
        marker.mesh_resource = mesh
        marker.scale = Vector3(x=1.0, y=1.0, z=1.0)
        marker.pose = pose_message(pose.T_cam_obj)
        return marker
    low, high = spec.bounds_obj_m
    center = pose.T_cam_obj.copy()
    center[:3, 3] = apply(pose.T_cam_obj, 0.5 * (low + high)[None])[0]
    x, y, z = (float(value) for value in high - low)
    marker.type = Marker.CUBE
    marker.scale = Vector3(x=x, y=y, z=z)
    marker.pose = pose_message(center)
    return marker


def _axes(spec: ObjectSpec, pose: ObjectPose) -> Marker:
    """Three lines, half as long as the object: x red, y green, z blue."""
    marker = Marker(ns=f'{spec.name}/axes', id=pose.instance, type=Marker.LINE_LIST)
    marker.scale.x = 0.02 * spec.diameter_m
    marker.pose = pose_message(pose.T_cam_obj)
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
