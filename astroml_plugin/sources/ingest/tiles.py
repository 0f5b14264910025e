"""FITS planes -> tiles of a survey: the unit of work of an ingest."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.pixels import Tile, is_usable
from astroml_plugin.sky.wcs import Box, TileGeometry, Wcs
from astroml_plugin.sources.ingest.band_pixels import planes_of, read_band
from astroml_plugin.sources.ingest.bands import BandPlan, PsfImage
from astroml_plugin.sources.ingest.fits import read_psf
from astroml_plugin.sources.ingest.opening import FitsFile, open_fits
from astroml_plugin.sources.ingest.plans import ImagePlan
from astroml_plugin.sources.ingest.star_cells import psf_cells
from astroml_plugin.sources.quality import BandQuality, level_and_noise
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name


@dataclass(frozen=True)
class TileTask:
    """Some tiles of one image, to be written by one worker."""

    survey: str
    """URL of the survey."""
    plan: ImagePlan
    tiles: tuple[tuple[int, TileGeometry], ...]
    """(reserved index, geometry)."""
    total: int
    """Tiles that the whole field gives."""

    @property
    def names(self) -> list[str]:
        """Names of the tiles."""
        return [tile_name(self.plan.name, geometry.row, geometry.column) for _, geometry in self.tiles]


def write_tiles(task: TileTask) -> list[TileInfo]:
    """Read, assemble and write the tiles of a task; the driver commits what comes back.

    Raises:
        CorruptError: pixels cannot be decoded.
        InputError: a file is gone.
    """
    survey = Survey.open(task.survey)
    with contextlib.ExitStack() as stack:
        urls = {plane.url for band in task.plan.bands for plane in planes_of(band)}
        files = {url: stack.enter_context(open_fits(url, scan=False)) for url in sorted(urls)}
        return [_write(survey, task, index, geometry, files) for index, geometry in task.tiles]


def _write(survey: Survey, task: TileTask, index: int, geometry: TileGeometry, files: dict[str, FitsFile]) -> TileInfo:
    tile, info = made(task.plan, geometry, files, survey.bands, survey.psf_shape)
    return replace(info, index=index, source_tiles=task.total, checksum=survey.write_tile(index, tile))


def made(
    plan: ImagePlan,
    geometry: TileGeometry,
    files: dict[str, FitsFile],
    bands: Sequence[str],
    psf_shape: tuple[int, ...] | None,
) -> tuple[Tile, TileInfo]:
    """One tile from open files, and its row of a tile table but for index and checksum.

    Args:
        plan: the image, measured.
        geometry: which part of it.
        files: URL -> open file, of all planes.
        bands: names of the bands.
        psf_shape: (cell, cell, y, x) of the PSF's cells; None where there is none.

    Raises:
        CorruptError: pixels cannot be decoded.
        InputError: a band was refused.
    """
    if refused := next((band.refused for band in plan.bands if band.refused), ""):
        raise InputError(refused)
    tile = assemble(plan, geometry.outer, files, psf_shape)
    header = None
    if plan.header is not None:
        outer = geometry.outer
        header = Wcs(plan.header).shifted(outer.x0, outer.y0, (outer.height, outer.width)).header
    named = dict(zip(bands, plan.bands, strict=True))
    return tile, TileInfo(
        index=0,
        name=tile_name(plan.name, geometry.row, geometry.column),
        image=plan.name,
        image_shape=plan.shape,
        row=geometry.row,
        column=geometry.column,
        outer=geometry.outer,
        inner=geometry.inner,
        header=header,
        units={name: band.unit for name, band in named.items()},
        zero_points={name: band.zero_point for name, band in named.items()},
        calibrations={name: band.calibration for name, band in named.items()},
        quality={
            name: _quality(band, tile, number, geometry)
            for number, (name, band) in enumerate(named.items())
            if band.image is not None
        },
        has_band={name: band.image is not None for name, band in named.items()},
        has_variance=tile.variance is not None,
        has_mask=True,
        has_psf=tile.psf is not None,
        source=plan.field.source,
        source_id=plan.field.source_id,
        source_tiles=1,
        bytes=tile.nbytes,
    )


def _quality(band: BandPlan, tile: Tile, number: int, geometry: TileGeometry) -> BandQuality:
    """Sky and noise of the pixels of a band that the tile owns, and the sky that was taken off them."""
    own, outer, sky = geometry.inner, geometry.outer, band.sky
    place = np.s_[own.y0 - outer.y0 : own.y1 - outer.y0, own.x0 - outer.x0 : own.x1 - outer.x0]
    assert tile.mask is not None
    level, noise = level_and_noise(tile.image[number][place], is_usable(tile.mask[number][place]))
    return BandQuality(
        sky_taken=float(np.median(sky.at(own, _SPARSE))) if sky.taken else 0.0,
        sky_left=level / noise if noise > 0 else float("nan"),
        sky_mesh=float(sky.mesh),
        noise=noise,
        noise_growth=sky.correlation,
    )


_SPARSE = 8


def assemble(plan: ImagePlan, outer: Box, files: dict[str, FitsFile], psf_shape: tuple[int, ...] | None) -> Tile:
    """One tile from open files: outside the image and for missing bands NaN with NO_DATA."""
    shape = (len(plan.bands), outer.height, outer.width)
    inside = outer.clipped(*plan.shape)
    place = np.s_[inside.y0 - outer.y0 : inside.y1 - outer.y0, inside.x0 - outer.x0 : inside.x1 - outer.x0]
    filled = inside == outer and all(band.image is not None for band in plan.bands)
    image = np.empty(shape, np.float32) if filled else np.full(shape, np.nan, np.float32)
    mask = np.empty(shape, np.uint32) if filled else np.full(shape, MaskBit.NO_DATA, np.uint32)
    variance = np.full(shape, np.nan, np.float32) if any(band.has_variance for band in plan.bands) else None
    for number, band in enumerate(plan.bands):
        if band.image is None:
            continue
        pixels, noise, bits = read_band(band, inside, files)
        image[number][place], mask[number][place] = pixels, bits
        if variance is not None and noise is not None:
            variance[number][place] = noise
    return Tile(image, variance, mask, _psf(plan, outer, psf_shape))


def _psf(plan: ImagePlan, outer: Box, psf_shape: tuple[int, ...] | None) -> np.ndarray | None:
    """(band, cell, cell, y, x), centred in the survey's PSF shape; NaN for a band without one."""
    if psf_shape is None or not any(band.psf or band.stars for band in plan.bands):
        return None
    psf = np.full((len(plan.bands), *psf_shape), np.nan, np.float32)
    height, width = psf_shape[-2:]
    for number, band in enumerate(plan.bands):
        if band.stars is not None:
            psf[number] = psf_cells(band.stars, outer, plan.shape, psf_shape)
        if band.psf is None:
            continue
        planes = cached_psf(band.psf)
        values = planes[number if len(planes) == len(plan.bands) else 0]
        spare_y, spare_x = height - values.shape[0], width - values.shape[1]
        if min(spare_y, spare_x) < 0 or spare_y % 2 or spare_x % 2:
            shown = storage.redact(band.psf.url)
            raise InputError(
                f"PSF {shown} has {values.shape[1]} x {values.shape[0]} pixels, the survey {width} x {height}"
            )
        psf[number] = 0
        place = np.s_[spare_y // 2 : height - spare_y // 2, spare_x // 2 : width - spare_x // 2]
        psf[number][..., *place] = values
    return psf


def cached_psf(psf: PsfImage) -> np.ndarray:
    """Planes of a PSF image, read once per process as long as its file does not change."""
    fs, path = storage.filesystem(psf.url)
    return _read_once(psf, fs.ukey(path))


@lru_cache(maxsize=64)
def _read_once(psf: PsfImage, _version: str) -> np.ndarray:
    return read_psf(psf.url, psf.hdu)
