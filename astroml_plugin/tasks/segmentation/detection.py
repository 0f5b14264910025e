"""Objects from the network's maps: accepted peaks, saturated stars, companions that the network missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F32, I64, U8, Bool
from astroml_plugin.tasks.detection import Field
from astroml_plugin.tasks.segmentation.deblending import Companions, find_companions, parts_of
from astroml_plugin.tasks.segmentation.layer_maps import (
    CENTRE,
    NEAR,
    OFFSET_X,
    OFFSET_Y,
    SHARE,
    log_odds,
    logistic,
    logit,
)
from astroml_plugin.tasks.segmentation.peaks import around, centroids, find_peaks
from astroml_plugin.tasks.segmentation.settings import SegmentSettings
from astroml_plugin.tasks.segmentation.signal import combined_image

_BESIDE = 6
"""Largest distance in pixels, in x or in y, of a star's peak from its saturated pixels."""

_ALONE = 12.0
"""Distance in pixels within which a saturated star has one peak."""

_PERHAPS = 0.15
"""Least probability of the peak of a saturated star."""

_USUAL_WIDTH = 3.5
"""FWHM of the PSF in pixels where none is known."""


@dataclass(frozen=True)
class Peaks:
    """Objects of a field by their peaks, row by row."""

    row: I64
    """(n,) row of the peak's pixel."""
    column: I64
    """(n,) column of the peak's pixel."""
    log_odds: np.ndarray
    """(n,) log odds that an object is centred here: mean of the map `near` over 3 x 3 pixels."""
    x: np.ndarray
    """(n,) centre along x, pixels of the field."""
    y: np.ndarray
    """(n,) centre along y."""

    @property
    def pixel(self) -> tuple[I64, I64]:
        """Rows and columns."""
        return self.row, self.column

    @property
    def centre(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres x and y."""
        return self.x, self.y


def accepted_peaks(maps: F32, bits: U8 | None, settings: SegmentSettings) -> Peaks:
    """Peaks that are probable enough to be objects.

    In a blend the offsets of pixels near the fainter object point half way to the brighter one: centres are centroids
    of the map of centres about each peak instead.

    Args:
        maps: (channels, h, w).
        bits: (band, h, w) of `Field.bits`: saturated stars have no centre to see, their best peak is enough.
        settings: `centre` and `near` are used.
    """
    row, column = find_peaks(maps[CENTRE], logit(settings.centre))
    odds = around(maps[NEAR], (row, column), 1).mean((1, 2))
    accepted = odds > logit(settings.near)
    if bits is not None:
        saturated = np.bitwise_or.reduce(bits, axis=0) & np.uint8(ObjectFlag.SATURATED) > 0
        accepted |= _best_beside(saturated, (row, column), odds, accepted)
    pixel = row[accepted], column[accepted]
    return Peaks(*pixel, odds[accepted], *centroids(logistic(around(maps[CENTRE], pixel, 2)), pixel))


def _best_beside(saturated: Bool, pixel: tuple[I64, I64], odds: np.ndarray, accepted: Bool) -> Bool:
    """(n,) rejected peaks to re-admit: the most probable one of each saturated star without an accepted peak."""
    more = np.zeros_like(accepted)
    candidates = np.flatnonzero(~accepted & (odds > logit(_PERHAPS)))
    candidates = candidates[around(saturated, (pixel[0][candidates], pixel[1][candidates]), _BESIDE).any((1, 2))]
    for number in candidates[np.argsort(-odds[candidates], kind="stable")]:
        near = np.hypot(pixel[0] - pixel[0][number], pixel[1] - pixel[1][number]) < _ALONE
        more[number] = not (near & (accepted | more)).any()
    return more


def with_companions(maps: F32, field: Field, peaks: Peaks, settings: SegmentSettings) -> tuple[F32, Peaks]:
    """Maps and peaks with the companions that the network did not separate from their parents.

    Pixels where a companion has most of the light point to it; light is shared as both sides of the parent say.
    """
    image, variance = combined_image(field, np.inf)
    widths = np.clip(np.nan_to_num(field.psf_fwhm_at(*peaks.centre), nan=_USUAL_WIDTH), *settings.psf_fwhm)
    widths = np.round(widths * 4) / 4  # rounded, so that a slightly other width in the next tile gives the same
    companions = find_companions(
        image, variance, peaks.pixel, widths, least=settings.companion, lopsided=settings.lopsided
    ).where(np.isfinite(maps[NEAR]))
    if not len(companions.row):
        return maps, peaks
    maps = _pointed(maps, companions, *parts_of(image, variance, peaks.pixel, widths, companions))
    odds = around(maps[NEAR], (companions.row, companions.column), 1).mean((1, 2))
    added = companions.row, companions.column, odds, companions.column, companions.row
    values = (peaks.row, peaks.column, peaks.log_odds, peaks.x, peaks.y)
    row, column, *others = (np.concatenate(pair) for pair in zip(values, added, strict=True))
    order = np.lexsort((column, row))
    return maps, Peaks(row[order], column[order], *(value[order] for value in others))


def _pointed(maps: F32, companions: Companions, number: I64, row: I64, column: I64, part: Any) -> F32:
    """Maps whose offsets and shares beside companions point to these; pixels that occur twice go by their last."""
    maps = maps.copy()
    maps[SHARE, row, column] = log_odds(np.clip(np.maximum(part, 1 - part), 0.5, 0.999))
    most = part > 0.5
    number, row, column = number[most], row[most], column[most]
    maps[OFFSET_X, row, column] = companions.column[number] - column
    maps[OFFSET_Y, row, column] = companions.row[number] - row
    return maps
