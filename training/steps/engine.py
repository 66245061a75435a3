"""The processes that train together: this one alone, or many by torch.distributed, which
Lightning Fabric starts and joins (on one machine itself; under torchrun or SLURM it finds them).
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from pose_node.core.errors import PoseNodeError

_Value = TypeVar('_Value')


class Engine(Protocol):
    """As much of Fabric as the loop needs."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""

    @property
    def global_rank(self) -> int:
        """This process's number; 0 writes files and speaks."""

    @property
    def world_size(self) -> int:
        """How many processes there are."""

    def setup_module(self, module: nn.Module) -> nn.Module:
        """A network whose gradients are the mean over all processes."""

    def broadcast(self, obj: _Value) -> _Value:
        """What process 0 gives."""

    def barrier(self) -> None:
        """Wait until all are here."""


class Alone:
    """One process."""

    global_rank, world_size = 0, 1

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def setup_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def broadcast(self, obj: _Value) -> _Value:
        return obj

    def barrier(self) -> None:
        pass


def open_engine(device: str = 'auto', processes: int = 1, nodes: int = 1) -> Engine:
    """device: auto (the GPU where there is one), cpu or cuda; `processes` on each of `nodes`."""
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda' and not torch.cuda.is_available():
        raise PoseNodeError('device cuda: torch sees no GPU here; say cpu or auto')
    if processes * nodes == 1:
        return Alone(device)
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise PoseNodeError(
            'training in several processes goes through Lightning Fabric, which is not installed: '
            'pip install -r requirements/cluster.txt'
        ) from None
    fabric: Any = Fabric(accelerator=device, devices=processes, num_nodes=nodes, strategy='ddp')
    fabric.launch()
    engine: Engine = fabric
    return engine
