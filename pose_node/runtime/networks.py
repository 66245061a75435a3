"""What a network must give, found out before the first picture comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pose_node.core.errors import PoseNodeError
from pose_node.core.manifest import LocatorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pose_node.core.pose_spec import PoseSpec

    from .backends import Backend


def check_outputs(
    backend: Backend, spec: PoseSpec | LocatorSpec, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Run a grey batch of two through the network; raise PoseNodeError where it breaks the
    bundle's word.

    shapes: of every output, without the batch. Two, because a network may have been exported for
    one picture only. It also warms the runtime up, which allocates on its first call.
    """
    width, height = spec.input_size
    inputs = {spec.input: np.zeros((2, 3, height, width), np.float32)}
    if not isinstance(spec, LocatorSpec) and spec.object_input is not None:
        inputs[spec.object_input] = np.array([0, len(spec.objects) - 1])
    outputs = backend(inputs)
    for name, shape in shapes.items():
        if name not in outputs:
            raise PoseNodeError(
                f'{spec.file} has outputs {sorted(outputs)}, and the bundle says {name!r}; '
                'correct the bundle or export the network again.'
            )
        got, wanted = outputs[name].shape, (2, *shape)
        if got != wanted or outputs[name].dtype != np.float32:
            raise PoseNodeError(
                f'{spec.file} gives {name!r} as {outputs[name].dtype} {got} for two pictures, '
                f'the bundle promises float32 {wanted}; export it again, with a dynamic batch.'
            )
