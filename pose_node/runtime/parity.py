"""Whether two backends say the same of the same pictures: keypoints, where the network has them,
in pixels, and poses in sigmas.

The pictures are painted from the bundle's own meshes, so that they are the same on every machine
and show what the network knows; a bundle without meshes needs pictures of somebody's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pose_node.core.camera import Camera
from pose_node.core.geometry import apply, exp_so3, log_so3
from pose_node.core.mesh import read_ply
from pose_node.core.pose_spec import HeatmapSpec

from .preprocess import Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pose_node.core.bundle import Bundle
    from pose_node.core.mesh import Mesh

    from .estimator import PoseEstimator
    from .results import ObjectPose

# What keypoints may differ by: pixels of the network's input, by what it is computed in; or, of
# those that the network itself is unsure of and rounding moves farther, a share of their standard
# deviation.
KEYPOINT_PX = {'fp32': 0.1, 'fp16': 0.1, 'int8': 0.5}
KEYPOINT_SIGMAS = {'fp32': 0.1, 'fp16': 0.1, 'int8': 0.5}
POSE_SIGMAS = 1.0  # what poses may, in units of the published covariance
_SIZE = (640, 480)
_FOCAL_PX = 600.0

Scene = tuple[np.ndarray, Camera, list[Region]]  # a picture, who took it, where to look


@dataclass
class Parity:
    """How far two backends are apart."""

    pictures: int = 0
    keypoints_px: list[float] = field(default_factory=list)  # of those both count
    sigmas_px: list[float] = field(default_factory=list)  # how sure the reference is of them
    lost: int = 0  # keypoints that only one of them counts
    poses_sigma: list[float] = field(default_factory=list)
    lost_poses: int = 0  # poses that only one of them has
    precision: str = 'fp16'  # what the tested one computes in

    @property
    def fault(self) -> str:
        """What is wrong; '' when nothing is."""
        apart_px = np.array(self.keypoints_px)
        sigmas_px = KEYPOINT_SIGMAS[self.precision] * np.array(self.sigmas_px)
        allowed_px = np.maximum(KEYPOINT_PX[self.precision], sigmas_px)
        worst_sigma = max(self.poses_sigma, default=0.0)
        if not self.poses_sigma and not self.lost_poses:
            return 'nothing was found by both: give pictures that show the objects (--pictures)'
        if not (apart_px <= allowed_px).all():
            worst = int(np.argmax(np.nan_to_num(apart_px / allowed_px, nan=np.inf)))
            return (
                f'a keypoint is {apart_px[worst]:.3f} px off, wanted at most '
                f'{allowed_px[worst]:.3f}'
            )
        if self.lost > 0.02 * len(self.keypoints_px):
            return f'{self.lost} keypoints are seen by one of them only'
        if not worst_sigma <= POSE_SIGMAS or self.lost_poses:
            return (
                f'a pose is {worst_sigma:.2f} sigma off, wanted at most {POSE_SIGMAS}; '
                f'{self.lost_poses} poses are given by one of them only'
            )
        return ''

    def __str__(self) -> str:
        px, sigmas = np.array(self.keypoints_px or [np.nan]), np.array(self.sigmas_px or [np.nan])
        allowed_px = KEYPOINT_PX[self.precision]
        return (
            f'{self.pictures} pictures: {len(self.keypoints_px)} keypoints differ by '
            f'{np.median(px):.4f} px (median; {100.0 * np.mean(px <= allowed_px):.0f} % by at '
            f'most {allowed_px} px), by {(px / np.maximum(sigmas, 1e-9)).max():.3f} of their own '
            f'sigma at most; {len(self.poses_sigma)} poses by '
            f'{max(self.poses_sigma, default=0.0):.3f} sigma at most'
        )


def compare(
    tested: PoseEstimator,
    reference: PoseEstimator,
    scenes: Iterable[Scene],
    precision: str = 'fp16',
) -> Parity:
    """Look at every scene with both; they must be of one bundle and look once (second_look 1)."""
    parity = Parity(precision=precision)
    for picture, camera, regions in scenes:
        answers = [
            sorted((*result.poses, *result.rejected), key=_place)
            for result in (each(picture, camera, regions=regions) for each in (tested, reference))
        ]
        parity.pictures += 1
        for one, other in zip(*answers):
            _compare(parity, one, other, reference)
    return parity


def _place(pose: ObjectPose) -> tuple:
    return pose.region.object, pose.region.center_px


def _compare(parity: Parity, one: ObjectPose, other: ObjectPose, estimator: PoseEstimator) -> None:
    # What is more likely wrong than right may be anything: a pose out of noise, a keypoint that
    # could be in two places.
    least = estimator.options.min_score
    if max(one.score, other.score) < least:
        return
    if not (one.stands and other.stands):
        parity.lost_poses += 1
        return
    parity.poses_sigma.append(_sigmas(one, other))
    spec = estimator.spec
    if not isinstance(spec, HeatmapSpec):
        return  # points that each network chooses for itself have no partners
    counted = [
        each.confidences >= spec.threshold * each.confidences.max() for each in (one, other)
    ]
    parity.lost += int((counted[0] != counted[1]).sum())
    scale = max(spec.input_size) / (spec.region_scale * max(other.region.size_px))
    apart = np.linalg.norm(one.keypoints_px - other.keypoints_px, axis=1) * scale
    sigmas = np.sqrt(np.trace(other.covariances_px, axis1=1, axis2=2) / 2.0) * scale
    both = counted[0] & counted[1]
    parity.keypoints_px.extend(apart[both].tolist())
    parity.sigmas_px.extend(sigmas[both].tolist())


def _sigmas(one: ObjectPose, other: ObjectPose) -> float:
    """Mahalanobis distance of two poses in the second one's covariance (x, y, z, rx, ry, rz)."""
    turn = one.T_cam_obj[:3, :3] @ other.T_cam_obj[:3, :3].T
    rotation = log_so3(turn)
    step = np.concatenate((one.T_cam_obj[:3, 3] - other.T_cam_obj[:3, 3], rotation))
    return float(np.sqrt(step @ np.linalg.solve(other.covariance, step)))


