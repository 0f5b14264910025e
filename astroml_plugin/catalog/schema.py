"""Columns of a catalog: declared once, written into every part, checked against every table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.core import formats
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import OBJECT_FLAGS
from astroml_plugin.core.version import version

FORMAT = 1
"""Version of the catalog's layout: a newer one is refused."""

HEALPIX = "_healpix_29"
"""Hidden last column: nested HEALPix index at order 29 of (ra, dec), null without a sky position."""


@dataclass(frozen=True)
class Column:
    """One declared column."""

    name: str
    """Name, unique in the catalog."""
    type: str
    """Arrow type as text: int64, int32, float64, float32, bool, string, …; float32[16]: vectors of 16 numbers."""
    unit: str = ""
    """VOUnit string; empty for a plain number."""
    ucd: str = ""
    """UCD1+ words."""
    description: str = ""
    """One line for people."""


COMMON_COLUMNS: tuple[Column, ...] = (
    Column("object_id", "int64", "", "meta.id;meta.main", "Identifier of the object, as given"),
    Column("image", "string", "", "meta.id;obs.image", "Parent image (pixel grid) of x and y"),
    Column("tile", "string", "", "meta.id;meta.dataset", "Unit of work that owns the row"),
    Column("x", "float64", "pix", "pos.cartesian.x;instr.det", "0-based pixel position in the parent image, along x"),
    Column("y", "float64", "pix", "pos.cartesian.y;instr.det", "0-based pixel position in the parent image, along y"),
    Column(
        "ra", "float64", "deg", "pos.eq.ra;meta.main", "Right ascension, ICRS; null without a world coordinate system"
    ),
    Column(
        "dec", "float64", "deg", "pos.eq.dec;meta.main", "Declination, ICRS; null without a world coordinate system"
    ),
    Column("primary", "bool", "", "meta.code", "True on one row of an object, also where images overlap"),
    Column("flags", "int32", "", "meta.code.qual", "Bits, see the flags map in the metadata"),
)
HEALPIX_COLUMN = Column(HEALPIX, "int64", "", "pos.healpix", "HEALPix index of ra, dec: order 29, nested")
_VECTOR = re.compile(r"(\w+)\[(\d+)\]")
_VECTOR_NUMBERS = ("uint8", "int16", "int32", "int64", "float32", "float64")
_LONGEST_VECTOR = 4096
REQUIRED = ("object_id", "image", "tile", "primary", "flags")
"""Columns that are never null."""


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type named `text`; strings are large ones, so that no column stops at 2 GB.

    "float32[16]" is a fixed-size list: a vector of 16 numbers in each row, or null.
    """
    vector = _VECTOR.fullmatch(text)
    if vector is not None:
        return pa.list_(_number_type(vector[1], text), _length(vector[2], text))
    if text in ("string", "str", "utf8", "large_string"):
        return pa.large_string()
    try:
        return pa.type_for_alias(text)
    except ValueError as error:
        raise InputError(f"'{text}' is no Arrow type that a catalog column can have") from error


def _number_type(name: str, text: str) -> pa.DataType:
    kind = arrow_type(name)
    if type_name(kind) not in _VECTOR_NUMBERS:
        raise InputError(f"'{text}' is no vector column: its elements must be numbers, as in float32[16]")
    return kind


def _length(digits: str, text: str) -> int:
    if not 1 <= int(digits) <= _LONGEST_VECTOR:
        raise InputError(f"'{text}' is no vector column: its length must be 1 to {_LONGEST_VECTOR}")
    return int(digits)


def type_name(kind: pa.DataType) -> str:
    """The text form of an Arrow type, the inverse of `arrow_type`."""
    if is_vector(kind):
        return f"{type_name(kind.value_type)}[{kind.list_size}]"
    return "string" if is_text(kind) else {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


def is_vector(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds vectors of one length."""
    return bool(pa.types.is_fixed_size_list(kind))


def vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    """A vector column from numbers (n, k); a vector of NaN alone is null."""
    flat = np.ascontiguousarray(values).reshape(-1)
    empty = np.isnan(values).all(1) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    mask = pa.array(empty) if empty.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1], mask=mask)


