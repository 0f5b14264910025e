"""Asking a catalog: SQL, cones on the sky, or both; answers with units to memory or to a file.

A cone opens only the files whose HEALPix range in the manifest meets it; DuckDB skips row groups in the same way.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import HEALPIX, Catalog, annotation_files, columns_of, lineage, primary, sql
from astroml_plugin.catalog.answers import QueryResult
from astroml_plugin.catalog.cones import Cone, ConeLike, checked_cone, cone_ranges, cone_sql
from astroml_plugin.catalog.export.columns import settled
from astroml_plugin.catalog.export.facts import metadata
from astroml_plugin.catalog.parts import is_merged
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.catalog.schema import is_text
from astroml_plugin.catalog.whole_files import refuse_exchanged
from astroml_plugin.catalog.write import file_format, write_batches
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.typing import I64, Bool
from astroml_plugin.sky.wcs import separation

_BATCH = 131_072

_REMOTE = "Traceback (most recent call last)"
"""Words of DuckDB about a file whose filesystem, which is not its own, has failed."""

_ALTERED = ("UHUGEINT", "TIME WITH TIME ZONE")
"""Types that come to Arrow with other values, or without their zone."""

_NOWHERE = (
    "no object has a position on the sky, as the images have no world coordinates: ask without --cone, for example "
    '"SELECT * FROM catalog WHERE x BETWEEN 100 AND 200 AND y BETWEEN 100 AND 200"'
)

_FORBIDDEN = "PermissionError"
"""Word in such an error where the SQL asks for a file outside the catalog."""

_OF_VALUES = ("Conversion Error", "Out of Range Error", "Invalid Input Error", "Out of Memory Error", "Overflow")
"""Words of DuckDB's errors that the SQL brings about, whatever the files."""
_BROKEN_FILE = ("TProtocolException", "Parquet file", "magic bytes", "decompress", "ZSTD")
"""Words of DuckDB about a file that it cannot read, in errors that are no IOException."""


def query(
    catalog: Place,
    sql: str | None = None,
    *,
    cone: ConeLike | None = None,
    to: Place | None = None,
    limit: int | None = None,
    memory: str | None = None,
    tables: Mapping[str, pa.Table] | None = None,
    units: Collection[str] | None = None,
) -> QueryResult:
    """Ask a catalog.

    Args:
        catalog: path or fsspec URL of its folder.
        sql: one SELECT over the views `catalog`, `failures`, `unplaced` and of annotations; default: all of `catalog`.
        cone: (ra, dec, radius), (SkyCoord, radius), or text such as "10h00m28.6s +02d12m21s 5arcsec": `catalog` holds
            only rows within. Numbers are degrees, ICRS; angles and quantities of astropy may stand in their place. Rows
            without a sky position never are within.
        to: write the answer to this .parquet, .csv, .ecsv, .fits or .vot (whole or not at all) instead of holding it.
        limit: at most so many rows.
        memory: bound of DuckDB's memory, such as "4GB".
        tables: further views by name, to join with.
        units: `catalog` holds the rows of these units (tiles, blocks) only; other files are not opened.

    Returns:
        The answer: `to_arrow()`, `to_pandas()`, `to_qtable()` (units restored).

    Raises:
        InputError: no catalog there, SQL that fails, a cone that is none, a suffix that is not known.
    """
    began, to = time.monotonic(), None if to is None else text_of(to)
    units = (units,) if isinstance(units, str) else units
    opened = Catalog.open(catalog)
    kind = None if to is None else file_format(to)
    circle = None if cone is None else checked_cone(cone)
    for reconcile in (None, True):
        try:
            result = _answer(opened, sql, circle, to, kind, limit, memory, reconcile, tables or {}, units)
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException) or (_REMOTE in str(error) and _FORBIDDEN not in str(error)):
                if not reconcile:
                    continue  # compact or a run has replaced parts meanwhile: look again
                raise unreadable(error) from error
            if any(word in str(error) for word in _BROKEN_FILE):
                raise unreadable(error) from error
            raise InputError(f"the query failed: {_line(error)}") from error
        return replace(result, seconds=time.monotonic() - began)
    raise AssertionError("unreachable")


