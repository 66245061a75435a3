"""From what the pose network says to a pose, and how far that is from the truth.

Validation and evaluation both judge by this, with the decoder and the PnP of the run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pose_node.core import heatmap, metrics
from pose_node.core.camera import Camera
from pose_node.core.pnp import PoseEstimate, solve_pnp

from ..nets.decoder import STRIDE
from ..nets.pose_network import PoseNetwork
from ..synth.dataset import View
from ..synth.things import Thing
from .feed import normalise

THRESHOLD = 0.1  # a keypoint counts above this share of the best one's peak
MIN_VARIANCE_PX2 = 0.01
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Answer:
    """One crop's keypoints, in pixels of the network's picture, and the pose they give."""

    keypoints: heatmap.Keypoints  # in map pixels
    points_px: np.ndarray
    covariances_px: np.ndarray
    camera: Camera
    estimate: PoseEstimate


def heatmaps(network: PoseNetwork, views: Sequence[View]) -> np.ndarray:
    """(N, K, h, w), nowhere negative; the network in evaluation mode."""
    device = next(network.parameters()).device
    maps = []
    with torch.no_grad():
        for i in range(0, len(views), _BATCH):
            batch = views[i : i + _BATCH]
            pictures = torch.from_numpy(np.stack([v.picture for v in batch])).to(device)
            index = torch.tensor([v.thing for v in batch], device=device)
            maps.append(network.maps(normalise(pictures, network), index).cpu().numpy())
    return np.concatenate(maps)


def decoded(maps: np.ndarray, sigma_px: float) -> list[heatmap.Keypoints]:
    """What the run time reads from maps (N, K, h, w), in map pixels, view by view."""
    options = heatmap.DecodeOptions(threshold=THRESHOLD, min_variance_px2=MIN_VARIANCE_PX2)
    return [heatmap.decode(each, sigma_px, options) for each in maps]


def solve(
    view: View,
    thing: Thing,
    found: heatmap.Keypoints,
    scale: float = 1.0,
    prior_std_px: float = np.inf,
) -> Answer:
    """The pose that decoded keypoints give; `scale` is the covariances', `prior_std_px` what
    heatmap.without_prior takes.
    """
    height, width = view.picture.shape[:2]
    map_size = width // STRIDE, height // STRIDE
    found = heatmap.without_prior(found, map_size, prior_std_px)
    points_px = (found.points_px + 0.5) * STRIDE - 0.5
    covariances_px = found.covariances_px * scale * STRIDE**2
    camera = Camera(view.K, (width, height))
    use = found.counts
    estimate = solve_pnp(thing.keypoints_obj[use], points_px[use], covariances_px[use], camera)
    return Answer(found, points_px, covariances_px, camera, estimate)


def add_share(estimate: PoseEstimate, view: View, thing: Thing) -> float:
    """ADD over the diameter, to the nearest of the poses that look the same; infinite without."""
    if not (estimate.ok and view.present):
        return np.inf
    vertices, poses = thing.coarse.vertices_m, view.T_cam_obj @ thing.symmetries.transforms()
    nearest_m = min(metrics.add(estimate.T_cam_obj, T, vertices) for T in poses)
    return nearest_m / thing.mesh.diameter_m


def mssd_share(estimate: PoseEstimate, view: View, thing: Thing) -> float:
    """MSSD over the diameter; infinite without a pose."""
    if not (estimate.ok and view.present):
        return np.inf
    error_m = metrics.mssd(
        estimate.T_cam_obj, view.T_cam_obj, thing.coarse.vertices_m, thing.symmetries.transforms()
    )
    return error_m / thing.mesh.diameter_m
