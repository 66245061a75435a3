"""A small one-stage locator over the whole picture, after CenterNet (Zhou et al., "Objects as
Points", 2019).

Every cell says how likely an object's centre lies in it and how large the object's box is; eq. 1
of the paper is the focal loss below.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lite0 import MEAN, STD, Lite0

STRIDE = 8


class Locator(nn.Module):
    """Picture (N, 3, h, w) normalised -> centre logits (N, C, h/8, w/8), boxes (N, 4, h/8, w/8).

    Boxes are (dx, dy) in cells from the cell's centre and (log width, log height) in input pixels.
    """

    mean, std = MEAN, STD
    per_object = ('centers.weight', 'centers.bias')  # first axis: object by object

    def __init__(self, objects: int, *, pretrained: bool = True, frozen: int = 0):
        super().__init__()
        self.encoder = Lite0(deep=False, frozen=frozen)
        if pretrained:
            self.encoder.load_imagenet()
        _, c8, c16 = self.encoder.channels
        self.join = nn.Sequential(
            nn.Conv2d(c8 + c16, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            # A dilated layer: an object may be larger than what a cell sees otherwise.
            nn.Conv2d(64, 64, 3, padding=2, dilation=2, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        )
        self.centers = nn.Conv2d(64, objects, 1)
        self.boxes = nn.Conv2d(64, 4, 1)
        nn.init.constant_(self.centers.bias, -4.0)  # type: ignore[arg-type]
        with torch.no_grad():
            self.boxes.bias.copy_(torch.tensor([0.0, 0.0, 3.5, 3.5]))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, f8, f16 = self.encoder(x)
        x = self.join(
            torch.cat((F.interpolate(f16, size=f8.shape[2:], mode='nearest'), f8), dim=1)
        )
        return self.centers(x).float(), self.boxes(x).float()


def locator_loss(
    logits: Tensor, boxes: Tensor, centers: Tensor, box_targets: Tensor, box_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """(focal loss per object, L1 of the boxes at the cells of `box_mask`).

    centers: (N, C, h, w) Gaussians with peak exactly 1 at the centre's cell; box_mask: (N, 1, h,
    w) of 0 and 1.
    """
    p = torch.sigmoid(logits).clamp(1e-4, 1 - 1e-4)
    positive = centers >= 0.999
    hit = -((1 - p) ** 2 * torch.log(p))[positive].sum()
    miss = -((1 - centers) ** 4 * p**2 * torch.log(1 - p))[~positive].sum()
    focal = (hit + miss) / max(1, len(logits))
    distance = (boxes - box_targets).abs() * box_mask
    return focal, distance.sum() / box_mask.sum().clamp(min=1.0)
