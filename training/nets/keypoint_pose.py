"""The pose that heatmaps give, as a loss: keypoints and how sure they are, taught end to end.

EPro-PnP's layer (pnp_layer.py) wants correspondences with weights. A heatmap network has them: the
decoded keypoints, and the inverse of their standard deviations. The pose's likelihood is then that
of the run time's solver but for the edge of its kernel, and what the network says of its doubt is
held to account by the pose, not by one keypoint at a time.

Where it differs from the dense network: the points of the object are known, the weights' scale is
the maps' own, and a symmetric object has one pose, the canonical one, because its heatmaps have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pose_node.core.heatmap import DecodeOptions

from .decode import decode
from .pnp_layer import LayerOptions, PnpLayer


class KeypointPose(nn.Module):
    """Log-probability maps (N, K, h, w) and true poses -> the loss of the pose."""

    def __init__(self, sigma_px: float, stride: int, layer: LayerOptions | None = None) -> None:
        super().__init__()
        self.sigma_px, self.stride = sigma_px, stride
        self.layer = PnpLayer(layer)

    def forward(
        self, log_maps: Tensor, present: Tensor, K: Tensor, T_cam_obj: Tensor, points_obj: Tensor
    ) -> Tensor:
        """present (N,) bool, K (N, 3, 3) of the input picture, T_cam_obj (N, M, 4, 4), points_obj
        (N, K, 3) m.
        """
        with torch.autocast(log_maps.device.type, enabled=False):
            found = decode(log_maps.float().exp(), self.sigma_px, DecodeOptions())
            points_px = (found.points_px + 0.5) * self.stride - 0.5
            sigmas_px = self.stride * found.variances_px.sqrt()
            # What the run time leaves out is left out here.
            weights = found.counts[..., None] / sigmas_px
            loss = self.layer(
                points_obj, points_px, weights, K, T_cam_obj, weights.sum(1), wanted=present
            )
        return loss.total
