"""Measurements of one band of a tile, made when it was brought in: sky and noise."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

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


def level_and_noise(values: np.ndarray) -> tuple[float, float]:
    """Level and noise of the pixels that are neither objects nor defects; NaN of too few.

    The noise is that of differences of neighbours, so that light that fills an image is none of it.

    Args:
        values: (y, x), NaN where unusable.
    """
    step = max(1, int(np.sqrt(values.size / _LOOKED_AT)))
    sample = values[::step, ::step]
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if sample.size < _FEW:
        return _NAN, _NAN
    for _ in range(_ROUNDS):
        middle, width = float(np.median(sample)), 1.4826 * float(np.median(np.abs(sample - np.median(sample))))
        kept = sample[np.abs(sample - middle) <= 3 * width]
        if kept.size in (0, sample.size):
            break
        sample = kept
    mean = float(np.mean(sample))
    level = 2.5 * middle - 1.5 * mean if abs(mean - middle) < 0.3 * width else middle
    return level, fine_noise(values)


def fine_noise(values: np.ndarray) -> float:
    """Noise of a pixel from the differences of neighbours in a row; NaN of too few.

    Args:
        values: (y, x), NaN where unusable.
    """
    step = max(1, int(np.sqrt(values.size / _LOOKED_AT)))
    differences = np.diff(values[::step].astype(np.float64), axis=1)[:, ::step]
    differences = np.abs(differences[np.isfinite(differences)])
    if differences.size < _FEW:
        return _NAN
    return float(np.median(differences)) / _MEDIAN_OF_DIFFERENCES or float(np.std(differences)) / np.sqrt(2)


_LOOKED_AT = 2**17
_FEW = 256
_ROUNDS = 8
_MEDIAN_OF_DIFFERENCES = 0.9538725524
"""Median of |a - b| of unit normal deviates."""