def _answer(
    catalog: Catalog,
    text: str | None,
    cone: Cone | None,
    to: str | None,
    kind: str | None,
    limit: int | None,
    memory: str | None,
    reconcile: bool | None,
    tables: Mapping[str, pa.Table],
    units: Collection[str] | None,
) -> QueryResult:
    options = {} if memory is None else {"memory_limit": memory}
    with (
        tempfile.TemporaryDirectory(prefix="astroml-") as spill,
        sql.connect(temp_directory=spill, **options) as database,
    ):
        statement = None if text is None else one_select(database, text)
        counting = cone is None and lineage.counts_rows_alone(database, text)
        local = storage.is_local(catalog.url)
        # who opens no file learns from the listing that one is gone
        current, lost = catalog.current_and_lost(reconcile=True if counting and local else reconcile)
        lost.refuse()
        records = catalog.runs()
        decided = primary.read(catalog.url, records)
        if decided is not None and not decided.is_of(current):
            warnings.warn(f"{storage.redact(catalog.url)}: {primary.UNDECIDED}", stacklevel=3)
        paths = [] if counting else files_to_read(current, cone, units)
        for path in paths if local else ():
            refuse_exchanged(catalog.url, path)
        origins = lineage.sources(database, text, catalog.schema)
        for name, table in tables.items():
            database.register(name, table)
        if counting:
            rows = int(pc.sum(_of_units(current, units)["rows"]).as_py() or 0)
            database.execute(f"CREATE VIEW catalog AS SELECT range AS number FROM range({rows})")  # noqa: S608
            sql.lock(database, [])
        else:
            create_views(database, catalog, paths, decided, cone, units, text)
        joined = decided is not None and bool(decided.files(cone))
        asked = statement or f"SELECT * FROM catalog {_order(joined or cone is not None)}"  # noqa: S608
        if limit is not None:
            asked = f"SELECT * FROM (\n{asked}\n) LIMIT {int(limit)}"  # noqa: S608
        reader = _checked(database.sql(asked)).to_arrow_reader(_BATCH)
        told = provenance(catalog, records, sql=text, cone=None if cone is None else list(cone), limit=limit)
        schema = _described(reader.schema, origins).with_metadata(metadata(told))
        batches = typed_batches(reader, schema)
        if to is None:
            table = settled(pa.Table.from_batches(batches, schema))
            return QueryResult(table.num_rows, None, 0.0, columns_of(table.schema), len(paths), table)
        if text is None and kind != "parquet" and HEALPIX in schema.names:
            schema, batches = _without_healpix(schema, batches)
        rows = write_batches(batches, schema, to, str(kind))
        return QueryResult(rows, to, 0.0, columns_of(schema), len(paths))


