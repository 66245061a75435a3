"""Poses moved to the outline of their object, by core/contour.py.

Their score stays what the keypoints say. An outline cannot raise it, because a thing of the
object's colours has one, too; and must not lower it, because half of one may be hidden.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.contour import align
from pose_node.core.geometry import apply
from pose_node.core.mesh import read_ply
from pose_node.core.outline import Shape

if TYPE_CHECKING:
    from pose_node.core.bundle import Bundle
    from pose_node.core.camera import Camera
    from pose_node.core.pose_spec import ContourSpec

    from .results import ObjectPose


class Aligner:
    """Knows the shapes in a bundle, and what was measured of poses that are aligned to them."""

    def __init__(self, bundle: Bundle) -> None:
        self._known: dict[str, tuple[Shape, ContourSpec]] = {}
        for name, calibration in bundle.pose_network.calibration.items():
            file = bundle.object(name).shape
            if calibration.contour is not None and file is not None:
                mesh = read_ply(bundle.read(file))
                shape = Shape.from_mesh(mesh.vertices, mesh.faces)
                self._known[name] = shape, calibration.contour

    @property
    def objects(self) -> tuple[str, ...]:
        """Whose poses can be aligned."""
        return tuple(self._known)

    def __call__(self, picture: np.ndarray, pose: ObjectPose, camera: Camera) -> ObjectPose:
        """As it was where its outline is not known or not to be seen."""
        given = pose.likelihood
        if pose.object not in self._known or given is None or not pose.stands:
            return pose
        shape, spec = self._known[pose.object]
        seen = given.points_obj, given.points_px, given.points_scale * given.covariances_px
        found = align(picture, shape, *seen, pose.T_cam_obj, pose.covariance, camera)
        if found is None:
            return pose
        off_px = camera.project(apply(found.T_cam_obj, given.points_obj)) - given.points_px
        return replace(
            pose,
            T_cam_obj=found.T_cam_obj,
            covariance=spec.covariance_scale * found.covariance,
            reprojection_rms_px=math.sqrt(float(np.square(off_px).sum()) / len(off_px)),
            features={**pose.features, 'agreement': found.agreement},
        )
