"""Photometry of segmented objects: moments, isophotal and aperture fluxes, light shared in blends."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F32, F64, I32, U8, Array, Bool
from astroml_plugin.tasks.segmentation.peaks import Pixels, Segmentation, around

_BATCH = 4096
"""Objects whose apertures are in memory at once."""

_SHARP, _EQUAL, _SEVERAL = 50.0, 0.02, 3
"""S/N of the brightest pixel of an object, differences in units of the noise, and number of pixels of a flat top."""

_FEW = 5
"""Pixels below which a shape means nothing."""


def summed(values: Array, pixels: Pixels, count: int) -> F64:
    """(n,) sums over the pixels (m,) of each of `count` objects."""
    return np.bincount(pixels.owner, values, count).astype(np.float64)


def second_moments(light: F32, pixels: Pixels, count: int) -> dict[str, F32]:
    """ixx, iyy, ixy (n,) in pixels² of the light (m,) of lit pixels; NaN below 5 pixels or without light."""
    weight = np.maximum(light, 0).astype(np.float64)
    total = summed(weight, pixels, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (summed(weight * at, pixels, count) / total for at in (pixels.column, pixels.row))
        dx, dy = pixels.column - x[pixels.owner], pixels.row - y[pixels.owner]
        moments = [summed(weight * square, pixels, count) / total for square in (dx * dx, dy * dy, dx * dy)]
    few = (np.bincount(pixels.owner, minlength=count) < _FEW) | ~(total > 0)
    return {
        name: np.where(few, np.nan, value).astype(np.float32)
        for name, value in zip(("ixx", "iyy", "ixy"), moments, strict=True)
    }


def isophotal_flux(image: F32, variance: F32 | None, pixels: Pixels, share: F32, count: int) -> tuple[F64, F64]:
    """Flux and its error (n,), (n,) of each object within the light of its patch.

    Of a pixel, its owner has `share` and the nearest other object of the patch the rest, so that no light is lost.

    Args:
        image, variance: (h, w) of one band; errors are NaN without variance.
        pixels: the lit ones.
        share: (m,) of their light that the owner has.
        count: n.
    """
    both = pixels.other >= 0
    rest = pixels.other[both]
    where = pixels.row, pixels.column
    light = image[where].astype(np.float64)
    flux = summed(light * share, pixels, count)
    flux += np.bincount(rest, (light * (1 - share))[both], count)
    if variance is None:
        return flux, np.full(count, np.nan)
    noise = variance[where].astype(np.float64)
    spread = summed(noise * share**2, pixels, count)
    spread += np.bincount(rest, (noise * (1 - share) ** 2)[both], count)
    return flux, np.sqrt(spread)


def aperture_flux(
    image: F32,
    variance: F32 | None,
    centre: tuple[F64, F64],
    radius: float,
    parts: F32,
    segmentation: Segmentation,
    other: I32,
) -> tuple[F64, F64]:
    """Flux and its error (n,), (n,) in a round aperture, neighbours' light taken out.

    Pixels on the rim count in part. In a pixel with an owner, the owner has its part of the light and the nearest
    other object of the patch the rest; everyone else has nothing of it.

    Args:
        image, variance: (h, w) of one band; errors are NaN without variance.
        centre: x and y of n objects, pixels.
        radius: pixels.
        parts: (h, w) part of each pixel's light that is its owner's; 1 outside all objects.
        segmentation: label image of the objects.
        other: (h, w) number of the nearest other object, -1 for none.
    """
    half = int(np.ceil(radius + 0.5))
    side = np.arange(-half, half + 1)
    height, width = image.shape
    flux, spread = np.zeros(len(centre[0])), np.zeros(len(centre[0]))
    for start in range(0, len(flux), _BATCH):
        batch = slice(start, start + _BATCH)
        x, y = (item[batch] for item in centre)
        columns = np.floor(x + 0.5).astype(np.int64)[:, None] + side
        rows = np.floor(y + 0.5).astype(np.int64)[:, None] + side
        square = (rows - y[:, None])[:, :, None] ** 2 + (columns - x[:, None])[:, None, :] ** 2
        weight = np.clip(radius + 0.5 - np.sqrt(square), 0, 1)
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        at = (rows.clip(0, height - 1)[:, :, None] * width + columns.clip(0, width - 1)[:, None, :]).reshape(len(x), -1)
        number = np.arange(start, start + len(x), dtype=np.int32)[:, None]
        label, part = segmentation.labels.ravel()[at] - 1, parts.ravel()[at]
        beside = np.where(other.ravel()[at] == number, 1 - part, 0.0)
        mine = np.where((label == number) | (label < 0), part, beside)
        used = (weight * inside).reshape(len(x), -1) * mine
        flux[batch] = (used * image.ravel()[at]).sum(1)
        if variance is not None:
            spread[batch] = (used**2 * variance.ravel()[at]).sum(1)
    return flux, np.sqrt(spread) if variance is not None else np.full(len(flux), np.nan)


def seen_in_band(image: F32, variance: F32, pixels: Pixels, count: int) -> Bool:
    """(n,) whether a band was observed at an object.

    It was not where no lit pixel can be used (variance 0), and where the whole plane has one value, as a file of zeros.

    Args:
        image, variance: (h, w) of the band.
        pixels: the lit ones.
        count: n.
    """
    if image.size == 0 or image.min() == image.max():
        return np.zeros(count, bool)
    usable: Bool = np.bincount(pixels.owner, variance[pixels.row, pixels.column] > 0, count) > 0
    return usable


def flat_tops(image: F32, variance: F32, pixels: Pixels, count: int) -> Bool:
    """(n,) which objects have several equal pixels at their brightest one: a detector or a file has clipped them.

    Equal is what differs by less than `_EQUAL` of the noise of a pixel whose S/N is above `_SHARP`, next to the
    brightest one. No mask and no saturation level is needed.

    Args:
        image, variance: (h, w) of one band.
        pixels: the lit ones.
        count: n.
    """
    flat = np.zeros(count, bool)
    light = image[pixels.row, pixels.column]
    order = np.lexsort((light, pixels.owner))
    last = np.flatnonzero(np.diff(pixels.owner[order], append=-1))
    top = order[last]
    where = pixels.row[top], pixels.column[top]
    noise = np.sqrt(variance[where])
    sharp = (noise > 0) & (light[top] > _SHARP * noise)
    where, top, noise = (where[0][sharp], where[1][sharp]), top[sharp], noise[sharp]
    beside = around(image, where, 1)
    alike = np.abs(beside - light[top][:, None, None]) < _EQUAL * noise[:, None, None]
    flat[pixels.owner[top]] = alike.sum((1, 2)) >= _SEVERAL
    return flat


def pixel_flags(bits: U8 | None, pixels: Pixels, count: int) -> I32:
    """(n,) MASKED, NONFINITE, SATURATED, EDGE where a pixel of the object, or one beside it, has the bit.

    A band that has the bit EDGE in all lit pixels of an object was not observed there: that is no edge.

    Args:
        bits: (band, h, w) of `pixels.pixel_bits`; None where all pixels can be used.
        pixels: the lit ones.
        count: n.
    """
    flags = np.zeros(count, np.int32)
    if bits is None or not bits.any():
        return flags
    area = np.bincount(pixels.owner, minlength=count)
    for plane in bits:
        around = np.pad(plane, 1)
        seen = np.zeros(len(pixels.row), np.uint8)
        for down in range(3):
            for right in range(3):
                seen |= around[pixels.row + down, pixels.column + right]
        outside = np.bincount(pixels.owner, plane[pixels.row, pixels.column] & int(ObjectFlag.EDGE), count)
        for flag in (ObjectFlag.EDGE, ObjectFlag.MASKED, ObjectFlag.NONFINITE, ObjectFlag.SATURATED):
            hit = np.bincount(pixels.owner, (seen & int(flag)) != 0, count) > 0
            if flag == ObjectFlag.EDGE:
                hit &= outside < area
            flags |= hit.astype(np.int32) * int(flag)
    return flags
