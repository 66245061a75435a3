"""Correspondences at places that the network chooses (EPro-PnP's deformable correspondence
network: Chen et al., CVPR 2022 and T-PAMI 2024), taught by the pose's loss alone.

Points in the picture are offset from the object's centre, features are sampled there, a small
transformer lets the points know of each other, and each becomes a point of the object with two
weights. Nobody tells the network which points of the object to know, or where to look for them.

Where we differ: a crop shows one object that is known, so that there are no detections to make
queries of: every object has as many queries of its own as it has points, each with an offset and a
point of the object to begin with. The points look twice, the second time from where the first look
sent them. Features are those of the heatmap network's decoder, which may start from any of its
bundles. Linear layers are convolutions and attention is written as products and sums, because
TensorRT has no matrix product in float32 for every GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import WIDTH, Encoder, UNet
from .pnp_layer import LayerOptions, PnpLayer

POINTS = 64
CHANNELS = 7  # u, v, x, y, z, and two weights
_LOOKS = 2
_TOKEN, _HEADS = 64, 4  # of the transformer
_FIRST_LOG_SCALE = 3.0
_FIRST_SPREAD = 0.8  # of the places, in units of half the crop before they are held inside it


class DeformableNet(UNet):
    """Picture (N, 3, h, w) normalised -> rows (N, 7, P): u, v in pixels of the picture, x, y, z in
    the units of the object's box, logarithms of two weights; and log scales (N, 2).

    bounds_obj (objects, 2, 3), m: those boxes.
    """

    per_object = ('queries', 'offsets', 'points')
    middle_obj: Tensor
    half_obj: Tensor

    def __init__(self, bounds_obj: Tensor, *, encoder: Encoder, layer: LayerOptions | None = None):
        super().__init__(encoder, len(bounds_obj), marked=False)
        self.center = nn.Conv2d(self.deepest, 1, 1)
        self.looks = nn.ModuleList(nn.Conv1d(WIDTH + 2, _TOKEN, 1) for _ in range(_LOOKS))
        self.blocks = nn.ModuleList(Attention(_TOKEN, _HEADS) for _ in range(_LOOKS))
        self.move = nn.Conv1d(_TOKEN, 2, 1)
        self.head = nn.Conv1d(_TOKEN, 5, 1)
        self.scale = nn.Conv1d(_TOKEN, 2, 1)
        # Vectors, which bundles keep in float32: a byte would be a pixel here, a millimetre there.
        count = self.objects * POINTS
        self.queries = nn.Parameter(torch.randn(count * _TOKEN))
        self.offsets = nn.Parameter(_FIRST_SPREAD * (2.0 * torch.rand(count * 2) - 1.0))
        self.points = nn.Parameter(torch.rand(count * 3) - 0.5)
        with torch.no_grad():
            # The middle of the crop, nowhere else to go, even weights of a known scale.
            for layer_at_rest in (self.center, self.move, self.head, self.scale):
                layer_at_rest.weight.mul_(1e-2)
                layer_at_rest.bias.zero_()  # type: ignore[union-attr]
            self.scale.bias.fill_(_FIRST_LOG_SCALE)  # type: ignore[union-attr]
        self.register_buffer('middle_obj', bounds_obj.mean(1).float(), persistent=False)
        half = 0.5 * (bounds_obj[:, 1] - bounds_obj[:, 0])
        self.register_buffer('half_obj', half.float(), persistent=False)
        self.layer = PnpLayer(layer)

    def forward(self, x: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, log scales, and the index they are of."""
        height, width = x.shape[2:]
        deep, features = self.features(x)
        features = features.float()
        unheld = self._middle(deep) + self._own(self.offsets, index)
        tokens = self._own(self.queries, index)
        for look, block in zip(self.looks, self.blocks, strict=True):
            if look is not self.looks[0]:
                unheld = unheld + self.move(tokens).float()
            places = unheld.tanh()
            grid = places.transpose(1, 2)[:, None]
            seen = F.grid_sample(features, grid, align_corners=False)[:, :, 0]
            tokens = block(tokens + look(torch.cat((seen, places), dim=1)))
        found = self.head(tokens).float()
        rows = torch.cat(
            (
                (places[:, :1] + 1.0) * (0.5 * width) - 0.5,
                (places[:, 1:] + 1.0) * (0.5 * height) - 0.5,
                found[:, :3] + self._own(self.points, index),
                found[:, 3:],
            ),
            dim=1,
        )
        log_scale = self.scale(tokens.mean(2, keepdim=True)).float().flatten(1)
        if index is None:
            index = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        # Held: exp of anything else is no weight.
        return rows, log_scale.clamp(-6.0, 9.0), index

    def maps(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """(N, 7, 1, P): the rows, their weights in 1 / px of the input."""
        rows, log_scale, _ = self(x, index)
        return torch.cat((rows[:, :5], weights(rows, log_scale)), dim=1)[:, :, None]

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], labels: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """labels as DenseUNet's; nothing is asked of the surface."""
        rows, log_scale, index = outputs
        present, K, T_cam_obj, _ = labels
        middle, half = self.middle_obj[index], self.half_obj[index]
        points_obj = middle[:, None] + half[:, None] * rows[:, 2:5].mT
        worth = weights(rows, log_scale).mT
        found = self.layer(
            points_obj, rows[:, :2].mT, worth, K, T_cam_obj, log_scale.exp(), wanted=present
        )
        return found.total

    def troubles(self) -> dict[str, int]:
        """The layer's."""
        return self.layer.troubles()

    def _own(self, values: Tensor, index: Tensor | None) -> Tensor:
        """(N or 1, channels, P) of the objects that pictures show."""
        rows = values.reshape(self.objects, -1, POINTS)
        return rows if index is None or self.objects == 1 else rows[index]

    def _middle(self, deep: Tensor) -> Tensor:
        """(N, 2, 1), in -1..1 of the crop: where the deepest features see the object's centre."""
        h, w = deep.shape[2:]
        share = self.center(deep).float().flatten(1).softmax(1).reshape(-1, h, w)
        x, y = (torch.arange(n, device=deep.device) * (2.0 / n) + (1.0 / n - 1.0) for n in (w, h))
        return torch.stack(((share.sum(1) * x).sum(1), (share.sum(2) * y).sum(1)), dim=1)[
            ..., None
        ]


