"""Judging a pose network, whatever its maps are: what it says of a view, and how far off it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pose_node.core import dense
from pose_node.core.camera import Camera
from pose_node.core.geometry import apply
from pose_node.core.pnp import PnpOptions, PoseEstimate
from pose_node.runtime.readers import Sight, dense_likelihood, keypoint_likelihood
from pose_node.runtime.results import Likelihood

from ..nets import deformable
from ..nets.decoder import STRIDE
from ..nets.pnp_layer import LayerOptions
from ..recipe import FitOptions
from ..synth.dataset import View
from ..synth.things import Thing
from .depth_prior import depth_prior
from .judge import MIN_VARIANCE_PX2, THRESHOLD, decoded, solve


@dataclass(frozen=True, eq=False)
class Verdict:
    """The pose of one view and what it rests on; pixels are those of the network's picture."""

    estimate: PoseEstimate
    confidences: np.ndarray  # (P,) of the points that were found
    inliers: np.ndarray  # (P,) bool
    residuals_px: np.ndarray  # (P, 2), of the inliers at least
    covariances_px: np.ndarray  # (P, 2, 2)
    keypoint_px: np.ndarray  # (K,) how far the object's keypoints are from the truth
    camera: Camera
    likelihood: Likelihood | None  # where there is a pose


class Judge(Protocol):
    """Of one kind of map."""

    manifest: dict[str, Any]  # what a bundle says of that kind

    def read(self, maps: np.ndarray) -> list[Any]:
        """What maps (N, C, h, w) say of each view; for the other two to understand."""

    def prior_std_px(self, thing: Thing, views: Sequence[View], found: Sequence[Any]) -> float:
        """What heatmap.without_prior wants; infinite where there is no such thing."""

    def __call__(
        self,
        view: View,
        thing: Thing,
        found: Any,
        scale: float = 1.0,
        prior_std_px: float = np.inf,
    ) -> Verdict:
        """`scale` is the covariance's."""


class HeatmapJudge:
    """Keypoints."""

    def __init__(self, options: FitOptions) -> None:
        self.sigma_px = options.sigma_px
        self.manifest = {
            'kind': 'heatmap',
            'stride': STRIDE,
            'sigma_px': options.sigma_px,
            'threshold': THRESHOLD,
            'min_variance_px2': MIN_VARIANCE_PX2,
        }

    def read(self, maps: np.ndarray) -> list[Any]:
        """Decoded keypoints."""
        return list(decoded(maps, self.sigma_px))

    def prior_std_px(self, thing: Thing, views: Sequence[View], found: Sequence[Any]) -> float:
        """The one that makes depths right."""
        return depth_prior(thing, views, found)

    def __call__(
        self,
        view: View,
        thing: Thing,
        found: Any,
        scale: float = 1.0,
        prior_std_px: float = np.inf,
    ) -> Verdict:
        """The run time's decoder and solver."""
        answer = solve(view, thing, found, scale, prior_std_px)
        inliers = np.zeros(len(found.counts), bool)
        residuals_px = np.full(answer.points_px.shape, np.inf)
        likelihood = None
        if answer.estimate.ok:
            inliers[found.counts] = answer.estimate.inliers
            residuals_px[found.counts] = answer.estimate.residuals_px
            seen = answer.points_px, answer.covariances_px, found.confidences, found.counts
            sight = Sight(thing.keypoints_obj, *seen)
            likelihood = keypoint_likelihood(sight, answer.estimate, PnpOptions())
        return Verdict(
            answer.estimate,
            found.confidences,
            inliers,
            residuals_px,
            answer.covariances_px,
            np.linalg.norm(answer.points_px - view.keypoints_px, axis=1),
            answer.camera,
            likelihood,
        )


class DenseJudge:
    """Coordinates and weights."""

    kind, stride = 'dense', STRIDE

    def __init__(self, options: FitOptions) -> None:
        del options
        self.relative_delta = LayerOptions().relative_delta
        self.manifest = {
            'kind': self.kind,
            'stride': self.stride,
            'relative_delta': self.relative_delta,
        }

    def read(self, maps: np.ndarray) -> list[Any]:
        """The maps themselves: what they say is in the units of an object's box."""
        return list(maps)

    def prior_std_px(self, thing: Thing, views: Sequence[View], found: Sequence[Any]) -> float:
        """None: the pose was taught, not the points."""
        return np.inf

    def __call__(
        self,
        view: View,
        thing: Thing,
        found: Any,
        scale: float = 1.0,
        prior_std_px: float = np.inf,
    ) -> Verdict:
        """The run time's correspondences and solver."""
        points = self._points(found, thing.mesh.bounds_m.round(6))
        points_px = (points.points_px + 0.5) * self.stride - 0.5
        covariances_px = points.covariances_px * self.stride**2
        camera = Camera(view.K, (view.picture.shape[1], view.picture.shape[0]))
        scale *= points.covariance_scale
        estimate = dense.solve(points.points_obj, points_px, covariances_px, scale, camera)
        confidences = points.weights.mean(axis=1)
        all_count = np.ones(len(confidences), bool)
        seen = points_px, covariances_px, confidences, all_count
        sight = Sight(points.points_obj, *seen, covariance_scale=scale)
        keypoints_px = camera.project(apply(estimate.T_cam_obj, thing.keypoints_obj))
        return Verdict(
            estimate,
            confidences,
            estimate.inliers,
            estimate.residuals_px,
            covariances_px,
            np.linalg.norm(keypoints_px - view.keypoints_px, axis=1),
            camera,
            dense_likelihood(sight, estimate) if estimate.ok else None,
        )

    def _points(self, found: Any, bounds_obj: np.ndarray) -> dense.DensePoints:
        delta = self.relative_delta or np.inf
        return dense.correspondences(found, bounds_obj, self.stride, delta)


class PointsJudge(DenseJudge):
    """Coordinates and weights at places of the network's choice."""

    kind, stride = 'points', 1

    def __init__(self, options: FitOptions) -> None:
        super().__init__(options)
        self.manifest['points'] = deformable.POINTS

    def _points(self, found: Any, bounds_obj: np.ndarray) -> dense.DensePoints:
        rows, delta = found.reshape(deformable.CHANNELS, -1), self.relative_delta or np.inf
        return dense.point_correspondences(rows, bounds_obj, self.stride, delta)


JUDGES: dict[str, Callable[[FitOptions], Judge]] = {
    'heatmap': HeatmapJudge,
    'unet': HeatmapJudge,
    'dense': DenseJudge,
    'deformable': PointsJudge,
}
