"""Columns of an answer as numbers and text with their nulls apart, or one sentence about the column that is neither."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.schema import is_text, is_vector
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Array, Bool

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_LARGE = 1 << 30
"""Bytes of a text column of one width from which on it is looked at how many of them are padding."""

_PADDED = 8
"""Bytes of padding for one of text that are too many."""

_WIDER = {
    pa.int8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
}  # fmt: skip
"""Types that neither FITS nor VOTable has, and the next one that holds all their values (or those that are there)."""

INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Values:
    """One column, ready for a format of records."""

    name: str
    """Name of the column."""
    data: Array
    """(n,) or (n, k) numbers or booleans, or (n,) objects: texts. Nulls are NaN, 0, False or empty."""
    null: Bool
    """(n,) or (n, k): where there is no value."""
    is_text: bool = False
    """Whether the values are texts."""
    is_time: bool = False
    """Whether the texts are moments in ISO 8601 (UTC, with a Z, where a zone was known)."""

    @property
    def length(self) -> int:
        """Numbers of a row: 1, or those of a vector."""
        return 1 if self.data.ndim == 1 else int(self.data.shape[1])


def check_names(names: Sequence[str], *, any_case: bool = True) -> None:
    """InputError where two columns have one name.

    Args:
        names: of the columns.
        any_case: whether the format tells `ra` and `RA` apart.
    """
    seen = Counter(names if any_case else [name.lower() for name in names])
    twice = next((name for name in names if seen[name if any_case else name.lower()] > 1), None)
    if twice is not None:
        how = "" if any_case else ", which FITS does not tell apart by case"
        raise InputError(f"two columns are named '{twice}'{how}: give one another name, as in SELECT x AS x2")


def check_letters(names: Sequence[str], holder: str) -> None:
    """InputError where a name of a column has a line end or another control letter, which a text format loses.

    Args:
        names: of the columns.
        holder: what they are for, as in "which CSV cannot hold".
    """
    odd = next((name for name in names if _CONTROL.search(name)), None)
    if odd is not None:
        raise InputError(
            f"the name of column {odd!r} has a line end or control letter, which {holder} cannot hold: give it another "
            f"name, as in SELECT {sql.name(odd)!r} AS x"
        )


def refusal(name: str, kind: pa.DataType, holder: str, why: str = "") -> InputError:
    """The error about a column that a format cannot hold, with the remedy."""
    ways = [f"write it as text (CAST({sql.name(name)} AS VARCHAR))"]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        ways.append(f"as a vector of n numbers (CAST({sql.name(name)} AS FLOAT[n]))")
    if holder != "Parquet" and not pa.types.is_interval(kind):
        ways.append("use .parquet")
    return InputError(f"column '{name}' is a {kind}{why}, which {holder} cannot hold: {', or '.join(ways)}")


def settled(table: pa.Table) -> pa.Table:
    """An answer with types that all readers know: whole decimals (sums of integers) as int64 where all values fit,
    columns without any value as int32 nulls.

    Raises:
        InputError: two columns have one name.
    """
    check_names(table.column_names)
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if pa.types.is_null(field.type):
            column = column.cast(pa.int32())
        elif pa.types.is_decimal(field.type) and field.type.scale == 0 and _fits(column):
            column = column.cast(pa.int64())
        if column.type != field.type:
            table = table.set_column(place, field.with_type(column.type), column)
    return table


def _fits(column: pa.ChunkedArray) -> bool:
    bounds = pc.min_max(column)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is None or (low >= -INT64_MAX - 1 and high <= INT64_MAX)


def values_of(name: str, column: pa.ChunkedArray, holder: str) -> Values:
    """A settled column as numbers or text.

    Args:
        name: of the column.
        column: its values.
        holder: what it is for, as in "column 'a' is a list, which FITS cannot hold".

    Raises:
        InputError: a type that is neither, or numbers beyond int64 that are no uint64.
    """
    kind = column.type
    texts = as_texts(name, column, holder)
    if texts is not None:
        return _text(name, texts, is_time=is_moment(kind))
    if pa.types.is_decimal(kind):
        if kind.scale == 0:
            raise refusal(name, kind, holder, " with numbers beyond 64 bits")
        column, kind = column.cast(pa.string()).cast(pa.float64()), pa.float64()  # nearest, as Arrow's own cast is not
    if is_vector(kind) and _is_number(kind.value_type):
        return _vectors(name, column)
    if not _is_number(kind):
        raise refusal(name, kind, holder)
    column = _widened(column)
    null = np.asarray(pc.is_null(column).to_numpy())
    return Values(name, np.array(pc.fill_null(column, _nothing(column.type)).to_numpy()), null)


def as_texts(name: str, column: pa.ChunkedArray, holder: str) -> pa.ChunkedArray | None:
    """A column (n) of texts, or of moments as ISO 8601 texts, as large strings; None for others.

    Args:
        name: of the column.
        column: its values.
        holder: what it is for.

    Raises:
        InputError: moments that no calendar has.
    """
    if is_text(column.type):
        return column.cast(pa.large_string())
    kind = column.type
    if pa.types.is_temporal(kind) and not (pa.types.is_duration(kind) or pa.types.is_interval(kind)):
        return _moments(name, column, holder)
    return None


def is_moment(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds dates or timestamps."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _nothing(kind: pa.DataType) -> float | int | bool:
    """The number that stands where a value of a type is null."""
    if pa.types.is_boolean(kind):
        return False
    return float("nan") if pa.types.is_floating(kind) else 0


def _widened(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    if column.type == pa.uint64() and (pc.max(column).as_py() or 0) > INT64_MAX:
        return column
    return column.cast(_WIDER.get(column.type, column.type))


def _text(name: str, column: pa.ChunkedArray, *, is_time: bool) -> Values:
    null = np.asarray(pc.is_null(column).to_numpy())
    data = np.empty(len(column), object)
    data[:] = pc.fill_null(column, "").to_pylist()
    return Values(name, data, null, is_text=True, is_time=is_time)


def _moments(name: str, column: pa.ChunkedArray, holder: str) -> pa.ChunkedArray:
    """Dates, times and timestamps as ISO 8601; with a zone, in UTC with the letter Z at the end."""
    kind = column.type
    if zoned := pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))
    texts = column.cast(pa.large_string())
    if pc.any(pc.match_substring(texts, "out of range")).as_py():
        raise refusal(name, kind, holder, " with moments that no calendar has")
    texts = pc.replace_substring(texts, " ", "T")
    if zoned:
        texts = pc.binary_join_element_wise(texts, pa.scalar("Z", texts.type), pa.scalar("", texts.type))
    return texts


def _vectors(name: str, column: pa.ChunkedArray) -> Values:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    first, count, size = whole.offset, len(whole), whole.type.list_size
    flat = _widened(whole.values.slice(first * size, count * size))  # `flatten` would leave null vectors out
    null = np.array(pc.is_null(flat).to_numpy(zero_copy_only=False)).reshape(count, size)
    null |= np.asarray(pc.is_null(whole).to_numpy(zero_copy_only=False))[:, None]
    data = np.array(pc.fill_null(flat, _nothing(flat.type)).to_numpy(zero_copy_only=False)).reshape(count, size)
    data[null] = _nothing(flat.type)
    return Values(name, data, null)


def is_mostly_padding(rows: int, width: int, total: int) -> bool:
    """Whether texts of one width would be large and nearly all padding.

    Args:
        rows: texts.
        width: bytes that each would have.
        total: bytes that they have.
    """
    return rows * width > _LARGE and rows * width > _PADDED * total
