"""What training, judging and exporting ask of a network for keypoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class PoseNetwork(nn.Module, ABC):
    """Pictures (N, 3, h, w), normalised by `mean` and `std` -> K maps each, at a quarter of the
    size.
    """

    mean: tuple[float, float, float]  # of pixels 0..255
    std: tuple[float, float, float]
    per_object: tuple[str, ...]  # names of weights whose first axis goes object by object
    encoder: nn.Module

    @abstractmethod
    def maps(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """(N, K, h / 4, w / 4), nowhere negative, as the run time decodes them."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Of what forward gave; labels: targets (N, K, h / 4, w / 4), points_px (N, K, 2) in map
        pixels, known (N, K) bool.
        """

    def advance(self, epoch: int) -> None:
        """Called before every step: whatever changes in the course of a training."""

    def troubles(self) -> dict[str, int]:
        """Objects that a loss left out or could make little of, by the trouble's name, so far."""
        return {}

    def rate(self, usual: float) -> float:
        """Share of the highest rate; `usual` is the warm-up and the cosine."""
        return usual
