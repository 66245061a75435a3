"""Checkpoints to a bundle: ONNX with parity checked, calibration, mesh, recipe and log.

Weights are stored in half precision and cast to float32 inside the graph: half the file, and every
runtime folds the casts away when it loads. All arithmetic stays float32.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pose_node.core.bundle import write_bundle
from pose_node.core.errors import PoseNodeError
from pose_node.runtime.backends.onnx import OnnxBackend

from ..nets import lite0, locator, unet
from ..recipe import Recipe
from ..synth.mesh import Mesh, load_mesh
from .fit import keypoints_of, load_trained

_OPSET = 17
_HALF_FROM = 256  # elements; smaller initialisers stay float32
# Largest difference of a map's probability, or of a box number, that half precision may make.
_PARITY = 2e-2


class _Probabilities(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.network(x))


class _Scores(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centers, boxes = self.network(x)
        return torch.sigmoid(centers), boxes


def to_onnx(network: nn.Module, size: tuple[int, int], outputs: list[str]) -> bytes:
    """`network` as ONNX bytes with input 'picture' (N, 3, h, w); raises PoseNodeError when the two
    disagree.
    """
    network = network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.randn(2, 3, size[1], size[0], generator=torch.Generator().manual_seed(0))
    names = ['picture', *outputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'network.onnx'
        torch.onnx.export(
            network,
            (example,),
            path,
            opset_version=_OPSET,
            dynamo=False,
            input_names=names[:1],
            output_names=outputs,
            dynamic_axes={name: {0: 'batch'} for name in names},
        )
        model = half_weights(onnx.load(path))
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    check_parity(network, data, example, outputs)
    return data


def half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large float32 initialisers as float16, each with a Cast behind it."""
    graph, casts = model.graph, []
    for index, initializer in enumerate(graph.initializer):
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < _HALF_FROM:
            continue
        name = initializer.name
        half = numpy_helper.to_array(initializer).astype(np.float16)
        graph.initializer[index].CopyFrom(numpy_helper.from_array(half, name + '_half'))
        casts.append(helper.make_node('Cast', [name + '_half'], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def check_parity(network: nn.Module, data: bytes, example: Tensor, outputs: list[str]) -> None:
    """Raise PoseNodeError unless ONNX Runtime gives what torch gives."""
    with torch.no_grad():
        wanted = network(example)
    wanted = [wanted] if isinstance(wanted, Tensor) else wanted
    backend = OnnxBackend(data)
    got = backend({'picture': example.numpy()})
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
    mesh = load_mesh(recipe.dataset.mesh, recipe.dataset.mesh_unit_m)
    mesh_name = f'{recipe.object}.ply' if recipe.ship_mesh else None
    files: dict[str, bytes | Path] = {
        'recipe.toml': recipe.path,
        'training.json': _log(recipe, calibration),
        'pose.onnx': to_onnx(
            _Probabilities(load_trained(recipe, 'pose')), recipe.dataset.input_size, ['heatmaps']
        ),
    }
    if mesh_name:
        files[mesh_name] = recipe.dataset.mesh.read_bytes()
    if recipe.locator:
        files['locator.onnx'] = to_onnx(
            _Scores(load_trained(recipe, 'locator')),
            recipe.locator_dataset.input_size,
            ['centers', 'boxes'],
        )
    manifest = _manifest(recipe, calibration, mesh, mesh_name)
    bundle = write_bundle(folder, manifest, files)
    size = sum(file.bytes for file in bundle.manifest.files.values())
    print(f'{folder}: {size / 1e6:.1f} MB')


def _manifest(
    recipe: Recipe, calibration: dict[str, Any], mesh: Mesh, mesh_name: str | None
) -> dict[str, Any]:
    pose = calibration['pose']
    return {
        'name': recipe.name,
        'description': recipe.description,
        'licence': recipe.licence,
        'objects': [
            {
                'name': recipe.object,
                'diameter_m': round(mesh.diameter_m, 6),
                'bounds_obj_m': mesh.bounds_m.round(6),
                'keypoints_obj_m': keypoints_of(recipe).round(6),
                'symmetries': {},
                'mesh': mesh_name,
            }
        ],
        'pose_network': {
            'kind': 'heatmap',
            'file': 'pose.onnx',
            'object': recipe.object,
            'input': 'picture',
            'output': 'heatmaps',
            'input_size': recipe.dataset.input_size,
            'mean': lite0.MEAN,
            'std': lite0.STD,
            'stride': unet.STRIDE,
            'sigma_px': recipe.pose.sigma_px,
            'region_scale': recipe.dataset.region_scale,
            **{
                key: pose[key]
                for key in ('threshold', 'covariance_scale', 'min_variance_px2', 'score')
            },
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


def _locator(recipe: Recipe, calibration: dict[str, Any]) -> dict[str, Any]:
    return {
        'file': 'locator.onnx',
        'input': 'picture',
        'outputs': {'centers': 'centers', 'boxes': 'boxes'},
        'input_size': recipe.locator_dataset.input_size,
        'mean': lite0.MEAN,
        'std': lite0.STD,
        'stride': locator.STRIDE,
        'objects': [recipe.object],
        'threshold': calibration['locator']['threshold'],
    }


def _log(recipe: Recipe, calibration: dict[str, Any]) -> bytes:
    """Losses of both networks (every tenth line), figures on held-out renders and the versions at
    work.
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
        path = recipe.cache / f'{kind}.jsonl'
        if path.is_file():
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            log[kind] = [*lines[::10], *lines[-1:]]
    return json.dumps(log, indent=1).encode()


def _revision() -> str:
    command = ['git', 'rev-parse', '--short', 'HEAD']
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or 'unknown'
