"""FITS files as planes: which image HDUs a file holds, and what each of them is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from astropy.io import fits

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.headers import astropy_quiet, coordinates_of
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.opening import FitsFile, open_fits, refuse_truncated, refusing, stem_of
from astroml_plugin.sources.ingest.photometry import by_pixels, calibrate
from astroml_plugin.sources.ingest.pixels import read_box
from astroml_plugin.sources.ingest.planes import Plane
from astroml_plugin.sources.ingest.roles import with_roles
from astroml_plugin.sources.ingest.samples import look
from astroml_plugin.sources.ingest.stacks import stack_of
from astroml_plugin.sources.ingest.words import IMAGE, PSF, UNCLEAR
from astroml_plugin.sources.spectral import SpectralAxis, is_spectral, spectral_axis

_OWN_CARDS = ("HDUCLAS1", "HDUCLAS2", "HDUCLAS3", "SCIDATA", "ERRDATA", "QUALDATA", "UTYPE")
_SHARED_CARDS = (
    *("IMAGETYP", "OBSTYPE", "FRAMETYP", "DATA-TYP", "KOAIMTYP", "EXP_TYPE", "DATAMODL", "FILTER", "BAND"),
    *("ESO DPR TYPE", "ESO DPR CATG", "ESO PRO CATG", "CONTENT"),
)
_RADIO = ("BMAJ", "RESTFRQ", "RESTFREQ", "FREQ", "WAVELEN", "WAVELENG")
"""Cards of images whose temperature is a brightness."""

_DISPERSED = ("DISPAXIS", "COEFF0", "DC-FLAG")
"""Cards of spectra, also of several in the rows of one plane."""

_WEIGHTING = ("FINALWHT", "D001WTSC", "WHTTYPE", "WHT_TYPE")
"""Cards of AstroDrizzle and of mosaics by it: how input images are weighted."""

_MASK_CARDS = re.compile(r"^(MP_|BIT\d|MSK[NMV])")
_MASK_SHARED = ("PLVER", "INSTRUME", "TELESCOP", "SURVEY", "DETECTOR")


def list_planes(url: str, roles: Mapping[str, str] | None = None) -> list[Plane]:
    """All 2-D arrays and cubes of a file with their roles, in HDU order.

    Args:
        url: the file.
        roles: roles by hand, see `roles.given_roles`.

    Raises:
        InputError: not there, not FITS, truncated, or without any array of two or three axes.
    """
    with open_fits(url) as file:
        hdus = file.hdus
        with refusing(url), astropy_quiet():
            refuse_truncated(file)
            primary = hdus[0].header
            found = [plane for number, hdu in enumerate(hdus) if (plane := _describe(file, number, hdu, primary))]
        found = [replace(plane, sample=look(file, plane.plane, plane.shape, plane.planes)) for plane in found]
        found = [replace(plane, calibration=by_pixels(plane.calibration, plane.sample)) for plane in found]
        kinds = ", ".join(f"{type(hdu).__name__} {hdu.name}".strip() for hdu in hdus)
    if not found:
        raise InputError(f"{storage.redact(url)} holds no image of two or three axes (it has {kinds})")
    return with_roles(found, stem_of(url), roles or {})


def list_images(url: str, roles: Mapping[str, str] | None = None) -> list[Plane]:
    """Planes of a file that holds an image of the sky, with the planes that go with it.

    Raises:
        InputError: see `list_planes`; or there is no image of the sky, or planes of which nothing tells the image.
    """
    planes = list_planes(url, roles)
    shown = storage.redact(url)
    if unclear := [plane for plane in planes if plane.role == UNCLEAR]:
        names = [plane.name or str(plane.hdu) for plane in unclear]
        if all(plane.why.startswith("EXTNAME") for plane in unclear):
            raise InputError(
                f"{shown}: {', '.join(plane.label for plane in unclear)} are images of one place on the sky, and "
                f"nothing tells which is meant: say it with --roles {names[0]}=image (then the others are left out)"
            )
        raise InputError(
            f"{shown}: {', '.join(plane.label for plane in unclear)} have one shape and one place on the sky, and "
            f"nothing tells what each is: say it with --roles, such as {names[0]}=image,{names[1]}=ROLE, where ROLE is "
            "std, variance, weight (1/variance), mask or other"
        )
    if not any(plane.role == IMAGE for plane in planes):
        told = "; ".join(f"{plane.label} is {plane.role} ({plane.why})" for plane in planes[:4])
        raise InputError(
            f"{shown} holds no image of the sky: {told}; give its image with it, or say otherwise with "
            f"--roles {planes[0].extname}=image"
        )
    return planes


def _describe(file: FitsFile, number: int, hdu: Any, primary: Any) -> Plane | None:
    if not isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        return None
    shape = tuple(hdu.shape)
    if len(shape) < 2 or min(shape) < 1 or max(shape[-2:]) < 2:
        return None
    header = hdu.header
    stack = stack_of(header, shape)
    if stack.refused:
        raise InputError(f"{storage.redact(file.url)} HDU {number}: {stack.refused}")
    planes = None if stack.axis is None else int(shape[stack.axis])
    unit = str(_keyword(header, primary, "BUNIT") or "").strip()
    cards = {card: str(header[card]).strip() for card in _OWN_CARDS if card in header}
    cards |= {card: str(value) for card in _SHARED_CARDS if (value := _keyword(header, primary, card)) is not None}
    if weighting := next((value for card in _WEIGHTING if (value := _keyword(header, primary, card))), None):
        cards["weighting"] = str(weighting).strip()
    if dispersed := next((card for card in _DISPERSED if card in header), ""):
        cards["dispersed"] = dispersed
    cards |= {"stack": stack.dark} if stack.dark else {}
    if any(card in header or card in primary for card in _RADIO) or any(map(is_spectral, _kinds(header, len(shape)))):
        cards["radio"] = "yes"
    number_of_axis = 0 if stack.axis is None else len(shape) - stack.axis
    axis = None if planes is None else spectral_axis(header, file.hdus, number_of_axis, planes)
    coordinates = coordinates_of(header, file.hdus)
    return Plane(
        url=file.url,
        hdu=number,
        name=_name(header),
        version=int(hdu.ver or 1),
        shape=(int(shape[-2]), int(shape[-1])),
        planes=planes,
        header=coordinates.cards,
        wcs_problem=coordinates.problem,
        wcs_notes=(*coordinates.notes, *_lost_axis(header, axis, number_of_axis)),
        wcs_dropped=coordinates.dropped,
        axes=tuple(str(header[card]).upper() for card in ("CTYPE1", "CTYPE2") if header.get(card)),
        spectral=axis,
        spectral_number=None if axis is None else number_of_axis,
        unit=unit,
        own_unit=bool(header.get("BUNIT")),
        calibration=calibrate(header, primary, unit, stem_of(file.url), coordinates.cards),
        saturation=_number(_keyword(header, primary, "SATURATE")),
        exposure_time=_number(_keyword(header, primary, "EXPTIME")),
        cards=cards,
        keywords=_mask_keywords(header, primary),
        first=stack.first,
        step=stack.step,
        notes=(stack.note,) if stack.note else (),
        whole=file.raw is not None,
    )


def _kinds(header: Any, axes: int) -> list[str]:
    return [str(header.get(f"CTYPE{number}", "")).strip().upper() for number in range(3, max(axes, 4) + 1)]


def _lost_axis(header: Any, axis: SpectralAxis | None, number: int) -> list[str]:
    kind = str(header.get(f"CTYPE{number}", "")).strip().upper()
    if axis is not None or not number or not is_spectral(kind):
        return []
    return [f"its axis {kind} cannot be read: bands are numbered"]


def _name(header: Any) -> str:
    """EXTNAME as written; "" for none, and for names that programs give to any HDU."""
    name = str(header.get("EXTNAME", "")).strip()
    return "" if name.upper() == "PRIMARY" or name.upper().startswith("COMPRESSED_") else name


def _mask_keywords(header: Any, primary: Any) -> dict[str, str]:
    """Cards that name the bits of a mask; a bit's name may stand in the comment beside its number."""
    named = {key: f"{header[key]} / {header.comments[key]}" for key in header if key and _MASK_CARDS.match(key)}
    shared = {key: str(value) for key in _MASK_SHARED if (value := _keyword(header, primary, key)) is not None}
    return named | shared | {"BITPIX": str(header.get("BITPIX", ""))}


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


def read_image(url: str) -> np.ndarray:
    """The first image of the sky of a file, else its first plane, as (band or 1, y, x) float32.

    Raises:
        InputError: there is none.
    """
    planes = list_planes(url)
    return _read(next((plane for plane in planes if plane.role == IMAGE), planes[0]))


def read_psf(url: str, hdu: int | None = None) -> np.ndarray:
    """A PSF image as (band or 1, y, x) float32: of one HDU, else of the plane that is a PSF by name, else the first.

    Raises:
        InputError: there is none.
    """
    planes = list_planes(url)
    chosen = [plane for plane in planes if plane.hdu == hdu or (hdu is None and plane.role == PSF)]
    return _read(chosen[0] if chosen else planes[0])


def _read(plane: Plane) -> np.ndarray:
    box = Box(0, 0, plane.shape[1], plane.shape[0])
    with open_fits(plane.url) as file:
        values = [read_box(file, plane.plane(number), box) for number in range(plane.planes or 1)]
    return np.stack(values).astype(np.float32)
