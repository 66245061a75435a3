"""What is said of a picture: poses, and how long each stage took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.amis import Hypothesis
from pose_node.core.pnp import PnpStatus

from .score import score_features

if TYPE_CHECKING:
    from .preprocess import Region


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What makes a pose likely, and where it is known to be so."""

    points_obj: np.ndarray  # (K, 3) m
    points_px: np.ndarray  # (K, 2) picture px
    covariances_px: np.ndarray  # (K, 2, 2) picture px²
    optima: tuple[np.ndarray, ...]  # (4, 4) each, the best first
    kernel_sigmas: float  # beyond, a residual counts as an outlier's (Huber)
    covariance_scale: float = 1.0  # of the poses
    freedom: float = np.inf  # of that scale, see core/amis.py
    # Of covariances_px: then least squares over the points have the covariance that the pose has.
    points_scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Distribution:
    """One object's pose as one picture has it."""

    T_cam_obj: np.ndarray  # (S, 4, 4), of equal weight
    hypotheses: tuple[Hypothesis, ...]  # that of the pose itself first, then the likelier first

    def moved(self, T_to_cam: np.ndarray) -> Distribution:
        """The same in another frame."""
        turned = np.kron(np.eye(2), T_to_cam[:3, :3])
        hypotheses = [
            Hypothesis(T_to_cam @ each.T_cam_obj, turned @ each.covariance @ turned.T, each.share)
            for each in self.hypotheses
        ]
        return Distribution(T_to_cam @ self.T_cam_obj, tuple(hypotheses))


@dataclass(frozen=True, eq=False)
class ObjectPose:
    """Where one object is, how sure that is, and what it was computed from."""

    object: str
    instance: int  # 0 for the best of its kind in this picture
    score: float  # 0..1
    T_cam_obj: np.ndarray  # (4, 4), NaN when there is no pose at all
    covariance: np.ndarray  # (6, 6) x, y, z, rx, ry, rz in the axes of the camera frame
    reprojection_rms_px: float
    inliers: int
    keypoints_px: np.ndarray  # (K, 2) picture px
    covariances_px: np.ndarray  # (K, 2, 2) picture px²
    confidences: np.ndarray  # (K,)
    region: Region
    status: PnpStatus
    features: dict[str, float]  # what the score was computed from
    likelihood: Likelihood | None = None  # what the solver's pose rests on, where there is one
    distribution: Distribution | None = None  # as this picture has it, whatever a filter knows

    @property
    def stands(self) -> bool:
        """Whether the pose solver gave an answer, in numbers."""
        ok = self.status in (PnpStatus.OK, PnpStatus.AMBIGUOUS)
        return ok and bool(
            np.isfinite(self.T_cam_obj).all() and np.isfinite(self.covariance).all()
        )


@dataclass(frozen=True)
class FrameResult:
    """What was found in one picture."""

    poses: tuple[ObjectPose, ...]  # the surest first
    rejected: tuple[ObjectPose, ...]  # no pose, too low a score, or the same thing again
    regions: tuple[Region, ...]
    stage_ms: dict[str, float]  # locate, preprocess, network, decode, pnp, align; sample
    stamp_ns: int = 0


def nothing(region: Region, keypoints: int) -> ObjectPose:
    """What is said of a region that cannot be looked at."""
    confidences, inliers = np.zeros(keypoints), np.zeros(keypoints, bool)
    points_px = np.full((keypoints, 2), np.nan)
    covariances_px = np.full((keypoints, 2, 2), np.nan)
    return ObjectPose(
        object=region.object,
        instance=0,
        score=0.0,
        T_cam_obj=np.full((4, 4), np.nan),
        covariance=np.full((6, 6), np.nan),
        reprojection_rms_px=math.nan,
        inliers=0,
        keypoints_px=points_px,
        covariances_px=covariances_px,
        confidences=confidences,
        region=region,
        status=PnpStatus.TOO_FEW_POINTS,
        features=score_features(confidences, inliers, points_px, covariances_px),
    )
