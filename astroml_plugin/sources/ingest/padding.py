"""Pixels of exactly 0 that were never observed: borders of rotated mosaics, and columns that nobody filled."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import Bool
from astroml_plugin.sources.quality import fine_noise, grid_step

CLEAR = 3.0
"""Noises by which a sky must be away from 0 so that pixels of exactly 0 beside it are no sky."""

_FEW = 1e-4
"""Share of zeros below which nothing is asked: they change no level."""

_SOLID = 0.8
"""Share of the other pixels whose four neighbours are none of 0 either: not so in counts of few photons, where 0 is
a value as others are."""

_DARK, _OF_MEDIAN = 0.02, 0.25
"""Share of the other pixels that may be fainter than this part of their median: a galaxy that was cut out, with 0
around it, fades towards 0; a sky does not."""


def padding_of(values: np.ndarray, usable: Bool) -> Bool | None:
    """Pixels (y, x) of exactly 0 where all others are those of a sky far from 0; None where 0 may be a value.

    Args:
        values: (y, x) pixels with their sky.
        usable: (y, x) whether each can be used.
    """
    zero: Bool = usable & (values == 0)
    count = int(np.count_nonzero(zero))
    if count <= _FEW * zero.size:
        return None
    rest = usable & np.isfinite(values) & ~zero
    if not rest.any():
        return zero
    step = grid_step(values.size, _LOOKED_AT)
    inner = rest[1:-1:step, 1:-1:step]
    sides = [zero[:-2:step, 1:-1:step], zero[2::step, 1:-1:step], zero[1:-1:step, :-2:step], zero[1:-1:step, 2::step]]
    shape = min(part.shape for part in (inner, *sides))
    beside = np.any([part[: shape[0], : shape[1]] for part in sides], axis=0)
    inner = inner[: shape[0], : shape[1]]
    if not inner.any() or np.count_nonzero(inner & ~beside) < _SOLID * np.count_nonzero(inner):
        return None
    sample = values[1:-1:step, 1:-1:step][: shape[0], : shape[1]][inner].astype(np.float64)
    level, noise = float(np.median(sample)), fine_noise(values, rest)
    dark = float(np.quantile(sample * np.sign(level), _DARK))
    return zero if noise > 0 and abs(level) > CLEAR * noise and dark > _OF_MEDIAN * abs(level) else None


_LOOKED_AT = 2**18
