"""Pictures of an alert: one FITS file in bytes per cutout, mostly packed by gzip."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.io import fits

try:  # half the time of the standard library's
    from isal import isal_zlib as zlib
except ImportError:  # the extra alerts is not there, or there is no wheel of it for this machine
    import zlib  # type: ignore[no-redef]

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, F64

_BLOCK = 2880
_CARD = 80
_END = b"END".ljust(_CARD)
_LARGEST = 2**27
"""Bytes of one cutout, at most: a hostile gzip of a kilobyte fills the memory."""
_KINDS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_NANOJANSKY = "njy"
_VARIANCE, _ERROR = ("VarianceUncertainty", "VARIANCE", "VAR"), ("StdDevUncertainty",)
_DEGREE = 3600.0


@dataclass(frozen=True)
class Picture:
    """Pixels of one cutout."""

    image: F32
    """(y, x); NaN where there are none."""
    variance: F32 | None
    """(y, x), or None where the file has none."""
    in_nanojansky: bool
    """Whether the header says so (BUNIT)."""
    jacobian: F64 | None
    """(2, 2): arcsec along (West, North) for one pixel along (x, y); None where the header has no matrix."""


@dataclass(frozen=True)
class _Layout:
    """Shape, kind of number and meaning of the data behind a FITS header."""

    kind: str
    shape: tuple[int, ...]
    scale: float
    zero: float
    blank: int | None
    unit: str
    roles: tuple[str, ...]
    matrix: tuple[float, float, float, float] | None
    packed: bool
    nbytes: int


def read_picture(value: Any) -> Picture | None:
    """The picture of a cutout field: bytes, or a record with them as `stampData`; None where it is null or empty.

    Raises:
        InputError: it is no FITS image of two axes.
    """
    data = value.get("stampData") if isinstance(value, dict) else value
    if not data:
        return None
    if not isinstance(data, bytes):
        raise InputError(f"a cutout is {type(data).__name__}, no bytes")
    image, variance, told = None, None, None
    for layout, pixels in _planes(_plain(data)):
        if len(layout.shape) != 2:
            continue
        if image is None:
            image, told = pixels, layout
        elif image.shape == pixels.shape and any(role in _VARIANCE for role in layout.roles):
            variance = pixels
        elif image.shape == pixels.shape and any(role in _ERROR for role in layout.roles):
            variance = np.square(pixels)
    if image is None or told is None:
        raise InputError("a cutout is a FITS file without an image of two axes")
    return Picture(image, variance, told.unit.lower() == _NANOJANSKY, _jacobian(told))


def _plain(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    decoder = zlib.decompressobj(wbits=31)
    try:
        found = decoder.decompress(data, _LARGEST)
    except zlib.error as error:  # type: ignore[misc]
        raise InputError(f"a cutout is a damaged gzip file ({error})") from error
    if not decoder.eof:
        raise InputError("a cutout is cut short, or unpacks to more than is allowed")
    return found


def _planes(data: bytes) -> Iterator[tuple[_Layout, F32]]:
    """Images of a FITS file. Plain ones are read here, as headers of one survey are alike; others by astropy."""
    start = 0
    while start == 0 or data.startswith(b"XTENSION", start):
        stop = _header_end(data, start)
        layout = _layout(data[start:stop])
        if layout.packed:
            yield from _by_astropy(data)
            return
        if len(data) < stop + layout.nbytes:
            raise InputError("a cutout is a FITS file that is cut short")
        if layout.shape:
            values = np.frombuffer(data, layout.kind, layout.nbytes // np.dtype(layout.kind).itemsize, stop)
            yield layout, _scaled(values.reshape(layout.shape), layout)
        start = stop + -(-layout.nbytes // _BLOCK) * _BLOCK


def _header_end(data: bytes, start: int) -> int:
    if start == 0 and not data.startswith(b"SIMPLE  ="):
        raise InputError("a cutout is no FITS file")
    at = start
    while at < len(data):
        block = data[at : at + _BLOCK]
        at += _BLOCK
        if any(block[card : card + _CARD] == _END for card in range(0, len(block), _CARD)):
            return at
    raise InputError("a cutout is a FITS file that is cut short in its header")


@lru_cache(maxsize=512)
def _layout(header: bytes) -> _Layout:
    cards = fits.Header.fromstring(header.decode("ascii", "replace"))
    try:
        axes = int(cards.get("NAXIS", 0))
        shape = tuple(int(cards[f"NAXIS{axis}"]) for axis in range(axes, 0, -1))
        matrix = tuple(_element(cards, row, column) for row in (1, 2) for column in (1, 2))
        blank = cards.get("BLANK")
        kind = _KINDS[int(cards["BITPIX"])]
        return _Layout(
            kind=kind,
            shape=shape,
            scale=float(cards.get("BSCALE", 1.0)),
            zero=float(cards.get("BZERO", 0.0)),
            blank=None if blank is None else int(blank),
            unit=str(cards.get("BUNIT", "")).strip(),
            roles=(str(cards.get("UTYPE", "")), str(cards.get("EXTNAME", "")).upper()),
            matrix=None if None in matrix else matrix,  # type: ignore[arg-type]
            nbytes=math.prod(shape) * np.dtype(kind).itemsize if shape else 0,
            packed=str(cards.get("XTENSION", "IMAGE")).strip() != "IMAGE",
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"a cutout is a FITS file whose header cannot be right ({error})") from error


def _element(cards: fits.Header, row: int, column: int) -> float | None:
    """Degrees per pixel of the local matrix."""
    if (cd := cards.get(f"CD{row}_{column}")) is not None:
        return float(cd)
    pc = cards.get(f"PC{row}_{column}")
    return None if pc is None or "CRVAL1" not in cards else float(pc) * float(cards.get(f"CDELT{row}", 1.0))


def _scaled(values: np.ndarray, layout: _Layout) -> F32:
    found = values.astype(np.float32)
    if layout.scale != 1.0 or layout.zero != 0.0:
        found = (values * layout.scale + layout.zero).astype(np.float32)
    if layout.blank is not None and values.dtype.kind in "iu":
        found[values == layout.blank] = np.nan
    return found


def _by_astropy(data: bytes) -> Iterator[tuple[_Layout, F32]]:
    with fits.open(io.BytesIO(data), memmap=False) as file:
        for one in file:
            if one.is_image and one.data is not None:
                yield _layout(one.header.tostring().encode("ascii", "replace")), np.asarray(one.data, np.float32)


def _jacobian(layout: _Layout) -> F64 | None:
    """The header's matrix has East for its first axis."""
    if layout.matrix is None:
        return None
    found = np.array(layout.matrix, np.float64).reshape(2, 2) * _DEGREE * np.array([[-1.0], [1.0]])
    return found if np.isfinite(found).all() and abs(np.linalg.det(found)) > 0 else None


