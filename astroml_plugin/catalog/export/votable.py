"""VOTable 1.4 with rows as BINARY2, which has a null for every type; and its header alone, for Parquet files.

Written here record by record: astropy's TABLEDATA writer crashes on some rows, and its header breaks lines within
descriptions.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.export.columns import Values, is_mostly_padding, refusal, values_of
from astroml_plugin.catalog.schema import Column, columns_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Array

_TYPES = {
    "b1": "boolean", "u1": "unsignedByte", "i2": "short", "i4": "int", "i8": "long", "f4": "float", "f8": "double",
}  # fmt: skip
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NO_ID = re.compile(r"[^A-Za-z0-9_.-]")
_RECORDS = 57 << 19
"""Bytes of records that are laid out at once; whole lines of base64 (57 bytes)."""


@dataclass(frozen=True)
class Field:
    """How a VOTable describes one column."""

    column: Column
    """Name, unit, UCD, description."""
    datatype: str
    """A word of VOTable: long, double, unicodeChar, …"""
    arraysize: str = ""
    """Length of texts or vectors; empty for one number."""
    xtype: str = ""
    """`timestamp` for moments."""


@dataclass(frozen=True)
class _Stored:
    field: Field
    values: Array
    dtype: tuple[Any, ...]
    null: Array
    """(n,) rows without a value."""


def write_votable(table: pa.Table, path: Path, about: Iterable[tuple[str, str]] = ()) -> None:
    """Write a settled table (n rows) as a VOTable; `about` are (name, value) of INFO elements.

    Raises:
        InputError: a column that VOTable cannot hold.
    """
    stored = [
        _stored(column, values_of(column.name, table[column.name], "VOTable")) for column in columns_of(table.schema)
    ]
    flags = -(-len(stored) // 8)
    records = np.dtype([("null", "u1", (flags,)), *((f"c{k}", *item.dtype) for k, item in enumerate(stored))])
    head, tail = _document([item.field for item in stored], about, table.num_rows, binary=True)
    with path.open("wb") as sink:
        sink.write(head.encode())
        for block in _blocks(stored, records, table.num_rows):
            sink.write(base64.encodebytes(block.tobytes()))
        sink.write(tail.encode())


def header(fields: Sequence[Field], about: Iterable[tuple[str, str]] = ()) -> str:
    """A VOTable without rows."""
    head, tail = _document(fields, about, None, binary=False)
    return head + tail


def _blocks(stored: list[_Stored], records: np.dtype, rows: int) -> Iterator[Array]:
    step = 57 * max(1, _RECORDS // (57 * records.itemsize))
    for start in range(0, rows, step):
        block = np.zeros(min(step, rows - start), records)
        for k, item in enumerate(stored):
            block[f"c{k}"] = item.values[start : start + step]
            block["null"][:, k // 8] |= (item.null[start : start + step] << (7 - k % 8)).astype(np.uint8)
        yield block


def _stored(column: Column, values: Values) -> _Stored:
    if values.is_text:
        return _text(column, values)
    vector = values.data.ndim == 2
    shape = ((values.length,),) if vector else ()
    null: Array = np.logical_and.reduce(values.null, axis=1) if vector else values.null
    data, kind = values.data, values.data.dtype
    if kind.kind == "u" and kind.itemsize == 8:
        raise refusal(column.name, pa.uint64(), "VOTable", " with numbers beyond 2^63")
    if kind.kind in "iu" and vector and (values.null.any(axis=1) & ~null).any():
        raise refusal(column.name, pa.list_(pa.from_numpy_dtype(kind)), "VOTable", " with nulls within vectors")
    field = Field(column, _TYPES[f"{kind.kind}{kind.itemsize}"], str(values.length) if vector else "")
    if kind.kind == "b":
        letters = np.where(values.null, ord("?"), np.where(data, ord("T"), ord("F"))).astype(np.uint8)
        return _Stored(field, letters, ("u1", *shape), null)
    return _Stored(field, data, (f">{kind.kind}{kind.itemsize}", *shape), null)


def _text(column: Column, values: Values) -> _Stored:
    coded = [text.encode("utf-16-be") for text in values.data.tolist()]
    if any("\0" in text for text in values.data.tolist()):
        raise InputError(
            f"column '{column.name}' has texts with a NUL letter, which end a text in VOTable: write "
            f"replace({column.name}, chr(0), ''), or use .parquet"
        )
    width = max(2, max(map(len, coded), default=2))
    if is_mostly_padding(len(coded), width, sum(map(len, coded))):
        raise InputError(
            f"column '{column.name}' has a text of {width // 2} letters, and every row would get as many: use "
            f".parquet, or write left({column.name}, 200)"
        )
    data = np.empty(len(coded), object)
    data[:] = coded
    xtype = "timestamp" if values.is_time else ""
    return _Stored(Field(column, "unicodeChar", str(width // 2), xtype), data, (f"S{width}",), values.null)


# XML


def _document(
    fields: Sequence[Field], about: Iterable[tuple[str, str]], rows: int | None, *, binary: bool
) -> tuple[str, str]:
    """The texts before the rows and after them."""
    sky = any(_is_sky(field.column) for field in fields)
    infos = "".join(f"<INFO name={_attribute(name)} value={_attribute(value)}/>\n" for name, value in about)
    ids = _ids([field.column.name for field in fields])
    count = "" if rows is None else f' nrows="{rows}"'
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f'<RESOURCE type="results">\n{infos}'
        + ('<COOSYS ID="icrs" system="ICRS"/>\n' if sky else "")
        + f'<TABLE name="catalog"{count}>\n'
        + "".join(_field(field, name) for field, name in zip(fields, ids, strict=True))
    )
    data = ('<DATA><BINARY2><STREAM encoding="base64">\n', "</STREAM></BINARY2></DATA>\n") if binary else ("", "")
    return head + data[0], data[1] + "</TABLE>\n</RESOURCE>\n</VOTABLE>\n"


def _field(field: Field, identifier: str) -> str:
    column = field.column
    words = {
        "ID": identifier,
        "name": column.name,
        "datatype": field.datatype,
        "arraysize": field.arraysize,
        "unit": column.unit,
        "ucd": column.ucd,
        "xtype": field.xtype,
        "ref": "icrs" if _is_sky(column) else "",
    }
    attributes = " ".join(f"{key}={_attribute(word)}" for key, word in words.items() if word or key == "name")
    if not column.description:
        return f"<FIELD {attributes}/>\n"
    return f"<FIELD {attributes}><DESCRIPTION>{escape(_xml(column.description))}</DESCRIPTION></FIELD>\n"


def _is_sky(column: Column) -> bool:
    """Whether a column is a position in ICRS, the only frame of a catalog."""
    return column.unit == "deg" and column.ucd.startswith(("pos.eq.ra", "pos.eq.dec"))


def _ids(names: Sequence[str]) -> list[str]:
    """XML identifiers, as near to the names as can be."""
    found: list[str] = []
    taken = {"icrs"}
    for name in names:
        base = _NO_ID.sub("_", name) or "_"
        base = base if base[0].isalpha() or base[0] == "_" else f"_{base}"
        number, identifier = 1, base
        while identifier in taken:
            number += 1
            identifier = f"{base}_{number}"
        taken.add(identifier)
        found.append(identifier)
    return found


def _attribute(text: str) -> str:
    return quoteattr(_xml(text))


def _xml(text: str) -> str:
    """A text without the letters that XML cannot hold; they become \\uXXXX."""
    return _NO_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
