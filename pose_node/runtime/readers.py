"""What a network's maps say of each crop: correspondences in picture pixels, by kind of map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from pose_node.core import dense, heatmap
from pose_node.core.manifest import ObjectSpec
from pose_node.core.pnp import PnpOptions, PoseEstimate, solve_pnp
from pose_node.core.pose_spec import DenseSpec, HeatmapSpec, PoseSpec, PosteriorSpec

from .results import Likelihood

if TYPE_CHECKING:
    from pose_node.core.camera import Camera


@dataclass(frozen=True, eq=False)
class Sight:
    """What one crop shows of an object."""

    points_obj: np.ndarray  # (K, 3) m
    points_px: np.ndarray  # (K, 2) picture px
    covariances_px: np.ndarray  # (K, 2, 2) picture px²
    confidences: np.ndarray  # (K,)
    counts: np.ndarray  # (K,) bool, whether the point is sure enough to be used
    covariance_scale: float = 1.0  # of the pose that the points give
    posterior: PosteriorSpec = field(default_factory=PosteriorSpec)  # of poses that are sampled


class Reader(Protocol):
    """Maps (N, C, h, w) -> what each of N crops shows."""

    channels: int
    points: int  # said of a region that cannot be looked at

    def __call__(self, maps: np.ndarray, names: Sequence[str], affines: np.ndarray) -> list[Sight]:
        """names: the object of each crop; affines (N, 2, 3) from map to picture pixels."""

    def pose(self, sight: Sight, camera: Camera, options: PnpOptions) -> PoseEstimate:
        """Of the points that count; the estimate's inliers are of these."""

    def likelihood(self, sight: Sight, estimate: PoseEstimate, options: PnpOptions) -> Likelihood:
        """What the estimate rests on."""


class HeatmapReader:
    """One map a keypoint."""

    def __init__(self, spec: PoseSpec, objects: Mapping[str, ObjectSpec]) -> None:
        self.spec, self.objects = cast(HeatmapSpec, spec), objects
        # One number for all objects: bundle.json holds nothing else.
        self.channels = self.points = len(objects[spec.objects[0]].keypoints_obj_m)
        self.options = heatmap.DecodeOptions(
            threshold=self.spec.threshold, min_variance_px2=self.spec.min_variance_px2
        )

    def __call__(self, maps: np.ndarray, names: Sequence[str], affines: np.ndarray) -> list[Sight]:
        """Keypoints, freed of the prior, their covariances as calibrated."""
        keypoints = heatmap.decode(maps, self.spec.sigma_px, self.options)
        calibration = [self.spec.calibration[name] for name in names]
        priors_px = np.array([each.prior_std_px for each in calibration])
        map_size = maps.shape[-1], maps.shape[-2]
        keypoints = heatmap.without_prior(keypoints, map_size, priors_px)
        scales = np.array([each.covariance_scale for each in calibration])
        points_px, covariances_px = to_picture(
            keypoints.points_px, keypoints.covariances_px, affines
        )
        covariances_px *= scales[:, None, None, None]
        return [
            Sight(
                self.objects[name].keypoints_obj_m,
                points_px[i],
                covariances_px[i],
                keypoints.confidences[i],
                keypoints.counts[i],
                posterior=calibration[i].posterior,
            )
            for i, name in enumerate(names)
        ]

    def pose(self, sight: Sight, camera: Camera, options: PnpOptions) -> PoseEstimate:
        """Robust least squares."""
        use = sight.counts
        return solve_pnp(
            sight.points_obj[use], sight.points_px[use], sight.covariances_px[use], camera, options
        )

    def likelihood(self, sight: Sight, estimate: PoseEstimate, options: PnpOptions) -> Likelihood:
        """Of the points within the gate, as the estimate's covariance has it."""
        return keypoint_likelihood(sight, estimate, options)