def middle(shape: tuple[int, ...], place: tuple[float, float] | None = None, side: int = 0) -> tuple[int, int]:
    """Pixel (row, column) of a picture that shows its alert: side // 2, but where the border of the image cut it short.

    Args:
        shape: (rows, columns) of the picture.
        place: (y, x) of the alert in the image that the picture is of; None: not known, nothing is cut short.
        side: of whole pictures of this survey; 0: not known, the longer side of the picture is it.
    """
    if place is None:
        return shape[0] // 2, shape[1] // 2
    lost = max(shape) < side and (shape[0] != shape[1] or any(at < n // 2 for at, n in zip(place, shape)))
    whole = side if lost else max(shape)
    row, column = (whole // 2 - (whole - n if n < whole and at < whole / 2 else 0) for at, n in zip(place, shape))
    shown = 0 <= row < shape[0] and 0 <= column < shape[1]  # of an odd picture nobody knows
    return (row, column) if shown else middle(shape)


def fitted(image: F32, size: int, centre: tuple[int, int] | None = None) -> F32:
    """(size, size) about a pixel of a picture, which becomes pixel size // 2; pixels that it lacks are NaN.

    Args:
        image: (y, x).
        size: side in pixels.
        centre: (row, column); default: that in the middle.
    """
    if image.shape == (size, size):
        return image
    found = np.full((size, size), np.nan, np.float32)
    places = []
    for side, at in zip(image.shape, centre or middle(image.shape), strict=True):
        start = at - size // 2
        places.append((slice(max(0, start), min(side, start + size)), slice(max(0, -start), min(size, side - start))))
    (rows, to_rows), (columns, to_columns) = places
    found[to_rows, to_columns] = image[rows, columns]
    return found
