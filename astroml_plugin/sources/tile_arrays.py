"""Arrays that somebody holds as the pixels of a tile: checked, in our types, with pixels around those that it owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from astroml_plugin.core import foreign
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.typing import F32, Array
from astroml_plugin.pixels import Tile, is_usable, refuse_implausible
from astroml_plugin.sky.headers import astropy_quiet, coordinates_of
from astroml_plugin.sky.wcs import Box, Wcs
from astroml_plugin.sources.quality import BandQuality, level_and_noise
from astroml_plugin.sources.tile_table import TileInfo

HALO = 128
"""Default halo in pixels."""


@dataclass(frozen=True)
class TilePlace:
    """Where an array lies in its parent image, and which of its pixels the tile owns. All pixels are the parent's."""

    image: str = "image"
    """Name of the parent image: the column `image`."""
    name: str | None = None
    """Name of the tile, the column `tile`; default: that of the image and `_r0_c0`."""
    shape: tuple[int, int] | None = None
    """(height, width) of the parent image; default: that of the array, which is then the whole image."""
    corner: tuple[int, int] = (0, 0)
    """Pixel (x, y) of the parent image that is the array's first."""
    inner: Box | None = None
    """Pixels that the tile owns: objects on others belong to other tiles. Default: all of the array."""
    halo: int = HALO
    """Pixels without data that are laid around a tile which owns pixels up to the border of its image."""
    least_halo: int = 0
    """Pixels that the tile has around those that it owns, at least: where the array has fewer, they hold no data, as
    beyond the border of an image."""

    def boxes(self, height: int, width: int) -> tuple[Box, Box, Box]:
        """(array, inner, outer): what an array of this size covers, what the tile owns, and what it is made to cover.

        The outer box reaches equally far beyond the inner one on all sides: as far as the array does on the side where
        it reaches least, but for sides at the border of the image, where there is nothing more to have; `least_halo` at
        least.

        Raises:
            InputError: the boxes do not lie in one another.
        """
        parent = self.shape or (height, width)
        have = Box(self.corner[0], self.corner[1], self.corner[0] + width, self.corner[1] + height)
        whole = Box(0, 0, parent[1], parent[0])
        inner = self.inner or have.clipped(*parent)
        if inner.width < 1 or inner.height < 1 or not _holds(whole, inner) or not _holds(have, inner):
            raise InputError(
                f"the tile is to own {_words(inner)}, the array covers {_words(have)} and the image {_words(whole)} "
                "(pixels): the first must lie in both"
            )
        reach = [inner.x0 - have.x0, inner.y0 - have.y0, have.x1 - inner.x1, have.y1 - inner.y1]
        border = [inner.x0 == 0, inner.y0 == 0, inner.x1 == parent[1], inner.y1 == parent[0]]
        halo = min((far for far, at_border in zip(reach, border) if not at_border), default=max(0, self.halo))
        halo = max(halo, self.least_halo)
        return have, inner, Box(inner.x0 - halo, inner.y0 - halo, inner.x1 + halo, inner.y1 + halo)


def _holds(one: Box, other: Box) -> bool:
    return one.x0 <= other.x0 and one.y0 <= other.y0 and one.x1 >= other.x1 and one.y1 >= other.y1


def _words(box: Box) -> str:
    return f"x {box.x0} to {box.x1}, y {box.y0} to {box.y1}"


def checked(image: Any, bands: Sequence[str], variance: Any, mask: Any, psf: Any) -> Tile:
    """Arrays as a tile of our types; no copy is made of those that have them.

    Args:
        image: (band, y, x), or (y, x) of one band.
        bands: names of the band axis.
        variance: as `image`, or None.
        mask: as `image`, bool (true is bad) or whole numbers of `MaskBit`, or None.
        psf: (y, x), (band, y, x) or (band, cell_y, cell_x, y, x), or None.

    Raises:
        InputError: another shape, or no numbers.
    """
    if not bands or len({*bands}) < len(bands):
        raise InputError(f"the bands of a tile are {', '.join(bands) or 'not named'}: give each its own name")
    pixels = _stacked(_real(image, "image"), len(bands), "image")
    noise = None if variance is None else _stacked(_real(variance, "variance"), len(bands), "variance")
    marks = _marks(mask, len(bands))
    if isinstance(image, np.ma.MaskedArray):
        hidden = _marks(np.ma.getmaskarray(image), len(bands))
        marks = hidden if marks is None or hidden is None else marks | hidden
    for name, values in (("variance", noise), ("mask", marks)):
        if values is not None and values.shape != pixels.shape:
            raise InputError(f"the {name} has shape {values.shape}, the image {pixels.shape}: give one value per pixel")
    return Tile(pixels, noise, marks, None if psf is None else _cells(_real(psf, "PSF"), len(bands)))


