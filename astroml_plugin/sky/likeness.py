"""Stamps known again after their pixels were brought to another unit, sky level or precision."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import F32, Array, Bool

RANKS = (0.0, 0.03, 0.1, 0.2, 0.35, 0.65, 0.8, 0.9, 0.97, 1.0)
"""Parts of the pixels at which the order of a band is sampled; 0.5 is its zero, 0.25 to 0.75 its unit."""

BANDS = 3
"""Bands of a stamp that are sampled at most: its first."""

_APART = 2e-3
"""Largest difference in any sample between two forms of one stamp: half precision rounds to 2⁻¹¹ of a value."""

_DISTINCT = 0.5
"""Part of the pixels that must have values of their own: of counts and pictures too many are alike."""


def likeness(centres: Array) -> F32:
    """Samples of the order of the central pixels, which a factor or an offset per band, a flip or a turn do not change.

    Args:
        centres: (n, band, k) values of the central pixels of each band, in rising order.

    Returns:
        (n, band * 10) float32 of at most `BANDS` bands: asinh of the values at `RANKS`, from the median, in units
        of the quartiles' distance. NaN where a band has too few different values to tell stamps apart.
    """
    values = np.asarray(centres, np.float64)[:, :BANDS]
    count = values.shape[2]
    if count < 2 * len(RANKS) or not len(values):
        return np.full((len(values), values.shape[1] * len(RANKS)), np.nan, np.float32)
    low, middle, high = (values[..., round(part * (count - 1)), None] for part in (0.25, 0.5, 0.75))
    ranks = values[..., [round(part * (count - 1)) for part in RANKS]]
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.arcsinh((ranks - middle) / (high - low))
        distinct = (np.diff(values, axis=2) > 0).mean(2) > _DISTINCT
    told[~(distinct & np.isfinite(told).all(2)).all(1)] = np.nan
    return told.reshape(len(told), -1).astype(np.float32)


def alike(these: F32, known: F32) -> Bool:
    """(n,) whether samples (n, k) of `likeness` are those of a stamp among `known` (m, k); NaN are like none."""
    found = np.zeros(len(these), bool)
    asked = np.flatnonzero(np.isfinite(these).all(1))
    known = known[np.isfinite(known).all(1)]
    if len(asked) and len(known) and these.shape[1] == known.shape[1]:
        from scipy.spatial import KDTree  # here, as a run that compares nothing does without what it takes to load

        nearest, _ = KDTree(known).query(these[asked], p=np.inf, distance_upper_bound=_APART)
        found[asked] = np.isfinite(nearest)
    return found
