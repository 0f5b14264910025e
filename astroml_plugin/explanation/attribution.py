"""Attributions: how much each pixel has to do with a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Attribution:
    """Attributions of the pixels of n objects."""

    maps: Tensor
    """(n, channel, h, w) float32."""
    value: Tensor
    """(n,) the number that is explained."""
    reference: Tensor
    """(n,) the number at the baseline, the mean of several ones; NaN for methods without a baseline."""
    error: Tensor
    """(n,) how far the attributions are from adding up to `value` - `reference`, as a part of that difference; NaN for
    methods that do not promise it."""
    forwards: Tensor
    """(n,) int64: times that the network looked at the object."""

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def joined(cls, parts: Sequence[Attribution]) -> Attribution:
        """Attributions one after the other."""
        return cls(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    @classmethod
    def unchecked(cls, maps: Tensor, value: Tensor, forwards: int) -> Attribution:
        """Maps of a method that promises no sum."""
        unknown = torch.full_like(value, torch.nan)
        looks = torch.full(value.shape, forwards, dtype=torch.int64, device=value.device)
        return cls(maps, value, unknown, unknown, looks)


def completeness_error(maps: Tensor, difference: Tensor) -> Tensor:
    """(n,) |sum of the maps - difference| over |difference|; 0 where both are 0.

    Args:
        maps: (n, channel, h, w).
        difference: (n,) of the number from the baseline.
    """
    wanted = difference.double()
    gap = (maps.double().flatten(1).sum(1) - wanted).abs()
    return torch.where(gap == 0, 0.0, gap / wanted.abs()).float()
