"""VOTable 1.4 with rows as BINARY2, which has a null for every type; and its header alone, for Parquet files.

Written here record by record: astropy's TABLEDATA writer crashes on some rows, and its header breaks lines within
descriptions.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.export.columns import (
    INT64_MAX,
    as_texts,
    is_moment,
    is_mostly_padding,
    refusal,
    values_of,
)
from astroml_plugin.catalog.export.extents import Extent, Rows, blocks, check_count, extents_of
from astroml_plugin.catalog.export.texts import records
from astroml_plugin.catalog.schema import Column, columns_of, is_vector
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Array, Bool

_TYPES = {
    "b1": "boolean", "u1": "unsignedByte", "i2": "short", "i4": "int", "i8": "long", "f4": "float", "f8": "double",
}  # fmt: skip
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NO_ID = re.compile(r"[^A-Za-z0-9_.-]")
_LINE = 57
"""Bytes of a line of base64."""


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
    """How one column is stored."""

    field: Field
    dtype: tuple[Any, ...]

    def encode(self, column: pa.ChunkedArray) -> Array:
        """Values (n) of the column as the bytes of records."""
        name = self.field.column.name
        texts = as_texts(name, column, "VOTable")
        if texts is not None:
            return records(texts, int(self.dtype[0][1:]), lambda text: text.encode("utf-16-be"))
        values = values_of(name, column, "VOTable")
        if values.data.dtype.kind == "b":
            return np.where(values.null, ord("?"), np.where(values.data, ord("T"), ord("F"))).astype(np.uint8)
        return values.data.astype(np.dtype(self.dtype[0]))

    def null(self, column: pa.ChunkedArray) -> Bool:
        """(n,) rows without a value: of vectors, those without any.

        Raises:
            InputError: nulls within vectors of whole numbers, which VOTable cannot hold.
        """
        name, kind = self.field.column.name, column.type
        if as_texts(name, column, "VOTable") is not None or not is_vector(kind):
            return np.asarray(pc.is_null(column).to_numpy())
        values = values_of(name, column, "VOTable")
        null: Bool = np.logical_and.reduce(values.null, axis=1)
        if values.data.dtype.kind in "iu" and (values.null.any(axis=1) & ~null).any():
            inner = pa.list_(pa.from_numpy_dtype(values.data.dtype))
            raise refusal(name, inner, "VOTable", " with nulls within vectors")
        return null


def write_votable(rows: Rows, path: Path, about: Iterable[tuple[str, str]] = ()) -> int:
    """Write rows as a VOTable, in bounded memory; gives their number.

    Args:
        rows: they are read twice; fields may carry unit, ucd and description.
        path: the file.
        about: (name, value) of INFO elements.

    Raises:
        InputError: a column that VOTable cannot hold.
        CorruptError: the second reading gives other rows than the first.
    """
    schema = rows.schema
    count, extents = extents_of(rows, "VOTable")
    stored = [
        _stored(column, kind, extent, count)
        for column, kind, extent in zip(columns_of(schema), schema.types, extents, strict=True)
    ]
    layout = np.dtype([("null", "u1", (-(-len(stored) // 8),)), *((f"c{k}", *s.dtype) for k, s in enumerate(stored))])
    head, tail = _document([item.field for item in stored], about, count, binary=True)
    written, left = 0, b""
    with path.open("wb") as sink:
        sink.write(head.encode())
        for piece, block in blocks(rows, layout, [item.encode for item in stored]):
            for k, item in enumerate(stored):
                null = item.null(pa.chunked_array([piece.column(k)]))
                block["null"][:, k // 8] |= (null << (7 - k % 8)).astype(np.uint8)
            left += block.tobytes()
            whole = len(left) - len(left) % _LINE
            sink.write(base64.encodebytes(left[:whole]))
            left, written = left[whole:], written + len(block)
        sink.write(base64.encodebytes(left))
        sink.write(tail.encode())
    check_count(count, written)
    return count


def header(fields: Sequence[Field], about: Iterable[tuple[str, str]] = ()) -> str:
    """A VOTable without rows."""
    head, tail = _document(fields, about, None, binary=False)
    return head + tail


def _stored(column: Column, kind: pa.DataType, extent: Extent, rows: int) -> _Stored:
    empty = pa.chunked_array([], kind)
    if as_texts(column.name, empty, "VOTable") is not None:
        return _text(column, extent, rows, "timestamp" if is_moment(kind) else "")
    values = values_of(column.name, empty, "VOTable")
    vector = values.data.ndim == 2
    shape, number = ((values.length,),) if vector else (), values.data.dtype
    if kind == pa.uint64() and extent.largest > INT64_MAX:
        raise refusal(column.name, kind, "VOTable", " with numbers beyond 2^63")
    field = Field(column, _TYPES[f"{number.kind}{number.itemsize}"], str(values.length) if vector else "")
    return _Stored(field, ("u1" if number.kind == "b" else f">{number.kind}{number.itemsize}", *shape))


def _text(column: Column, extent: Extent, rows: int, xtype: str) -> _Stored:
    if extent.has_nul:
        raise InputError(
            f"column '{column.name}' has texts with a NUL letter, which end a text in VOTable: write "
            f"replace({column.name}, chr(0), ''), or use .parquet"
        )
    width = max(2, extent.utf16.longest)
    if is_mostly_padding(rows, width, extent.utf16.total):
        raise InputError(
            f"column '{column.name}' has a text of {width // 2} letters, and every row would get as many: use "
            f".parquet, or write left({column.name}, 200)"
        )
    return _Stored(Field(column, "unicodeChar", str(width // 2), xtype), (f"S{width}",))


# XML


def _document(
    fields: Sequence[Field], about: Iterable[tuple[str, str]], rows: int | None, *, binary: bool
) -> tuple[str, str]:
    """The texts before the rows and after them."""
    sky = any(_is_sky(field.column) for field in fields)
    time = any(field.xtype == "timestamp" for field in fields)
    infos = "".join(f"<INFO name={_attribute(name)} value={_attribute(value)}/>\n" for name, value in about)
    ids = _ids([field.column.name for field in fields])
    count = "" if rows is None else f' nrows="{rows}"'
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f'<RESOURCE type="results">\n{infos}'
        + ('<COOSYS ID="icrs" system="ICRS"/>\n' if sky else "")
        + ('<TIMESYS ID="utc" timescale="UTC" refposition="UNKNOWN"/>\n' if time else "")
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
        "ref": "icrs" if _is_sky(column) else "utc" if field.xtype == "timestamp" else "",
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
    taken = {"icrs", "utc"}
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
