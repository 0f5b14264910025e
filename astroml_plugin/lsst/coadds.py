"""Coadds as arrays, whoever holds them: an afw Exposure, an image of lsst-images, a FITS file; and a tile of several.

Nothing here imports LSST code: objects are known by their methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from astropy import units
from astropy.io import fits

from astroml_plugin.core import foreign
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, Array
from astroml_plugin.lsst.boxes import box_of
from astroml_plugin.pixels.zero_points import NANOJANSKY
from astroml_plugin.sky.headers import astropy_quiet
from astroml_plugin.sky.wcs import Box, Wcs
from astroml_plugin.sources.ingest.mask_bits import meaning_of
from astroml_plugin.sources.ingest.masks import MaskMap
from astroml_plugin.sources.tile import Tile
from astroml_plugin.sources.tile_arrays import TilePlace

WAVELENGTHS = "ugrizy"
"""Bands in the order of their wavelength; others follow by name."""


@dataclass(frozen=True)
class Coadd:
    """Pixels of one band of one patch."""

    image: Array
    """(y, x)."""
    variance: Array | None
    """(y, x), or None."""
    mask: Array | None
    """(y, x) uint32 of `MaskBit`, or None."""
    box: Box
    """Where the arrays lie in the tract."""
    psf: F32 | None = None
    """(cell_y, cell_x, y, x), NaN where it is not known; None: nowhere."""
    wcs: Wcs | None = None
    """World coordinates of the arrays."""
    zero_point: float | None = None
    """AB magnitude of one unit."""
    inner: Box | None = None
    """Pixels that the patch owns, where the coadd says so."""
    tract: tuple[int, int] | None = None
    """(height, width) of the tract, where the coadd says so."""
    notes: tuple[str, ...] = ()
    """Sentences of what was taken for what."""


def coadd_of(exposure: Any, psf_cell: int = 500) -> Coadd:
    """A coadd in memory.

    Args:
        exposure: a `Coadd`; an image of lsst-images (`CellCoadd`, `VisitImage`, `MaskedImage`); or what has the
            methods of `lsst.afw.image.ExposureF`.
        psf_cell: pixels between the places where the PSF is asked for; a `CellCoadd` says itself how large its cells
            are.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(exposure, Coadd):
        return exposure
    if hasattr(exposure, "getMaskedImage"):
        return _of_afw(exposure, psf_cell)
    if hasattr(exposure, "sky_projection") and hasattr(exposure, "mask"):
        return _of_images(exposure, psf_cell)
    raise InputError(
        f"a coadd cannot be a {type(exposure).__name__}: give an afw Exposure, an image of lsst-images, or a file"
    )


def coadd_of_file(file: str | PathLike[str], *, psf_from_stars: bool = False) -> Coadd:
    """A coadd that is a FITS file, as afw or lsst-images write it; read as `ingest` reads it.

    The PSF of such a file is a model that only its own software reads.

    Args:
        file: path.
        psf_from_stars: measure the PSF from stars of the image.

    Raises:
        InputError: as `ingest`.
    """
    read = Tile.from_fits(file, bands=("coadd",), psf_from_stars=psf_from_stars)
    tile = read.part(read.info.inner)
    variance, mask, psf = (None if plane is None else plane[0] for plane in (tile.variance, tile.mask, tile.psf))
    corner = _corner(file)
    told = (
        () if corner is not None else ("the file does not say where it lies in its tract: x, y count from its corner",)
    )
    x0, y0 = corner or (0, 0)
    height, width = tile.image.shape[1:]
    box = Box(x0, y0, x0 + width, y0 + height)
    return Coadd(tile.image[0], variance, mask, box, psf, tile.wcs, tile.zero_points[0], notes=(*told, *tile.notes))


