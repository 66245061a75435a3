"""One heatmap a keypoint (Alexandra Institute's pipeline without real data).

Where we differ from the published pipeline: a map is a probability over its pixels (spatial
softmax), so that its peak says how sure the network is and its spread is an honest covariance; the
encoder may be small (decoder.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import STRIDE, WIDTH, Encoder, UNet
from .keypoint_pose import KeypointPose
from .lite0 import Lite0


class HeatmapUNet(UNet):
    """Picture (N, 3, h, w) normalised -> log-probability maps (N, K, h / 4, w / 4).

    Several objects share all but the last layer.
    """

    per_object = ('head.weight', 'head.bias', 'mark')  # first axis: object by object

    def __init__(
        self,
        keypoints: int,
        objects: int = 1,
        *,
        encoder: Encoder | None = None,
        pose_loss: float = 0.0,
        sigma_px: float = 1.0,
    ):
        """encoder: Lite0 at random, if none; pose_loss: what the pose counts beside the maps;
        sigma_px: of their targets.
        """
        super().__init__(encoder or Lite0(), objects)
        self.keypoints, self.pose_loss = keypoints, pose_loss
        self.head = nn.Conv2d(WIDTH, objects * keypoints, 1)
        if pose_loss:
            self.pose = KeypointPose(sigma_px, STRIDE)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        logits = self.own_head(self.head, self.features(x, index)[1], index)
        return F.log_softmax(logits.float().flatten(2), dim=2).reshape(logits.shape)

    def maps(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Probabilities."""
        return torch.exp(self(x, index))

    def loss(self, outputs: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Cross entropy of the keypoints whose place is known; where the pose counts, labels go on
        as KeypointPose takes them.
        """
        targets, _, known, *posed = labels
        loss = heatmap_loss(outputs, targets, known)
        return loss + self.pose_loss * self.pose(outputs, *posed) if self.pose_loss else loss

    def troubles(self) -> dict[str, int]:
        """The layer's, where there is one."""
        return self.pose.layer.troubles() if self.pose_loss else {}


def heatmap_loss(log_maps: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Cross entropy between target and predicted distributions, mean over pictures and keypoints.

    targets: (N, K, h, w), each map sums to 1: a Gaussian where the keypoint lies in the picture,
    uniform where it does not or where there is no object, so that the network learns to say
    "nowhere". known: (N, K) bool, the others are left out of the mean.
    """
    costs = -(targets * log_maps).sum(dim=(2, 3))
    return (costs * known).sum() / known.sum().clamp(min=1)
