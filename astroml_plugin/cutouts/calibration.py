"""Pixels brought to one unit by magnitude zero points, per stamp and band, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def known(zero_points: Sequence[float | None], bands: int) -> Tensor:
    """(band,) float64 on the CPU, NaN where unknown; an empty sequence says nothing of any band."""
    if not len(zero_points):
        return torch.full((bands,), torch.nan, dtype=torch.float64)
    return torch.tensor([torch.nan if zero is None else zero for zero in zero_points], dtype=torch.float64)


def factors(zero_points: Tensor, target: float) -> Tensor | None:
    """Factors (…, band) float64 to the unit of the zero point `target`; NaN where unknown, None where all are 1."""
    found = 10 ** (0.4 * (target - zero_points))
    return None if bool((found == 1).all()) else found


def scaled(image: Tensor, variance: Tensor | None, factor: Tensor) -> tuple[Tensor, Tensor | None]:
    """Image times the factors and variance times their squares, float32; 0 where a factor is NaN.

    Args:
        image: (..., band, h, w).
        variance: same shape, or None.
        factor: (..., band) float64 on the CPU.
    """
    wide = factor[..., None, None].nan_to_num(0.0)
    light = image.to(torch.float32) * wide.to(torch.float32).to(image.device)
    spread = None if variance is None else variance * wide.square().to(torch.float32).to(image.device)
    return light, spread