def matrix(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Numbers (n, k) of a vector column; null vectors and null elements are NaN where the elements are floats.

    Raises:
        InputError: nulls in vectors of whole numbers, which have no NaN.
    """
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    first, count, size = whole.offset, len(whole), whole.type.list_size
    flat = whole.values.slice(first * size, count * size)  # `flatten` would leave null vectors out
    floating = pa.types.is_floating(flat.type)
    if not floating and (whole.null_count or flat.null_count):
        raise InputError(f"a vector column of {flat.type} has nulls: only vectors of floats may, as NaN")
    values = np.array((pc.fill_null(flat, float("nan")) if floating else flat).to_numpy(zero_copy_only=False))
    values = values.reshape(count, size)
    if whole.null_count:
        values[np.asarray(pc.is_null(whole).to_numpy(zero_copy_only=False))] = np.nan
    return values


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def without_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with its values in place of codes."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def schema(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of a new catalog: the common columns, the task's `columns`, then the hidden HEALPix column.

    Common columns may be in `columns` already (a task may describe one better); they keep their place in front.
    Field metadata carry unit, ucd and description; schema metadata the flags map and the package's version.

    Raises:
        InputError: two columns of one name, or of names that differ in large and small letters only.
    """
    found = _schema(columns)
    refuse_one_name(found.names)
    return found


def _schema(columns: Sequence[Column]) -> pa.Schema:
    own = {column.name: column for column in columns if column.name != HEALPIX}
    if len(own) < len([column for column in columns if column.name != HEALPIX]):
        raise InputError("a catalog column is declared twice; give each bundle's columns their own prefix")
    common = [own.pop(column.name, column) for column in COMMON_COLUMNS]
    fields = [_field(column) for column in [*common, *own.values(), HEALPIX_COLUMN]]
    metadata = {formats.CATALOG_FLAGS: json.dumps(OBJECT_FLAGS), formats.CATALOG_VERSION: version()}
    return pa.schema(fields, metadata=metadata)


def refuse_one_name(names: Sequence[str]) -> None:
    """InputError where two names differ in large and small letters only: SQL and FITS take them for one column."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise InputError(
                f"the columns {other} and {name} differ in large and small letters only, which SQL and FITS do not "
                f"tell apart: give one of the classes or columns another name"
            )


def _field(column: Column) -> pa.Field:
    described = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
    metadata = {key: value for key, value in described.items() if value}
    return pa.field(column.name, arrow_type(column.type), metadata=metadata or None)


def columns_of(declared: pa.Schema) -> tuple[Column, ...]:
    """The columns that a schema declares, in order."""
    return tuple(
        Column(field.name, type_name(field.type), *(_text(field, key) for key in ("unit", "ucd", "description")))
        for field in declared
    )


def _text(field: pa.Field, key: str) -> str:
    return ((field.metadata or {}).get(key.encode()) or b"").decode()


def schema_from_json(columns: Sequence[dict[str, str]]) -> pa.Schema:
    """The schema of columns as plain values, as schema.json has them."""
    return _schema([Column(**column) for column in columns])


def verify(table: pa.Table, declared: pa.Schema) -> pa.Table:
    """`table` (n rows) with exactly the declared columns, in order; anything missing, extra or of another type raises.

    Text columns may come as string, large string or dictionary. ValueError names the column: it is a fault of the
    task that made the table, not of the user.
    """
    given, wanted = (
        table.column_names,
        declared.names,
    )  # once: Arrow makes them anew
    there, known = set(given), set(wanted)
    missing = [name for name in wanted if name not in there]
    extra = [name for name in given if name not in known]
    if missing or extra or len(there) < len(given):
        raise ValueError(f"the part does not fit the catalog's schema: missing {missing}, extra {extra}, got {given}")
    arrays = [_checked(table[field.name], field) for field in declared]
    return pa.Table.from_arrays(arrays, schema=declared)


def _checked(array: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if field.name in REQUIRED and array.null_count:
        raise ValueError(f"column '{field.name}' has {array.null_count} nulls; it may have none")
    if array.type == field.type:
        return array
    if (is_text(array.type) and is_text(field.type)) or pa.types.is_null(array.type):
        return array.cast(field.type)
    raise ValueError(f"column '{field.name}' is {array.type}, the catalog's schema says {field.type}")
