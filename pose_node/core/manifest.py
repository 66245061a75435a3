"""What bundle.json says, as typed data: schema 1.

Lengths are metres; pixels are those of the network's input, but for `sigma_px` and
`min_variance_px2`, which are pixels of the heatmap. Everything is checked here once, so that no
one who holds a Manifest needs to check again. An unknown key is an error: it is a spelling mistake
or the wish of a later version, and neither may pass in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import PoseNodeError
from .fields import BundleError, Fields
from .symmetry import Symmetries

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
KINDS = ('heatmap',)
SCORE_FEATURES = ('confidence', 'inlier_share', 'rms')

# A name becomes a topic and a TF frame; a file is a plain name, so no path can leave the folder.
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]{0,63}')
_FILE = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}')
_SUFFIXES = ('.onnx', '.ply', '.json', '.toml', '.csv', '.txt', '.md', '.png', '.jpg')


@dataclass(frozen=True, eq=False)
class ObjectSpec:
    """One thing that can be found, in its own frame."""

    name: str
    diameter_m: float
    bounds_obj_m: np.ndarray  # (2, 3) lowest and highest corner of its box
    keypoints_obj_m: np.ndarray  # (K, 3)
    symmetries: Symmetries
    mesh: str | None  # a PLY file in metres
    bop_id: int | None = None  # its number in BOP files


@dataclass(frozen=True)
class ScoreSpec:
    """score = sigmoid(bias + weights . features)."""

    bias: float
    weights: Mapping[str, float]  # a feature that is not named weighs nothing


@dataclass(frozen=True)
class CalibrationSpec:
    """What was measured of the network's answers for one object."""

    covariance_scale: float
    prior_std_px: float  # map pixels, see heatmap.without_prior; infinite where none is given
    score: ScoreSpec


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
class LocatorSpec:
    """A network that finds the objects' boxes in the whole picture."""

    file: str
    input: str
    centers: str  # name of the output (N, C, h, w), 0..1
    boxes: str  # name of the output (N, 4, h, w): dx, dy in cells, log width, log height in pixels
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stride: int
    objects: tuple[str, ...]  # one per channel of `centers`
    threshold: float

    @property
    def map_size(self) -> tuple[int, int]:
        """(width, height) of both outputs."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride


@dataclass(frozen=True)
class TrainingSpec:
    """How the networks were made."""

    recipe: str | None  # files of the bundle
    log: str | None
    seed: int | None
    command: str
    code: str  # revision of the repository


@dataclass(frozen=True)
class FileSpec:
    """What a file must be to be the one that was meant."""

    sha256: str
    bytes: int


@dataclass(frozen=True, eq=False)
class Manifest:
    """All of bundle.json."""

    name: str
    description: str
    licence: str
    objects: tuple[ObjectSpec, ...]
    pose_network: HeatmapSpec
    locator: LocatorSpec | None
    files: Mapping[str, FileSpec]
    training: TrainingSpec | None


def parse(data: object, where: str) -> Manifest:
    """Checked data out of what json.loads() gave; raises BundleError naming the file `where`."""
    top = Fields(data, where)
    schema = top.whole('schema')
    if schema != SCHEMA:
        top.fail(
            'schema',
            f'is {schema}, and this version reads {SCHEMA}',
            'use the release of pose_node the bundle was made for, or export it again',
        )
    manifest = Manifest(
        name=top.text('name', _NAME),
        description=top.text('description'),
        licence=top.text('licence'),
        objects=tuple(_object(each) for each in top.list_of_fields('objects')),
        pose_network=_pose_network(top.fields('pose_network')),
        locator=None if top.absent('locator') else _locator(top.fields('locator')),
        files=_files(top.fields('files')),
        training=None if top.absent('training') else _training(top.fields('training')),
    )
    top.done()
    _cross_check(manifest, top)
    return manifest


def _object(fields: Fields) -> ObjectSpec:
    name = fields.text('name', _NAME)
    diameter_m = fields.number('diameter_m', above=0.0)
    if not 0.001 <= diameter_m <= 50.0:
        fields.fail('diameter_m', f'is {diameter_m:g}', 'give it in metres, not in millimetres')
    bounds = fields.array('bounds_obj_m', (2, 3))
    keypoints = fields.array('keypoints_obj_m', (None, 3))
    mesh = None if fields.absent('mesh') else fields.text('mesh', _FILE)
    symmetries = _symmetries(fields)
    bop_id = None if fields.absent('bop_id') else fields.whole('bop_id', at_least=1)
    fields.done()

    low, high = bounds
    if not (low < high).all():
        fields.fail('bounds_obj_m', 'has no inside', 'give the lowest corner, then the highest')
    side, diagonal = float((high - low).max()), float(np.linalg.norm(high - low))
    if not side * 0.99 <= diameter_m <= diagonal * 1.01:
        fields.fail(
            'diameter_m',
            f'is {diameter_m:g}, and in bounds_obj_m fit {side:.4g} to {diagonal:.4g}',
            'compute both from the same mesh, in metres',
        )
    spread = keypoints - keypoints.mean(axis=0)
    if len(keypoints) < 4 or np.linalg.svd(spread, compute_uv=False)[1] < 0.01 * diameter_m:
        fields.fail(
            'keypoints_obj_m',
            f'holds {len(keypoints)} points on a line or fewer than four',
            'a pose needs four or more points that spread over the object',
        )
    if (keypoints < low - diameter_m).any() or (keypoints > high + diameter_m).any():
        fields.fail('keypoints_obj_m', 'lies far outside bounds_obj_m', 'give both in metres')
    return ObjectSpec(name, diameter_m, bounds, keypoints, symmetries, mesh, bop_id)


def _symmetries(fields: Fields) -> Symmetries:
    inner = fields.fields('symmetries')
    known = {key: inner.data[key] for key in inner.data if key.startswith('symmetries_')}
    try:
        symmetries = Symmetries.from_bop(known, scale=1.0)
    except PoseNodeError as error:
        inner.fail('', str(error), 'write it as in models_info.json of BOP, but in metres')
    for key in ('symmetries_discrete', 'symmetries_continuous'):
        inner.ignore(key)
    inner.done()
    return symmetries


def _common(fields: Fields) -> dict[str, Any]:
    """What the two networks share."""
    file = fields.text('file', _FILE)
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
        'threshold': fields.number('threshold', above=0.0, at_most=1.0),
    }


def _pose_network(fields: Fields) -> HeatmapSpec:
    kind = fields.text('kind')
    if kind not in KINDS:
        fields.fail(
            'kind',
            f'is {kind!r}, and this version knows {", ".join(KINDS)}',
            'use a newer release of pose_node for this bundle',
        )
    objects = fields.texts('objects')
    calibration = fields.fields('calibration')
    spec = HeatmapSpec(
        **_common(fields),
        objects=objects,
        object_input=None if fields.absent('object_input') else fields.text('object_input'),
        output=fields.text('output'),
        sigma_px=fields.number('sigma_px', above=0.0),
        region_scale=fields.number('region_scale', above=0.0, at_most=10.0),
        min_variance_px2=fields.number('min_variance_px2', above=0.0),
        calibration={name: _calibration(calibration.fields(name)) for name in objects},
    )
    calibration.done()
    fields.done()
    if len(objects) > 1 and spec.object_input is None:
        fields.fail('object_input', 'is missing', 'name the input that says which object it is')
    return spec


def _calibration(fields: Fields) -> CalibrationSpec:
    score = fields.fields('score')
    weights = score.fields('weights')
    spec = CalibrationSpec(
        covariance_scale=fields.number('covariance_scale', above=0.0),
        prior_std_px=np.inf
        if fields.absent('prior_std_px')
        else fields.number('prior_std_px', above=0.0),
        score=ScoreSpec(
            bias=score.number('bias'),
            weights={
                name: weights.number(name) for name in SCORE_FEATURES if not weights.absent(name)
            },
        ),
    )
    for each in (weights, score, fields):
        each.done()
    return spec


def _locator(fields: Fields) -> LocatorSpec:
    outputs = fields.fields('outputs')
    spec = LocatorSpec(
        **_common(fields),
        centers=outputs.text('centers'),
        boxes=outputs.text('boxes'),
        objects=fields.texts('objects'),
    )
    outputs.done()
    fields.done()
    return spec


def _training(fields: Fields) -> TrainingSpec:
    spec = TrainingSpec(
        recipe=None if fields.absent('recipe') else fields.text('recipe', _FILE),
        log=None if fields.absent('log') else fields.text('log', _FILE),
        seed=None if fields.absent('seed') else fields.whole('seed'),
        command=fields.text('command'),
        code=fields.text('code'),
    )
    fields.done()
    return spec


def _files(fields: Fields) -> dict[str, FileSpec]:
    files = {}
    for name in fields.data:
        if not _FILE.fullmatch(name) or name == 'bundle.json':
            fields.fail(name, 'is no plain file name', 'keep every file of a bundle in its folder')
        if not name.endswith(_SUFFIXES):
            fields.fail(
                name,
                'is of a type that a bundle does not carry',
                f'keep to {", ".join(_SUFFIXES)}: nothing that runs code when it is read',
            )
        entry = fields.fields(name)
        sha256 = entry.text('sha256', re.compile('[0-9a-f]{64}'))
        files[name] = FileSpec(sha256, entry.whole('bytes', at_least=1))
        entry.done()
    return files


def _cross_check(manifest: Manifest, top: Fields) -> None:
    """Names that one part gives must be those that another part knows."""
    names = [each.name for each in manifest.objects]
    if not names or len(set(names)) < len(names):
        top.fail('objects', f'names {names}', 'give at least one object, each name once')
    used: dict[str, tuple[str, ...]] = {'pose_network.objects': manifest.pose_network.objects}
    files: dict[str, str | None] = {'pose_network.file': manifest.pose_network.file}
    for i, each in enumerate(manifest.objects):
        files[f'objects[{i}].mesh'] = each.mesh
    if manifest.locator is not None:
        used['locator.objects'] = manifest.locator.objects
        files['locator.file'] = manifest.locator.file
    if manifest.training is not None:
        files['training.recipe'] = manifest.training.recipe
        files['training.log'] = manifest.training.log
    for key, values in used.items():
        for value in values:
            if value not in names:
                top.fail(key, f'names {value!r}', f'name one of the objects: {", ".join(names)}')
        if not values or len(set(values)) < len(values):
            top.fail(key, f'is {list(values)}', 'name at least one object, and each once')
    counts = {
        len(each.keypoints_obj_m)
        for each in manifest.objects
        if each.name in manifest.pose_network.objects
    }
    if len(counts) > 1:
        top.fail(
            'objects', f'have {sorted(counts)} keypoints', 'one network draws as many for all'
        )
    for key, file in files.items():
        if file is not None and file not in manifest.files:
            top.fail(key, f'is {file!r}, which "files" does not list', 'export the bundle again')


__all__ = ['BundleError', 'Manifest', 'parse']
