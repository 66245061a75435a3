"""What bundle.json says of the network that sees the pose, by its kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .fields import Fields

SCORE_FEATURES = ('confidence', 'inlier_share', 'rms')
ALIGNED_FEATURES = (*SCORE_FEATURES, 'spread')  # of poses aligned to outlines

# A file is a plain name, so no path can leave the folder.
FILE = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}')


@dataclass(frozen=True)
class ScoreSpec:
    """score = sigmoid(bias + weights . features)."""

    bias: float
    weights: Mapping[str, float]  # a feature that is not named weighs nothing


@dataclass(frozen=True)
class PosteriorSpec:
    """How sampled poses spread, as core/amis.py has it."""

    scale: float = 1.0  # times covariance_scale
    freedom: float = np.inf


@dataclass(frozen=True)
class ContourSpec:
    """What was measured of the poses that core/contour.py makes of the network's."""

    covariance_scale: float
    score: ScoreSpec | None = None  # None: it stays that of the keypoints


@dataclass(frozen=True)
class CalibrationSpec:
    """What was measured of the network's answers for one object."""

    covariance_scale: float
    prior_std_px: float  # map pixels, see heatmap.without_prior; infinite where none is given
    score: ScoreSpec
    posterior: PosteriorSpec
    contour: ContourSpec | None = None  # None: poses are left as the network's keypoints have them


@dataclass(frozen=True)
class HeatmapSpec:
    """A network that draws one map per keypoint of an object, over a square crop round it."""

    file: str
    objects: tuple[str, ...]
    object_input: str | None  # the input (N,) int64 that says which of `objects` each crop shows
    input: str
    output: str
    input_size: tuple[int, int]  # width, height
    mean: tuple[float, float, float]  # of R, G, B in 0..255
    std: tuple[float, float, float]
    stride: int  # input pixels per map pixel
    sigma_px: float  # width of the target Gaussian, map pixels
    region_scale: float  # side of the crop / longer side of the region
    threshold: float  # a keypoint counts when max(map) >= threshold * max(all maps)
    min_variance_px2: float  # map px²
    calibration: Mapping[str, CalibrationSpec]  # of every object
    kind: str = 'heatmap'

    @property
    def map_size(self) -> tuple[int, int]:
        """(width, height) of the heatmaps."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride


@dataclass(frozen=True)
class DenseSpec:
    """A network that says of every pixel of a crop which point of the object it shows, and how
    much that is worth; see core/dense.py.
    """

    file: str
    objects: tuple[str, ...]
    object_input: str | None  # as for HeatmapSpec
    input: str
    output: str  # (N, 5, h, w): three coordinates, two weights
    input_size: tuple[int, int]  # width, height
    mean: tuple[float, float, float]  # of R, G, B in 0..255
    std: tuple[float, float, float]
    stride: int  # input pixels per map pixel
    region_scale: float  # side of the crop / longer side of the region
    relative_delta: float  # of the kernel that the network was taught with
    calibration: Mapping[str, CalibrationSpec]  # of every object
    kind: str = 'dense'

    @property
    def map_size(self) -> tuple[int, int]:
        """(width, height) of the maps."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride


@dataclass(frozen=True)
class PointsSpec(DenseSpec):
    """As DenseSpec, but the network says where in the crop it looks: `points` places, as rows
    (N, 7, 1, points): u, v in pixels of the input (`stride` is 1), coordinates, weights.
    """

    points: int = field(kw_only=True)
    kind: str = 'points'

    @property
    def map_size(self) -> tuple[int, int]:
        """(width, height) of what the network gives."""
        return self.points, 1


PoseSpec = HeatmapSpec | DenseSpec


