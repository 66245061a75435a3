"""What a training holds and leaves: networks, optimiser, how far it is and what was best."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..nets.deformable import DeformableNet
from ..nets.dense import DenseUNet
from ..nets.lite0 import Lite0
from ..nets.locator import Locator
from ..nets.pose_network import PoseNetwork
from ..nets.published import PublishedUNet
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
    average = copy.deepcopy(network).eval()
    run = Run(network, average, _optimiser(network, recipe.fit_options(kind)), network)
    if path.exists():
        run.restore(path)
    return run


def build(recipe: Recipe, kind: str, *, pretrained: bool = True) -> PoseNetwork | Locator:
    """The network of `kind` ('pose' or 'locator'), channels last."""
    network: PoseNetwork | Locator
    objects, frozen = len(recipe.objects), recipe.fit_options(kind).frozen
    if kind == 'pose' and recipe.pose.network == 'dense':
        network = _dense(recipe, pretrained=pretrained)
    elif kind == 'pose' and recipe.pose.network == 'deformable':
        network = DeformableNet(_bounds(recipe), encoder=_encoder(recipe, pretrained=pretrained))
    elif kind == 'pose' and recipe.pose.network == 'unet':
        network = _published(recipe, pretrained=pretrained)
    elif kind == 'pose':
        network = HeatmapUNet(
            recipe.keypoints,
            objects,
            pretrained=pretrained,
            frozen=frozen,
            pose_loss=recipe.pose.pose_loss,
            sigma_px=recipe.pose.sigma_px,
        )
    else:
        network = Locator(objects, pretrained=pretrained, frozen=frozen)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_trained(recipe: Recipe, kind: str) -> PoseNetwork | Locator:
    """The network that the recipe's training made, in evaluation mode."""
    network = build(recipe, kind, pretrained=False)
    network.load_state_dict(checkpoint_weights(recipe.cache / f'{kind}.pt'))
    return network.eval()


def _published(recipe: Recipe, *, pretrained: bool) -> PublishedUNet:
    """Its encoder is held at first where it has learned something before."""
    weights = recipe.pose.weights
    network = PublishedUNet(recipe.keypoints, frozen=weights is not None)
    if pretrained and weights is not None:
        network.encoder.load_imagenet(weights)
    elif pretrained and not recipe.pose.start:
        print(f'pose: {recipe.path.name} names no "weights", the encoder starts from random ones')
    return network


def _dense(recipe: Recipe, *, pretrained: bool) -> DenseUNet:
    return DenseUNet(
        _bounds(recipe),
        encoder=_encoder(recipe, pretrained=pretrained),
        coordinates=recipe.pose.coordinates,
        end_to_end=recipe.pose.end_to_end,
    )


def _encoder(recipe: Recipe, *, pretrained: bool) -> Lite0:
    encoder = Lite0(frozen=recipe.pose.frozen)
    if pretrained:
        encoder.load_imagenet()
    return encoder


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
