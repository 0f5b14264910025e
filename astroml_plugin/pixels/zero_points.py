"""Magnitude zero points that somebody can mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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


_PER_NOISE = (12.0, 45.0)
"""AB magnitude of the noise of a pixel in images of the sky: 17 in WISE W4, 29 in deep ones of large telescopes."""


def plausible_for(zero_point: float, noise: float) -> bool:
    """Whether a zero point can be meant by the noise of a pixel: 0 for fluxes in units of 3631 Jy of about 1e-12.

    Args:
        zero_point: AB magnitude of one unit of the pixels.
        noise: standard deviation of a pixel in this unit; NaN or 0 where it is not known.
    """
    if not noise > 0 or not np.isfinite(zero_point):
        return False
    return bool(_PER_NOISE[0] <= zero_point - 2.5 * float(np.log10(noise)) <= _PER_NOISE[1])
