"""Tables to files: Parquet, CSV, ECSV, FITS and VOTable, with the units, descriptions and origin that they carry."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.table import Column as AstropyColumn
from astropy.table import MaskedColumn, Table

from astroml_plugin.catalog.export.columns import (
    Values,
    check_letters,
    check_names,
    is_mostly_padding,
    refusal,
    settled,
    values_of,
)
from astroml_plugin.catalog.export.extents import Rows, TableRows, check_count, text_lengths_of
from astroml_plugin.catalog.export.facts import cards, facts, told_of
from astroml_plugin.catalog.export.fits import write_fits
from astroml_plugin.catalog.export.headers import reader_metadata
from astroml_plugin.catalog.export.votable import write_votable
from astroml_plugin.catalog.merge import publishing
from astroml_plugin.catalog.parts import with_metadata
from astroml_plugin.catalog.schema import columns_of, is_text, is_vector
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of

FORMATS = ("parquet", "csv", "ecsv", "fits", "vot")
"""Kinds of files, by suffix."""

_TEXTS = {"csv": "CSV", "ecsv": "ECSV", "vot": "VOTable"}
"""Formats that hold the names of columns as text between their rows or in XML."""

_BATCH = 131_072


def file_format(to: Place) -> str:
    """Kind of a file by its suffix; InputError where it is none of `FORMATS`."""
    suffix = text_of(to).rsplit(".", 1)[-1].lower()
    kind = {"votable": "vot", "xml": "vot", "fit": "fits", "pq": "parquet"}.get(suffix, suffix)
    if kind not in FORMATS:
        raise InputError(f"cannot write {storage.redact(to)}: use the suffix .parquet, .csv, .ecsv, .fits or .vot")
    return kind


def write_rows(table: pa.Table, to: Place) -> int:
    """Write a table as .parquet, .csv, .ecsv, .fits or .vot, with the units its fields carry, whole or not at all."""
    return write_batches(iter(table.to_batches()), table.schema, to, file_format(to))


def write_batches(batches: Iterator[pa.RecordBatch], schema: pa.Schema, to: Place, kind: str) -> int:
    """Write batches as a file of a kind that `file_format` gives, whole or not at all; gives the rows.

    Raises:
        InputError: two columns have one name, or one has a type that the format cannot hold.
    """
    check_names(schema.names)
    if kind in _TEXTS:
        check_letters(schema.names, _TEXTS[kind])
    with publishing(storage.absolute(to)) as path:
        if kind == "csv":
            return _write_csv(batches, schema, path)
        rows = TableRows.of(pa.Table.from_batches(batches, schema))
        if kind == "ecsv":
            _write_ecsv(rows.table, path)
            return int(rows.table.num_rows)
        return _WRITERS[kind](rows, path)


def write_streamed(rows: Rows, to: str, kind: str) -> int:
    """Write rows of any number as parquet, fits or vot, in bounded memory, whole or not at all; gives their number.

    Args:
        rows: they are read twice.
        to: path or URL of the file.
        kind: parquet, fits or vot.

    Raises:
        InputError: the format cannot hold a column.
        CorruptError: the second reading gives other rows than the first.
    """
    check_names(rows.schema.names)
    if kind in _TEXTS:
        check_letters(rows.schema.names, _TEXTS[kind])
    with publishing(storage.absolute(to)) as path:
        return _WRITERS[kind](rows, path)


def _write_fits(rows: Rows, path: Path) -> int:
    about = cards(told_of(rows.schema))
    if {"ra", "dec"} <= set(rows.schema.names):
        about.append(("RADESYS", "ICRS", "frame of ra and dec"))
    return write_fits(rows, path, about)


def _write_votable(rows: Rows, path: Path) -> int:
    return write_votable(rows, path, facts(told_of(rows.schema)))


def _write_parquet(rows: Rows, path: Path) -> int:
    for field in rows.schema:
        if isinstance(field.type, pa.BaseExtensionType):
            raise refusal(field.name, field.type, "Parquet")
        try:
            pq.write_table(pa.schema([field]).empty_table(), pa.BufferOutputStream())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise refusal(field.name, field.type, "Parquet") from error
    count, lengths = text_lengths_of(rows)
    described = with_metadata(rows.schema, reader_metadata(rows.schema, lengths))
    written = 0
    with pq.ParquetWriter(path, described, compression="zstd") as writer:
        for table in _row_groups(rows.batches(), rows.schema):
            writer.write_table(table.cast(described), row_group_size=_BATCH)
            written += table.num_rows
    check_count(count, written)
    return count


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of at least `_BATCH` rows, the last one may have fewer."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(item.num_rows for item in waiting) >= _BATCH:
            yield pa.Table.from_batches(waiting, schema)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


_WRITERS = {"parquet": _write_parquet, "fits": _write_fits, "vot": _write_votable}


def _write_csv(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    rows = 0
    flat = _flat_schema(schema)
    check_names(flat.names)
    with path.open("wb") as sink, pacsv.CSVWriter(sink, flat) as writer:
        for batch in batches:
            plain = _flat(batch, flat)
            for name, column in zip(flat.names, plain.columns, strict=True):
                _refuse_nul(name, column)
            if len(flat) == 1:
                sink.write(_no_empty_lines(plain))
            else:
                writer.write_batch(plain)
            rows += batch.num_rows
    return rows


def _refuse_nul(name: str, column: pa.Array) -> None:
    """InputError where a text has a NUL letter, at which readers of text files end it."""
    if is_text(column.type) and pc.any(pc.match_substring(column, "\0")).as_py():
        raise InputError(
            f"column '{name}' has texts with a NUL letter, at which readers of CSV end a text: write "
            f"replace({name}, chr(0), ''), or use .parquet"
        )


def _no_empty_lines(batch: pa.RecordBatch) -> bytes:
    """Lines of a single column, nulls as two quotes: readers take an empty line for no row."""
    (column,) = batch.columns
    words = is_text(column.type)
    plain = pa.RecordBatch.from_arrays([pc.fill_null(column, "") if words else column], schema=batch.schema)
    sink = io.BytesIO()
    pacsv.write_csv(plain, sink, pacsv.WriteOptions(include_header=False))
    if words:
        return sink.getvalue()
    return b"".join((line or b'""') + b"\n" for line in sink.getvalue().splitlines())


def _flat_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` with a column for each element of a vector: latent_0, latent_1, …; CSV has no vectors.

    Raises:
        InputError: a column of lists, which have no length of their own, or of another type that is no plain value.
    """
    fields: list[pa.Field] = []
    for item in schema:
        if is_vector(item.type) and not pa.types.is_nested(item.type.value_type):
            fields += [pa.field(f"{item.name}_{k}", item.type.value_type) for k in range(item.type.list_size)]
        else:
            fields.append(item.with_type(_csv_type(item)))
    return pa.schema(fields)


