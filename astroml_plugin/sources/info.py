"""Description of a survey or of stamps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, and_more, shown
from astroml_plugin.pixels import psf_fwhm
from astroml_plugin.sky.wcs import Wcs
from astroml_plugin.sources.quality import BandQuality
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.star_psf import report
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo

_IMAGES = (
    *("image", "pixels", "tiles", "band", "unit", "zero point", "sky taken", "sky left", "noise", "correlated"),
    *("PSF", "scale", "variance", "RA, Dec"),
)


_MANY = 30
"""More bands than this are shown by the first and the last."""
_LISTED = 200
"""Images of a survey that are listed."""


def describe_source(source: Survey | Stamps) -> Description:
    """Bands, sizes, arrays and images of a survey, or columns of stamps."""
    return _survey(source) if isinstance(source, Survey) else _stamps(source)


def _survey(survey: Survey) -> Description:
    table = survey.index_table()
    names, counts = np.unique(np.asarray(table["image"].to_pylist(), str), return_counts=True)
    first = _first_tiles(survey, names[:_LISTED].tolist())
    told = f"{len(names)} in {len(table)} tiles of {survey.tile_size} pixels with a halo of {survey.halo}"
    facts = {
        "bands": _named(survey.bands),
        "images": told if len(names) <= _LISTED else f"{told}; the first {_LISTED} by name are listed",
        "arrays": shown(survey.array_names),
        "pixel scale": f"{survey.pixel_scale:.4g} arcsec" if survey.pixel_scale else "unknown: no image has a WCS",
    }
    facts |= {} if survey.spectral is None else {"spectral axis": str(survey.spectral)}
    from_stars = survey.star_psf()
    facts |= report.facts(from_stars)
    off = survey.tiles_off_zero(survey.bands)
    notes = [f"the level of {and_more(off)} is not at 0: sky is left there, or light fills it"] if off else []
    notes += report.doubts(from_stars)
    rows = [
        row for name, tiles in zip(names, counts) if name in first for row in _image_rows(survey, first[name], tiles)
    ]
    return Description(storage.redact(survey.url), "survey", facts, _IMAGES, tuple(rows), tuple(notes))


def _first_tiles(survey: Survey, names: list[str]) -> dict[str, TileInfo]:
    """Image -> its tile of the lowest index, for the images of these names."""
    found: dict[str, TileInfo] = {}
    wanted = set(names)
    for info in survey.iter_tiles():
        if info.image in wanted:
            found.setdefault(info.image, info)
        if len(found) == len(wanted):
            break
    return found


def _named(bands: tuple[str, ...]) -> str:
    return shown(bands) if len(bands) <= _MANY else f"{bands[0]} to {bands[-1]} ({len(bands)})"


def _image_rows(survey: Survey, info: TileInfo, tiles: int) -> Iterator[tuple[str, ...]]:
    bands = survey.bands
    wcs = info.wcs()
    scale, centre = "", ""
    if wcs is not None:
        height, width = info.image_shape
        scale = shown(wcs.pixel_scale)
        ra, dec = wcs.to_sky(width / 2 - info.outer.x0, height / 2 - info.outer.y0)
        centre = f"{ra[0]:.5f} {dec[0]:+.5f}"
    size = f"{info.image_shape[1]} x {info.image_shape[0]}"
    cells = survey.read_psf(info) if info.has_psf else None
    for number, band in enumerate(bands if len(bands) <= _MANY else (bands[0], bands[-1])):
        zero, why = info.zero_points.get(band), info.calibrations.get(band, "")
        told = f"none: {why}" if zero is None and why else "none" if zero is None else f"{zero:.3f} ({why})"
        own = (band, info.units.get(band, ""), told if info.has_band.get(band, True) else "band is missing")
        shared = (info.image, size, str(tiles)) if number == 0 else ("", "", "")
        quality = info.quality.get(band, BandQuality())
        rest = (scale, "yes" if info.has_variance else "no", centre)
        measured = (*_sky(quality), _psf(None if cells is None else cells[bands.index(band)], wcs))
        yield (*shared, *own, *measured, *(rest if number == 0 else ("",) * len(rest)))


def _sky(quality: BandQuality) -> tuple[str, ...]:
    """Sky taken off, what is left of it in noises, noise of a pixel, and how noise adds up; "" where not known."""
    taken = f"{quality.sky_taken:.4g}" if np.isfinite(quality.sky_taken) else ""
    if quality.sky_taken:
        taken += f" (mesh {quality.sky_mesh:.0f})" if quality.sky_mesh > 0 else ""
    left = f"{quality.sky_left:.2f} noise" if np.isfinite(quality.sky_left) else ""
    noise = f"{quality.noise:.4g}" if np.isfinite(quality.noise) else ""
    return taken, left, noise, f"x {quality.noise_growth:.2f}" if np.isfinite(quality.noise_growth) else ""


def _psf(cells: np.ndarray | None, wcs: Wcs | None) -> str:
    """FWHM of the PSF in the middle of a tile, of the cells (cell_y, cell_x, y, x) of one band."""
    if cells is None:
        return "no"
    rows, columns = cells.shape[:2]
    fwhm = psf_fwhm(cells[rows // 2, columns // 2])
    told = f"FWHM {fwhm:.2f} px" if np.isfinite(fwhm) else "none"
    told += f" = {fwhm * wcs.pixel_scale:.2f} arcsec" if wcs is not None and np.isfinite(fwhm) else ""
    return told


def _stamps(stamps: Stamps) -> Description:
    height, width = stamps.size
    facts = {
        "stamps": f"{stamps.count} of {width} x {height} pixels ({stamps.dtype}) in {len(stamps.units())} blocks",
        "bands": _named(stamps.bands),
        "arrays": shown(stamps.array_names),
        "pixel scale": f"{stamps.pixel_scale:.4g} arcsec" if stamps.pixel_scale else "unknown",
    }
    known: dict[str, int] = {}
    types: dict[str, str] = {}
    for unit in stamps.units():  # block by block: there may be many millions of rows
        table = stamps.read_objects(unit.index)
        for name in table.column_names:
            kind = str(table[name].type)
            known[name] = known.get(name, 0) + len(table) - table[name].null_count
            if types.setdefault(name, kind) == "null":  # of a block in which nobody gave a value
                types[name] = kind
    rows = tuple((name, kind, str(known[name])) for name, kind in types.items())
    return Description(storage.redact(stamps.url), "stamps", facts, ("column", "type", "values"), rows)
