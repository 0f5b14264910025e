"""Tables and folders beside the parts of a catalog: units that failed, unplaced objects, damaged files set aside."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import runs
from astroml_plugin.catalog.declared import damaged
from astroml_plugin.core import storage
from astroml_plugin.core.errors import DamagedError

FAILURES = "failures.parquet"
UNPLACED = "unplaced.parquet"

DAMAGED = "damaged"
"""Folder of a catalog into which files that cannot be used are moved."""

FAILURES_SCHEMA = pa.schema(
    [("unit", pa.string()), ("reason", pa.string()), ("attempts", pa.int32()), ("time", pa.string())]
)
UNPLACED_SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("image", pa.string()),
        ("reason", pa.string()),
    ]
)

_TRIES = 5
"""Times that failures.parquet is made again because another run has written failures meanwhile."""


def write_failures(url: str, table: pa.Table, run_id: str, done: Callable[[], set[str]]) -> None:
    """Record the failures of one run (FAILURES_SCHEMA), and derive failures.parquet of the whole catalog.

    Args:
        url: the catalog.
        table: units that failed in this run.
        run_id: the run.
        done: gives the units of the catalog that are done by now; they are no failures.
    """
    write(storage.join(url, runs.RUNS), f"{run_id}.failures.parquet", table, FAILURES_SCHEMA)
    for _ in range(_TRIES):
        names = _failure_files(url)
        storage.write_table(storage.join(url, FAILURES), _merged_failures(url, names, done))
        if _failure_files(url) == names:
            return


def set_aside(url: str, path: str) -> None:
    """Move a file of a catalog, or a folder that stands in its place, out of the way: it can still be looked at."""
    there, here = storage.join(url, DAMAGED, path.replace("/", "__")), storage.join(url, path)
    if storage.is_local(url):
        target, source = storage.local_path(there), storage.local_path(here)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() or (source.is_dir() and target.exists()):
            target = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}")
        source.replace(target)
        return
    storage.write_atomic(there, storage.read_bytes(here))
    storage.remove(here)


def _failure_files(url: str) -> list[str]:
    return storage.list_files(storage.join(url, runs.RUNS), ".failures.parquet")


def _merged_failures(url: str, names: list[str], done: Callable[[], set[str]]) -> pa.Table:
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        with contextlib.suppress(DamagedError):  # the units in it that are not done will be tried again
            table = _fit(storage.read_table(storage.join(url, runs.RUNS, name)), FAILURES_SCHEMA)
            rows |= {row["unit"]: row for row in table.to_pylist()}
    ended = done() if rows else set()
    return pa.Table.from_pylist(
        [row for unit, row in sorted(rows.items()) if unit not in ended], schema=FAILURES_SCHEMA
    )


def write(folder: str, name: str, table: pa.Table, schema: pa.Schema) -> None:
    """Write a table with exactly the columns of `schema`, in place of the one there."""
    storage.write_table(storage.join(folder, name), _fit(table, schema))


def read(url: str, name: str, schema: pa.Schema) -> pa.Table:
    """A table of the catalog at `url`, empty (`schema`) where there is none; CorruptError for a damaged one."""
    try:
        return storage.read_table(storage.join(url, name))
    except FileNotFoundError:
        return schema.empty_table()
    except DamagedError as error:
        raise damaged(url, name) from error


def _fit(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    """`table` with exactly the wanted columns; those it lacks are null."""
    arrays = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)
