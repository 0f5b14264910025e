"""Noise of sums of pixels whose noise is correlated, from how it grows in squares of 8 x 8 pixels.

The noise is taken as white noise that a round Gaussian smoothed: two pixels d apart have the correlation
exp(-d² / 4k²). The kernel's k is the one that gives the measured growth, so that sums of like size have the right
noise whatever the kernel was.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from astroml_plugin.core.typing import F64

SQUARE = 8
"""Side in pixels of the squares whose growth is measured."""

WHITE = 1.15
"""Growth up to which noise counts as white: that of white noise is known to some percent, in small images to 15."""

_WIDEST, _STEPS = 12.0, 1200
"""Widest kernel in pixels, and kernels that are looked at."""


def growth_in_squares(growth: float, side: F64) -> F64:
    """Noise of sums over squares of pixels, over that of as much white noise.

    Args:
        growth: the same of squares of 8 x 8 pixels; below `WHITE`, or NaN, noise is white.
        side: (n,) pixels along a side, at least 1; of another outline the square root of its area.

    Returns:
        (n,) factors, 1 or more.
    """
    return _factor(growth, lambda lag: np.clip(1 - lag / np.maximum(side, 1.0), 0, None), np.asarray(side))


def growth_in_gaussians(growth: float, square: F64) -> F64:
    """Noise of sums weighted with a round Gaussian, over that of as much white noise.

    Args:
        growth: of squares of 8 x 8 pixels, see `growth_in_squares`.
        square: (n,) σ² of the Gaussian in pixels².

    Returns:
        (n,) factors, 1 or more.
    """
    return _factor(growth, lambda lag: np.exp(-(lag**2) / (4 * np.maximum(square, 1e-6))), np.asarray(square))


def next_to_each_other(growth: float) -> float:
    """Correlation of two pixels side by side; 0 of white noise."""
    kernel = _kernel(growth)
    return float(np.exp(-1 / (4 * kernel**2))) if kernel > 0 else 0.0


def _factor(growth: float, overlap: Callable[[int], F64], like: F64) -> F64:
    """1 + 2 sum over lags along one axis of overlap times correlation: the square of it is the sum over both axes."""
    kernel = _kernel(growth)
    found = np.ones(like.shape)
    for lag in range(1, int(4 * kernel) + 1 if kernel > 0 else 0):
        found += 2 * overlap(lag) * np.exp(-(lag**2) / (4 * kernel**2))
    return found


def _kernel(growth: float) -> float:
    """σ in pixels of the kernel that gives a growth; 0 for white noise."""
    if not growth > WHITE:
        return 0.0
    widths, growths = _table()
    return float(np.interp(growth, growths, widths))


@cache
def _table() -> tuple[F64, F64]:
    widths = np.linspace(0.2, _WIDEST, _STEPS)
    lag = np.arange(1, SQUARE)[:, None]
    return widths, 1 + 2 * ((1 - lag / SQUARE) * np.exp(-(lag**2) / (4 * widths**2))).sum(0)
