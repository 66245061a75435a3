"""What every runtime asks of a call, in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pose_node.core.errors import PoseNodeError

from ..preprocess import Crops

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np


def check_call(wanted: Iterable[str], given: Iterable[str], *, is_open: bool) -> None:
    """Raises PoseNodeError when the network was closed, or has inputs of other names."""
    if not is_open:
        raise PoseNodeError('The network was closed; open it again to run it.')
    if set(given) != set(wanted):
        raise PoseNodeError(
            f'The network has inputs {sorted(wanted)}, got {sorted(given)}; '
            'name them in the bundle as the network does.'
        )


def arrays(inputs: Mapping[str, np.ndarray | Crops]) -> dict[str, np.ndarray]:
    """The inputs with their crops made, for runtimes that make none themselves."""
    return {
        name: value.tensor() if isinstance(value, Crops) else value
        for name, value in inputs.items()
    }


__all__ = ['arrays', 'check_call']