def painted_scenes(bundle: Bundle, count: int, rng: np.random.Generator) -> Iterator[Scene]:
    """`count` pictures of each object that has a mesh, before grey noise, lit from anywhere."""
    focal = np.array([[_FOCAL_PX, 0, 319.5], [0, _FOCAL_PX, 239.5], [0, 0, 1]])
    camera = Camera(focal, _SIZE)
    for name in bundle.pose_network.objects:
        item = bundle.object(name)
        if not item.mesh:
            continue
        mesh = read_ply(bundle.read(item.mesh))
        center = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2.0
        for _ in range(count):
            T = np.eye(4)
            axis = rng.standard_normal(3)
            T[:3, :3] = exp_so3(axis / np.linalg.norm(axis) * rng.uniform(0.0, np.pi))
            depth = item.diameter_m * rng.uniform(2.5, 5.0)
            place = np.array([*rng.uniform(-0.2, 0.2, 2), 1.0]) * depth
            T[:3, 3] = place - T[:3, :3] @ center
            picture = _noise(rng)
            _paint(picture, mesh, T, camera, rng.standard_normal(3))
            points_px = camera.project(apply(T, item.keypoints_obj_m))
            low, high = points_px.min(axis=0), points_px.max(axis=0)
            (x, y), (width, height) = ((low + high) / 2).tolist(), (high - low).tolist()
            yield picture, camera, [Region(name, (x, y), (width, height))]


def _noise(rng: np.random.Generator) -> np.ndarray:
    width, height = _SIZE
    coarse = rng.integers(64, 160, (height // 16, width // 16), dtype=np.uint8)
    grey = cv2.resize(coarse, _SIZE, interpolation=cv2.INTER_LINEAR)
    return np.repeat(grey[..., None], 3, axis=2)


def _paint(
    picture: np.ndarray, mesh: Mesh, T_cam_obj: np.ndarray, camera: Camera, light: np.ndarray
) -> None:
    """Flat triangles, the farthest first."""
    points = apply(T_cam_obj, mesh.vertices)
    corners = points[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    shade = 0.45 + 0.55 * np.abs(normals @ (light / np.linalg.norm(light)))
    base = (
        mesh.colors[mesh.faces].mean(axis=1)
        if mesh.colors is not None
        else np.full((len(mesh.faces), 3), 180.0)
    )
    order = np.argsort(-corners[:, :, 2].mean(axis=1))
    colors = np.clip(base * shade[:, None], 0, 255)[order].tolist()
    fixed = np.rint(camera.project(points) * 16.0).astype(np.int32)  # in 1/16 px
    for triangle, color in zip(fixed[mesh.faces[order]], colors):
        cv2.fillConvexPoly(picture, triangle, color, cv2.LINE_AA, 4)


__all__ = ['KEYPOINT_PX', 'POSE_SIGMAS', 'Parity', 'Scene', 'compare', 'painted_scenes']