def _csv_type(field: pa.Field) -> pa.DataType:
    """Type of a column in CSV: moments are ISO 8601 texts, decimals are texts with all their digits."""
    kind = field.type
    if is_text(kind) or pa.types.is_decimal(kind) or _is_moment(kind):
        return pa.large_string()
    if pa.types.is_null(kind):
        return pa.int32()
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return kind
    raise refusal(field.name, kind, "CSV")


def _is_moment(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind))


def _flat(batch: pa.RecordBatch, flat: pa.Schema) -> pa.RecordBatch:
    arrays: list[pa.Array] = []
    for item, column in zip(batch.schema, batch.columns, strict=True):
        if is_vector(column.type):
            arrays += [pc.list_element(column, k) for k in range(column.type.list_size)]
        elif _is_moment(column.type):
            moments = values_of(item.name, pa.chunked_array([column]), "CSV")
            arrays.append(pa.array(moments.data, pa.large_string(), mask=moments.null))
        else:
            arrays.append(column)
    fitting = [array.cast(item.type) for array, item in zip(arrays, flat, strict=True)]
    return pa.RecordBatch.from_arrays(fitting, schema=flat)


def _write_ecsv(table: pa.Table, path: Path) -> None:
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if not is_text(kind):
            values_of(name, table[name], "ECSV")  # refuses what is no plain value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        to_astropy(table).write(path, format="ascii.ecsv", overwrite=True)


def to_astropy(table: pa.Table) -> Table:
    """An astropy Table: units, descriptions and UCDs restored, the origin of its rows in `meta`.

    Null numbers with a fraction are NaN; other nulls are masked. Moments are ISO 8601 texts (UTC); types that are no
    plain value are texts too.

    Raises:
        InputError: two columns have one name.
    """
    table = settled(table)
    columns = []
    for described in columns_of(table.schema):
        data, mask = _numpy(described.name, table[described.name])
        options: dict[str, Any] = {
            "name": described.name,
            "unit": described.unit or None,
            "description": described.description or None,
            "meta": {"ucd": described.ucd} if described.ucd else None,
        }
        columns.append(AstropyColumn(data, **options) if mask is None else MaskedColumn(data, mask=mask, **options))
    return Table(columns, meta=told_of(table.schema))


def _numpy(name: str, column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray | None]:
    """(values, mask or None) of a column."""
    try:
        values = values_of(name, column, "astropy")
    except InputError:
        null = np.asarray(pc.is_null(column).to_numpy())
        words = ["" if value is None else str(value) for value in _plain(name, column)]
        values = Values(name, np.array([*words, None], object)[:-1], null, is_text=True)
    mask = values.null if values.null.any() and values.data.dtype.kind != "f" else None
    if not values.is_text:
        return values.data, mask
    longest, total = max(map(len, values.data), default=1), sum(map(len, values.data))
    if is_mostly_padding(len(values.data), 4 * longest, 4 * total):
        return values.data, mask
    return values.data.astype(str) if len(values.data) else np.zeros(0, "U1"), mask


def _plain(name: str, column: pa.ChunkedArray) -> list[Any]:
    """Python values of a column of any type that Python has."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise refusal(name, column.type, "Python", " with values beyond its range") from error
