"""Tables to files: Parquet, CSV, FITS and VOTable, with the units that the columns carry."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.table import Column as AstropyColumn
from astropy.table import MaskedColumn, Table

from astroml_plugin.catalog.merge import publishing
from astroml_plugin.catalog.parts import with_metadata
from astroml_plugin.catalog.schema import is_text, is_vector, matrix, reader_metadata, text_lengths
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Array, Bool

FORMATS = ("parquet", "csv", "fits", "vot")
"""Kinds of files, by suffix."""

_BATCH = 131_072


def file_format(to: str) -> str:
    """Kind of a file by its suffix; InputError where it is none of `FORMATS`."""
    suffix = to.rsplit(".", 1)[-1].lower()
    kind = {"votable": "vot", "xml": "vot", "fit": "fits", "pq": "parquet"}.get(suffix, suffix)
    if kind not in FORMATS:
        raise InputError(f"cannot write {storage.redact(to)}: use the suffix .parquet, .csv, .fits or .vot")
    return kind


def write_rows(table: pa.Table, to: str) -> int:
    """Write a table as .parquet, .csv, .fits or .vot, with the units its fields carry, whole or not at all."""
    return write_batches(iter(table.to_batches()), table.schema, to, file_format(to))


def write_batches(batches: Iterator[pa.RecordBatch], schema: pa.Schema, to: str, kind: str) -> int:
    """Write batches as a file of a kind that `file_format` gives, whole or not at all; gives the rows."""
    writers: dict[str, Callable[[Iterator[pa.RecordBatch], pa.Schema, Path], int]] = {
        "parquet": _write_parquet,
        "csv": _write_csv,
        "fits": _write_astropy,
        "vot": _write_astropy,
    }
    with publishing(storage.absolute(to)) as target, _suffixed(target, kind) as path:
        return writers[kind](batches, schema, path)


@contextmanager
def _suffixed(target: Path, kind: str) -> Iterator[Path]:
    """A path beside `target` with the suffix that astropy goes by."""
    path = target.with_name(target.name + "." + kind)
    try:
        yield path
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


def _write_parquet(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    table = pa.Table.from_batches(batches, schema)
    described = with_metadata(schema, reader_metadata(schema, text_lengths(table)))
    pq.write_table(table.cast(described), path, compression="zstd", row_group_size=_BATCH)
    return int(table.num_rows)


def _write_csv(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    rows = 0
    flat = _flat_schema(schema)
    with pacsv.CSVWriter(path, flat) as writer:
        for batch in batches:
            writer.write_batch(_flat(batch, flat))
            rows += batch.num_rows
    return rows


def _flat_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` with a column for each element of a vector: latent_0, latent_1, …; CSV has no vectors.

    Raises:
        InputError: a column of lists, which have no length of their own.
    """
    fields: list[pa.Field] = []
    for item in schema:
        if is_vector(item.type):
            fields += [pa.field(f"{item.name}_{k}", item.type.value_type) for k in range(item.type.list_size)]
        elif pa.types.is_nested(item.type):
            raise InputError(f"column '{item.name}' is a {item.type}: CSV cannot hold it, use .parquet or leave it out")
        else:
            fields.append(item)
    return pa.schema(fields)


def _flat(batch: pa.RecordBatch, flat: pa.Schema) -> pa.RecordBatch:
    arrays: list[pa.Array] = []
    for column in batch.columns:
        if is_vector(column.type):
            arrays += [pc.list_element(column, k) for k in range(column.type.list_size)]
        else:
            arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, schema=flat)


def _write_astropy(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    table = to_astropy(pa.Table.from_batches(batches, schema))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.write(path, format="fits" if path.suffix == ".fits" else "votable")
    return len(table)


def to_astropy(table: pa.Table) -> Table:
    """An astropy Table: units and descriptions restored, null numbers NaN, null integers masked, null text empty."""
    columns = []
    for item in table.schema:
        data, mask = _numpy(table[item.name])
        described = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
        options = {
            "name": item.name,
            "unit": described.get("unit"),
            "description": described.get("description"),
            "meta": {"ucd": described["ucd"]} if "ucd" in described else None,
        }
        columns.append(AstropyColumn(data, **options) if mask is None else MaskedColumn(data, mask=mask, **options))
    return Table(columns)


def _numpy(column: pa.ChunkedArray) -> tuple[Array, Bool | None]:
    """(values, mask or None) of a column."""
    kind = column.type
    if is_text(kind):
        return np.array(pc.fill_null(column.cast(pa.large_string()), "").to_pylist(), str), None
    if pa.types.is_floating(kind):
        return np.array(pc.fill_null(column, float("nan")).to_numpy()), None
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        mask = np.asarray(pc.is_null(column).to_numpy()) if column.null_count else None
        return np.array(pc.fill_null(column, False if pa.types.is_boolean(kind) else 0).to_numpy()), mask
    if is_vector(kind):
        return matrix(column), None
    if pa.types.is_decimal(kind):
        return np.array(pc.cast(column, pa.float64()).to_numpy()), None
    return np.array([str(value) for value in column.to_pylist()]), None
