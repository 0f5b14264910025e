"""Averages of a network's answers over symmetries of the square, at test time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.symmetries import transform

ORDER = ((0, 0, 0), (0, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 0, 0), (1, 1, 1))
"""`SYMMETRIES` so that the first 2, 4 and 8 are groups: the half turn, the quarter turns, and their mirror images."""

COUNTS = (1, 2, 4, 8)
"""Numbers of symmetries that make a group."""


class SymmetryAverage(nn.Module):
    """Mean output of a network over the first `count` of `ORDER`, for outputs that no symmetry changes.

    The outputs are then the same for a stamp that went through one of these symmetries, and take `count` forwards.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, *inputs: Tensor) -> Tensor:
        """(n, outputs) from the network's inputs; those with four axes are images."""
        total = self.network(*inputs)
        for symmetry in ORDER[1 : self.count]:
            moved = tuple(
                transform(item, symmetry).contiguous(memory_format=torch.channels_last) if item.ndim == 4 else item
                for item in inputs
            )
            total = total + self.network(*moved)
        output: Tensor = total / self.count
        return output


def averaged(task: Task, network: nn.Module) -> nn.Module:
    """The network as the task's setting `symmetries` asks; the network itself for 1 and for tasks without it."""
    count = getattr(task.settings, "symmetries", 1)
    return SymmetryAverage(network, count) if count > 1 else network


def check_count(count: int) -> None:
    """Refuse numbers of symmetries that make no group.

    Raises:
        InputError: it is not 1, 2, 4 or 8.
    """
    if count not in COUNTS:
        raise InputError(f"symmetries must be 1, 2, 4 or 8, not {count}")
