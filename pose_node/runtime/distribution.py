"""A pose as samples and as few answers: a mean and a covariance do not tell that there are two.

Sampled by core/amis.py from the correspondences that the solver used, about the answers that it
found, with a generator seeded by stamp and object: the same picture gives the same samples.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.amis import AmisOptions, sample_poses
from pose_node.core.geometry import angle_between
from pose_node.core.pnp import PnpOptions

from .results import Distribution

if TYPE_CHECKING:
    from pose_node.core.camera import Camera
    from pose_node.core.symmetry import Symmetries

    from .results import ObjectPose

DISTRIBUTIONS = ('gaussian', 'amis')
CLOUD_POSES = 128  # as many as people can tell apart
_SAMPLES = 512  # for every answer of the solver
_LEAST_EFFECTIVE = 20.0  # samples that fewer are worth tell no covariance


def sampled(pose: ObjectPose, camera: Camera, symmetries: Symmetries, stamp_ns: int) -> ObjectPose:
    """The pose with its distribution, and with place and covariance of the likelier hypothesis; as
    it was where it has no likelihood, or one that too few samples hit.
    """
    given = pose.likelihood
    if given is None:
        return pose
    optima = _different(given.optima, symmetries)
    options = AmisOptions(
        _SAMPLES * len(optima), kernel_sigmas=given.kernel_sigmas, freedom=given.freedom
    )
    seed = (stamp_ns % (1 << 64), zlib.crc32(pose.object.encode()), pose.instance)
    rng = np.random.default_rng(seed)
    try:
        cloud = sample_poses(
            given.points_obj,
            given.points_px,
            given.covariances_px,
            camera,
            optima,
            rng,
            covariance_scale=given.covariance_scale,
            options=options,
        )
    except np.linalg.LinAlgError:  # a likelihood that is as good as flat in some direction
        return pose
    if cloud is None or not cloud.effective >= _LEAST_EFFECTIVE:
        return pose
    likelier = cloud.hypotheses[0]
    return replace(
        pose,
        T_cam_obj=likelier.T_cam_obj,
        covariance=likelier.covariance,
        distribution=Distribution(cloud.draw(CLOUD_POSES, rng), cloud.hypotheses),
    )


def answers(pose: ObjectPose) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """T_cam_obj, covariance and score of the pose and, where there are two, of the other one: each
    has its share of the score.
    """
    if pose.distribution is None:
        return [(pose.T_cam_obj, pose.covariance, pose.score)]
    own, *others = pose.distribution.hypotheses
    return [
        (pose.T_cam_obj, pose.covariance, pose.score * own.share),
        *((each.T_cam_obj, each.covariance, pose.score * each.share) for each in others),
    ]


def readings(pose: ObjectPose) -> list[ObjectPose]:
    """What a measured pose may be: one for each of its answers, its own first."""
    if pose.distribution is None:
        return [pose]
    known = pose.distribution.hypotheses
    return [
        replace(
            pose,
            T_cam_obj=each.T_cam_obj,
            covariance=each.covariance,
            distribution=replace(
                pose.distribution, hypotheses=(each, *known[:k], *known[k + 1 :])
            ),
        )
        for k, each in enumerate(known)
    ]


def _different(optima: tuple[np.ndarray, ...], symmetries: Symmetries) -> tuple[np.ndarray, ...]:
    """Poses that look the same are one answer: its first stands for all."""
    found: list[np.ndarray] = []
    for T in optima:
        twins = (T @ symmetries.transforms())[:, :3, :3]
        apart = [angle_between(twins, each[:3, :3]).min() for each in found]
        if all(angle > PnpOptions.ambiguity_rad for angle in apart):
            found.append(T)
    return tuple(found)
