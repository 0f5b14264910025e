"""Pixels, variance and mask bits of one band of an image, as they are stored: in its unit, without its sky."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.typing import Bool
from astroml_plugin.pixels import is_usable
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.bands import BandPlan
from astroml_plugin.sources.ingest.masks import variance_of_weight
from astroml_plugin.sources.ingest.opening import FitsFile
from astroml_plugin.sources.ingest.padding import CLEAR, fill_of
from astroml_plugin.sources.ingest.pixels import Pixels, as_float32, read_box
from astroml_plugin.sources.ingest.sky import Sky

_PADDING = 5.0
"""A pixel of exactly 0 where the sky is more noises than this above or below 0 was never observed."""


def planes_of(band: BandPlan) -> list[Pixels]:
    """Every plane of files that a band is made of."""
    return [plane for plane in (band.image, band.variance, band.weight, band.std, band.mask) if plane is not None]


def read_band(
    band: BandPlan, box: Box, files: Mapping[str, FitsFile]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """(pixels float32, variance or None, mask uint32) of one band in a box inside the image.

    The variance is that of the pixels with their sky: what is taken off has no noise, the light that it was has.
    """

    def read(plane: Pixels) -> np.ndarray:
        return read_box(files[plane.url], plane, box)

    assert band.image is not None  # callers skip missing bands
    values = _times(read(band.image), band.factor)
    pixels = as_float32(values, _place(band.image))
    mask = np.zeros(pixels.shape, np.uint32)
    if band.mask is not None and band.mask_map is not None:
        mask |= band.mask_map.apply(read(band.mask))
    variance = _variance(band, read)
    if variance is not None:
        mask[np.isnan(variance)] |= np.uint32(MaskBit.BAD)
    mask[~np.isfinite(pixels)] |= np.uint32(MaskBit.UNMASKED_NAN)
    if band.saturation is not None:
        mask[pixels >= band.saturation] |= np.uint32(MaskBit.SATURATED)
    fills = band.sky.fills
    if band.sky.in_part and not fills and (fill := fill_of(pixels, is_usable(mask))) is not None:
        fills = (fill,)
    empty = np.isin(pixels, np.array(fills, np.float32)) if fills else None
    if band.sky.taken:
        pixels, never = _without(band.sky, values, box)
        mask[never] |= np.uint32(MaskBit.NO_DATA)
    if empty is not None:
        mask[empty] |= np.uint32(MaskBit.NO_DATA)
        pixels = np.where(empty, np.float32(np.nan), pixels)
    return pixels, variance, mask


def read_with_sky(band: BandPlan, box: Box, files: Mapping[str, FitsFile]) -> tuple[np.ndarray, Bool]:
    """(pixels with their sky float32, whether each can be used) of one band in a box inside the image."""
    return read_usable(replace(band, sky=Sky()), box, files)


def read_usable(band: BandPlan, box: Box, files: Mapping[str, FitsFile]) -> tuple[np.ndarray, Bool]:
    """(pixels without their sky float32, whether each can be used) of one band in a box inside the image."""
    pixels, _, mask = read_band(band, box, files)
    return pixels, is_usable(mask)


def _without(sky: Sky, values: np.ndarray, box: Box) -> tuple[np.ndarray, Bool]:
    """Pixels (float32) without their sky, and those that are padding: exactly 0 where the sky is far from it."""
    level = sky.at(box)
    never = (values == 0) & (np.abs(level) > (CLEAR if sky.padded else _PADDING) * sky.noise)
    with np.errstate(invalid="ignore", over="ignore"):
        flat = (values - level).astype(np.float32)
    flat[never] = np.nan
    return flat, never


def _variance(band: BandPlan, read: Callable[[Pixels], np.ndarray]) -> np.ndarray | None:
    """Variance of the scaled pixels, from whichever plane gives it; NaN where that is 0, negative or not finite."""
    square = band.factor**2
    if band.variance is not None:
        source, values = band.variance, _times(read(band.variance), square)
    elif band.std is not None:
        source = band.std
        errors = read(source).astype(np.float64)
        values = np.where(errors > 0, np.square(errors * band.factor), np.nan)
    elif band.weight is not None:
        source, values = band.weight, band.weight_scale * variance_of_weight(read(band.weight).astype(np.float64))
    else:
        return None
    found = as_float32(values, _place(source))
    found[~(found > 0) | ~np.isfinite(found)] = np.nan
    return found


def _place(pixels: Pixels) -> str:
    return f"{storage.redact(pixels.url)} HDU {pixels.hdu}"


def _times(values: np.ndarray, factor: float) -> np.ndarray:
    """Values in another unit, as float64; unchanged for a factor of 1."""
    return values if factor == 1 else values.astype(np.float64) * factor