def _real(values: Any, what: str) -> F32:
    if getattr(values, "unit", None) is not None:
        raise InputError(f"the {what} has the unit {values.unit}: give plain numbers and their zero_points")
    plain = np.asarray(np.ma.getdata(values))
    if plain.dtype.kind not in "iuf":
        raise InputError(f"the {what} holds {plain.dtype}, no real numbers: convert it")
    with np.errstate(over="ignore"):
        return np.asarray(plain, np.float32)


def _stacked(values: Array, bands: int, what: str) -> Any:
    stack = values[None] if values.ndim == 2 else values
    if stack.ndim != 3 or len(stack) != bands or min(stack.shape) < 1:
        raise InputError(f"the {what} has shape {values.shape} and there are {bands} bands: give ({bands}, y, x)")
    return stack


def _marks(mask: Any, bands: int) -> Any:
    if mask is None:
        return None
    values = _stacked(np.asarray(mask), bands, "mask")
    if values.dtype == bool:
        return values.astype(np.uint32) * np.uint32(MaskBit.BAD)
    if values.dtype.kind not in "iu" or (values.dtype != np.uint32 and (values.min() < 0 or values.max() >= 2**32)):
        raise InputError(f"the mask holds {values.dtype}: give true where a pixel is bad, or bits of MaskBit as uint32")
    return np.asarray(values, np.uint32)


def _cells(psf: F32, bands: int) -> F32:
    if psf.ndim == 2:
        psf = np.repeat(psf[None], bands, 0)
    cells = psf[:, None, None] if psf.ndim == 3 else psf
    if cells.ndim != 5 or len(cells) != bands or min(cells.shape) < 1:
        raise InputError(
            f"the PSF has shape {psf.shape} and there are {bands} bands: give (y, x), ({bands}, y, x) or, where it "
            f"varies, ({bands}, cell_y, cell_x, y, x)"
        )
    return cells


def laid_out(tile: Tile, have: Box, outer: Box) -> Tile:
    """A tile cut or padded from what its arrays cover to its outer box; beyond them NaN and NO_DATA.

    Cells of the PSF divide the arrays before and the outer box after: each new one is the old one at its middle.
    """
    if have == outer:
        return tile
    inside = Box(max(have.x0, outer.x0), max(have.y0, outer.y0), min(have.x1, outer.x1), min(have.y1, outer.y1))
    of = np.s_[:, inside.y0 - have.y0 : inside.y1 - have.y0, inside.x0 - have.x0 : inside.x1 - have.x0]
    psf = None if tile.psf is None else cells_within(tile.psf, have, outer)
    if inside == outer:
        variance, mask = (None if plane is None else plane[of] for plane in (tile.variance, tile.mask))
        return Tile(tile.image[of], variance, mask, psf)
    shape = (len(tile.image), outer.height, outer.width)
    place = np.s_[:, inside.y0 - outer.y0 : inside.y1 - outer.y0, inside.x0 - outer.x0 : inside.x1 - outer.x0]
    image, marks = np.full(shape, np.nan, np.float32), np.full(shape, MaskBit.NO_DATA, np.uint32)
    image[place], marks[place] = tile.image[of], 0 if tile.mask is None else tile.mask[of]
    noise = None if tile.variance is None else np.full(shape, np.nan, np.float32)
    if noise is not None and tile.variance is not None:
        noise[place] = tile.variance[of]
    return Tile(image, noise, marks, psf)


def part_of(info: TileInfo, box: Box) -> TileInfo:
    """The place of a part of a tile: it owns all pixels of a box, and holds none around them.

    Raises:
        InputError: the box is empty or reaches beyond the tile's outer box.
    """
    if box.width < 1 or box.height < 1 or not _holds(info.outer, box):
        raise InputError(f"the box {_words(box)} does not lie in tile {info.name}, which holds {_words(info.outer)}")
    wcs = info.wcs()
    cards = cards_of(wcs, (box.x0 - info.outer.x0, box.y0 - info.outer.y0), (box.height, box.width))
    return replace(info, outer=box, inner=box, header=cards, checksum="")


