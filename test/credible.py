"""Is the truth where a pose distribution says? Credible regions of bundles on held-out renders.

python test/credible.py RECIPE BUNDLE.. [--views 1000]

Of every view the share of the posterior's mass that is denser than the truth: of an honest
distribution that share is uniform, so that the densest region of 50, 90 and 95 % of the mass holds
50, 90 and 95 % of the truths. Samples are AMIS's (core/amis.py), of the likelihood that the node
samples, too; beside it the Gaussian of the solver's covariance. The views are of a seed that
neither training nor calibration has seen; a symmetric object's truth is the likeliest of its equal
poses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pose_node.core import metrics
from pose_node.core.amis import AmisOptions, sample_poses
from pose_node.core.bundle import Bundle
from pose_node.core.camera import Camera
from pose_node.core.pnp import PnpOptions
from pose_node.runtime.backends import open_backend
from pose_node.runtime.preprocess import map_to_picture, to_tensor
from pose_node.runtime.readers import READERS
from training.recipe import Recipe, load_recipe
from training.synth.dataset import Dataset, View

if TYPE_CHECKING:
    from pose_node.core.pose_spec import PoseSpec
    from pose_node.runtime.backends import Backend
    from pose_node.runtime.results import Likelihood

_SEED = 5_000_011
_LEVELS = (0.5, 0.9, 0.95)
_BATCH = 16


def main() -> None:
    """Render once, ask every bundle, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('bundles', type=Path, nargs='+')
    parser.add_argument('--views', type=int, default=1000)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    dataset = Dataset(recipe.dataset, recipe.objects, recipe.keypoints, recipe.seed + _SEED)
    views = [dataset.crop(recipe.dataset.ramp + n) for n in range(options.views)]
    views = [view for view in views if view.present]
    head = ''.join(f'{100 * level:10.0f} %' for level in _LEVELS)
    print(f'{"":40s}{"poses":>8s}{head}   effective samples, of 512')
    for folder in options.bundles:
        found = list(_levels(folder, recipe, dataset, views))
        for name, column in (('samples', 0), ('Gaussian', 1)):
            values = np.array([row[column] for row in found])
            held = ''.join(f'{100 * np.mean(values <= level):12.1f}' for level in _LEVELS)
            tail = f'{np.median([row[2] for row in found]):12.0f}' if column == 0 else ''
            print(f'{folder.name + ", " + name:40s}{len(values):8d}{held}{tail}')


def _levels(
    folder: Path, recipe: Recipe, dataset: Dataset, views: list[View]
) -> Iterator[tuple[float, float, float]]:
    """Of every view that gets a pose: mass denser than the truth by samples, and by the Gaussian;
    effective samples.
    """
    rng = np.random.default_rng(0)
    bundle = Bundle.load(folder)
    spec = bundle.pose_network
    reader = READERS[spec.kind](spec, {name: bundle.object(name) for name in spec.objects})
    network = open_backend('onnx', bundle.read(spec.file))
    for start in range(0, len(views), _BATCH):
        part = views[start : start + _BATCH]
        names = [recipe.objects[view.thing].name for view in part]
        maps = _maps(network, spec, part, names)
        affine = map_to_picture(np.eye(2, 3), spec.stride)
        sights = reader(maps, names, np.repeat(affine[None], len(part), axis=0))
        for view, sight in zip(part, sights, strict=True):
            camera = Camera(view.K, (view.picture.shape[1], view.picture.shape[0]))
            pose = reader.pose(sight, camera, PnpOptions())
            if not pose.ok:
                continue
            given = reader.likelihood(sight, pose, PnpOptions())
            cloud = sample_poses(
                given.points_obj,
                given.points_px,
                given.covariances_px,
                camera,
                given.optima,
                rng,
                covariance_scale=given.covariance_scale,
                options=AmisOptions(kernel_sigmas=given.kernel_sigmas, freedom=given.freedom),
            )
            if cloud is None:
                continue
            truths = view.T_cam_obj @ dataset.things[view.thing].symmetries.transforms()
            costs = _costs(given, camera, cloud.T_cam_obj)
            denser = costs < _costs(given, camera, truths).min()
            nees = min(metrics.nees(pose.T_cam_obj, T, pose.covariance) for T in truths)
            mass = float(cloud.weights[denser].sum())
            yield mass, float(stats.chi2(6).cdf(nees)), cloud.effective
    network.close()


def _maps(network: Backend, spec: PoseSpec, views: list[View], names: list[str]) -> np.ndarray:
    """What the network says of crops as they are."""
    pictures = np.stack([view.picture for view in views])
    inputs = {spec.input: to_tensor(pictures, spec.mean, spec.std)}
    if spec.object_input is not None:
        inputs[spec.object_input] = np.array([spec.objects.index(name) for name in names])
    return network(inputs)[spec.output]


def _costs(given: Likelihood, camera: Camera, T_cam_obj: np.ndarray) -> np.ndarray:
    """(S,) Huber costs of poses (S, 4, 4), pixel by pixel: not how core/amis.py has them."""
    inverses = np.linalg.inv(given.covariances_px)
    costs = []
    for T in T_cam_obj:
        off = camera.project(given.points_obj @ T[:3, :3].T + T[:3, 3]) - given.points_px
        squares = np.einsum('ki,kij,kj->k', off, inverses, off)
        sigmas = np.sqrt(np.where(np.isfinite(squares), squares, 1e12))
        least = np.minimum(sigmas, given.kernel_sigmas)
        costs.append(float(np.sum(least * (sigmas - 0.5 * least))))
    return np.array(costs)


if __name__ == '__main__':
    main()
