
"""The tiny recipe goes the whole way: mesh, renders, two networks, calibration, ONNX, bundle, a
pose that is right.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    'moderngl', reason='moderngl is not installed: `make test` installs the workshop'
)
pytest.importorskip('torch', reason='torch is not installed: `make test` installs the workshop')

from pose_node.core import metrics
from pose_node.core.camera import Camera
from pose_node.core.mesh import read_ply
from pose_node.core.outline import Shape
from pose_node.core.pose_spec import ALIGNED_FEATURES
from pose_node.runtime.estimator import PoseEstimator
from training.__main__ import main
from training.recipe import load_recipe
from training.synth.dataset import Dataset

RECIPE = Path(__file__).parents[2] / 'config' / 'recipes' / 'tiny.toml'
# Far from the training's and from the held-out samples' seeds.
SEED = 77_000_003


@pytest.fixture(scope='module')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that `python -m training all` leaves."""
    folder = tmp_path_factory.mktemp('tiny')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('POSE_NODE_CACHE', str(folder / 'cache'))
        out = folder / 'bundle'
        assert main(['all', str(RECIPE), '--out', str(out), '--threads', '1']) == 0
    return out


def test_poses_of_unseen_renders_are_right(bundle: Path) -> None:
    """Whole pictures through locator, network and PnP, against what they were rendered from."""
    recipe = load_recipe(RECIPE)
    options = recipe.locator_dataset
    # The whole picture at full size: the letterbox is then the run time's work.
    whole = Dataset(
        _with(options, input_size=options.scene.picture_size),
        recipe.objects,
        recipe.keypoints,
        SEED,
    )
    mesh = whole.things[0].mesh
    right, seen, false, empty = 0, 0, 0, 0
    with PoseEstimator(bundle) as estimator:
        for number in range(40):
            sample = whole.whole(number)
            camera = Camera(sample.scene.K, options.scene.picture_size)
            poses = estimator(sample.picture, camera).poses
            if not sample.scene.present:
                empty, false = empty + 1, false + bool(poses)
                continue
            seen += 1
            if poses:
                T_gt = sample.scene.T_cam_obj
                error_m = metrics.add(poses[0].T_cam_obj, T_gt, mesh.vertices_m)
                right += error_m < 0.1 * mesh.diameter_m
    assert seen >= 20 and empty >= 3
    assert right >= 0.6 * seen
    assert false <= 0.5 * empty


def test_bundle_tells_how_it_was_made(bundle: Path) -> None:
    """Recipe, log with falling loss, and calibration travel with the networks."""
    log = json.loads((bundle / 'training.json').read_text())
    losses = [line['loss'] for line in log['pose']]
    assert losses[-1] < losses[0] - 0.5
    assert (bundle / 'recipe.toml').read_bytes() == RECIPE.read_bytes()
    manifest = json.loads((bundle / 'bundle.json').read_text())
    assert manifest['training']['seed'] == load_recipe(RECIPE).seed
    for calibration in manifest['pose_network']['calibration'].values():
        assert np.isfinite(calibration['covariance_scale'])
        assert calibration['contour']['covariance_scale'] > 0.0
        assert set(calibration['contour']['score']['weights']) == set(ALIGNED_FEATURES)
    for each in manifest['objects']:
        mesh = read_ply(bundle / each['shape'])
        assert 100 < len(mesh.faces) <= 1000 and Shape.from_mesh(mesh.vertices, mesh.faces).closed


def _with(options: object, **changes: object) -> object:
    import dataclasses

    return dataclasses.replace(options, **changes)  # type: ignore[type-var]
