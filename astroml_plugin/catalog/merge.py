"""Many files into one: a streamed, HEALPix-ordered merge, published whole or not at all."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from astroml_plugin.catalog import exposures, origins, sql
from astroml_plugin.catalog.export.headers import TEXT_LENGTH, reader_metadata
from astroml_plugin.catalog.parts import (
    COMPACT,
    ROW_GROUP,
    SORT_COLUMNS,
    MergedFile,
    PartInfo,
    is_merged,
    merged_metadata,
    open_parquet,
    parquet_writer,
    with_metadata,
)
from astroml_plugin.catalog.schema import is_text
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError

if TYPE_CHECKING:
    import duckdb

Told = TypeVar("Told")

UNIT = "_unit"
"""Extra last column of a merged file: the unit of each row, so that one unit can be taken out again."""


Source = Callable[[str, str], str]
"""Makes SQL of rows from SQL of rows as they stand in parts and from DuckDB's name of the catalog's folder."""


def merge(
    url: str,
    schema: pa.Schema,
    members: Sequence[PartInfo],
    *,
    memory: str = "1GB",
    source: Source = lambda scanned, folder: scanned,
) -> MergedFile:
    """Write one file with the rows of `members` (each from the file its `path` names), in HEALPix order.

    Memory is bounded by `memory`: the sort spills to a temporary folder. Nothing is deleted.
    """
    path = merged_path(members)
    merged = MergedFile(
        path, tuple(replace(member, path=path) for member in members), tuple(sorted({m.path for m in members}))
    )
    full = schema.append(pa.field(UNIT, pa.large_string()))
    lengths = _text_lengths(url, members, full)
    described = with_metadata(full, reader_metadata(full, lengths))
    expected = sum(member.rows for member in members)
    with (
        tempfile.TemporaryDirectory(prefix="astroml-") as spill,
        publishing(storage.join(url, path)) as target,
        sql.connect(memory_limit=memory, temp_directory=spill) as connection,
    ):
        batches = _sorted_batches(connection, url, schema, members, source)
        rows = _write_sorted(batches, described, target, {**merged_metadata(merged), **_told(url, members)})
        if rows != expected:
            raise CorruptError(f"merged {rows} rows of {expected}: the parts changed meanwhile, run compact again")
    return merged


def merged_path(members: Sequence[PartInfo]) -> str:
    """Path of the file that holds these units, relative to the catalog."""
    return f"{COMPACT}/{storage.digest(sorted((m.unit, m.digest) for m in members))[:24]}.parquet"


def _told(url: str, members: Sequence[PartInfo]) -> dict[str, str]:
    """Metadata of what the images of the members are worth, and of what calculated their rows."""
    known = _of_members(url, members, exposures.read)
    made = _of_members(url, members, origins.read)
    return {**exposures.packed(known), **origins.packed(made)}


def _of_members(
    url: str, members: Sequence[PartInfo], read: Callable[[str, str], Mapping[str, Told]]
) -> dict[str, Told]:
    by_path = {path: read(url, path) for path in sorted({member.path for member in members})}
    return {member.unit: told for member in members if (told := by_path[member.path].get(member.unit)) is not None}


def _sorted_batches(
    connection: duckdb.DuckDBPyConnection, url: str, schema: pa.Schema, members: Sequence[PartInfo], source: Source
) -> Iterator[pa.RecordBatch]:
    """All rows of the members with their unit, sorted as parts are."""
    folder = sql.root(connection, url)
    files = sorted({member.path for member in members})
    units = pa.table({"file": [m.path for m in members], "unit": [m.unit for m in members]})
    connection.register("members", units)
    columns = ", ".join(f"r.{sql.name(name)}" for name in schema.names)
    groups = []
    plain, merged = [f for f in files if not is_merged(f)], [f for f in files if is_merged(f)]
    own_path = f"substr(r.filename, {len(folder) + 2}) = m.file"
    if plain:
        scanned = source(sql.scan([f"{folder}/{path}" for path in plain], file_name=True), folder)
        groups.append(f"SELECT {columns}, m.unit AS {UNIT} FROM {scanned} r JOIN members m ON {own_path}")  # noqa: S608
    if merged:
        scanned = source(sql.scan([f"{folder}/{path}" for path in merged], file_name=True), folder)
        matches = f"r.{UNIT} = m.unit AND {own_path}"
        groups.append(f"SELECT {columns}, r.{UNIT} AS {UNIT} FROM {scanned} r JOIN members m ON {matches}")  # noqa: S608
    order = ", ".join(f"{sql.name(name)} ASC NULLS LAST" for name in SORT_COLUMNS)
    query = f"SELECT * FROM ({' UNION ALL '.join(groups)}) ORDER BY {order}"  # noqa: S608
    yield from connection.sql(query).to_arrow_reader(ROW_GROUP)


def _text_lengths(url: str, members: Sequence[PartInfo], full: pa.Schema) -> dict[str, int]:
    """The longest text of each text column, as the footers of the files give it."""
    longest = {field.name: 1 for field in full if is_text(field.type)}
    for path in {member.path for member in members}:
        with open_parquet(storage.join(url, path)) as file:
            own = file.metadata.metadata or {}
        for name in longest:
            longest[name] = max(longest[name], int(own.get(f"{TEXT_LENGTH}{name}".encode(), 1)))
    longest[UNIT] = max(len(member.unit) for member in members)
    return longest


def _write_sorted(batches: Iterable[pa.RecordBatch], described: pa.Schema, target: Path, footer: dict[str, str]) -> int:
    """Write batches as row groups and `footer` once (schema metadata would be stored twice); returns the rows."""
    rows = 0
    with parquet_writer(target, described) as writer:
        for batch in batches:
            table = pa.table(batch.columns, names=batch.schema.names).select(described.names).cast(described)
            writer.write_table(table, row_group_size=ROW_GROUP)
            rows += table.num_rows
        writer.add_key_value_metadata(footer)
    return rows


@contextmanager
def publishing(url: str) -> Iterator[Path]:
    """A file to write; it appears at `url` whole when the block ends well, and not at all otherwise."""
    storage.refuse_web(url)
    if storage.is_local(url):
        final = storage.local_path(url)
        final.parent.mkdir(parents=True, exist_ok=True)
        target = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.tmp")
    else:
        handle, name = tempfile.mkstemp(prefix="astroml-", suffix=".parquet")  # for this user's eyes alone
        os.close(handle)
        target = Path(name)
    try:
        yield target
        with target.open("rb+") as file:
            os.fsync(file.fileno())
        if storage.is_local(url):
            target.replace(final)
        else:
            fs, path = storage.filesystem(url)
            storage.retrying(fs.put_file, str(target), path)
    finally:
        target.unlink(missing_ok=True)
