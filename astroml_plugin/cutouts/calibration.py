"""Pixels brought to one unit by magnitude zero points, per stamp and band, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError

NANOJANSKY = 31.4
"""AB magnitude of one nJy."""

_MEANT = ((5.0, 45.0), (-60.0, -15.0))
"""Zero points that somebody can mean: counts and janskys (Jy 8.9, nJy 31.4, an hour of a large telescope 38); flux
densities in cgs and SI units (-48.6, -56.1; per wavelength about -21). 0, 1, 99, 999 and 1e9 stand for "unknown"."""


def plausible(zero_points: np.ndarray | Sequence[float] | float) -> np.ndarray:
    """Bool of the same shape: whether numbers can be AB magnitudes of one unit of flux; NaN cannot."""
    values = np.asarray(zero_points, np.float64)
    meant: np.ndarray = np.any([(values >= low) & (values <= high) for low, high in _MEANT], axis=0)
    return meant


def refuse_implausible(zero_points: np.ndarray | Sequence[float], what: str, unknown: str = "leave it out") -> None:
    """Refuse stated zero points that nobody can mean.

    Args:
        zero_points: AB magnitudes of any shape.
        what: where they are from, for the message.
        unknown: what to do where a zero point is not known.

    Raises:
        InputError: one is outside 5 to 45 and outside -60 to -15 (cgs and SI units), or NaN.
    """
    values = np.asarray(zero_points, np.float64).ravel()
    odd = values[~plausible(values)]
    if len(odd):
        raise InputError(
            f"{what}: zero point {odd[0]:g} is no AB magnitude of one unit of the pixels, such as 27 or 31.4 (nJy): "
            f"correct it; where it is not known, {unknown}"
        )


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
