"""Measurements of one band of a tile, made when it was brought in: sky and noise."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from astroml_plugin.core.typing import F64, Bool

_NAN = float("nan")

CLEAR_OF_ZERO = 3.0
"""Noises from 0 beyond which the level of a tile is no sky at 0."""


@dataclass(frozen=True)
class BandQuality:
    """Numbers about one band of a tile; NaN where they are not known."""

    sky_taken: float = _NAN
    """Median of the sky that was taken off the tile's own pixels, in the band's unit; 0: nothing was."""
    sky_left: float = _NAN
    """Level of what is left, in noises of a pixel."""
    sky_mesh: float = _NAN
    """Side in pixels of the cells of the mesh that was taken off; 0: one level."""
    noise: float = _NAN
    """Noise of a pixel of the tile, in the band's unit."""
    noise_growth: float = _NAN
    """Noise of sums of 8 x 8 pixels over that of as much white noise; 1 where pixels are independent."""

    @property
    def clear_of_zero(self) -> bool:
        """Whether the level of the tile is known, and no sky at 0."""
        return abs(self.sky_left) > CLEAR_OF_ZERO


NAMES = tuple(item.name for item in fields(BandQuality))


def level_and_noise(values: np.ndarray, usable: Bool | None = None) -> tuple[float, float]:
    """Level and noise of the pixels that are neither objects nor defects; NaN of too few.

    The noise is that of differences of neighbours, so that light that fills an image is none of it. Some 130,000
    pixels on a grid are looked at.

    Args:
        values: (y, x), NaN where unusable.
        usable: (y, x) bool, whether a pixel can be used; None: every one that is finite.
    """
    step = grid_step(values.size, _LOOKED_AT)
    chosen = np.s_[::step, ::step]
    sample = _clean(values, usable, chosen)
    sample = sample[np.isfinite(sample)]
    if sample.size < _FEW:
        return _NAN, _NAN
    for _ in range(_ROUNDS):
        middle = float(np.median(sample))
        width = 1.4826 * float(np.median(np.abs(sample - middle)))
        kept = sample[np.abs(sample - middle) <= 3 * width]
        if kept.size in (0, sample.size):
            break
        sample = kept
    mean = float(np.mean(sample))
    level = 2.5 * middle - 1.5 * mean if abs(mean - middle) < 0.3 * width else middle
    return level, fine_noise(values, usable)


def fine_noise(values: np.ndarray, usable: Bool | None = None) -> float:
    """Noise of a pixel from the differences of neighbours in a row; NaN of too few.

    Args:
        values: (y, x), NaN where unusable.
        usable: (y, x) bool, whether a pixel can be used; None: every one that is finite.
    """
    step, last = grid_step(values.size, _LOOKED_AT), values.shape[1] - 1
    left, right = (np.s_[::step, first : last + first : step] for first in (0, 1))
    differences = np.abs(_clean(values, usable, right) - _clean(values, usable, left))
    differences = differences[np.isfinite(differences)]
    if differences.size < _FEW:
        return _NAN
    return float(np.median(differences)) / _MEDIAN_OF_DIFFERENCES or float(np.std(differences)) / np.sqrt(2)


def grid_step(pixels: int, wanted: int) -> int:
    """Distance along both axes of about `wanted` pixels of an image that has `pixels`."""
    return max(1, int(np.sqrt(pixels / wanted)))


def _clean(values: np.ndarray, usable: Bool | None, chosen: tuple[slice, slice]) -> F64:
    """Chosen pixels as float64, NaN where unusable."""
    taken = values[chosen].astype(np.float64)
    if usable is not None:
        taken[~usable[chosen]] = np.nan
    return taken


_LOOKED_AT = 2**17
_FEW = 256
_ROUNDS = 8
_MEDIAN_OF_DIFFERENCES = 0.9538725524
"""Median of |a - b| of unit normal deviates."""
