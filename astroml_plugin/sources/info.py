"""Description of a survey or of stamps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, shown
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo

_IMAGES = ("image", "pixels", "tiles", "band", "unit", "zero point", "scale", "variance", "PSF", "RA, Dec")


_MANY = 30
"""More bands than this are shown by the first and the last."""


def describe_source(source: Survey | Stamps) -> Description:
    """Bands, sizes, arrays and images of a survey, or columns of stamps."""
    return _survey(source) if isinstance(source, Survey) else _stamps(source)


def _survey(survey: Survey) -> Description:
    tiles = list(survey.iter_tiles())
    first = {info.image: info for info in reversed(tiles)}
    counts = Counter(info.image for info in tiles)
    facts = {
        "bands": _named(survey.bands),
        "images": f"{len(first)} in {len(tiles)} tiles of {survey.tile_size} pixels with a halo of {survey.halo}",
        "arrays": shown(survey.array_names),
        "pixel scale": f"{survey.pixel_scale:.4g} arcsec" if survey.pixel_scale else "unknown: no image has a WCS",
    }
    facts |= {} if survey.spectral is None else {"spectral axis": str(survey.spectral)}
    rows = [row for name in sorted(first) for row in _image_rows(first[name], counts[name], survey.bands)]
    return Description(storage.redact(survey.url), "survey", facts, _IMAGES, tuple(rows))


def _named(bands: tuple[str, ...]) -> str:
    return shown(bands) if len(bands) <= _MANY else f"{bands[0]} to {bands[-1]} ({len(bands)})"


def _image_rows(info: TileInfo, tiles: int, bands: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    wcs = info.wcs()
    scale, centre = "", ""
    if wcs is not None:
        height, width = info.image_shape
        scale = shown(wcs.pixel_scale)
        ra, dec = wcs.to_sky(width / 2 - info.outer.x0, height / 2 - info.outer.y0)
        centre = f"{ra[0]:.5f} {dec[0]:+.5f}"
    size = f"{info.image_shape[1]} x {info.image_shape[0]}"
    for number, band in enumerate(bands if len(bands) <= _MANY else (bands[0], bands[-1])):
        zero, why = info.zero_points.get(band), info.calibrations.get(band, "")
        told = f"none: {why}" if zero is None and why else "none" if zero is None else f"{zero:.3f} ({why})"
        own = (band, info.units.get(band, ""), told if info.has_band.get(band, True) else "band is missing")
        shared = (info.image, size, str(tiles)) if number == 0 else ("", "", "")
        rest = (scale, "yes" if info.has_variance else "no", "yes" if info.has_psf else "no", centre)
        yield (*shared, *own, *(rest if number == 0 else ("",) * len(rest)))


def _stamps(stamps: Stamps) -> Description:
    height, width = stamps.size
    facts = {
        "stamps": f"{stamps.count} of {width} x {height} pixels ({stamps.dtype}) in {len(stamps.units())} blocks",
        "bands": shown(stamps.bands),
        "arrays": shown(stamps.array_names),
        "pixel scale": f"{stamps.pixel_scale:.4g} arcsec" if stamps.pixel_scale else "unknown",
    }
    rows = []
    if stamps.count:
        table = stamps.labels()
        for name in table.column_names:
            values = table[name]
            rows.append((name, str(values.type), str(len(values) - values.null_count)))
    return Description(storage.redact(stamps.url), "stamps", facts, ("column", "type", "values"), tuple(rows))