def tile_of(coadds: Mapping[str, Coadd], place: TilePlace) -> Tile:
    """The bands of a patch as one tile; the sky is not looked for, coadds have none.

    Args:
        coadds: band -> pixels; the bands of the tile have this order.
        place: image, name, and what the coadds do not say themselves: the tract's shape, the pixels the patch owns.

    Raises:
        InputError: no bands, or bands that do not lie on each other.
    """
    if not coadds:
        raise InputError("there is no coadd of this patch: give one band or more")
    first = next(iter(coadds.values()))
    for band, coadd in coadds.items():
        if coadd.box != first.box:
            raise InputError(f"the coadd of band {band} covers {coadd.box}, another one {first.box}: give equal boxes")
    every = list(coadds.values())
    where = TilePlace(
        place.image,
        place.name,
        place.shape or first.tract or (first.box.y1, first.box.x1),
        (first.box.x0, first.box.y0),
        place.inner or first.inner,
        place.halo,
        place.least_halo,
    )
    tile = Tile.from_arrays(
        np.stack([coadd.image for coadd in every]),
        list(coadds),
        variance=_stack([coadd.variance for coadd in every], np.nan),
        mask=_stack([coadd.mask for coadd in every], 0),
        psf=_psfs([coadd.psf for coadd in every]),
        wcs=first.wcs,
        zero_points=[coadd.zero_point for coadd in every],
        place=where,
    )
    notes = [f"band {band}: {note}" for band, coadd in coadds.items() for note in (*coadd.notes, *_lacking(coadd))]
    return replace(tile, notes=tuple(notes))


def in_order(bands: Sequence[str]) -> list[str]:
    """Bands by wavelength, then by name."""
    return sorted(bands, key=lambda band: (WAVELENGTHS.find(band) % (len(WAVELENGTHS) + 1), band))


def image_name(skymap: str, tract: int) -> str:
    """Name of a tract as a parent image: what cannot stand in one is replaced."""
    return re.sub(r"[^\w.+-]", "_", f"{skymap}_tract{tract}")


# --- afw -------------------------------------------------------------------------------------------------------------


def _of_afw(exposure: Any, psf_cell: int) -> Coadd:
    masked, box = exposure.getMaskedImage(), box_of(exposure.getBBox())
    mask, wcs, psf = masked.getMask(), exposure.getWcs(), exposure.getPsf()
    planes = {int(bit): name for name, bit in mask.getMaskPlaneDict().items()}
    return Coadd(
        masked.getImage().getArray(),
        masked.getVariance().getArray(),
        _bits(planes).apply(mask.getArray()),
        box,
        None if psf is None else _afw_psf(psf, box, psf_cell),
        None if wcs is None else _afw_wcs(wcs, box),
        _afw_zero_point(exposure.getPhotoCalib()),
    )


def _afw_wcs(wcs: Any, box: Box) -> Wcs:
    """The cards that afw gives count pixels of the tract, and so do not those of the array."""
    with foreign.refusing("the WCS of the exposure", "give an exposure whose WCS fits into a FITS header"):
        cards = wcs.getFitsMetadata()
        header = fits.Header()
        for name in cards.names():
            header[name] = cards.getScalar(name)
    return Wcs.from_header(header).shifted(box.x0, box.y0, (box.height, box.width))


def _afw_psf(psf: Any, box: Box, cell: int) -> F32 | None:
    point = type(psf.getAveragePosition())  # lsst.geom.Point2D
    return _cells(lambda x, y: psf.computeKernelImage(point(x, y)).getArray(), box, (cell, cell))


def _afw_zero_point(calibration: Any) -> float | None:
    if calibration is None:
        return None
    value = float(calibration.instFluxToMagnitude(1.0))
    return value if np.isfinite(value) else None


# --- lsst-images -----------------------------------------------------------------------------------------------------


def _of_images(masked: Any, psf_cell: int) -> Coadd:
    box, sky, psf, patch = box_of(masked.bbox), masked.sky_projection, getattr(masked, "psf", None), None
    names = [plane.name for plane in masked.mask.schema if plane is not None]
    mask = np.zeros((box.height, box.width), np.uint32)
    for name in names:
        mask[masked.mask.get(name)] |= np.uint32(meaning_of(name))
    tract = getattr(getattr(sky, "pixel_frame", None), "bbox", None)
    if hasattr(masked, "grid"):
        patch = masked.patch
        psf_cell_y, psf_cell_x = masked.grid.cell_shape
    else:
        psf_cell_y = psf_cell_x = psf_cell
    whole = None if tract is None else box_of(tract)
    return Coadd(
        masked.image.array,
        masked.variance.array,
        mask,
        box,
        None
        if psf is None
        else _cells(lambda x, y: psf.compute_kernel_image(x=x, y=y).array, box, (psf_cell_y, psf_cell_x)),
        None if sky is None else _images_wcs(sky, masked.bbox),
        _zero_point(masked.unit),
        None if patch is None else box_of(patch.inner_bbox),
        None if whole is None else (whole.y1, whole.x1),
    )


