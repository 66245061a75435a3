"""Dense correspondences with weights, taught through the pose (CDPN: Li et al., ICCV 2019;
EPro-PnP, version 2: Chen et al., T-PAMI 2024).

Every map pixel gets three coordinates of the object, in its box's units, and two weights: a
softmax over the pixels, times a scale for each of x and y that the whole crop decides. The pose's
likelihood follows from all pixels; a random part of them is looked at in a step. Where renders
tell the coordinates, they are taught too, or they begin at random and the pose alone must do. The
other way about, as CDPN had it, coordinates and a mask are all that is taught (`end_to_end` off).

Where we differ: the encoder and decoder are those of the heatmap network, so that either may start
from the other; coordinates of symmetric objects are taught for one pose (the canonical one), but
the pose's loss knows all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import STRIDE, WIDTH, Encoder, UNet
from .pnp_layer import LayerOptions, PnpLayer, subset

CHANNELS = 5  # x, y, z, and the logarithms of two weights
POINTS = 512  # of the map's pixels that a step looks at
_FIRST_LOG_SCALE = 3.0


class DenseUNet(UNet):
    """Picture (N, 3, h, w) normalised -> maps (N, 5, h / 4, w / 4) and log scales (N, 2).

    bounds_obj (objects, 2, 3), m: the boxes that coordinates are in units of. coordinates: what
    their own loss counts; 0 asks for no labels. end_to_end: whether the pose teaches at all; where
    it does not, the weights are the probability that a pixel shows the object.
    """

    per_object = ('dense.weight', 'dense.bias', 'scale.weight', 'scale.bias', 'mark')
    middle_obj: Tensor
    half_obj: Tensor

    def __init__(
        self,
        bounds_obj: Tensor,
        *,
        encoder: Encoder,
        coordinates: float = 1.0,
        end_to_end: bool = True,
        layer: LayerOptions | None = None,
    ):
        super().__init__(encoder, len(bounds_obj))
        self.coordinates, self.end_to_end = coordinates, end_to_end
        self.dense = nn.Conv2d(WIDTH, self.objects * CHANNELS, 1)
        # A convolution: TensorRT has no matrix product in float32 for every GPU.
        self.scale = nn.Conv2d(self.deepest, self.objects * 2, 1)
        with torch.no_grad():
            # Even weights at first, of a scale that does not hang on the picture.
            self.dense.weight.unflatten(0, (self.objects, CHANNELS))[:, 3:] = 0.0
            self.dense.bias.zero_()  # type: ignore[union-attr]
            self.scale.weight.zero_()
            self.scale.bias.fill_(_FIRST_LOG_SCALE)  # type: ignore[union-attr]
        self.register_buffer('middle_obj', bounds_obj.mean(1).float(), persistent=False)
        half = 0.5 * (bounds_obj[:, 1] - bounds_obj[:, 0])
        self.register_buffer('half_obj', half.float(), persistent=False)
        self.layer = PnpLayer(layer)

    def forward(self, x: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Maps, log scales, and the index they are of."""
        deep, x = self.features(x, index)
        x = self.own_head(self.dense, x, index)
        log_scale = self.scale(deep.mean(dim=(2, 3), keepdim=True)).flatten(1)
        if index is None:
            index = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        elif self.objects > 1:
            rows = log_scale.reshape(-1, self.objects, 2)
            log_scale = rows.gather(1, index[:, None, None].expand(-1, 1, 2))[:, 0]
        # Held: exp of anything else is no weight.
        return x.float(), log_scale.float().clamp(-6.0, 9.0), index

    def maps(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """(N, 5, h / 4, w / 4): coordinates in the box's units, weights in 1 / px of the input."""
        maps, log_scale, _ = self(x, index)
        worth = weights(maps, log_scale) if self.end_to_end else maps[:, 3:].sigmoid()
        return torch.cat((maps[:, :3], worth), dim=1)

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], labels: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """labels: present (N,) bool, K (N, 3, 3), T_cam_obj (N, M, 4, 4), surface (N, 3, h, w) in
        metres, NaN where the object is not seen.
        """
        maps, log_scale, index = outputs
        present, K, T_cam_obj, surface = labels
        loss = maps.new_zeros(())
        if self.end_to_end:
            loss = self._pose_loss(maps, log_scale, index, (present, K, T_cam_obj))
        if self.coordinates:
            middle, half = self.middle_obj[index], self.half_obj[index]
            wanted = (surface - middle[:, :, None, None]) / half[:, :, None, None]
            known = surface.isfinite()
            off = torch.where(known, maps[:, :3] - wanted.nan_to_num(), 0.0).abs()
            loss = loss + self.coordinates * off.sum() / known.sum().clamp(min=1)
            if not self.end_to_end:
                mask = known[:, :1].expand(-1, 2, -1, -1).to(maps.dtype)
                loss = loss + F.binary_cross_entropy_with_logits(maps[:, 3:], mask)
        return loss

    def troubles(self) -> dict[str, int]:
        """The layer's."""
        return self.layer.troubles() if self.end_to_end else {}

    def _pose_loss(
        self, maps: Tensor, log_scale: Tensor, index: Tensor, truth: Sequence[Tensor]
    ) -> Tensor:
        """Of a random part of the pixels; truth: present, K, T_cam_obj."""
        present, K, T_cam_obj = truth
        middle, half = self.middle_obj[index], self.half_obj[index]
        points_obj = middle[:, None] + half[:, None] * maps[:, :3].flatten(2).mT
        points_px = pixels(maps).expand(len(maps), -1, -1)
        chosen = subset(
            POINTS, points_obj, points_px, weights=weights(maps, log_scale).flatten(2).mT
        )
        return self.layer(*chosen, K, T_cam_obj, log_scale.exp(), wanted=present).total


def weights(maps: Tensor, log_scale: Tensor) -> Tensor:
    """(N, 2, h, w) in 1 / px: in each direction they sum to the scale."""
    flat = F.softmax(maps[:, 3:].flatten(2), dim=2) * log_scale.exp()[..., None]
    return flat.reshape(maps[:, 3:].shape)


def pixels(maps: Tensor) -> Tensor:
    """(1, h w, 2) places of the map's pixels in the input."""
    h, w = maps.shape[2:]
    y = torch.arange(h, device=maps.device) * STRIDE + 0.5 * (STRIDE - 1)
    x = torch.arange(w, device=maps.device) * STRIDE + 0.5 * (STRIDE - 1)
    grid = torch.stack((x.expand(h, w), y[:, None].expand(h, w)), dim=-1)
    return grid.reshape(1, h * w, 2)
