"""Rows that are read twice: first what each column holds, then the rows themselves, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.export.columns import Values, as_texts, settled, values_of
from astroml_plugin.catalog.export.texts import ascii_text, is_plain
from astroml_plugin.catalog.schema import is_text
from astroml_plugin.core.errors import CorruptError
from astroml_plugin.core.typing import I64, Array

_ROWS = 65_536
"""Rows of a batch of a table in memory."""

_BYTES = 16 << 20
"""Bytes of records that are laid out at once."""

_CHANGED = "the rows changed while they were read ({}), as a run goes on: wait for its end, then write the file again"

_ENDS = 16
"""Numbers at either end of a type's range, of which one that no row has may stand for null."""


class Rows(Protocol):
    """Rows of one schema that can be read more than once."""

    @property
    def schema(self) -> pa.Schema:
        """Columns; fields may carry unit, ucd and description, the metadata where the rows come from."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows, or these columns of them, in batches."""


@dataclass(frozen=True)
class TableRows:
    """Rows of a table in memory."""

    table: pa.Table
    """The rows (n), settled: see `columns.settled`."""

    @classmethod
    def of(cls, table: pa.Table) -> TableRows:
        """Rows of any table; whole decimals become int64 where they fit."""
        return cls(settled(table))

    @property
    def schema(self) -> pa.Schema:
        """The table's columns."""
        return self.table.schema

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows, or these columns of them, in batches."""
        chosen = self.table if columns is None else self.table.select(list(columns))
        yield from chosen.to_batches(_ROWS)


@dataclass
class Lengths:
    """Lengths of the texts of a column, in one way of writing them."""

    longest: int = 0
    """Length of the longest text."""
    total: int = 0
    """Length of all texts together."""

    def add(self, lengths: I64, counts: I64) -> None:
        """Count (k,) lengths, each of which occurs `counts` (k,) times."""
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        self.total += int((lengths * counts).sum())


@dataclass
class Extent:
    """Contents of a column over all rows."""

    nulls: bool = False
    """Whether a row has no value."""
    largest: int = 0
    """Largest whole number; 0 where none is above 0."""
    free: I64 | None = None
    """Whole numbers up to int64: some within the type's range that no row has, the best one for null first."""
    letters: Lengths = field(default_factory=Lengths)
    """Letters of the texts."""
    utf16: Lengths = field(default_factory=Lengths)
    """Bytes of the texts in UTF-16."""
    coded: Lengths = field(default_factory=Lengths)
    """Bytes of the texts in ASCII, others percent-encoded."""
    is_plain: bool = True
    """Whether FITS can hold all texts as they are."""
    has_nul: bool = False
    """Whether a text has a NUL letter."""

    def add_numbers(self, values: Values) -> None:
        """Count the numbers of a batch."""
        self.nulls = self.nulls or bool(values.null.any())
        data = values.data[~values.null]
        if data.dtype.kind not in "iu":
            return
        self.largest = max(self.largest, int(data.max(initial=0)))
        if data.dtype != np.uint64:
            free = _ends(values.data.dtype) if self.free is None else self.free
            self.free = free[~np.isin(free, data)]

    def add_texts(self, texts: pa.ChunkedArray) -> None:
        """Count the texts of a batch."""
        self.nulls = self.nulls or texts.null_count > 0
        counted = pc.value_counts(pc.fill_null(texts, ""))
        words, counts = counted.field("values").to_pylist(), counted.field("counts").to_numpy()
        measured = [(len(word), len(word.encode("utf-16-be")), len(ascii_text(word))) for word in words]
        columns = np.array(measured, np.int64).reshape(-1, 3).T
        for kept, column in zip((self.letters, self.utf16, self.coded), columns, strict=True):
            kept.add(column, counts)
        self.is_plain = self.is_plain and all(map(is_plain, words))
        self.has_nul = self.has_nul or any("\0" in word for word in words)


def _ends(kind: np.dtype) -> I64:
    """Numbers at both ends of the range of a type of whole numbers, the lowest first; of bytes, those of int16."""
    info = np.iinfo(np.int16 if kind == np.uint8 else kind)
    low, high = int(info.min), int(info.max)
    return np.array([low, high, *(low + k for k in range(1, _ENDS)), *(high - k for k in range(1, _ENDS))], np.int64)


def extents_of(rows: Rows, holder: str) -> tuple[int, list[Extent]]:
    """How many rows there are, and what each column holds; numbers with a fraction are not looked at.

    Args:
        rows: read once.
        holder: format that they are for, as in "column 'a' is a list, which FITS cannot hold".

    Raises:
        InputError: a column that the format cannot hold.
    """
    found = {name: Extent() for name in rows.schema.names}
    count = 0
    looked_at = [item.name for item in rows.schema if not _is_plain_float(item.type)]
    for batch in rows.batches(looked_at or rows.schema.names[:1]):
        count += batch.num_rows
        for name in looked_at:
            column = pa.chunked_array([batch.column(name)])
            texts = as_texts(name, column, holder)
            if texts is not None:
                found[name].add_texts(texts)
            else:
                found[name].add_numbers(values_of(name, column, holder))
    return count, list(found.values())


def _is_plain_float(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
    return bool(pa.types.is_floating(inner))


def blocks(
    rows: Rows, layout: np.dtype, encoders: Sequence[Callable[[pa.ChunkedArray], Array]]
) -> Iterator[tuple[pa.RecordBatch, Array]]:
    """Some rows after others, as they are and as records (k,) of one layout whose last fields are the columns.

    Args:
        rows: the rows.
        layout: as many fields as there are columns, in their order; others may stand before them.
        encoders: give the values of each column as its field holds them.

    Raises:
        CorruptError: values that the layout has no room for: the rows are not those that it was made for.
    """
    step = max(1, _BYTES // max(1, layout.itemsize))
    fields = layout.names[-len(encoders) :] if encoders and layout.names else ()
    for batch in rows.batches():
        for start in range(0, batch.num_rows, step):
            piece = batch.slice(start, step)
            block = np.zeros(piece.num_rows, layout)
            for name, column, encode in zip(fields, piece.columns, encoders, strict=True):
                try:
                    block[name] = encode(pa.chunked_array([column]))
                except ValueError as error:
                    raise CorruptError(_CHANGED.format(error)) from error
            yield piece, block


def text_lengths_of(rows: Rows) -> tuple[int, dict[str, int]]:
    """How many rows there are, and the letters of the longest text of each text column, at least 1."""
    names = [item.name for item in rows.schema if is_text(item.type)]
    longest, count = dict.fromkeys(names, 1), 0
    for batch in rows.batches(names or rows.schema.names[:1]):
        count += batch.num_rows
        for name in names:
            longest[name] = max(longest[name], pc.max(pc.utf8_length(batch.column(name))).as_py() or 1)
    return count, longest


def check_count(expected: int, count: int) -> None:
    """CorruptError where a second reading gave another number of rows than the first."""
    if count != expected:
        raise CorruptError(_CHANGED.format(f"{count} of {expected} rows"))
