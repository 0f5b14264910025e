"""FITS files opened by what their first bytes say, never by their suffix: plain, packed, or refused with the remedy."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from astropy.io import fits

from astroml_plugin.core import archives, foreign, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import astropy_quiet

SUFFIX = re.compile(r"\.(fits?|fts|fit)(\.(fz|gz|bz2|xz|zip|z))*$", re.IGNORECASE)

AGAIN = "check it or fetch it again"

_FITS_BLOCK = 2880
_LONGEST_MARK = 6
_NESTED = 3
"""A gzip file within a zip archive is unpacked too, but not without end."""


@dataclass(frozen=True)
class FitsFile:
    """An open FITS file."""

    url: str
    hdus: Any
    """astropy's HDUList."""
    raw: bytes | None
    """All bytes, unpacked, of a file that could only be read as a whole."""


@contextlib.contextmanager
def open_fits(url: str, *, scan: bool = True) -> Iterator[FitsFile]:
    """An open FITS file, read lazily where it allows that; `scan` finds all HDUs at once, and broken ones with them.

    Raises:
        InputError: the file is not there or is no readable FITS file.
    """
    shown = storage.redact(url)
    try:
        with refusing(url), astropy_quiet():
            file = _open(url)
            if scan:
                len(file.hdus)
    except FileNotFoundError:
        raise InputError(f"{shown} does not exist: check the path") from None
    except PermissionError as error:
        raise InputError(f"{shown} may not be read: {error.strerror}") from error
    try:
        yield file
    finally:
        with astropy_quiet():
            file.hdus.close()


def _open(url: str) -> FitsFile:
    start = _first_bytes(url)
    if packing(start) is not None or len(start) > _LONGEST_MARK:  # a web server that gives no parts gives the whole
        raw = unpacked(storage.read_bytes(url), url)
        return FitsFile(url, fits.open(io.BytesIO(raw), memmap=False), raw)
    if storage.is_local(url):
        # a stream, not a name: astropy would unpack what it thinks is packed, and our offsets are those of the file
        stream = storage.local_path(url).open("rb")
        try:
            return FitsFile(url, fits.open(stream, memmap=False), None)
        except BaseException:
            stream.close()
            raise
    filesystem, path = storage.filesystem(url)
    return FitsFile(url, fits.open(filesystem.open(path, "rb", block_size=2**20), memmap=False), None)


def _first_bytes(url: str) -> bytes:
    if storage.is_local(url):
        with storage.local_path(url).open("rb") as file:
            return file.read(_LONGEST_MARK)
    filesystem, path = storage.filesystem(url)
    start: bytes = storage.retrying(filesystem.cat_file, path, start=0, end=_LONGEST_MARK)
    return start


def packing(start: bytes) -> str | None:
    """How bytes that begin with `start` are packed: "gzip", "bzip2", "xz", "zip", "compress", "zstd", or None."""
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)


_MARKS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"\x1f\x9d": "compress",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_SUFFIXES = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}
"""Packing -> the suffix by which `archives` knows it."""
_REMEDIES = {"compress": "uncompress", "zstd": "unzstd"}


def unpacked(data: bytes, url: str) -> bytes:
    """The bytes of a FITS file, of which `data` is a packed form (or packed twice).

    Raises:
        InputError: a packing that is not read here, a zip archive of other than one file, or more than is allowed.
    """
    packed, shown = len(data), storage.redact(url)
    for _ in range(_NESTED):
        kind = packing(data[:_LONGEST_MARK])
        if kind is None:
            break
        if kind in _REMEDIES:
            raise InputError(
                f"{storage.redact(url)} is packed by {kind}, which is not read here: unpack it with {_REMEDIES[kind]}"
            )
        data = _from_zip(data, url, packed) if kind == "zip" else archives.unpack(data, _SUFFIXES[kind], shown, packed)
    return data


def _from_zip(data: bytes, url: str, packed: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        images = [info for info in files if SUFFIX.search(info.filename)] or files
        if len(images) != 1:
            names = ", ".join(info.filename for info in images[:4]) or "none"
            raise InputError(
                f"{storage.redact(url)} is a zip archive of {len(images)} files ({names}): unpack it and name the files"
            )
        archives.refuse_larger(images[0].file_size, packed, storage.redact(url))
        return archive.read(images[0])


def refusing(url: str) -> contextlib.AbstractContextManager[None]:
    """Make a sentence of errors by which a damaged file shows, in astropy and in the unpackers."""
    return foreign.refusing(f"{storage.redact(url)} is no readable FITS file and", AGAIN)


def stem_of(url: str) -> str:
    """File name without folder and FITS suffixes."""
    return SUFFIX.sub("", storage.path_of(url).split("?")[0].rstrip("/").rsplit("/", 1)[-1])


def refuse_truncated(file: FitsFile) -> None:
    """InputError for a file that ends before its pixels do: astropy reads past the end as an error or as zeros."""
    stream = file.hdus[0]._file
    position = stream.tell()
    stream.seek(0, 2)
    size = stream.tell()
    stream.seek(position)
    for number, hdu in enumerate(file.hdus):
        if not hasattr(hdu, "fileinfo"):
            raise InputError(f"{storage.redact(file.url)} is no readable FITS file: HDU {number} breaks the standard")
        info = hdu.fileinfo()
        need = info["datLoc"] + (info["datSpan"] - _FITS_BLOCK + 1 if info["datSpan"] else 0)
        if size < need:
            end = info["datLoc"] + info["datSpan"]
            raise InputError(
                f"{storage.redact(file.url)} is truncated: HDU {number} ends at byte {end}, the file at {size}: "
                "fetch it again"
            )
