"""A tile in memory that says all of itself: pixels, bands, place, zero points. From arrays, images or a survey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from astropy.nddata import NDData
from numpy.typing import ArrayLike

from astroml_plugin import pixels
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import texts
from astroml_plugin.core.typing import I64
from astroml_plugin.pixels import band_index
from astroml_plugin.sky.wcs import Box, Wcs
from astroml_plugin.sources import tile_arrays, tile_file
from astroml_plugin.sources.ingest.one_tile import ReadTile, read_images
from astroml_plugin.sources.ingest.options import IngestOptions
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_arrays import TilePlace
from astroml_plugin.sources.tile_table import ParentImage, TileInfo, check_name, parent_wcs, tile_name


@dataclass(frozen=True)
class Tile(pixels.Tile):
    """Pixels of a tile on the CPU, with their bands, place in the parent image and on the sky, and zero points."""

    bands: tuple[str, ...] = field(kw_only=True)
    """Names of the band axis."""
    info: TileInfo = field(kw_only=True)
    """Where it lies: boxes, WCS, zero points, as in a survey's tile table."""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """Sentences of what was taken for what, and what is in doubt, where it was read from images."""

    # --- ways to make one ------------------------------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        image: Any,
        bands: Sequence[str] | str,
        *,
        variance: Any = None,
        mask: Any = None,
        psf: Any = None,
        wcs: Any = None,
        zero_points: Any = None,
        place: TilePlace | None = None,
    ) -> Tile:
        """A tile of arrays that you hold.

        Args:
            image: (band, y, x), or (y, x) of one band; background removed; NaN where there is nothing.
            bands: names of the bands, or one name.
            variance: of the image's shape, in its unit squared; None where it is not known.
            mask: of the image's shape: bool, true where a pixel is bad; or uint32 of `MaskBit`.
            psf: (y, x), (band, y, x), or (band, cell_y, cell_x, y, x) where it varies over the array.
            wcs: of the array: astropy's WCS, a FITS header or its text, or a `Wcs`.
            zero_points: AB magnitude of one unit: one number, one per band, or band -> number; None: not known.
            place: where the array lies in a larger image; default: it is the whole image.

        Raises:
            InputError: shapes that do not fit, no numbers, no celestial WCS, zero points that nobody can mean.
        """
        names = (bands,) if isinstance(bands, str) else tuple(bands)
        plain = tile_arrays.checked(image, names, variance, mask, psf)
        where = place or TilePlace()
        height, width = plain.image.shape[1:]
        have, inner, outer = where.boxes(height, width)
        laid = tile_arrays.laid_out(plain, have, outer)
        corner = (outer.x0 - have.x0, outer.y0 - have.y0)
        name = where.name or tile_name(where.image, 0, 0)
        info = TileInfo(
            index=0,
            name=check_name(name),
            image=check_name(where.image),
            image_shape=where.shape or (height, width),
            row=0,
            column=0,
            outer=outer,
            inner=inner,
            header=tile_arrays.cards_of(wcs, corner, (outer.height, outer.width)),
            zero_points=tile_arrays.zero_points_of(zero_points, names),
            has_band=dict.fromkeys(names, True),
            quality=tile_arrays.quality_of(laid, names, inner, outer),
        )
        return cls._of(laid, names, info)

    @classmethod
    def from_fits(
        cls,
        files: str | PathLike[str] | Sequence[str | PathLike[str]],
        *,
        bands: Sequence[str] | str | None = None,
        options: IngestOptions | None = None,
        **changes: Any,
    ) -> Tile:
        """One image of FITS files, read as `ingest` reads them: roles of planes, units, sky, refusals and all.

        Args:
            files: one file, or one per band in their order.
            bands: names of the bands; default as in `ingest`.
            options: how files are read.
            changes: single fields of the options by name, for example `hdu="SCI"` or `psf=("psf.fits",)`.

        Raises:
            InputError: as `ingest`; or the files hold several images.
        """
        given = list(texts(files))
        return cls._read(given, bands, options, changes)

    @classmethod
    def from_nddata(
        cls,
        images: NDData | Sequence[NDData],
        *,
        bands: Sequence[str] | str | None = None,
        options: IngestOptions | None = None,
        **changes: Any,
    ) -> Tile:
        """One image of astropy's NDData, read as `ingest` reads it: unit, uncertainty, mask, WCS and PSF.

        Args:
            images: one, of one band (y, x) or several (band, y, x); or one per band.
            bands: names of the bands.
            options: how they are read.
            changes: single fields of the options by name.

        Raises:
            InputError: as `ingest`.
        """
        given = [images] if isinstance(images, NDData) else list(images)
        if wrong := [type(image).__name__ for image in given if not isinstance(image, NDData)]:
            raise InputError(f"{wrong[0]} is no NDData: use Tile.from_arrays or Tile.from_fits")
        return cls._read(given, bands, options, changes)

    from_ccddata = from_nddata

    @classmethod
    def from_survey(cls, survey: Survey, tile: TileInfo | int, bands: Sequence[str] | None = None) -> Tile:
        """A tile of a survey, some bands of it or all.

        Raises:
            InputError: no such tile or band.
            CorruptError: its pixels are missing or altered.
        """
        info = survey.tile(tile) if isinstance(tile, int) else tile
        names = survey.bands if bands is None else tuple(bands)
        return cls._of(survey.read_tile(info, names), names, info)

    def part(self, box: Box | None = None, bands: Sequence[str] | None = None) -> Tile:
        """Some bands, or the pixels of a box, as a tile that owns all of them and holds none around them.

        No copy is made of a box.

        Args:
            box: pixels of the parent image, within the tile's outer box; None: all, and what it owns stays.
            bands: bands in this order; None: all.

        Raises:
            InputError: the box is empty or reaches beyond the tile; a band is not there.
        """
        plain = self if bands is None else self.select(bands)
        info = self.info
        if box is not None:
            plain, info = tile_arrays.laid_out(plain, info.outer, box), tile_arrays.part_of(info, box)
        return replace(self._of(plain, self.bands if bands is None else tuple(bands), info), notes=self.notes)

    @classmethod
    def from_file(cls, file: Any, box: Box | None = None, bands: Sequence[str] | None = None) -> Tile:
        """A tile that `write` wrote, or a part of it: nothing else is read.

        Args:
            file: path, or an open binary file that can seek.
            box: as for `part`.
            bands: as for `part`.

        Raises:
            InputError: no such file or band, or a box that reaches beyond the tile.
            CorruptError: the file is damaged or none of a tile.
        """
        stored = tile_file.read_tile(file, box, bands)
        return replace(cls._of(stored.tile, stored.bands, stored.info), notes=stored.notes)

    def write(self, file: Any) -> None:
        """Write the tile as a FITS file, from which parts can be read: docs/formats.md says what is in it.

        Args:
            file: path of a new file, or a binary file that is open for writing.

        Raises:
            InputError: the file exists.
        """
        tile_file.write_tile(ReadTile(self, self.info, self.bands, self.notes), file)

    @classmethod
    def _read(cls, given: list[Any], bands: Any, options: IngestOptions | None, changes: dict[str, Any]) -> Tile:
        found = read_images(given, bands, options, changes)
        return replace(cls._of(found.tile, found.bands, found.info), notes=found.notes)

    @classmethod
    def _of(cls, plain: pixels.Tile, bands: tuple[str, ...], info: TileInfo) -> Tile:
        told = replace(
            info,
            has_variance=plain.variance is not None,
            has_mask=plain.mask is not None,
            has_psf=plain.psf is not None,
            bytes=plain.nbytes,
        )
        return cls(plain.image, plain.variance, plain.mask, plain.psf, bands=bands, info=told)

    # --- what it says of itself ------------------------------------------------------------------------------------

    @property
    def halo(self) -> int:
        """Pixels that it holds around those that it owns."""
        return self.info.inner.x0 - self.info.outer.x0

    @cached_property
    def wcs(self) -> Wcs | None:
        """World coordinates of the arrays."""
        return self.info.wcs()

    @cached_property
    def pixel_scale(self) -> float | None:
        """Arcsec per pixel; None without a WCS."""
        scale = None if self.wcs is None else self.wcs.pixel_scale
        return scale if scale is not None and np.isfinite(scale) else None

    @property
    def zero_points(self) -> tuple[float | None, ...]:
        """AB magnitude of one unit of each band; None where it is not known."""
        return tuple(self.info.zero_points.get(band) for band in self.bands)

    def select(self, bands: Sequence[str]) -> pixels.Tile:
        """The arrays of the named bands, in that order; no copy where these are all.

        Raises:
            InputError: a band is not there.
        """
        index = band_index(self.bands, bands)
        if index == list(range(len(self.bands))):
            return self
        picked = [None if values is None else values[index] for values in (self.variance, self.mask, self.psf)]
        return pixels.Tile(self.image[index], *picked)

    def images(self) -> dict[str, ParentImage]:
        """The parent image by name, with this tile as the only one."""
        info, parent = self.info, self._parent
        header = None if parent is None else parent.header
        return {info.image: _OneTile(info.image, info.image_shape, header, 1, inner=info.inner, sky=parent)}

    @cached_property
    def _parent(self) -> Wcs | None:
        return None if self.wcs is None else parent_wcs(self.info, self.wcs)


@dataclass(frozen=True)
class _OneTile(ParentImage):
    """A parent image of which one tile is at hand, wherever it lies."""

    inner: Box = field(kw_only=True)
    """Pixels that the tile owns."""
    sky: Wcs | None = field(kw_only=True)
    """World coordinates of the whole image."""

    def wcs(self) -> Wcs | None:
        """World coordinates of the whole image, read once."""
        return self.sky

    def tile_of(self, x: ArrayLike, y: ArrayLike) -> I64:
        """0 for positions that the tile owns, else -1."""
        return np.where(self.inner.contains(x, y), 0, -1).astype(np.int64)
