"""What a training holds and leaves: networks, optimiser, how far it is and what was best."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pose_node.core.errors import PoseNodeError

from ..nets.decoder import Encoder
from ..nets.deformable import DeformableNet
from ..nets.dense import DenseUNet
from ..nets.lite0 import Lite0
from ..nets.locator import Locator
from ..nets.pose_network import PoseNetwork
from ..nets.published import PublishedUNet
from ..nets.resnet import ResNet
from ..nets.unet import HeatmapUNet
from ..recipe import FitOptions, Recipe
from ..synth.mesh import load_mesh
from .start import checkpoint_weights, start_from


@dataclass
class Run:
    """A training that is under way. `average` follows `network`, and is the one that is kept."""

    network: PoseNetwork | Locator
    average: PoseNetwork | Locator
    optimiser: torch.optim.Optimizer
    model: nn.Module  # the network as it is called, which many processes may share
    step: int = 0
    skipped: int = 0  # steps whose gradient was not finite
    best: dict[str, Any] | None = None  # 'figure', 'step' and 'weights' of the average that won
    kept: tuple[nn.Module, ...] = ()  # parts that keep what they started from

    def train(self) -> None:
        """Training mode, but for the parts that are kept, or their statistics would drift."""
        self.model.train()
        for part in self.kept:
            part.eval()

    def keep(self, figure: float) -> None:
        """Keep the average's weights if no earlier ones had a higher figure."""
        if self.best is None or figure >= self.best['figure']:
            weights = {k: v.clone() for k, v in self.average.state_dict().items()}
            self.best = {'figure': figure, 'step': self.step, 'weights': weights}

    def save(self, path: Path) -> None:
        """All of it, in one file that is there or not."""
        state = {
            'step': self.step,
            'skipped': self.skipped,
            'network': self.network.state_dict(),
            'average': self.average.state_dict(),
            'optimiser': self.optimiser.state_dict(),
            'best': self.best,
        }
        partial = path.with_suffix('.partial')
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on where `save` was called."""
        state = torch.load(path, map_location='cpu', weights_only=True)
        self.network.load_state_dict(state['network'])
        self.average.load_state_dict(state['average'])
        self.optimiser.load_state_dict(state['optimiser'])
        self.step, self.skipped = int(state['step']), state.get('skipped', 0)
        self.best = state.get('best')


def begin(recipe: Recipe, kind: str, device: torch.device) -> Run:
    """A training as its recipe starts it, or as its checkpoint left it."""
    path = recipe.cache / f'{kind}.pt'
    network = build(recipe, kind, pretrained=not path.exists())
    if not path.exists():
        start_from(network, recipe, kind)
    network.to(device)
    options = recipe.fit_options(kind)
    kept = _kept(network, options.kept)
    average = copy.deepcopy(network).eval()
    run = Run(network, average, _optimiser(network, options), network, kept=kept)
    if path.exists():
        run.restore(path)
    return run


def _kept(network: nn.Module, names: tuple[str, ...]) -> tuple[nn.Module, ...]:
    parts = {name: part for name, part in network.named_modules() if name}
    if unknown := [name for name in names if name not in parts]:
        raise PoseNodeError(
            f'kept names {unknown[0]!r}, wanted parts of the network such as '
            f"'encoder._blocks.10' or {', '.join(map(repr, dict(network.named_children())))}"
        )
    kept = tuple(parts[name] for name in names)
    for part in kept:
        part.requires_grad_(False)
    return kept


def build(recipe: Recipe, kind: str, *, pretrained: bool = True) -> PoseNetwork | Locator:
    """The network of `kind` ('pose' or 'locator'), channels last."""
    network: PoseNetwork | Locator
    if kind == 'locator':
        frozen = recipe.locate.frozen
        network = Locator(len(recipe.objects), pretrained=pretrained, frozen=frozen)
    else:
        encoder = _encoder(recipe, pretrained=pretrained)
        network = _pose_network(recipe, encoder)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_trained(recipe: Recipe, kind: str) -> PoseNetwork | Locator:
    """The network that the recipe's training made, in evaluation mode."""
    network = build(recipe, kind, pretrained=False)
    network.load_state_dict(checkpoint_weights(recipe.cache / f'{kind}.pt'))
    return network.eval()


def _pose_network(recipe: Recipe, encoder: Encoder) -> PoseNetwork:
    options = recipe.pose
    if options.network == 'dense':
        return DenseUNet(
            _bounds(recipe),
            encoder=encoder,
            coordinates=options.coordinates,
            end_to_end=options.end_to_end,
        )
    if options.network == 'deformable':
        return DeformableNet(_bounds(recipe), encoder=encoder)
    if isinstance(encoder, ResNet) and options.network == 'unet':
        return PublishedUNet(recipe.keypoints, encoder, held=options.weights is not None)
    return HeatmapUNet(
        recipe.keypoints,
        len(recipe.objects),
        encoder=encoder,
        pose_loss=options.pose_loss,
        sigma_px=options.sigma_px,
    )


def _encoder(recipe: Recipe, *, pretrained: bool) -> Encoder:
    options = recipe.pose
    if options.depth is None:
        lite = Lite0(deep=options.encoder != 'lite0_short', frozen=options.frozen)
        if pretrained:
            lite.load_imagenet()
        return lite
    resnet = ResNet(options.depth)
    if pretrained and options.weights is not None:
        resnet.load_imagenet(options.weights)
    elif pretrained and not options.start:
        print(f'pose: {recipe.path.name} names no "weights", the encoder starts from random ones')
    return resnet


def _bounds(recipe: Recipe) -> torch.Tensor:
    """(objects, 2, 3) m: the meshes' boxes, as the bundle will say them."""
    meshes = [load_mesh(each.mesh, each.mesh_unit_m) for each in recipe.objects]
    return torch.from_numpy(np.stack([mesh.bounds_m.round(6) for mesh in meshes]))


def pose_network(recipe: Recipe) -> PoseNetwork:
    """What the recipe's training made, in evaluation mode."""
    network = load_trained(recipe, 'pose')
    assert isinstance(network, PoseNetwork)
    return network


def _optimiser(network: PoseNetwork | Locator, options: FitOptions) -> torch.optim.Optimizer:
    encoder = {id(p) for p in network.encoder.parameters()}
    old = [p for p in network.parameters() if id(p) in encoder]
    new = [p for p in network.parameters() if id(p) not in encoder]
    groups = [
        {'params': old, 'top_lr': options.lr * options.encoder_lr},
        {'params': new, 'top_lr': options.lr},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay)