class DenseReader:
    """A point of the object and two weights a pixel."""

    channels, points = 5, 4

    def __init__(self, spec: PoseSpec, objects: Mapping[str, ObjectSpec]) -> None:
        self.spec, self.objects = cast(DenseSpec, spec), objects

    def __call__(self, maps: np.ndarray, names: Sequence[str], affines: np.ndarray) -> list[Sight]:
        """The points that matter, all of which count."""
        return [
            self._sight(each, name, affine) for each, name, affine in zip(maps, names, affines)
        ]

    def pose(self, sight: Sight, camera: Camera, options: PnpOptions) -> PoseEstimate:
        """The likelihood's optimum, with its width."""
        use = sight.counts
        return dense.solve(
            sight.points_obj[use],
            sight.points_px[use],
            sight.covariances_px[use],
            sight.covariance_scale,
            camera,
            options,
        )

    def likelihood(self, sight: Sight, estimate: PoseEstimate, options: PnpOptions) -> Likelihood:
        """That by which the weights were taught: all points, with their kernel."""
        del options
        return dense_likelihood(sight, estimate)

    def _found(self, maps: np.ndarray, bounds_obj: np.ndarray) -> dense.DensePoints:
        spec = self.spec
        return dense.correspondences(maps, bounds_obj, spec.stride, spec.relative_delta)

    def _sight(self, maps: np.ndarray, name: str, affine: np.ndarray) -> Sight:
        found = self._found(maps, self.objects[name].bounds_obj_m)
        if not len(found.points_obj):
            nowhere = np.full((self.points, 3), np.nan)
            spread = np.full((self.points, 2, 2), np.nan)
            zero = np.zeros(self.points)
            return Sight(nowhere, nowhere[:, :2], spread, zero, zero > 0.0)
        points_px, covariances_px = to_picture(
            found.points_px[None], found.covariances_px[None], affine[None]
        )
        calibration = self.spec.calibration[name]
        return Sight(
            found.points_obj,
            points_px[0],
            covariances_px[0],
            found.weights.mean(axis=1),
            np.ones(len(found.points_obj), bool),
            found.covariance_scale * calibration.covariance_scale,
            calibration.posterior,
        )


class PointsReader(DenseReader):
    """The same at places that the network chose."""

    channels = 7

    def _found(self, maps: np.ndarray, bounds_obj: np.ndarray) -> dense.DensePoints:
        rows, spec = maps.reshape(self.channels, -1), self.spec
        return dense.point_correspondences(rows, bounds_obj, spec.stride, spec.relative_delta)


READERS: dict[str, Callable[[PoseSpec, Mapping[str, ObjectSpec]], Reader]] = {
    'heatmap': HeatmapReader,
    'dense': DenseReader,
    'points': PointsReader,
}


def keypoint_likelihood(sight: Sight, estimate: PoseEstimate, options: PnpOptions) -> Likelihood:
    """Least squares over the estimate's inliers."""
    use = np.flatnonzero(sight.counts)[estimate.inliers]
    return _likelihood(sight, use, estimate, math.sqrt(options.gate_squared))


def dense_likelihood(sight: Sight, estimate: PoseEstimate) -> Likelihood:
    """All points, with the kernel that their weights were taught by."""
    return _likelihood(sight, np.flatnonzero(sight.counts), estimate, dense.KERNEL_SIGMAS)


def _likelihood(
    sight: Sight, use: np.ndarray, estimate: PoseEstimate, kernel_sigmas: float
) -> Likelihood:
    optima = (estimate.T_cam_obj, estimate.T_cam_obj_other)
    return Likelihood(
        sight.points_obj[use],
        sight.points_px[use],
        sight.covariances_px[use],
        tuple(T for T in optima if T is not None),
        kernel_sigmas,
        sight.covariance_scale * sight.posterior.scale,
        sight.posterior.freedom,
        sight.covariance_scale,
    )


def to_picture(
    points_px: np.ndarray, covariances_px: np.ndarray, affines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, K, 2) and covariances (N, K, 2, 2) carried from map to picture pixels."""
    L, t = affines[:, None, :, :2], affines[:, None, :, 2]
    return (L @ points_px[..., None])[..., 0] + t, L @ covariances_px @ L.swapaxes(-1, -2)
