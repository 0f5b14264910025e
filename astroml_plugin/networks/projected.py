"""A network and the layers behind it that only a comparison of its answers needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projected(nn.Module):
    """Rows of a network, followed by what a small network makes of them.

    Answers are compared in the last numbers, so that the rows may keep what the comparison asks to forget (Chen et al.
    2020, ICML, SimCLR).

    Args:
        network: gives rows of `features` numbers.
        features: numbers of its rows.
        projection: numbers that are compared.
    """

    def __init__(self, network: nn.Module, features: int, projection: int) -> None:
        super().__init__()
        self.network = network
        self.projector = nn.Sequential(nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, projection))

    def forward(self, *inputs: Tensor) -> Tensor:
        """(n, features + projection)."""
        rows = self.network(*inputs)
        return torch.cat([rows, self.projector(rows)], dim=1)
