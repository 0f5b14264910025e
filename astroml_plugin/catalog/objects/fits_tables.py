"""Tables of FITS files, and Source Extractor's ASCII_HEAD."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.objects.raw import ARRAY, RawTable, arrow_column, local_file
from astroml_plugin.catalog.objects.votables import table_chunks
from astroml_plugin.core import storage
from astroml_plugin.core.astropy_later import astropy_table, fits
from astroml_plugin.core.errors import CorruptError, InputError

_BLOCK = 2880
"""Bytes that every part of a FITS file is a multiple of."""


@contextlib.contextmanager
def open_fits(url: str) -> Iterator[list[RawTable]]:
    """All tables of a FITS file; images, also compressed ones, are none.

    Raises:
        InputError: it has no table.
    """
    with local_file(url) as path, fits.open(path, memmap=False) as opened:
        tables = [_table(hdu, number) for number, hdu in enumerate(opened) if _is_table(hdu)]
        if not tables:
            raise InputError(f"{storage.redact(url)} has no table extension")
        yield tables


def _is_table(hdu: Any) -> bool:
    return isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and not isinstance(hdu, fits.CompImageHDU)


def _table(hdu: Any, number: int) -> RawTable:
    columns = [column for column in hdu.columns if column.name]
    units = {column.name: column.unit for column in columns if column.unit}
    kinds = {column.name: ARRAY for column in columns if isinstance(hdu, fits.BinTableHDU) and _is_array(column)}
    names = tuple(column.name for column in columns)
    return RawTable(names, lambda c, r: _chunks(hdu, c, r), units, kinds, str(hdu.name or ""), number)


def _is_array(column: Any) -> bool:
    """Whether a row holds several values; several letters are one text."""
    found = re.match(r"\s*(\d*)\s*([A-Z])", str(column.format).upper())
    repeat, kind = found.groups() if found else ("", "")
    return kind in ("P", "Q") or (kind != "A" and repeat not in ("", "1"))


def _chunks(hdu: Any, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    total = hdu.header["NAXIS2"]
    nulls = {name: hdu.columns[name].null for name in columns}
    for start in range(0, total, rows):
        count = min(rows, total - start)
        binary = isinstance(hdu, fits.BinTableHDU)
        block = _rows(hdu, start, count) if binary else hdu.data[start : start + count]
        yield pa.table({name: arrow_column(np.asarray(block[name]), name, nulls[name]) for name in columns})


def _rows(hdu: Any, start: int, count: int) -> Any:
    """Some rows of a binary table, as astropy reads them.

    They are read, not mapped: a file that somebody cuts short meanwhile is an error, where a map ends the process.

    Raises:
        CorruptError: the file ends before these rows do.
    """
    place, width = hdu.fileinfo(), hdu.header["NAXIS1"]
    place["file"].seek(place["datLoc"] + start * width)
    data = place["file"].read(count * width)
    if len(data) < count * width:
        raise CorruptError(
            f"{place['file'].name} ends before row {start + count} of its table: check it or fetch it again"
        )
    header = hdu.header.copy()
    header["NAXIS2"], header["PCOUNT"] = count, 0
    header.remove("THEAP", ignore_missing=True)
    padding = bytes(-len(data) % _BLOCK)
    return fits.BinTableHDU.fromstring(header.tostring().encode("ascii") + data + padding, uint=True).data


@contextlib.contextmanager
def open_sextractor(url: str) -> Iterator[list[RawTable]]:
    """The table of an ASCII_HEAD file (a small file: read at once)."""
    with local_file(url) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = astropy_table.Table.read(path, format="ascii.sextractor")
    units = {name: str(table[name].unit) for name in table.colnames if table[name].unit is not None}
    yield [RawTable(tuple(table.colnames), lambda c, r: table_chunks(table, c, r), units)]
