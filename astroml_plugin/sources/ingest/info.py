"""Description of FITS files and archives before they are ingested: what each plane is taken for, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, shown
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.sky.lookup import split_text
from astroml_plugin.sky.wcs import Wcs
from astroml_plugin.sources.ingest.bands import band_plan
from astroml_plugin.sources.ingest.exposures import COMPANIONS, Exposure, exposures
from astroml_plugin.sources.ingest.fits import list_planes
from astroml_plugin.sources.ingest.measuring import BandTask, measure_band
from astroml_plugin.sources.ingest.npz import open_npz
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.planes import Plane
from astroml_plugin.sources.ingest.plans import bands_of_file, names_of_cube
from astroml_plugin.sources.ingest.roles import given_roles
from astroml_plugin.sources.ingest.sky import OFF
from astroml_plugin.sources.ingest.words import IMAGE, PSF

COLUMNS = ("plane", "pixels", "role", "why", "goes with", "unit", "zero point", "scale", "WCS", "sky", "noise")
"""Headings of the table of a FITS file: zero points are AB, the scale is in arcsec, sky and noise in its unit."""

_ZERO_POINT_DIGITS = 3

_QUICK = 2**25
"""Pixels of a file whose skies are looked at: some 3 s."""


def describe_fits(url: str, options: FitsOptions | None = None) -> Description:
    """Table of the planes of a FITS file, and what an ingest with `options` would say of them.

    Raises:
        InputError: the file is not there, or no FITS file with an array of two or three axes.
    """
    options = options or FitsOptions()
    planes = list_planes(url, {} if options.roles is None else given_roles(options.roles))
    found: Sequence[Exposure] = ()
    facts = {}
    try:
        found = exposures(url, options)
        notes = [note for exposure in found for note in (*exposure.notes, *band_plan(exposure, 0, options)[1])]
        notes += _sky_notes(found, options)
        bands = bands_of_file(found)
        images = f"1 with bands {','.join(bands)}" if bands else str(len(found))
        facts["images of the sky"] = images
        facts |= _cube(found[0], options)
        if options.psf_from_stars:
            brought = options.psf or all(exposure.of(PSF) is not None for exposure in found)
            facts["PSF"] = "as the files bring it" if brought else "from the stars of each image (psf_from_stars)"
    except InputError as error:
        notes = [f"ingest refuses it: {error}"]
    rows = tuple(_row(plane, found) for plane in planes)
    return Description(storage.redact(url), "FITS file", facts, COLUMNS, rows, tuple(dict.fromkeys(notes)))


def _sky_notes(found: Sequence[Exposure], options: FitsOptions) -> list[str]:
    """Doubts about the skies of images that are quickly measured: files on this machine, up to `_QUICK` pixels."""
    notes, left = [], _QUICK
    for exposure in found:
        image = exposure.image
        left -= image.shape[0] * image.shape[1]
        if options.background == OFF or left < 0 or not storage.is_local(image.url):
            break
        try:
            band = band_plan(exposure, 0, options)[0]
            sky = measure_band(BandTask(band, image.shape, (0, 0), replace(options, psf_from_stars=False))).sky
        except AstromlError:  # the ingest says it of the tile
            continue
        notes += [f"{image.label}: {doubt}" for doubt in sky.doubts]
    return notes


def _cube(exposure: Exposure, options: FitsOptions) -> dict[str, str]:
    """Facts on the third axis of a cube."""
    axis = exposure.image.spectral
    if axis is None:
        return {}
    names = names_of_cube(exposure, options.channels)
    facts = {"spectral axis": str(axis)}
    return facts | ({"bands": f"{names[0]} to {names[-1]} ({len(names)})"} if len(names) > 1 else {})


def _row(plane: Plane, found: Sequence[Exposure]) -> tuple[str, ...]:
    sample, known = plane.sample, plane.calibration
    light = plane.role == IMAGE
    scale = Wcs(plane.header).pixel_scale if plane.header is not None else None
    zero = "" if known.zero_point is None else f"{known.zero_point:.{_ZERO_POINT_DIGITS}f} ({known.why})"
    cells = (
        plane.label,
        plane.size.removesuffix(" pixels"),
        plane.role,
        plane.why,
        ", ".join(_partners(plane, found)),
        plane.unit,
        (zero or f"none: {known.doubt or known.why}") if light else "",
        shown(scale) if light else "",
        _projection(plane) if light else "",
        shown(sample.median) if light and sample is not None else "",
        shown(sample.noise) if light and sample is not None else "",
    )
    return tuple(cells)


def _partners(plane: Plane, found: Sequence[Exposure]) -> list[str]:
    """Labels of the planes of an image, or of the images of a plane."""
    if plane.role == IMAGE:
        mine = [exposure for exposure in found if exposure.image.hdu == plane.hdu]
        return [
            f"{other.label}" for exposure in mine for role in COMPANIONS if (other := exposure.of(role)) is not None
        ]
    return [
        exposure.image.label
        for exposure in found
        if plane.role in COMPANIONS and (other := exposure.of(plane.role)) and other.hdu == plane.hdu
    ]


def _projection(plane: Plane) -> str:
    if plane.header is None:
        return f"cannot be used: {plane.wcs_problem}" if plane.wcs_problem else "none"
    frame = re.search(r"^RADE(?:SYS|CSYS)\s*=\s*'([^']*)'", plane.header, re.MULTILINE)
    told = " ".join([*plane.axes, frame[1].strip() if frame else ""]).strip()
    if tables := split_text(plane.header)[1]:
        told += f", {len(tables)} lookup tables"
    if "\nAMDX1" in plane.header:
        told += ", plate solution (DSS)"
    dropped = [axis for number, axis in enumerate(plane.wcs_dropped, 3) if axis and number != plane.spectral_number]
    return f"{told}, without {', '.join(dropped)}" if dropped else told


def describe_npz(url: str) -> Description:
    """Table of the arrays of an archive; InputError when it cannot be read."""
    with open_npz(url) as arrays:
        rows = tuple((name, " x ".join(map(str, a.shape)) or "one value", str(a.dtype)) for name, a in arrays.items())
    return Description(storage.redact(url), "archive", {"arrays": str(len(rows))}, ("array", "shape", "type"), rows)
