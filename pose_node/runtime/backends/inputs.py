"""What every runtime asks of a call, in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pose_node.core.errors import PoseNodeError

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_call(wanted: Iterable[str], given: Iterable[str], *, is_open: bool) -> None:
    """Raises PoseNodeError when the network was closed, or has inputs of other names."""
    if not is_open:
        raise PoseNodeError('The network was closed; open it again to run it.')
    if set(given) != set(wanted):
        raise PoseNodeError(
            f'The network has inputs {sorted(wanted)}, got {sorted(given)}; '
            'name them in the bundle as the network does.'
        )


__all__ = ['check_call']
