"""Pixels that were never observed and hold one value: borders of rotated mosaics, and columns that nobody filled."""

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

_FILL_BELOW, _FILL_ABOVE = 5.0, 1e7
"""Noises that a value for missing pixels lies below the sky, or above it: nothing that is seen is so bright."""

_FILL_LEAST = 64
_GAP, _IN_GAP = 2.0, 0.05
"""Noises beside it that are empty: pixels there are fewer than this share of those that have it. Pixels that somebody
clipped have others beside them."""


def fill_of(values: np.ndarray, usable: Bool) -> float | None:
    """The value of pixels that were never observed, such as -99 or 1e20; None where there is none beside 0.

    It is the smallest or largest value of a block, that many pixels have, far from all others.

    Args:
        values: (y, x) pixels with their sky.
        usable: (y, x) whether each can be used.
    """
    seen = np.where(usable, values, np.nan)
    low, high = (float(reduce(seen, axis=None)) for reduce in (np.fmin.reduce, np.fmax.reduce))
    for value, sign in ((low, 1), (high, -1)):
        count = int(np.count_nonzero(seen == value))
        if value == 0 or count < max(_FILL_LEAST, _FEW * values.size):
            continue
        rest = usable & np.isfinite(values) & (values != value)
        step = grid_step(values.size, _LOOKED_AT)
        sample = values[::step, ::step][rest[::step, ::step]].astype(np.float64)
        noise = fine_noise(values, rest)
        if not sample.size or not noise > 0:
            continue
        away = sign * (float(np.median(sample)) - float(value))
        beside = rest & (np.abs(values.astype(np.float64) - float(value)) <= _GAP * noise)
        if away > (_FILL_BELOW if sign > 0 else _FILL_ABOVE) * noise and np.count_nonzero(beside) < _IN_GAP * count:
            return float(value)
    return None
