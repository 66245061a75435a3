"""Samples rendered ahead, in numbered files: python -m training shards RECIPE --samples N --out D.

Shard k holds samples 256 k to 256 k + 255, whichever process on whichever machine renders it, and
is there whole or not at all: a run that was stopped goes on, a longer one keeps what is there. A
training that reads shards sees what it would have rendered, and sees it again when they are used
up. Ray spreads the work (Moritz et al., "Ray", OSDI 2018); on several machines the checkout, the
meshes and the folder must have the same paths on all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from pose_node.core.errors import PoseNodeError

from ..nets.decoder import STRIDE
from ..recipe import Recipe
from ..synth.dataset import Dataset, View
from ..synth.things import ObjectOptions

PER_SHARD = 256
_FIELDS = [field.name for field in dataclasses.fields(View)]
_LISTING = 'shards.json'


class Shards:
    """The samples in `folder`, by their numbers; number n of N is n modulo N."""

    def __init__(self, recipe: Recipe, kind: str, folder: Path) -> None:
        self.folder = folder / kind
        if not (self.folder / _LISTING).is_file():
            raise PoseNodeError(
                f'{self.folder} has no shards: run `python -m training shards {recipe.path} '
                f'--samples {recipe.fit_options(kind).samples} --out {folder}` first'
            )
        _check(recipe, kind, self.folder)
        # A rendering that was stopped may have left holes.
        names = sorted(path.name for path in self.folder.glob('*.npz'))
        whole = [name for k, name in enumerate(names) if name == _name(k)]
        self.samples = len(whole) * PER_SHARD
        self._shard = lru_cache(maxsize=2)(self._read)
        if not whole:
            raise PoseNodeError(f'{self.folder} has no shard {_name(0)}: render the shards again')

    def __call__(self, number: int) -> View:
        """Sample `number`."""
        k, row = divmod(number % self.samples, PER_SHARD)
        columns = self._shard(k)
        return View(**{name: column[row] for name, column in columns.items()})

    def _read(self, k: int) -> dict[str, np.ndarray]:
        with np.load(self.folder / _name(k)) as file:
            return {name: file[name] for name in file.files}


def write_shards(recipe: Recipe, kind: str, folder: Path, samples: int, processes: int) -> None:
    """Render what is missing of the first `samples` samples, rounded up to whole shards, in so
    many processes: Ray's on this machine, or those of the cluster at RAY_ADDRESS.
    """
    own = folder / kind
    own.mkdir(parents=True, exist_ok=True)
    if (own / _LISTING).is_file():
        _check(recipe, kind, own)
    (own / _LISTING).write_text(json.dumps({'made_from': _fingerprint(recipe, kind)}))
    count = -(-samples // PER_SHARD)
    missing = [k for k in range(count) if not (own / _name(k)).is_file()]
    if missing:
        ray = _start_ray(processes)
        try:
            _spread(ray, recipe, kind, own, missing, processes)
        finally:
            ray.shutdown()
    print(f'{own}: {count} shards of {PER_SHARD} samples, {len(missing)} of them new')


def rendered(recipe: Recipe, kind: str) -> Callable[[int], View]:
    """Gives the recipe's samples by their numbers, rendered in this process."""
    options = recipe.dataset_options(kind)
    nearest_m = recipe.pose.nearest_m if kind == 'pose' else None
    stride = STRIDE if kind == 'pose' and recipe.pose.surface else None
    dataset = Dataset(options, recipe.objects, recipe.keypoints, recipe.seed, nearest_m, stride)
    return dataset.crop if kind == 'pose' else dataset.whole


def write_shard(look: Callable[[int], View], own: Path, k: int) -> None:
    """Shard k, which is there when it is whole."""
    views = [look(k * PER_SHARD + row) for row in range(PER_SHARD)]
    told = [name for name in _FIELDS if getattr(views[0], name) is not None]
    columns = {name: np.stack([getattr(view, name) for view in views]) for name in told}
    partial = own / f'{_name(k)}.{os.getpid()}.partial'
    with partial.open('wb') as file:
        np.savez(file, **columns)  # type: ignore[arg-type]
    partial.replace(own / _name(k))


class Painter:
    """A process with a renderer, which holds a GL context."""

    def __init__(self, recipe: Recipe, kind: str, own: Path) -> None:
        cv2.setNumThreads(1)
        self.look, self.own = rendered(recipe, kind), own

    def paint(self, k: int) -> None:
        """Write shard k."""
        write_shard(self.look, self.own, k)


def _start_ray(processes: int) -> Any:
    try:
        import ray
    except ImportError:
        raise PoseNodeError(
            'shards are rendered through Ray, which is not installed: '
            'pip install -r requirements/cluster.txt'
        ) from None
    local = {} if os.environ.get('RAY_ADDRESS') else {'num_cpus': processes}
    try:
        ray.init(include_dashboard=False, configure_logging=False, **local)
    except Exception as error:  # noqa: BLE001 (whatever Ray raises, it has no class of its own)
        raise PoseNodeError(f'Ray does not start here: {error}') from None
    return ray


def _spread(
    ray: Any, recipe: Recipe, kind: str, own: Path, missing: list[int], processes: int
) -> None:
    remote = ray.remote(num_cpus=1)(Painter).remote
    painters = [remote(recipe, kind, own) for _ in range(min(processes, len(missing)))]
    pool = ray.util.ActorPool(painters)
    done = pool.map_unordered(lambda painter, k: painter.paint.remote(k), missing)
    for _ in track(done, f'render {kind} shards', total=len(missing)):
        pass


def _check(recipe: Recipe, kind: str, own: Path) -> None:
    made_from = json.loads((own / _LISTING).read_text())['made_from']
    if made_from != _fingerprint(recipe, kind):
        raise PoseNodeError(
            f'{own} holds samples of another recipe than {recipe.path} is now: name another folder'
        )


def _fingerprint(recipe: Recipe, kind: str) -> str:
    """Of all that samples follow from, but for the code."""
    what: dict[str, Any] = {
        'seed': recipe.seed,
        'keypoints': recipe.keypoints,
        'objects': [_described(each) for each in recipe.objects],
        'options': dataclasses.asdict(recipe.dataset_options(kind)),
    }
    if kind == 'pose' and recipe.pose.nearest_m is not None:
        what['nearest_m'] = recipe.pose.nearest_m
    if kind == 'pose' and recipe.pose.surface:
        what['surface'] = True
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode())
    for each in recipe.objects:
        digest.update(each.mesh.read_bytes())
    return digest.hexdigest()[:16]


def _described(options: ObjectOptions) -> dict[str, Any]:
    """Without the choice that older shards knew nothing of, where it is as it was for them."""
    described = dataclasses.asdict(options)
    if options.keypoint_selection == 'farthest':
        del described['keypoint_selection']
    return described


def _name(k: int) -> str:
    return f'{k:06d}.npz'
