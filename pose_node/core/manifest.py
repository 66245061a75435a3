"""What bundle.json says, as typed data: schema 1.

Lengths are metres; pixels are those of the network's input, but for `sigma_px` and
`min_variance_px2`, which are pixels of the heatmap. Everything is checked here once, so that no
one who holds a Manifest needs to check again. An unknown key is an error: it is a spelling mistake
or the wish of a later version, and neither may pass in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import PoseNodeError
from .fields import BundleError, Fields
from .pose_spec import FILE, PoseSpec, common, parse_pose_network
from .symmetry import Symmetries

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1

# A name becomes a topic and a TF frame.
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]{0,63}')
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
    shape: str | None = None  # a PLY file of few triangles, in metres, for core/contour.py


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
    pose_network: PoseSpec
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
        pose_network=parse_pose_network(top.fields('pose_network')),
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
    mesh = None if fields.absent('mesh') else fields.text('mesh', FILE)
    symmetries = _symmetries(fields)
    bop_id = None if fields.absent('bop_id') else fields.whole('bop_id', at_least=1)
    shape = None if fields.absent('shape') else fields.text('shape', FILE)
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
    return ObjectSpec(name, diameter_m, bounds, keypoints, symmetries, mesh, bop_id, shape)


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


def _locator(fields: Fields) -> LocatorSpec:
    outputs = fields.fields('outputs')
    spec = LocatorSpec(
        **common(fields),
        threshold=fields.number('threshold', above=0.0, at_most=1.0),
        centers=outputs.text('centers'),
        boxes=outputs.text('boxes'),
        objects=fields.texts('objects'),
    )
    outputs.done()
    fields.done()
    return spec


def _training(fields: Fields) -> TrainingSpec:
    spec = TrainingSpec(
        recipe=None if fields.absent('recipe') else fields.text('recipe', FILE),
        log=None if fields.absent('log') else fields.text('log', FILE),
        seed=None if fields.absent('seed') else fields.whole('seed'),
        command=fields.text('command'),
        code=fields.text('code'),
    )
    fields.done()
    return spec


def _files(fields: Fields) -> dict[str, FileSpec]:
    files = {}
    for name in fields.data:
        if not FILE.fullmatch(name) or name == 'bundle.json':
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
        files[f'objects[{i}].shape'] = each.shape
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
    for i, each in enumerate(manifest.objects):
        told = manifest.pose_network.calibration.get(each.name)
        if told is not None and told.contour is not None and each.shape is None:
            top.fail(f'objects[{i}].shape', 'is missing', 'name the PLY whose outline is aligned')
    for key, file in files.items():
        if file is not None and file not in manifest.files:
            top.fail(key, f'is {file!r}, which "files" does not list', 'export the bundle again')


__all__ = ['BundleError', 'Manifest', 'parse']
