"""U-Net with one heatmap a keypoint (Ronneberger et al., MICCAI 2015; Alexandra Institute's
pipeline without real data).

Where we differ from the published pipeline: a map is a probability over its pixels (spatial
softmax), so that its peak says how sure the network is and its spread is an honest covariance; the
encoder is EfficientNet-Lite0, because with two CPU cores its ImageNet weights are worth more than
a larger network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .keypoint_pose import KeypointPose
from .lite0 import MEAN, STD, Lite0
from .pose_network import PoseNetwork

STRIDE = 4


class Up(nn.Module):
    """Twice the size, joined with the skip connection, two 3x3 convolutions."""

    def __init__(self, inputs: int, skip: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode='nearest')
        return self.layers(torch.cat((x, skip), dim=1))


class HeatmapUNet(PoseNetwork):
    """Picture (N, 3, h, w) normalised -> log-probability maps (N, K, h / 4, w / 4).

    One network may serve several objects: they share all but the last layer, and which object a
    picture shows is told (N,) and marks the deepest features.
    """

    mean, std = MEAN, STD
    per_object = ('head.weight', 'head.bias', 'mark')  # first axis: object by object

    encoder: Lite0

    def __init__(
        self,
        keypoints: int,
        objects: int = 1,
        *,
        pretrained: bool = True,
        frozen: int = 0,
        pose_loss: float = 0.0,
        sigma_px: float = 1.0,
    ):
        """pose_loss: what the pose counts beside the maps; sigma_px: of their targets."""
        super().__init__()
        self.keypoints, self.objects, self.pose_loss = keypoints, objects, pose_loss
        self.encoder = Lite0(frozen=frozen)
        if pretrained:
            self.encoder.load_imagenet()
        c4, c8, c16, c32 = self.encoder.channels
        self.up16 = Up(c32, c16, 128)
        self.up8 = Up(128, c8, 80)
        self.up4 = Up(80, c4, 56)
        self.refine = nn.Sequential(
            nn.Conv2d(56, 56, 3, padding=1, bias=False), nn.BatchNorm2d(56), nn.ReLU(inplace=True)
        )
        self.head = nn.Conv2d(56, objects * keypoints, 1)
        if objects > 1:
            self.mark = nn.Parameter(torch.zeros(objects, c32, 1, 1))
        if pose_loss:
            self.pose = KeypointPose(sigma_px, STRIDE)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        f4, f8, f16, f32 = self.encoder(x)
        if index is not None and self.objects > 1:
            f32 = f32 + self.mark[index]
        x = self.refine(self.up4(self.up8(self.up16(f32, f16), f8), f4))
        n, channels, h, w = x.shape
        if index is not None and self.objects > 1:
            weight = self.head.weight.reshape(self.objects, self.keypoints, channels)[index]
            bias = self.head.bias.reshape(self.objects, self.keypoints, 1)[index]  # type: ignore[union-attr]
            logits = weight @ x.reshape(n, channels, h * w) + bias
        else:
            logits = self.head(x).reshape(n, self.keypoints, h * w)
        return F.log_softmax(logits.float(), dim=2).reshape(n, self.keypoints, h, w)

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
