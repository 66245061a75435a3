"""What a dense network learns of the drill's pose by one loss or another.

python test/dense_losses.py [--samples N]

After Table 1 of EPro-PnP (Chen et al., CVPR 2022), on the tiny recipe's views: the same network,
pictures and steps, coordinates taught alike; beside them nothing, the reprojection error of the
true pose, the pose's error through the solver (implicit differentiation), the divergence, or the
last two together, which is what is shipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
from tiny_networks import tiny_recipe
from torch import Tensor

from training.__main__ import main as workshop
from training.nets import dense
from training.nets.epro.cost import correspondences, pose_cost
from training.nets.pnp_layer import LayerOptions, PnpLayer, target_poses
from training.synth.background import Backgrounds

LOSSES = ('coordinates', 'reprojection', 'implicit', 'divergence', 'both')
POSE = """
network = "dense"
samples = {samples}
batch = 16
warmup = 20
ema = 0.9
held_out = 300
"""


class OneLoss(PnpLayer):
    """The layer, of whose losses only one is looked at."""

    def __init__(self, which: str, options: LayerOptions | None) -> None:
        super().__init__(options)
        self.which = which

    def forward(self, *seen: Tensor, wanted: Tensor, **_: Any) -> SimpleNamespace:  # type: ignore[override]
        """As PnpLayer's, which has the total alone here."""
        *points, K, T_cam_obj, scale = seen
        if self.which == 'reprojection':
            known = correspondences(*points, K)
            true = target_poses(T_cam_obj[:, :1], points[0])
            cost = pose_cost(known, true.R, true.t)[:, 0] / scale.detach().mean(dim=1)
            return SimpleNamespace(total=(cost * wanted).sum() / wanted.sum().clamp(min=1))
        found = super().forward(*points, K, T_cam_obj, scale, wanted=wanted)
        implicit = found.translation + found.rotation
        return SimpleNamespace(
            total={
                'coordinates': 0.0 * found.divergence,
                'implicit': implicit,
                'divergence': found.divergence,
                'both': found.total,
            }[self.which]
        )


def learned(which: str, samples: int) -> dict[str, Any]:
    """What `training evaluate` says of it."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, 'PnpLayer', lambda options: OneLoss(which, options))
        patch.setattr(Backgrounds.__init__, '__defaults__', (None, 8))
        patch.setenv('POSE_NODE_CACHE', name)
        recipe = tiny_recipe(Path(name), POSE.replace('{samples}', str(samples)))
        for step in (['fit', '--workers', '0'], ['evaluate']):
            assert workshop([step[0], str(recipe.path), *step[1:]]) == 0
        told = json.loads((recipe.cache / 'calibration.json').read_text())
        found: dict[str, Any] = told['pose']['objects']['drill']
        return found


def main() -> None:
    """Train them one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else '')
    parser.add_argument('--samples', type=int, default=2560, help='pictures of each training')
    samples = parser.parse_args().samples
    rows = {which: learned(which, samples) for which in LOSSES}
    print('| beside coordinates | ADD 0.1d | covariance must be multiplied by |')
    for which, found in rows.items():
        print(f'| {which} | {100.0 * found["add_01d"]:.0f} % | {found["covariance_scale"]} |')


if __name__ == '__main__':
    main()
