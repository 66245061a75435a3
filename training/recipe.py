"""Recipes: TOML files with what differs from these defaults. An unknown key is an error."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pose_node.core.errors import PoseNodeError

from .synth.cache import cache_root
from .synth.dataset import DatasetOptions
from .synth.things import ObjectOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_KNOWN = {
    'precision': ('fp32', 'bf16'),
    'network': ('heatmap', 'unet', 'dense', 'deformable'),
    'encoder': ('', 'lite0', 'lite0_short', 'resnet18', 'resnet34'),
    'annotation': ('projection', 'nearest'),
}


@dataclass(frozen=True)
class FitOptions:
    """One network's training."""

    samples: int = 200_000
    batch: int = 32
    lr: float = 2e-3  # highest rate of the decoder (AdamW, cosine to zero)
    encoder_lr: float = 0.5  # share of it that the pretrained encoder gets
    frozen: int = 5  # blocks of 'lite0' that keep their ImageNet weights
    # Parts of the network that keep the weights they start from, such as 'encoder._blocks.11'.
    kept: tuple[str, ...] = ()
    warmup: int = 300  # steps
    weight_decay: float = 1e-4
    ema: float = 0.998  # decay of the averaged weights, which are the ones kept
    sigma_px: float = 1.0  # of the targets, in map pixels
    start: str = ''  # whose weights to start from: a recipe beside this one, a bundle's folder
    held_out: int = 1024  # samples of another seed that evaluate and calibrate
    precision: str = 'fp32'  # or 'bf16': half the bits for what bears it
    # Samples between validations, after which the best averaged weights are kept; 0 is never, and
    # the last ones are kept.
    validate_every: int = 0
    validate_on: int = 256  # samples of a third seed, and pictures of `validation`
    # The pose network's: 'heatmap' says a probability, 'unet' is the published one, which
    # regresses, 'dense' gives coordinates and weights for every pixel and is taught through the
    # pose, 'deformable' for a few places of its own choice, taught by the pose alone.
    network: str = 'heatmap'
    # Of the pose network: 'lite0', whose ImageNet weights are at hand, its first eleven blocks
    # alone, 'lite0_short', or 'resnet18' or 'resnet34', which take theirs from `weights`; '' is
    # 'resnet34' for 'unet' and 'lite0' for the others.
    encoder: str = ''
    coordinates: float = 1.0  # what the coordinates' own loss counts for 'dense'; 0: the pose's do
    # false: coordinates and a mask are all that 'dense' is taught, and PnP comes afterwards.
    end_to_end: bool = True
    # What the pose that the keypoints of 'heatmap' give counts beside their maps; 0: it does not.
    pose_loss: float = 0.0
    weights: Path | None = None  # torchvision's file for a ResNet; else it begins at random
    epoch: int = 32_000  # samples; by epochs the rate and the loss of 'unet' change
    # Its labels: the 'projection' of the keypoints, hidden or not, or the 'nearest' surface in
    # sight, where that is within so many metres; other keypoints are left out of the loss.
    annotation: str = 'projection'
    annotation_m: float = 0.005
    validation: Path | None = None  # a BOP data set by another renderer, which then decides alone

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if (given := getattr(self, name)) not in known:
                raise PoseNodeError(f'{name} is {given!r}, wanted one of {", ".join(known)}')
        if self.network == 'unet' and self.encoder.startswith('lite0'):
            raise PoseNodeError(
                f"encoder is {self.encoder!r}, wanted 'resnet34' or 'resnet18' for 'unet'"
            )
        if self.weights is not None and self.depth is None:
            raise PoseNodeError(
                f"weights {self.weights} are for a ResNet, and encoder is a 'lite0': name "
                "'resnet18' or 'resnet34', or leave weights away"
            )
        if not self.end_to_end and not self.surface:
            raise PoseNodeError(
                'end_to_end is false, so that nothing but coordinates is taught: let network be '
                "'dense' and coordinates more than 0"
            )
        if self.pose_loss < 0.0 or (self.pose_loss and self.network != 'heatmap'):
            raise PoseNodeError(
                f'pose_loss is {self.pose_loss} for network {self.network!r}, wanted 0 or '
                "more, and 0 for all but 'heatmap': 'dense' and 'deformable' have it anyway"
            )

    @property
    def depth(self) -> int | None:
        """Of the ResNet that encodes; None where none does."""
        usual = 'resnet34' if self.network == 'unet' else 'lite0'
        return {'resnet18': 18, 'resnet34': 34}.get(self.encoder or usual)

    @property
    def surface(self) -> bool:
        """Whether labels hold the object's coordinates pixel by pixel."""
        return self.network == 'dense' and self.coordinates > 0.0

    @property
    def nearest_m(self) -> float | None:
        """How near a surface must be for a label; None: labels are projections."""
        return self.annotation_m if self.annotation == 'nearest' else None


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a bundle."""

    name: str
    description: str
    objects: tuple[ObjectOptions, ...]
    dataset: DatasetOptions
    locator_dataset: DatasetOptions
    licence: str = 'Apache-2.0'
    seed: int = 1
    keypoints: int = 20
    ship_mesh: bool = True
    # Whether poses are moved to outlines on the robot, which needs a shape of few triangles there.
    contour: bool = True
    locator: bool = True
    pose: FitOptions = field(default_factory=FitOptions)
    locate: FitOptions = field(default_factory=FitOptions)
    path: Path = Path()

    def __post_init__(self) -> None:
        if self.pose.network == 'unet' and len(self.objects) != 1:
            raise PoseNodeError(
                f'recipe {self.name} has {len(self.objects)} objects: the network "unet" is for '
                'one; choose "heatmap", or a recipe for each'
            )

    def fit_options(self, kind: str) -> FitOptions:
        """Those of the network of `kind`, 'pose' or 'locator'."""
        return self.pose if kind == 'pose' else self.locate

    def dataset_options(self, kind: str) -> DatasetOptions:
        """What the network of `kind` is shown."""
        return self.dataset if kind == 'pose' else self.locator_dataset

    @property
    def cache(self) -> Path:
        """Where checkpoints and logs live: outside the checkout, named by the recipe's content."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:8]
        return cache_root() / f'{self.name}-{digest}'


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; `[locator_dataset]` starts from `[dataset]`, paths may name environment
    variables.
    """
    if not path.is_file():
        raise PoseNodeError(f'recipe {path} does not exist: see config/recipes/ for examples')
    with path.open('rb') as file:
        try:
            values = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise PoseNodeError(f'recipe {path} is not TOML: {error}') from None
    base = values.setdefault('dataset', {})
    values['locator_dataset'] = _merge(base, values.get('locator_dataset', {}))
    recipe = _build(Recipe, values, path, 'recipe')
    return dataclasses.replace(recipe, path=path)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _build(kind: Any, values: dict[str, Any], path: Path, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind) if f.name != 'path']
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise PoseNodeError(f'{path}: {where} has no key {key!r}; it knows {", ".join(known)}')
        arguments[key] = _convert(hints[key], value, path, f'{where}.{key}')
    try:
        return kind(**arguments)
    except TypeError as error:
        raise PoseNodeError(f'{path}: {where} is incomplete: {error}') from None


def _convert(hint: Any, value: Any, path: Path, where: str) -> Any:
    options = [h for h in typing.get_args(hint) if h is not type(None)]
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path, where)
    if hint is Path or (Path in options and typing.get_origin(hint) is not tuple):
        return resolve(value, path)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise PoseNodeError(f'{path}: {where} is {value!r}, wanted a list')
        if dataclasses.is_dataclass(options[0]):
            return tuple(
                _build(options[0], each, path, f'{where}[{i}]') for i, each in enumerate(value)
            )
        if Path in options:
            return tuple(p for pattern in value for p in _glob(pattern, path))
        return tuple(value)
    if hint is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, typing.get_origin(hint) or hint):
        raise PoseNodeError(f'{path}: {where} is {value!r}, wanted {hint.__name__}')
    return value


def resolve(text: str, recipe: Path) -> Path:
    """Relative to the recipe's folder; an environment variable that is not set is an error."""
    expanded = os.path.expandvars(text)
    if '$' in expanded:
        raise PoseNodeError(
            f'{recipe}: {text} names an environment variable that is not set: export it'
        )
    return (recipe.parent / Path(expanded).expanduser()).resolve()


def _glob(pattern: str, recipe: Path) -> list[Path]:
    path = resolve(pattern, recipe)
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise PoseNodeError(f'{recipe}: {pattern} matches no file')
    return found
