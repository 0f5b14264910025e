"""FITS binary tables by the standard: logical nulls are byte 0, whole numbers have TNULL, text is ASCII.

Written here record by record, because astropy's own writer stores a null boolean as T and takes 999999 for null.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from astroml_plugin.catalog.export.columns import (
    INT64_MAX,
    as_texts,
    check_names,
    is_mostly_padding,
    refusal,
    values_of,
)
from astroml_plugin.catalog.export.extents import Extent, Rows, blocks, check_count, extents_of
from astroml_plugin.catalog.export.texts import ENCODED, ascii_text, is_plain, records
from astroml_plugin.catalog.schema import Column, columns_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Array

_BLOCK = 2880

_MOST_COLUMNS, _LONGEST_NAME = 999, 68
"""Columns of a table, and letters of a name within one card (a quote counts twice)."""

_FORMS = {"b": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "u8": "K", "f4": "E", "f8": "D"}


@dataclass(frozen=True)
class _Stored:
    """How one column is stored."""

    column: Column
    form: str
    dtype: tuple[Any, ...]
    null: int | None = None
    zero: int | None = None
    coded: bool = False

    def encode(self, column: pa.ChunkedArray) -> Array:
        """Values (n) of the column as the bytes of records."""
        texts = as_texts(self.column.name, column, "FITS")
        if texts is not None:
            return records(texts, int(self.dtype[0][1:]), self._as_ascii)
        values = values_of(self.column.name, column, "FITS")
        if values.data.dtype.kind == "b":
            return np.where(values.null, 0, np.where(values.data, ord("T"), ord("F"))).astype(np.uint8)
        if self.zero is not None:
            return (values.data.astype(np.uint64) ^ np.uint64(self.zero)).view(np.int64)
        filled = values.data.astype(np.dtype(self.dtype[0]))
        if values.data.dtype.kind in "iu" and values.null.any():
            if self.null is None:
                raise ValueError(f"column {self.column.name} has nulls now")
            filled[values.null] = self.null
        return filled

    def _as_ascii(self, text: str) -> bytes:
        return (ascii_text(text) if self.coded else text).encode("ascii")


def write_fits(rows: Rows, path: Path, about: Sequence[tuple[str, str, str]] = (), name: str = "CATALOG") -> int:
    """Write rows as the first extension of a FITS file, in bounded memory; gives their number.

    Args:
        rows: they are read twice; fields may carry unit, ucd and description.
        path: the file.
        about: (keyword, value, comment) of further cards; long values are continued.
        name: EXTNAME.

    Raises:
        InputError: a column that FITS cannot hold, names that differ in case only, more than 999 columns.
        CorruptError: the second reading gives other rows than the first.
    """
    schema = rows.schema
    if len(schema) > _MOST_COLUMNS:
        raise InputError(f"{len(schema)} columns: FITS holds {_MOST_COLUMNS}, name fewer or use .parquet")
    check_names(schema.names, any_case=False)
    count, extents = extents_of(rows, "FITS")
    stored = [
        _stored(column, kind, extent, count)
        for column, kind, extent in zip(columns_of(schema), schema.types, extents, strict=True)
    ]
    names = [ascii_text(item.column.name) if not is_plain(item.column.name) else item.column.name for item in stored]
    check_names(names, any_case=False)
    _refuse_long_names(stored, names)
    layout = np.dtype([(f"c{k}", *item.dtype) for k, item in enumerate(stored)])
    header = _header(stored, names, layout.itemsize, count, about, name)
    written = 0
    with path.open("wb") as sink:
        sink.write(fits.PrimaryHDU().header.tostring(padding=True).encode("ascii"))
        sink.write(header.tostring(padding=True).encode("ascii"))
        for _, block in blocks(rows, layout, [item.encode for item in stored]):
            sink.write(block.tobytes())
            written += len(block)
        sink.write(bytes(-(layout.itemsize * count) % _BLOCK))
    check_count(count, written)
    return count


def _refuse_long_names(stored: Sequence[_Stored], names: Sequence[str]) -> None:
    for item, name in zip(stored, names, strict=True):
        if len(name.replace("'", "''")) > _LONGEST_NAME:
            how = "" if name == item.column.name else ", percent-encoded"
            raise InputError(
                f"the name of column '{item.column.name[:40]}…' has {len(name)} letters{how}, and FITS holds "
                f"{_LONGEST_NAME}: give it a shorter one, as in SELECT x AS y, or use .parquet"
            )


def _stored(column: Column, kind: pa.DataType, extent: Extent, rows: int) -> _Stored:
    empty = pa.chunked_array([], kind)
    if as_texts(column.name, empty, "FITS") is not None:
        return _text(column, extent, rows)
    values = values_of(column.name, empty, "FITS")
    vector = values.data.ndim == 2
    shape, count = ((values.length,), str(values.length)) if vector else ((), "")
    number = values.data.dtype
    if number.kind == "b":
        return _Stored(column, f"{count}L", ("u1", *shape))
    if kind == pa.uint64() and extent.largest > INT64_MAX:
        if extent.nulls:
            raise refusal(column.name, pa.uint64(), "FITS", " with nulls and numbers beyond 2^63")
        return _Stored(column, f"{count}K", (">i8", *shape), zero=1 << 63)
    null = None
    if number.kind in "iu" and extent.nulls:
        number, null = _with_null(number, extent)
    code = f"{number.kind}{number.itemsize}"
    return _Stored(column, f"{count}{_FORMS[code]}", (f">{code}", *shape), null)


def _with_null(number: np.dtype, extent: Extent) -> tuple[np.dtype, int]:
    """A type of whole numbers and one of its numbers that no row has; a wider type where every number occurs."""
    kind = np.dtype(np.int16) if number == np.uint8 else number
    if extent.free is None:
        return kind, int(np.iinfo(kind).min)
    if len(extent.free):
        return kind, int(extent.free[0])
    wider = np.int32 if kind.itemsize == 2 else np.int64
    return np.dtype(wider), int(np.iinfo(wider).min)


def _text(column: Column, extent: Extent, rows: int) -> _Stored:
    lengths = extent.letters if extent.is_plain else extent.coded
    width = max(1, lengths.longest)
    if is_mostly_padding(rows, width, lengths.total):
        raise InputError(
            f"column '{column.name}' has a text of {width} letters, and FITS gives every row as many: use .parquet, or "
            f"write left({column.name}, 200)"
        )
    return _Stored(column, f"{width}A", (f"S{width}",), coded=not extent.is_plain)


def _header(
    stored: list[_Stored], names: list[str], width: int, rows: int, about: Sequence[tuple[str, str, str]], extname: str
) -> fits.Header:
    header = fits.Header()
    for key, value, comment in (
        ("XTENSION", "BINTABLE", "binary table"),
        ("BITPIX", 8, "bytes"),
        ("NAXIS", 2, "rows of bytes"),
        ("NAXIS1", width, "bytes of a row"),
        ("NAXIS2", rows, "rows"),
        ("PCOUNT", 0, "no heap"),
        ("GCOUNT", 1, "one group"),
        ("TFIELDS", len(stored), "columns"),
    ):
        header.append(fits.Card(key, value, comment), end=True)
    for k, (item, name) in enumerate(zip(stored, names, strict=True), 1):
        for key, word in _cards(item, name).items():
            header.append(fits.Card(f"{key}{k}", word), end=True)
    header.append(fits.Card("EXTNAME", extname), end=True)
    for key, value, comment in about:
        header.append(fits.Card(key, card_text(value), comment if len(value) < 40 else None), end=True)
    for line in _for_astropy(stored, names):
        header.append(fits.Card("COMMENT", line), end=True)
    return header


def _cards(item: _Stored, name: str) -> dict[str, Any]:
    """Keywords of one column, without its number."""
    comment = "; ".join(word for word in (item.column.description, ENCODED if item.coded else "") if word)
    cards = {
        "TTYPE": name,
        "TFORM": item.form,
        "TNULL": item.null,
        "TZERO": item.zero,
        "TUNIT": fits_unit(item.column.unit),
        "TUCD": item.column.ucd,
        "TCOMM": card_text(comment),
    }
    return {key: value for key, value in cards.items() if value not in (None, "")}


def fits_unit(unit: str) -> str:
    """A VOUnit string as the FITS standard writes it, where it knows it."""
    if not unit:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(u.Unit(unit).to_string("fits"))
        except (ValueError, TypeError):
            return card_text(unit)


def card_text(text: str) -> str:
    """A text as a header card can hold it: with other letters, line ends or backslashes, all of it as in JSON.

    So is a long one that astropy would cut short (`'/`, or `&` at the end of a card).
    """
    if is_plain(text) and "\\" not in text and _comes_back(text):
        return text
    coded = json.dumps(text)[1:-1].replace("\x7f", "\\u007f")
    if _comes_back(coded):
        return coded
    return "".join(f"\\u{ord(letter):04x}" if letter in "'&/" else letter for letter in coded)


def _comes_back(text: str) -> bool:
    header = fits.Header([fits.Card("TEXT", text)])
    return str(fits.Header.fromstring(header.tostring())["TEXT"]) == text.rstrip(" ")


def _for_astropy(stored: list[_Stored], names: list[str]) -> Iterator[str]:
    """Lines from which `Table.read` of astropy restores descriptions and UCDs, as its own writer gives them."""
    from astropy.table import Column as AstropyColumn
    from astropy.table.meta import get_yaml_from_table

    described: Mapping[str, Any] = {
        name: AstropyColumn(
            np.zeros(0, "U1" if item.form.endswith("A") else "f4"),
            description=_cards(item, name).get("TCOMM"),
            meta={"ucd": item.column.ucd} if item.column.ucd else None,
        )
        for name, item in zip(names, stored, strict=True)
    }
    yield "--BEGIN-ASTROPY-SERIALIZED-COLUMNS--"
    for line in get_yaml_from_table(Table(dict(described), meta={"__serialized_columns__": {}})):
        pieces = [line[k : k + 70] for k in range(0, len(line), 70)] or [""]
        yield from (piece + "\\" for piece in pieces[:-1])
        yield pieces[-1]
    yield "--END-ASTROPY-SERIALIZED-COLUMNS--"