def _checked(answer: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """An answer without the types that DuckDB hands over with other values: UHUGEINT, and times of day in a zone."""
    for column, kind in zip(answer.columns, answer.types, strict=True):
        if any(word in str(kind) for word in _ALTERED):
            name = sql.name(column)
            raise InputError(f"column '{column}' is a {kind}, which cannot be read: write CAST({name} AS VARCHAR)")
    return answer


def _order(shuffled: bool) -> str:
    """Rows of one part are in order; those of a cone come from several, and joins keep no order."""
    return "" if not shuffled else f'ORDER BY {sql.name(HEALPIX)}, "object_id", "image"'


def unreadable(error: BaseException) -> CorruptError:
    """The error about a part that DuckDB cannot read, with the remedy."""
    return CorruptError(
        f"a part of the catalog cannot be read ({_line(error)}): run `astroml-plugin verify CATALOG --repair`, then "
        f"the same infer again"
    )


def _line(error: BaseException) -> str:
    """DuckDB's message without its drawing of the place."""
    text = str(error).split("\nLINE ")[0].strip()
    if _REMOTE in text:
        text = text.splitlines()[-1]
    line = storage.redact(" ".join(text.split())[:400])
    return line + ' (a column that is a word of SQL needs quotes: "primary")' if 'near "primary"' in line else line


def files_to_read(current: pa.Table, cone: Cone | None = None, units: Collection[str] | None = None) -> list[str]:
    """Relative paths of the files that may have rows in the cone and of the units, where given; plain parts first.

    Raises:
        InputError: a cone, and no row of the catalog has a position on the sky.
    """
    there = current.filter(pc.greater(current["rows"], 0))
    rows = _of_units(there, units)
    if cone is not None:
        if there.num_rows and there["healpix_min"].null_count == there.num_rows:
            raise InputError(_NOWHERE)
        rows = rows.filter(pc.is_valid(rows["healpix_min"]))
        ra, dec, radius = (rows[name].to_numpy() for name in ("ra", "dec", "radius"))
        near = separation(ra, dec, cone[0], cone[1]) <= radius + cone[2] + 1e-9
        rows = rows.filter(pa.array(near & _in_ranges(rows, cone_ranges(*cone))))
    return sorted(pc.unique(rows["path"]).to_pylist(), key=lambda path: (is_merged(path), path))


def _of_units(current: pa.Table, units: Collection[str] | None) -> pa.Table:
    """Rows of the manifest of some units; of all where none are given."""
    if units is None:
        return current
    return current.filter(pc.is_in(current["unit"], value_set=pa.array(sorted(units), current["unit"].type)))


def _in_ranges(rows: pa.Table, ranges: I64) -> Bool:
    """Whether each file's HEALPix range meets one of `ranges`."""
    low, high = rows["healpix_min"].to_numpy(), rows["healpix_max"].to_numpy()
    candidate = np.searchsorted(ranges[:, 1], low, "right")  # the first range that ends after the file begins
    inside: Bool = candidate < len(ranges)
    inside[inside] = ranges[candidate[inside], 0] <= high[inside]
    return inside


def _view_where(cone: Cone | None, units: Collection[str] | None) -> str:
    """The condition of the view `catalog`: a merged file holds other units as well."""
    conditions = [] if cone is None else [cone_sql(cone)]
    if units is not None:
        conditions.append(f"tile IN ({', '.join(map(sql.quote, sorted(units)))})" if units else "FALSE")
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


# SQL


def one_select(database: duckdb.DuckDBPyConnection, text: str) -> str:
    """The statement in `text`, without its semicolon; InputError unless it is exactly one SELECT."""
    statements = database.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(str(statement.type).split(".")[-1] for statement in statements) or "nothing"
        raise InputError(f"a query is one SELECT, this is {kinds}: use --to FILE to write an answer")
    return statements[0].query.strip().rstrip(";").strip() or text


def create_views(
    database: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    paths: list[str],
    decided: primary.State | None,
    cone: Cone | None,
    units: Collection[str] | None,
    text: str | None,
) -> None:
    """Make the views `catalog`, `failures` and `unplaced`; nothing else can be opened from then on.

    Args:
        database: gets them.
        catalog: the catalog.
        paths: its files that count, from `files_to_read`.
        decided: which rows are primary where images overlap.
        cone: the rows of `catalog` that are seen.
        units: the units whose rows are seen.
        text: SQL that will be asked; tables that it does not name are not read.
    """
    folder = sql.root(database, catalog.url)
    columns, where = sql.typed_names(catalog.schema), _view_where(cone, units)
    if paths:
        scanned = sql.scan([f"{folder}/{path}" for path in paths])
        scanned = scanned if decided is None else decided.source(scanned, folder, cone)
        database.execute(f"CREATE VIEW catalog AS SELECT {columns} FROM {scanned} {where}")  # noqa: S608
    else:
        database.register("catalog", catalog.schema.empty_table())
    if "failures" in (text or "").lower():
        database.register("failures", catalog.failures())
    unplaced = "unplaced.parquet"
    if storage.exists(storage.join(catalog.url, unplaced)):
        scanned = sql.scan([f"{folder}/{unplaced}"])
        database.execute(f"CREATE VIEW unplaced AS SELECT * FROM {scanned}")  # noqa: S608
    else:
        database.register("unplaced", catalog.unplaced())
    for name, selected in annotation_files.views(catalog, text, folder).items():
        database.execute(f"CREATE VIEW {sql.name(name)} AS {selected}")
    known = [] if decided is None else decided.files(cone)
    allowed = [f"{folder}/parts", f"{folder}/{annotation_files.FOLDER}"]
    sql.lock(database, allowed, [f"{folder}/{name}" for name in (unplaced, *known)])


def _described(schema: pa.Schema, origins: list[pa.Field | None]) -> pa.Schema:
    """The answer's schema with the catalog's metadata where a column is one of the catalog's; large texts."""
    fields = [item.with_type(pa.large_string() if is_text(item.type) else item.type) for item in schema]
    return lineage.described(pa.schema(fields), origins)


def typed_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches with the types of `schema`; errors that come while rows are read are DuckDB's, as those before."""
    waiting = iter(batches)
    while True:
        try:
            batch = next(waiting, None)
        except (OSError, pa.ArrowException) as error:
            words = _line(error)
            if isinstance(error, OSError) and error.errno is not None:
                raise
            kind = duckdb.Error if any(word in words for word in _OF_VALUES) else duckdb.IOException
            raise kind(words) from error
        if batch is None:
            return
        arrays = [column.cast(item.type) for column, item in zip(batch.columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _without_healpix(
    schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    kept = pa.schema([item for item in schema if item.name != HEALPIX], schema.metadata)
    return kept, (batch.select(kept.names) for batch in batches)