def _images_wcs(sky: Any, bbox: Any) -> Wcs:
    wcs = sky.as_fits_wcs(bbox, allow_approximation=True)
    if wcs is None:
        raise InputError("the sky projection of the image has no FITS form: give an image with one")
    with astropy_quiet():
        return Wcs.from_header(wcs.to_header(relax=True))


def _zero_point(unit: Any) -> float | None:
    """AB magnitude of one unit of flux density; None of other units."""
    if unit is None or not units.Unit(unit).is_equivalent(units.Jy):
        return None
    return NANOJANSKY - 2.5 * float(np.log10(units.Unit(unit).to(units.nJy)))


# --- common ----------------------------------------------------------------------------------------------------------


def _bits(planes: Mapping[int, str]) -> MaskMap:
    return MaskMap("bits", tuple((1 << bit, meaning_of(name)) for bit, name in planes.items()))


def _cells(kernel: Callable[[float, float], Array], box: Box, cell: tuple[int, int]) -> F32 | None:
    """PSF images at the middles of cells that divide a box; NaN where the model has none; None: nowhere."""
    rows, columns = max(1, round(box.height / cell[0])), max(1, round(box.width / cell[1]))
    found: dict[tuple[int, int], Array] = {}
    for row in range(rows):
        for column in range(columns):
            x = box.x0 + (column + 0.5) * box.width / columns - 0.5
            y = box.y0 + (row + 0.5) * box.height / rows - 0.5
            try:
                found[row, column] = np.asarray(kernel(x, y), np.float32)
            except Exception:  # noqa: BLE001, S112 - models raise what they like where no image contributes
                continue
    if not found:
        return None
    side = tuple(max(image.shape[axis] for image in found.values()) for axis in (0, 1))
    cells = np.full((rows, columns, *side), np.nan, np.float32)
    for place, image in found.items():
        cells[place] = _centred(image, side)
    return cells


def _lacking(coadd: Coadd) -> list[str]:
    """A sentence where the model of the PSF gives none in some cells."""
    if coadd.psf is None:
        return []
    absent = np.isnan(coadd.psf).any((2, 3))
    return [f"the PSF is not known in {absent.sum()} of {absent.size} cells"] if absent.any() else []


def _centred(image: F32, side: tuple[int, ...]) -> F32:
    """An image amid zeros; its pixel size // 2 stays that of the result."""
    if image.shape == side:
        return image
    whole = np.zeros(side, np.float32)
    y, x = (large // 2 - small // 2 for large, small in zip(side, image.shape, strict=True))
    whole[y : y + image.shape[0], x : x + image.shape[1]] = image
    return whole


def _psfs(psfs: Sequence[F32 | None]) -> F32 | None:
    """PSFs of the bands as one array; NaN in a band without one."""
    known = [psf for psf in psfs if psf is not None]
    if not known:
        return None
    rows, columns = (max(psf.shape[axis] for psf in known) for axis in (0, 1))
    side = tuple(max(psf.shape[axis] for psf in known) for axis in (2, 3))
    cells = np.full((len(psfs), rows, columns, *side), np.nan, np.float32)
    for number, psf in enumerate(psfs):
        if psf is not None:
            for row in range(rows):
                for column in range(columns):
                    of = psf[row * psf.shape[0] // rows, column * psf.shape[1] // columns]
                    cells[number, row, column] = _centred(of, side)
    return cells


def _stack(planes: Sequence[Array | None], absent: float) -> Array | None:
    known = [plane for plane in planes if plane is not None]
    if not known:
        return None
    return np.stack([np.full_like(known[0], absent) if plane is None else plane for plane in planes])


def _corner(file: str | PathLike[str]) -> tuple[int, int] | None:
    """Pixel (x, y) of the tract that is the first of the arrays: by LTV (afw), or by the offset in the WCS named A."""
    with foreign.refusing(str(file), "give a FITS file"), astropy_quiet(), fits.open(file, memmap=True) as hdus:
        for hdu in hdus:
            header = hdu.header
            if "LTV1" in header and "LTV2" in header:
                return -round(header["LTV1"]), -round(header["LTV2"])
            if "CRVAL1A" in header and "CRVAL2A" in header:
                x, y = (header[f"CRVAL{axis}A"] - header.get(f"CRPIX{axis}A", 1.0) + 1 for axis in (1, 2))
                return round(x), round(y)
    return None