def cells_within(psf: F32, have: Box, outer: Box) -> F32:
    """Cells of a PSF over one box, chosen for another: each new cell is the old one at its middle.

    Args:
        psf: (band, cell_y, cell_x, y, x) over `have`.
        have: box that the cells divide.
        outer: box that the new ones divide.
    """
    rows, columns = psf.shape[1:3]
    if rows == columns == 1:
        return psf

    def chosen(cells: int, start: int, length: int, first: int, side: int) -> Array:
        count = max(1, round(cells * side / length))
        middle = first + (np.arange(count) + 0.5) * side / count - start
        return np.clip((middle / length * cells).astype(np.int64), 0, cells - 1)

    at_y = chosen(rows, have.y0, have.height, outer.y0, outer.height)
    at_x = chosen(columns, have.x0, have.width, outer.x0, outer.width)
    return psf[:, at_y][:, :, at_x]


def quality_of(tile: Tile, bands: Sequence[str], inner: Box, outer: Box) -> dict[str, BandQuality]:
    """Level and noise of each band of the pixels that a tile owns: objects are flagged where the level is no sky."""
    place = np.s_[inner.y0 - outer.y0 : inner.y1 - outer.y0, inner.x0 - outer.x0 : inner.x1 - outer.x0]
    found = {}
    for number, band in enumerate(bands):
        usable = None if tile.mask is None else is_usable(tile.mask[number][place])
        level, noise = level_and_noise(tile.image[number][place], usable)
        found[band] = BandQuality(sky_left=level / noise if noise > 0 else float("nan"), noise=noise)
    return found


def zero_points_of(given: Any, bands: Sequence[str]) -> dict[str, float | None]:
    """Band -> AB magnitude of one unit, None where it is not known.

    Args:
        given: None, one number for all bands, one per band, or a mapping.
        bands: of the tile.

    Raises:
        InputError: another number of them, bands that are not there, or numbers that are none.
    """
    if given is None:
        return dict.fromkeys(bands)
    if isinstance(given, Mapping):
        if unknown := [band for band in given if band not in bands]:
            raise InputError(f"zero_points names {', '.join(unknown)}, the tile has {', '.join(bands)}")
        values = [given.get(band) for band in bands]
    else:
        several = np.ndim(given) > 0
        values = list(given) if several else [given] * len(bands)
        if len(values) != len(bands):
            raise InputError(f"{len(values)} zero points for the bands {', '.join(bands)}: give one per band")
    known = [float(value) for value in values if value is not None]
    refuse_implausible(known, "zero_points", "give None")
    return {band: None if value is None else float(value) for band, value in zip(bands, values, strict=True)}


def cards_of(wcs: Any, corner: tuple[int, int], shape: tuple[int, int]) -> str | None:
    """Cards of a world coordinate system of an array, as those of an array that begins at one of its pixels.

    Args:
        wcs: an astropy WCS, a FITS header or its text, a `Wcs`, or None.
        corner: pixel (x, y) of the given array that is the first of the other; may lie outside.
        shape: (height, width) of the other.

    Raises:
        InputError: there is no celestial world coordinate system in it.
    """
    if wcs is None:
        return None
    low_level = getattr(wcs, "low_level_wcs", wcs)
    if isinstance(low_level, WCS):
        with foreign.refusing("the WCS", "give an astropy.wcs.WCS that FITS cards can hold"), astropy_quiet():
            hdus = low_level.to_fits(relax=True)
            found = coordinates_of(hdus[0].header, hdus)
        if found.cards is None:
            raise InputError(
                f"the WCS cannot be used ({found.problem or 'it is not celestial'}): give another, or None"
            )
        system = Wcs(found.cards)
    elif isinstance(wcs, str | fits.Header):
        system = Wcs.from_header(wcs)
    elif isinstance(wcs, Wcs):
        system = wcs
    else:
        raise InputError(f"a WCS of type {type(wcs).__name__} is not known: give an astropy.wcs.WCS or a FITS header")
    return system.shifted(*corner, shape).header
