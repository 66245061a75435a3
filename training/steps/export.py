"""Checkpoints to a bundle: ONNX with parity checked, calibration, mesh, recipe and log.

Weights are stored in a byte each and scaled to float32 inside the graph: a quarter of the file,
and every runtime folds that away when it loads. All arithmetic stays float32. Convolutions and
BatchNorms stay apart under torch's own names, so that a bundle can be trained further; every
runtime fuses them when it loads, too.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pose_node.core.bundle import write_bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.onnx import OnnxBackend

from ..nets import lite0, locator
from ..nets.locator import Locator
from ..nets.pose_network import PoseNetwork
from ..recipe import Recipe
from ..synth.things import Thing, load_things
from .bounds import held_out, with_bounds
from .byte_weights import byte_weights, read_weights
from .checkpoint import load_trained, pose_network
from .engines import check_engines
from .fit_log import read_log
from .fold_pads import fold_pads
from .judges import JUDGES
from .shipped import shipped_mesh, shipped_shape

_OPSET = 17
_OUTPUTS = {
    'heatmap': 'heatmaps',
    'unet': 'heatmaps',
    'dense': 'correspondences',
    'deformable': 'points',
}
_CALIBRATION = ('covariance_scale', 'prior_std_px', 'score', 'posterior')
# Largest difference of a map's probability, or of a box number, with the weights as stored.
_PARITY = 1e-3


class _Maps(nn.Module):
    def __init__(self, network: PoseNetwork):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return self.network.maps(x, index)


class _Scores(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centers, boxes = self.network(x)
        return torch.sigmoid(centers), boxes


def to_onnx(
    network: nn.Module, size: tuple[int, int], outputs: list[str], objects: int = 1
) -> bytes:
    """`network` as ONNX bytes with input 'picture' (N, 3, h, w) and, for several objects, 'object'
    (N,); raises PoseNodeError when the two disagree.
    """
    network = network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    picture = torch.randn(2, 3, size[1], size[0], generator=torch.Generator().manual_seed(0))
    example = {'picture': picture}
    if objects > 1:
        example['object'] = torch.tensor([0, objects - 1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'network.onnx'
        torch.onnx.export(
            network,
            tuple(example.values()),
            path,
            opset_version=_OPSET,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=list(example),
            output_names=outputs,
            dynamic_axes={name: {0: 'batch'} for name in (*example, *outputs)},
        )
        model = byte_weights(fold_pads(onnx.load(path)))
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    check_parity(_as_stored(network, model), data, example, outputs)
    return data


def _compilable(recipe: Recipe, kind: str, network: PoseNetwork | Locator) -> bytes:
    """The pose network or the locator as ONNX that TensorRT takes, with bounds for int8."""
    size, renders = recipe.dataset_options(kind).input_size, held_out(recipe, kind, network)
    if isinstance(network, Locator):
        data = to_onnx(_Scores(network), size, ['centers', 'boxes'])
    else:
        output = _OUTPUTS[recipe.pose.network]
        data = to_onnx(_Maps(network), size, [output], len(recipe.objects))
    data = with_bounds(data, renders)
    check_engines(f'{kind}.onnx', data)
    return data


def _as_stored(network: nn.Module, model: onnx.ModelProto) -> nn.Module:
    """The network with the weights that `model` keeps of it."""
    network = copy.deepcopy(network)
    own = network.state_dict()
    for name, values in read_weights(model).items():
        if name in own:
            own[name].copy_(torch.from_numpy(values))
    return network


def check_parity(
    network: nn.Module, data: bytes, example: dict[str, Tensor], outputs: list[str]
) -> None:
    """Raise PoseNodeError unless ONNX Runtime gives what torch gives."""
    with torch.no_grad():
        wanted = network(*example.values())
    wanted = [wanted] if isinstance(wanted, Tensor) else wanted
    backend = OnnxBackend(data)
    got = backend({name: value.numpy() for name, value in example.items()})
    for name, value in zip(outputs, wanted, strict=True):
        worst = float(np.abs(got[name] - value.numpy()).max())
        if not worst < _PARITY:
            raise PoseNodeError(
                f'export: {name} differs by {worst:.3g} between torch and ONNX Runtime, '
                f'wanted < {_PARITY}'
            )
    backend.close()


def export(recipe: Recipe, folder: Path) -> None:
    """Write the bundle of `recipe` to `folder`; evaluate must have run."""
    path = recipe.cache / 'calibration.json'
    if not path.is_file():
        raise PoseNodeError(
            f'{path} does not exist: run `python -m training evaluate {recipe.path}` first'
        )
    calibration = json.loads(path.read_text())
    network = pose_network(recipe)
    files: dict[str, bytes | Path] = {
        'recipe.toml': recipe.path,
        'training.json': _log(recipe, calibration),
        'pose.onnx': _compilable(recipe, 'pose', network),
    }
    if recipe.ship_mesh:
        files.update({f'{each.name}.ply': shipped_mesh(each) for each in recipe.objects})
    things = load_things(recipe.objects, recipe.keypoints)
    if recipe.contour:
        files.update({_shape_file(each): shipped_shape(each) for each in things})
    if recipe.locator:
        files['locator.onnx'] = _compilable(recipe, 'locator', load_trained(recipe, 'locator'))
    manifest = _manifest(recipe, things, calibration, network)
    bundle = write_bundle(folder, manifest, files)
    size = sum(file.bytes for file in bundle.manifest.files.values())
    print(f'{folder}: {size / 1e6:.1f} MB')


def _manifest(
    recipe: Recipe, things: Sequence[Thing], calibration: dict[str, Any], network: PoseNetwork
) -> dict[str, Any]:
    measured = calibration['pose']['objects']
    names = [each.name for each in things]
    return {
        'name': recipe.name,
        'description': recipe.description,
        'licence': recipe.licence,
        'objects': [
            {
                **_object(thing),
                'mesh': f'{thing.name}.ply' if recipe.ship_mesh else None,
                'shape': _shape_file(thing) if recipe.contour else None,
            }
            for thing in things
        ],
        'pose_network': {
            **JUDGES[recipe.pose.network](recipe.pose).manifest,
            'file': 'pose.onnx',
            'objects': names,
            'object_input': 'object' if len(names) > 1 else None,
            'input': 'picture',
            'output': _OUTPUTS[recipe.pose.network],
            'input_size': recipe.dataset.input_size,
            'mean': network.mean,
            'std': network.std,
            'region_scale': recipe.dataset.region_scale,
            'calibration': {name: _calibration(measured[name]) for name in names},
        },
        'locator': _locator(recipe, calibration) if recipe.locator else None,
        'training': {
            'recipe': 'recipe.toml',
            'log': 'training.json',
            'seed': recipe.seed,
            'command': f'python -m training all config/recipes/{recipe.path.name}',
            'code': _revision(),
        },
    }


def _shape_file(thing: Thing) -> str:
    return f'{thing.name}.shape.ply'


def _calibration(measured: dict[str, Any]) -> dict[str, Any]:
    contour = measured.get('contour')
    return {
        **{key: measured.get(key) for key in _CALIBRATION},
        'contour': contour and {key: contour[key] for key in ('covariance_scale', 'score')},
    }


def _object(thing: Thing) -> dict[str, Any]:
    return {
        'name': thing.name,
        'bop_id': thing.bop_id or None,
        'diameter_m': round(thing.mesh.diameter_m, 6),
        'bounds_obj_m': thing.mesh.bounds_m.round(6),
        'keypoints_obj_m': thing.keypoints_obj.round(6),
        'symmetries': thing.symmetries.to_bop(scale=1.0),
    }


def _locator(recipe: Recipe, calibration: dict[str, Any]) -> dict[str, Any]:
    return {
        'file': 'locator.onnx',
        'input': 'picture',
        'outputs': {'centers': 'centers', 'boxes': 'boxes'},
        'input_size': recipe.locator_dataset.input_size,
        'mean': lite0.MEAN,
        'std': lite0.STD,
        'stride': locator.STRIDE,
        'objects': [each.name for each in recipe.objects],
        'threshold': calibration['locator']['threshold'],
    }


def _log(recipe: Recipe, calibration: dict[str, Any]) -> bytes:
    """Losses of both networks (every tenth line), figures of validations and on held-out renders,
    and the versions at work.
    """
    log: dict[str, Any] = {
        'versions': {
            'python': sys.version.split()[0],
            'torch': torch.__version__,
            'numpy': np.__version__,
        },
        'held_out': calibration,
    }
    for kind in ('pose', 'locator'):
        lines = read_log(recipe.cache / f'{kind}.csv')
        losses = [line for line in lines if 'waited_share' in line]
        figures = [line for line in lines if 'waited_share' not in line]
        log[kind] = [*losses[::10], *losses[-1:]]
        log[f'{kind}_validation'] = figures
    return json.dumps(log, indent=1).encode()


def _revision() -> str:
    command = ['git', 'rev-parse', '--short', 'HEAD']
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or 'unknown'
