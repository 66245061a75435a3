"""Poses moved to the outline of their object, by core/contour.py.

Their score is a model of its own, which knows besides the keypoints how sure the pose is of its
place; bundles that have none keep the keypoints' score.
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

from .score import aligned_features, score

if TYPE_CHECKING:
    from pose_node.core.bundle import Bundle
    from pose_node.core.camera import Camera
    from pose_node.core.pose_spec import ContourSpec

    from .results import ObjectPose


class Aligner:
    """Knows the shapes in a bundle, and what was measured of poses that are aligned to them."""

    def __init__(self, bundle: Bundle) -> None:
        self._known: dict[str, tuple[Shape, ContourSpec, float]] = {}
        for name, calibration in bundle.pose_network.calibration.items():
            file = bundle.object(name).shape
            if calibration.contour is not None and file is not None:
                mesh = read_ply(bundle.read(file))
                shape = Shape.from_mesh(mesh.vertices, mesh.faces)
                self._known[name] = shape, calibration.contour, bundle.object(name).diameter_m

    @property
    def objects(self) -> tuple[str, ...]:
        """Whose poses can be aligned."""
        return tuple(self._known)

    def __call__(self, picture: np.ndarray, pose: ObjectPose, camera: Camera) -> ObjectPose:
        """As it was where its outline is not known or not to be seen."""
        given = pose.likelihood
        if pose.object not in self._known or given is None or not pose.stands:
            return pose
        shape, spec, diameter_m = self._known[pose.object]
        seen = given.points_obj, given.points_px, given.points_scale * given.covariances_px
        found = align(picture, shape, *seen, pose.T_cam_obj, pose.covariance, camera)
        if found is None:
            return pose
        covariance = spec.covariance_scale * found.covariance
        features = aligned_features(pose.features, covariance, diameter_m)
        off_px = camera.project(apply(found.T_cam_obj, given.points_obj)) - given.points_px
        return replace(
            pose,
            T_cam_obj=found.T_cam_obj,
            covariance=covariance,
            score=pose.score if spec.score is None else score(features, spec.score),
            reprojection_rms_px=math.sqrt(float(np.square(off_px).sum()) / len(off_px)),
            features={**features, 'agreement': found.agreement},
        )
