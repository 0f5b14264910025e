"""FITS files as planes: what images a file holds, and how to read a part of one with bounded memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits

from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sky.wcs import Box, astropy_quiet, wcs_cards

SUFFIX = re.compile(r"\.(fits?|fts|fit)(\.(fz|gz|bz2|xz))?$", re.IGNORECASE)

_DECODERS = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}

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
_BROKEN = (OSError, EOFError, ValueError, TypeError, IndexError, KeyError, zlib.error, lzma.LZMAError, fits.VerifyError)
_FITS_BLOCK = 2880
_BITPIX = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class Plane:
    """One 2-D array of a FITS file."""

    url: str
    hdu: int
    plane: int | None = None
    """Plane of a cube; None for a 2-D array."""

    @property
    def whole(self) -> bool:
        """Whether the file can only be read as a whole (gzip, bzip2, xz)."""
        return self.url.lower().endswith(tuple(_DECODERS))


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

    def plane(self, number: int) -> Plane:
        """Plane `number` of a cube, or the 2-D image itself."""
        return Plane(self.url, self.hdu, None if self.planes is None else number)


def stem_of(url: str) -> str:
    """File name without folder and FITS suffixes."""
    return SUFFIX.sub("", url.split("?")[0].rstrip("/").rsplit("/", 1)[-1])


@dataclass(frozen=True)
class FitsFile:
    """An open FITS file."""

    url: str
    hdus: Any
    """astropy's HDUList."""
    raw: bytes | None
    """All bytes of a file that could only be read as a whole."""


@contextlib.contextmanager
def open_fits(url: str, *, scan: bool = True) -> Iterator[FitsFile]:
    """An open FITS file, read lazily where it allows that; `scan` finds all HDUs at once, and broken ones with them.

    Raises:
        InputError: the file is not there or is no readable FITS file.
    """
    shown = storage.redact(url)
    try:
        with astropy_quiet():
            file = _open(url)
            if scan:
                len(file.hdus)
    except FileNotFoundError:
        raise InputError(f"{shown} does not exist: check the path") from None
    except PermissionError as error:
        raise InputError(f"{shown} may not be read: {error.strerror}") from error
    except _BROKEN as error:
        raise InputError(f"{shown} is no readable FITS file ({one_line(error)}): check it or fetch it again") from error
    try:
        yield file
    finally:
        with astropy_quiet():
            file.hdus.close()


def _open(url: str) -> FitsFile:
    decoder = next((decode for suffix, decode in _DECODERS.items() if url.lower().endswith(suffix)), None)
    if decoder is not None:
        raw = decoder(storage.read_bytes(url))
        return FitsFile(url, fits.open(io.BytesIO(raw), memmap=False), raw)
    if storage.is_local(url):
        return FitsFile(url, fits.open(storage.local_path(url), memmap=False), None)
    filesystem, path = storage.filesystem(url)
    return FitsFile(url, fits.open(filesystem.open(path, "rb", block_size=2**20), memmap=False), None)


def one_line(error: BaseException) -> str:
    """An error's words on one line, without secrets."""
    return " ".join(storage.redact(str(error)).split()) or type(error).__name__


def list_images(url: str, *, any_role: bool = False) -> list[FitsImage]:
    """All 2-D images and cubes of a file, in HDU order; `any_role` allows a file of only masks or weights.

    Raises:
        InputError: not there, not FITS, truncated, or without any image.
    """
    with open_fits(url) as file:
        hdus = file.hdus
        try:
            with astropy_quiet():
                _refuse_truncated(url, hdus)
                primary = hdus[0].header
                found = [image for number, hdu in enumerate(hdus) if (image := _describe(url, number, hdu, primary))]
        except _BROKEN as error:
            raise InputError(f"{storage.redact(url)} is no readable FITS file: {one_line(error)}") from error
        kinds = ", ".join(f"{type(hdu).__name__} {hdu.name}".strip() for hdu in hdus)
    if not found:
        raise InputError(f"{storage.redact(url)} holds no image of two or three axes (it has {kinds})")
    if not any_role and not any(image.role == "image" for image in found):
        names = ", ".join(image.extname for image in found)
        raise InputError(f"{storage.redact(url)} holds {names} but no image to go with it")
    return found


def _refuse_truncated(url: str, hdus: Any) -> None:
    """astropy reads past the end as an error or as zeros, depending on the path: look before."""
    stream = hdus[0]._file
    position = stream.tell()
    stream.seek(0, 2)
    size = stream.tell()
    stream.seek(position)
    for number, hdu in enumerate(hdus):
        info = hdu.fileinfo()
        need = info["datLoc"] + (info["datSpan"] - _FITS_BLOCK + 1 if info["datSpan"] else 0)
        if size < need:
            raise InputError(
                f"{storage.redact(url)} is truncated: HDU {number} ends at byte {info['datLoc'] + info['datSpan']}, "
                f"the file at {size}: fetch it again"
            )


