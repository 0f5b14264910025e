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
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from astroml_plugin.catalog.export.columns import Values, check_names, is_mostly_padding, refusal, values_of
from astroml_plugin.catalog.schema import Column, columns_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Array

_BLOCK = 2880
_RECORDS = 32 << 20
"""Bytes of records that are laid out at once."""

_MOST_COLUMNS, _LONGEST_NAME = 999, 68
"""Columns of a table, and letters of a name within one card (a quote counts twice)."""

_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
ENCODED = "percent-encoded UTF-8, as FITS holds ASCII only"
"""Words in the comment of a column whose texts went through `ascii_text`."""

_FORMS = {"b": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "u8": "K", "f4": "E", "f8": "D"}


def ascii_text(text: str) -> str:
    """A text as FITS can hold it: letters beyond printable ASCII, `%` and spaces at the end as in URLs (K%C3%B6ln)."""
    coded = quote(text, safe=_SAFE)
    return coded.rstrip(" ") + "%20" * (len(coded) - len(coded.rstrip(" ")))


def is_plain(text: str) -> bool:
    """Whether FITS can hold a text as it is."""
    return text.isascii() and (not text or (text.isprintable() and text[-1] != " "))


def plain_or_coded(texts: Sequence[str]) -> tuple[list[str], bool]:
    """Texts of one column for FITS, and whether they are percent-encoded: all are, where one needs it."""
    if all(map(is_plain, texts)):
        return list(texts), False
    return [ascii_text(text) for text in texts], True


@dataclass(frozen=True)
class _Stored:
    """One column as it is stored."""

    column: Column
    values: Array
    form: str
    dtype: tuple[Any, ...]
    null: int | None = None
    zero: int | None = None
    coded: bool = False


def write_fits(table: pa.Table, path: Path, about: Sequence[tuple[str, str, str]] = (), name: str = "CATALOG") -> None:
    """Write a settled table as the first extension of a FITS file.

    Args:
        table: (n rows) fields may carry unit, ucd and description.
        path: the file.
        about: (keyword, value, comment) of further cards; long values are continued.
        name: EXTNAME.

    Raises:
        InputError: a column that FITS cannot hold, names that differ in case only, more than 999 columns.
    """
    if table.num_columns > _MOST_COLUMNS:
        raise InputError(f"{table.num_columns} columns: FITS holds {_MOST_COLUMNS}, name fewer or use .parquet")
    check_names(table.column_names, any_case=False)
    stored = [
        _stored(column, values_of(column.name, table[column.name], "FITS")) for column in columns_of(table.schema)
    ]
    names = [ascii_text(item.column.name) if not is_plain(item.column.name) else item.column.name for item in stored]
    check_names(names, any_case=False)
    _refuse_long_names(stored, names)
    records = np.dtype([(f"c{k}", *item.dtype) for k, item in enumerate(stored)])
    header = _header(stored, names, records.itemsize, table.num_rows, about, name)
    with path.open("wb") as sink:
        sink.write(fits.PrimaryHDU().header.tostring(padding=True).encode("ascii"))
        sink.write(header.tostring(padding=True).encode("ascii"))
        for block in _blocks(stored, records, table.num_rows):
            sink.write(block.tobytes())
        sink.write(bytes(-(records.itemsize * table.num_rows) % _BLOCK))


def _refuse_long_names(stored: Sequence[_Stored], names: Sequence[str]) -> None:
    for item, name in zip(stored, names, strict=True):
        if len(name.replace("'", "''")) > _LONGEST_NAME:
            how = "" if name == item.column.name else ", percent-encoded"
            raise InputError(
                f"the name of column '{item.column.name[:40]}…' has {len(name)} letters{how}, and FITS holds "
                f"{_LONGEST_NAME}: give it a shorter one, as in SELECT x AS y, or use .parquet"
            )


def _blocks(stored: list[_Stored], records: np.dtype, rows: int) -> Iterator[Array]:
    step = max(1, _RECORDS // max(1, records.itemsize))
    for start in range(0, rows, step):
        block = np.zeros(min(step, rows - start), records)
        for k, item in enumerate(stored):
            block[f"c{k}"] = item.values[start : start + step]
        yield block


def _stored(column: Column, values: Values) -> _Stored:
    if values.is_text:
        return _text(column, values)
    shape = () if values.data.ndim == 1 else ((values.length,),)
    count = "" if values.data.ndim == 1 else str(values.length)
    data = values.data
    if data.dtype.kind == "b":
        letters = np.where(values.null, 0, np.where(data, ord("T"), ord("F"))).astype(np.uint8)
        return _Stored(column, letters, f"{count}L", ("u1", *shape))
    if data.dtype.kind == "u" and data.dtype.itemsize == 8:
        if values.null.any():
            raise refusal(column.name, pa.uint64(), "FITS", " with nulls and numbers beyond 2^63")
        return _Stored(column, (data ^ np.uint64(1 << 63)).view(np.int64), f"{count}K", (">i8", *shape), zero=1 << 63)
    null = None
    if data.dtype.kind in "iu" and values.null.any():
        data, null = _with_null(data, values.null)
    code = f"{data.dtype.kind}{data.dtype.itemsize}"
    return _Stored(column, data, f"{count}{_FORMS[code]}", (f">{code}", *shape), null)


def _with_null(data: Array, null: Array) -> tuple[Array, int]:
    """Whole numbers with one that no row has in place of nulls, in a wider type where every number occurs."""
    kind = np.dtype(np.int16) if data.dtype == np.uint8 else data.dtype
    taken = np.unique(data[~null].astype(np.int64))
    low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    if low < int(taken[0] if len(taken) else 0):
        free = low
    elif high > int(taken[-1]):
        free = high
    else:
        gaps = np.flatnonzero(taken[:-1] + 1 != taken[1:])  # a difference could overflow
        if not len(gaps):
            return _with_null(data.astype({2: np.int32, 4: np.int64}[kind.itemsize]), null)
        free = int(taken[gaps[0]]) + 1
    filled = data.astype(kind)
    filled[null] = free
    return filled, free


def _text(column: Column, values: Values) -> _Stored:
    texts, coded = plain_or_coded(values.data.tolist())
    width = max(1, max(map(len, texts), default=1))
    if is_mostly_padding(len(texts), width, sum(map(len, texts))):
        raise InputError(
            f"column '{column.name}' has a text of {width} letters, and FITS gives every row as many: use .parquet, or "
            f"write left({column.name}, 200)"
        )
    data = np.empty(len(texts), object)
    data[:] = [text.encode("ascii") for text in texts]
    return _Stored(column, data, f"{width}A", (f"S{width}",), coded=coded)


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
