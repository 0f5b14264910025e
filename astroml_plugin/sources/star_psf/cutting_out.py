"""Stamps of chosen stars: their pixels without the sky about them, and which of these are theirs alone."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from astroml_plugin.core.typing import I64, Bool
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.star_psf.finding import Objects, Read, blocks, wider
from astroml_plugin.sources.star_psf.fitting import Stars

_RING = 1.5
"""FWHMs beyond the stamp in which its sky is looked for."""

_LEAST_RING, _LEAST_SKY = 6, 40
"""Pixels: width of that ring, and pixels of sky in it without which a star is left out."""

_GROWN, _ROOM = 1.5, 1.0
"""Radius of what is left out about another object: times that of its outline, and more pixels."""

_LEAST_GOOD = 0.3
"""Part of the stamp that must be the star's alone."""

_SIGMA = 1.4826


def cut_out(read: Read, shape: tuple[int, int], objects: Objects, chosen: I64, size: int, fwhm: float) -> Stars:
    """Pixels of the chosen stars (of those with enough sky about them), block by block.

    Args:
        read: pixels of the image.
        shape: (height, width) of the image.
        objects: all objects.
        chosen: numbers of the stars.
        size: side of the stamps, odd.
        fwhm: in pixels.
    """
    half, ring = size // 2, max(_LEAST_RING, round(_RING * fwhm))
    reach = half + ring
    x, y = objects.x[chosen], objects.y[chosen]
    everything, tree = _Neighbours(objects), cKDTree(np.column_stack([objects.x, objects.y]))
    along = np.arange(-reach, reach + 1)
    inner = (np.abs(along) <= half)[:, None] & (np.abs(along) <= half)
    kept, pixels, good, noise = [], [], [], []
    for core in blocks(shape):
        here = np.flatnonzero((x >= core.x0 - 0.5) & (x < core.x1 - 0.5) & (y >= core.y0 - 0.5) & (y < core.y1 - 0.5))
        if not len(here):
            continue
        box = wider(core, reach + 2, shape)
        values, usable = read(box)
        usable = usable & np.isfinite(values)
        for star in here:
            column, row = round(x[star]), round(y[star])
            stamp, mine = _part(values, usable, box, (column, row), reach)
            near = [other for other in tree.query_ball_point((x[star], y[star]), 2.5 * reach) if other != chosen[star]]
            mine &= ~everything.cover(near, column, row, along)
            sky = stamp[mine & ~inner]
            if len(sky) < _LEAST_SKY or mine[inner].mean() < _LEAST_GOOD or not _core(mine, fwhm):
                continue
            level = float(np.median(sky))
            width = _SIGMA * float(np.median(np.abs(sky - level)))
            place = np.s_[ring : ring + size, ring : ring + size]
            kept.append(star)
            pixels.append(np.where(mine, stamp - level, 0)[place])
            good.append(mine[place])
            noise.append(width)
    if not kept:
        empty = np.zeros((0, size, size))
        return Stars(np.zeros(0), np.zeros(0), empty, empty.astype(bool), np.zeros(0))
    order = np.argsort(kept)
    widths = np.array(noise)[order]
    typical = float(np.median(widths[widths > 0])) if (widths > 0).any() else 1.0
    places = np.array(kept)[order]
    return Stars(
        x[places], y[places], np.stack(pixels)[order], np.stack(good)[order], np.maximum(widths, 0.3 * typical)
    )


def _core(mine: Bool, fwhm: float) -> bool:
    """Whether every pixel within the FWHM of the middle is the star's."""
    middle, reach = mine.shape[0] // 2, max(1, round(fwhm))
    return bool(mine[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1].all())


def _part(values: np.ndarray, usable: Bool, box: Box, middle: tuple[int, int], reach: int) -> tuple[np.ndarray, Bool]:
    """(values float64, usable) of a square about a pixel; what lies outside of the box is not usable."""
    side = 2 * reach + 1
    stamp, mine = np.zeros((side, side)), np.zeros((side, side), bool)
    left, top = middle[0] - reach - box.x0, middle[1] - reach - box.y0
    rows = slice(max(top, 0), min(top + side, values.shape[0]))
    columns = slice(max(left, 0), min(left + side, values.shape[1]))
    there = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    stamp[there] = np.where(usable[rows, columns], values[rows, columns], 0)
    mine[there] = usable[rows, columns]
    return stamp, mine


class _Neighbours:
    """Discs that other objects cover."""

    def __init__(self, objects: Objects) -> None:
        self.x, self.y = objects.x, objects.y
        self.radius = _GROWN * np.sqrt(objects.area / np.pi) + _ROOM

    def cover(self, near: list[int], column: int, row: int, along: np.ndarray) -> Bool:
        """(y, x) pixels about a place that any of some objects covers."""
        found = np.zeros((len(along), len(along)), bool)
        for other in near:
            dx, dy = along - (self.x[other] - column), along - (self.y[other] - row)
            found |= dx**2 + (dy**2)[:, None] <= self.radius[other] ** 2
        return found
