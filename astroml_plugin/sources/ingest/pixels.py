"""Pixels of one 2-D array of a FITS file: a part of it read with bounded memory, as the numbers that the file means."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sky.wcs import Box, astropy_quiet
from astroml_plugin.sources.ingest.opening import AGAIN, FitsFile

_BITPIX = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}

_AT_ONCE = 8 * 2**20
"""Bytes of whole rows that are read at once."""

_SPARE = 4
"""Rows that are longer than this many boxes are read in parts, one by one."""

_PER_MAGNITUDE = np.log(10) / 2.5

_hcompress = threading.Lock()
"""The decoder of HCOMPRESS keeps its state in C globals: one tile at a time in a process, whatever file it is of."""


@dataclass(frozen=True)
class Pixels:
    """Where the pixels of one 2-D array are."""

    url: str
    hdu: int
    plane: int | None = None
    """Plane of an array of more axes than two, counted in the order of the file; None for a 2-D array."""
    whole: bool = False
    """Whether the file can only be read as a whole (gzip, bzip2, xz, zip)."""


def read_box(file: FitsFile, pixels: Pixels, box: Box) -> np.ndarray:
    """Values of `box` (inside the image) as a native 2-D array: BSCALE, BZERO and BSOFTEN undone, BLANK as NaN.

    Only the box's rows are read, so that memory follows the tile, not the image.

    Raises:
        CorruptError: the pixels cannot be decoded.
    """
    try:
        with astropy_quiet():
            hdu = file.hdus[pixels.hdu]
            header = hdu.header
        if isinstance(hdu, fits.CompImageHDU):
            values = _decoded(hdu, pixels.plane, box)
        else:
            values = _scaled(_raw_box(file, hdu, pixels.plane or 0, box), header)
        values = _linear(values, header)
    except Exception as error:  # headers and codecs of others: any error is theirs
        where = f"{storage.redact(pixels.url)} HDU {pixels.hdu}"
        raise CorruptError(f"{where} cannot be decoded ({foreign.in_words(error)}): {AGAIN}") from error
    if values.shape != (box.height, box.width):
        raise CorruptError(f"{storage.redact(pixels.url)} HDU {pixels.hdu} gives {values.shape} for {box}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _decoded(hdu: Any, plane: int | None, box: Box) -> np.ndarray:
    """Values of a box of a tile-compressed image."""
    index = np.unravel_index(plane or 0, hdu.shape[:-2]) if len(hdu.shape) > 2 else ()
    alone = _hcompress if str(hdu.compression_type).startswith("HCOMPRESS") else contextlib.nullcontext()
    with alone:
        return np.asarray(hdu.section[(*map(int, index), slice(box.y0, box.y1), slice(box.x0, box.x1))])


def _raw_box(file: FitsFile, hdu: Any, plane: int, box: Box) -> np.ndarray:
    """Stored values of a box in this machine's order of bytes.

    A file here is read, not mapped: one that somebody cuts short meanwhile is an error, where a map ends the process.
    """
    height, width = hdu.shape[-2:]
    kind = np.dtype(_BITPIX[hdu.header["BITPIX"]])
    start = hdu.fileinfo()["datLoc"] + plane * height * width * kind.itemsize
    if file.raw is not None:
        pixels = np.frombuffer(file.raw, kind, height * width, start).reshape(height, width)
        return pixels[box.y0 : box.y1, box.x0 : box.x1].astype(kind.newbyteorder("="))
    if storage.is_local(file.url):
        values = np.empty((box.height, box.width), kind)
        with storage.local_path(file.url).open("rb", buffering=0) as stream:
            for part, place in _parts(values, box, width):
                _fill(stream.fileno(), part, start + place * kind.itemsize)
        return values if kind.isnative else values.byteswap(inplace=True).view(kind.newbyteorder("="))
    filesystem, path = storage.filesystem(file.url)
    first, last = start + box.y0 * width * kind.itemsize, start + box.y1 * width * kind.itemsize
    data = storage.retrying(filesystem.cat_file, path, start=first, end=last)  # by name: s3fs has version_id in between
    if len(data) != last - first:
        raise ValueError(f"{len(data)} bytes came where {last - first} were asked for")
    rows = np.frombuffer(data, kind).reshape(box.height, width)
    return rows[:, box.x0 : box.x1].astype(kind.newbyteorder("="))


def _parts(values: np.ndarray, box: Box, width: int) -> Iterator[tuple[np.ndarray, int]]:
    """Contiguous arrays to fill, each with the pixel of the plane where it begins; `values` (y, x) has all in the end.

    Few reads are quick, and so are few bytes: whole rows are read in blocks where most of a row is wanted.
    """
    if box.width * _SPARE < width:
        yield from ((line, y * width + box.x0) for y, line in enumerate(values, box.y0))
        return
    step = max(1, _AT_ONCE // (width * values.itemsize))
    rows = None if box.width == width else np.empty((min(step, box.height), width), values.dtype)
    for first in range(0, box.height, step):
        wanted = values[first : first + step]
        part = wanted if rows is None else rows[: len(wanted)]
        yield part, (box.y0 + first) * width
        if rows is not None:
            wanted[...] = part[:, box.x0 : box.x1]


def _fill(descriptor: int, part: np.ndarray, place: int) -> None:
    """Fill a contiguous array from a file's bytes at `place`.

    Raises:
        ValueError: the file ends before.
    """
    left = part.reshape(-1).view(np.uint8).data
    while left:
        count = os.preadv(descriptor, [left], place)
        if count == 0:
            raise ValueError("the file ends before its pixels do")
        left, place = left[count:], place + count


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


def _linear(values: np.ndarray, header: Any) -> np.ndarray:
    """Values that are stored as asinh magnitudes (Pan-STARRS: BSOFTEN, BOFFSET) as light again.

    Source: Waters et al. 2020, ApJS 251, 4, section 3.
    """
    if "BSOFTEN" not in header:
        return values
    softening, offset = float(header["BSOFTEN"]), float(header.get("BOFFSET", 0))
    with np.errstate(over="ignore"):
        light: np.ndarray = offset + 2 * softening * np.sinh(values.astype(np.float64) * _PER_MAGNITUDE)
    return light


def as_float32(values: np.ndarray, where: str) -> np.ndarray:
    """Values as float32.

    Raises:
        InputError: most of them are too large or too small for it; `where` names them.
    """
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32, copy=False)
    if values.dtype == np.float64:
        full = np.isfinite(values) & (values != 0)
        kept = np.isfinite(single) & (np.abs(single) >= np.finfo(np.float32).tiny)
        if np.count_nonzero(full & ~kept) > np.count_nonzero(full) / 2:
            raise InputError(
                f"{where}: most values, such as {values[full & ~kept][0]:.2g}, are beyond float32: bring pixels and "
                "their errors to one unit in which the noise is about 1"
            )
    return single