class Attention(nn.Module):
    """A transformer's block on tokens (N, width, P), normalised first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = TokenNorm(width), TokenNorm(width)
        self.question = nn.Conv1d(width, 3 * width, 1)
        self.answer = nn.Conv1d(width, width, 1)
        self.think = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1), nn.ReLU(inplace=True), nn.Conv1d(2 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        width, count = x.shape[1:]
        parts = self.question(self.first(x)).reshape(
            -1, 3 * self.heads, width // self.heads, count
        )
        q, k, v = parts.chunk(3, dim=1)  # (N, heads, width / heads, P)
        alike = (q[..., :, None] * k[..., None, :]).sum(2) * (width / self.heads) ** -0.5
        mixed = (alike.softmax(-1)[:, :, None] * v[..., None, :]).sum(-1)
        x = x + self.answer(mixed.flatten(1, 2))
        return x + self.think(self.second(x))


class TokenNorm(nn.Module):
    """Each token's channels to mean 0 and variance 1, then a scale and a shift for each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() - x.float().mean(1, keepdim=True)
        x = x * (x.square().mean(1, keepdim=True) + 1e-5).rsqrt()
        return x * self.weight[:, None] + self.bias[:, None]


def weights(rows: Tensor, log_scale: Tensor) -> Tensor:
    """(N, 2, P) in 1 / px: in each direction they sum to the scale."""
    return rows[:, 5:].softmax(2) * log_scale.exp()[..., None]
