"""FITS files as planes: what images a file holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from astropy.io import fits

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import Box, astropy_quiet, wcs_cards
from astroml_plugin.sources.ingest.opening import BROKEN, FitsFile, one_line, open_fits, refuse_truncated
from astroml_plugin.sources.ingest.pixels import Pixels, read_box
from astroml_plugin.sources.ingest.samples import Sample, look

ROLES = {
    **dict.fromkeys(("IMAGE", "SCI"), "image"),
    **dict.fromkeys(("VARIANCE", "VAR"), "variance"),
    **dict.fromkeys(("WEIGHT", "WHT", "IVAR", "INVVAR"), "weight"),
    **dict.fromkeys(("MASK", "DQ"), "mask"),
    "ERR": "error",
}
"""EXTNAMEs of one image in several HDUs; they count only where an image HDU has such a name."""

_ZERO_POINTS = ("MAGZERO", "MAGZPT", "PHOTZP", "ZPT", "ZP", "MAGZP", "ZEROPNT")
_FLUX_UNITS = {"NJY": 31.4, "NANOMAGGY": 22.5, "NMGY": 22.5, "UJY": 23.9, "JY": 8.9}


@dataclass(frozen=True)
class FitsImage:
    """One image of a FITS file: its planes on one pixel grid."""

    url: str
    hdu: int
    extname: str
    """EXTNAME as written, else the HDU's number."""
    version: int
    """EXTVER."""
    role: str
    """"image", "variance", "weight", "error" or "mask"."""
    shape: tuple[int, int]
    """(height, width)."""
    planes: int | None
    """Planes of a cube; None for a 2-D image."""
    header: str | None
    """World-coordinate cards; None without a WCS."""
    unit: str
    """BUNIT, "" where absent."""
    zero_point: float | None
    saturation: float | None
    keywords: dict[str, str] = field(default_factory=dict)
    """Header cards that a mask map needs: MP_*, PLVER, INSTRUME."""

    whole: bool = False
    """Whether the file can only be read as a whole."""
    sample: Sample | None = None
    """Level, noise and kind of the pixels; None where they cannot be decoded."""

    def plane(self, number: int) -> Pixels:
        """Plane `number` of a cube, or the 2-D image itself."""
        return Pixels(self.url, self.hdu, None if self.planes is None else number, self.whole)


def list_images(url: str, *, any_role: bool = False) -> list[FitsImage]:
    """All 2-D images and cubes of a file, in HDU order; `any_role` allows a file of only masks or weights.

    Raises:
        InputError: not there, not FITS, truncated, or without any image.
    """
    with open_fits(url) as file:
        hdus = file.hdus
        try:
            with astropy_quiet():
                refuse_truncated(file)
                primary = hdus[0].header
                found = [image for number, hdu in enumerate(hdus) if (image := _describe(file, number, hdu, primary))]
        except BROKEN as error:
            raise InputError(f"{storage.redact(url)} is no readable FITS file: {one_line(error)}") from error
        found = [replace(image, sample=look(file, image.plane(0), image.shape, image.planes)) for image in found]
        kinds = ", ".join(f"{type(hdu).__name__} {hdu.name}".strip() for hdu in hdus)
    if not found:
        raise InputError(f"{storage.redact(url)} holds no image of two or three axes (it has {kinds})")
    if not any_role and not any(image.role == "image" for image in found):
        names = ", ".join(image.extname for image in found)
        raise InputError(f"{storage.redact(url)} holds {names} but no image to go with it")
    return found


def _describe(file: FitsFile, number: int, hdu: Any, primary: Any) -> FitsImage | None:
    if not isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        return None
    shape = tuple(hdu.shape)
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or min(shape) < 1 or max(shape[-2:]) < 2:
        return None
    header = hdu.header
    unit = str(_keyword(header, primary, "BUNIT") or "").strip()
    size, planes = (int(shape[-2]), int(shape[-1])), int(shape[0]) if len(shape) == 3 else None
    return FitsImage(
        url=file.url,
        hdu=number,
        extname=hdu.name.strip() if header.get("EXTNAME") else str(number),
        version=int(hdu.ver or 1),
        role=_role(hdu, header),
        shape=size,
        planes=planes,
        header=wcs_cards(header),
        unit=unit,
        zero_point=_zero_point(header, primary, unit),
        saturation=_number(_keyword(header, primary, "SATURATE")),
        keywords=_mask_keywords(header, primary),
        whole=file.raw is not None,
    )


def _role(hdu: Any, header: Any) -> str:
    name = hdu.name.strip().upper()
    if name.startswith("COMPRESSED_"):
        name = ""
    return ROLES.get(name, "image") if header.get("EXTNAME") else "image"


def _mask_keywords(header: Any, primary: Any) -> dict[str, str]:
    planes = {key: str(header[key]) for key in header if key.startswith("MP_")}
    common = {key: str(value) for key in ("PLVER", "INSTRUME") if (value := _keyword(header, primary, key)) is not None}
    return planes | common


def _keyword(header: Any, primary: Any, key: str) -> Any:
    """A keyword of the HDU, else of the primary header (pixels' meaning is shared, coordinates are not)."""
    value = header.get(key)
    return value if value not in (None, "") else primary.get(key)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _zero_point(header: Any, primary: Any, unit: str) -> float | None:
    for source in (header, primary):
        for key in _ZERO_POINTS:
            if (value := _number(source.get(key))) is not None and value > 0:
                return value
        flux = _number(source.get("FLUXMAG0"))
        if flux is not None and flux > 0:
            return 2.5 * float(np.log10(flux))
    return _FLUX_UNITS.get(unit.upper())


def read_psf(url: str) -> np.ndarray:
    """A PSF image file as (band or 1, y, x) float32; InputError when it holds none."""
    image = list_images(url)[0]
    box = Box(0, 0, image.shape[1], image.shape[0])
    with open_fits(url) as file:
        planes = [read_box(file, image.plane(number), box) for number in range(image.planes or 1)]
    return np.stack(planes).astype(np.float32)