def _describe(url: str, number: int, hdu: Any, primary: Any) -> FitsImage | None:
    if not isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        return None
    shape = tuple(hdu.shape)
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or min(shape) < 1 or max(shape[-2:]) < 2:
        return None
    header = hdu.header
    unit = str(_keyword(header, primary, "BUNIT") or "").strip()
    return FitsImage(
        url=url,
        hdu=number,
        extname=hdu.name.strip() if header.get("EXTNAME") else str(number),
        version=int(hdu.ver or 1),
        role=_role(hdu, header),
        shape=(int(shape[-2]), int(shape[-1])),
        planes=int(shape[0]) if len(shape) == 3 else None,
        header=wcs_cards(header),
        unit=unit,
        zero_point=_zero_point(header, primary, unit),
        saturation=_number(_keyword(header, primary, "SATURATE")),
        keywords=_mask_keywords(header, primary),
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


def read_box(file: FitsFile, plane: Plane, box: Box) -> np.ndarray:
    """Pixels of `box` (inside the image) as a native 2-D array, scaled by BSCALE and BZERO, BLANK as NaN.

    Only the box's rows are read, so that memory follows the tile, not the image.

    Raises:
        CorruptError: the pixels cannot be decoded.
    """
    try:
        with astropy_quiet():
            hdu = file.hdus[plane.hdu]
            header = hdu.header
        if isinstance(hdu, fits.CompImageHDU):
            degenerate = len(hdu.shape) - (2 if plane.plane is None else 3)
            index = (*(0,) * degenerate, *(() if plane.plane is None else (plane.plane,)))
            values = np.asarray(hdu.section[(*index, slice(box.y0, box.y1), slice(box.x0, box.x1))])
        else:
            values = _scaled(_raw_box(file, hdu, plane.plane or 0, box), header)
    except (*_BROKEN, MemoryError) as error:
        where = f"{storage.redact(plane.url)} HDU {plane.hdu}"
        raise CorruptError(f"{where} cannot be decoded: {one_line(error)}") from error
    if values.shape != (box.height, box.width):
        raise CorruptError(f"{storage.redact(plane.url)} HDU {plane.hdu} gives {values.shape} for {box}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _raw_box(file: FitsFile, hdu: Any, plane: int, box: Box) -> np.ndarray:
    """Stored values of a box, big-endian as in the file."""
    height, width = hdu.shape[-2:]
    kind = np.dtype(_BITPIX[hdu.header["BITPIX"]])
    start = hdu.fileinfo()["datLoc"] + plane * height * width * kind.itemsize
    if file.raw is not None:
        pixels = np.frombuffer(file.raw, kind, height * width, start).reshape(height, width)
        return pixels[box.y0 : box.y1, box.x0 : box.x1]
    if storage.is_local(file.url):
        pixels = np.memmap(storage.local_path(file.url), kind, "r", start, (height, width))
        return np.array(pixels[box.y0 : box.y1, box.x0 : box.x1])
    filesystem, path = storage.filesystem(file.url)
    first, last = start + box.y0 * width * kind.itemsize, start + box.y1 * width * kind.itemsize
    data = storage.retrying(filesystem.cat_file, path, start=first, end=last)  # by name: s3fs has version_id in between
    return np.frombuffer(data, kind).reshape(box.height, width)[:, box.x0 : box.x1]


def _scaled(values: np.ndarray, header: Any) -> np.ndarray:
    """FITS scaling; whole-number offsets of integers (unsigned types) stay exact integers."""
    scale, zero, blank = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0)), header.get("BLANK")
    empty = values == blank if blank is not None and values.dtype.kind in "iu" else None
    if (scale, zero) != (1.0, 0.0):
        whole = values.dtype.kind in "iu" and scale == 1 and zero.is_integer() and values.dtype.itemsize < 8
        values = values.astype(np.int64) + int(zero) if whole else values * scale + zero
    if empty is not None and empty.any():
        values = values.astype(np.float64)
        values[empty] = np.nan
    return values


def read_psf(url: str) -> np.ndarray:
    """A PSF image file as (band or 1, y, x) float32; InputError when it holds none."""
    image = list_images(url)[0]
    box = Box(0, 0, image.shape[1], image.shape[0])
    with open_fits(url) as file:
        planes = [read_box(file, image.plane(number), box) for number in range(image.planes or 1)]
    return np.stack(planes).astype(np.float32)