def common(fields: Fields) -> dict[str, Any]:
    """What all networks share."""
    file = fields.text('file', FILE)
    if not file.endswith('.onnx'):
        fields.fail('file', f'is {file!r}', 'a network is an ONNX file, ending with .onnx')
    size, stride = fields.sizes('input_size'), fields.whole('stride', at_least=1)
    if size[0] % stride or size[1] % stride:
        fields.fail('input_size', f'{list(size)} is no multiple of stride {stride}', 'change one')
    std = fields.triple('std')
    if min(std) <= 0.0:
        fields.fail('std', f'is {list(std)}', 'give the deviation of R, G, B on the 0..255 scale')
    return {
        'file': file,
        'input': fields.text('input'),
        'input_size': size,
        'mean': fields.triple('mean'),
        'std': std,
        'stride': stride,
    }


def parse_pose_network(fields: Fields) -> PoseSpec:
    """The network of the kind that it says it is."""
    kind = fields.text('kind')
    if kind not in KINDS:
        fields.fail(
            'kind',
            f'is {kind!r}, and this version knows {", ".join(KINDS)}',
            'use a newer release of pose_node for this bundle',
        )
    objects = fields.texts('objects')
    calibration = fields.fields('calibration')
    shared = {
        **common(fields),
        'objects': objects,
        'object_input': None if fields.absent('object_input') else fields.text('object_input'),
        'output': fields.text('output'),
        'region_scale': fields.number('region_scale', above=0.0, at_most=10.0),
        'calibration': {name: _calibration(calibration.fields(name)) for name in objects},
    }
    spec = KINDS[kind](fields, shared)
    calibration.done()
    fields.done()
    if len(objects) > 1 and spec.object_input is None:
        fields.fail('object_input', 'is missing', 'name the input that says which object it is')
    return spec


def _heatmap(fields: Fields, shared: dict[str, Any]) -> HeatmapSpec:
    return HeatmapSpec(
        **shared,
        threshold=fields.number('threshold', above=0.0, at_most=1.0),
        sigma_px=fields.number('sigma_px', above=0.0),
        min_variance_px2=fields.number('min_variance_px2', above=0.0),
    )


def _dense(fields: Fields, shared: dict[str, Any]) -> DenseSpec:
    return DenseSpec(**shared, relative_delta=fields.number('relative_delta', above=0.0))


def _points(fields: Fields, shared: dict[str, Any]) -> PointsSpec:
    points, delta = fields.whole('points', at_least=4), fields.number('relative_delta', above=0.0)
    if shared['stride'] != 1:
        fields.fail(
            'stride', f'is {shared["stride"]}', 'points are in pixels of the input: give 1'
        )
    return PointsSpec(**shared, relative_delta=delta, points=points)


KINDS: dict[str, Callable[[Fields, dict[str, Any]], PoseSpec]] = {
    'heatmap': _heatmap,
    'dense': _dense,
    'points': _points,
}


def _calibration(fields: Fields) -> CalibrationSpec:
    spec = CalibrationSpec(
        covariance_scale=fields.number('covariance_scale', above=0.0),
        prior_std_px=np.inf
        if fields.absent('prior_std_px')
        else fields.number('prior_std_px', above=0.0),
        score=_score(fields.fields('score')),
        posterior=PosteriorSpec()
        if fields.absent('posterior')
        else _posterior(fields.fields('posterior')),
        contour=None if fields.absent('contour') else _contour(fields.fields('contour')),
    )
    fields.done()
    return spec


def _score(fields: Fields, names: Sequence[str] = SCORE_FEATURES) -> ScoreSpec:
    weights = fields.fields('weights')
    spec = ScoreSpec(
        bias=fields.number('bias'),
        weights={name: weights.number(name) for name in names if not weights.absent(name)},
    )
    weights.done()
    fields.done()
    return spec


def _contour(fields: Fields) -> ContourSpec:
    spec = ContourSpec(
        covariance_scale=fields.number('covariance_scale', above=0.0),
        score=None if fields.absent('score') else _score(fields.fields('score'), ALIGNED_FEATURES),
    )
    fields.done()
    return spec


def _posterior(fields: Fields) -> PosteriorSpec:
    spec = PosteriorSpec(
        scale=fields.number('scale', above=0.0), freedom=fields.number('freedom', above=0.0)
    )
    fields.done()
    return spec
