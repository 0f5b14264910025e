"""The small files of a catalog that `verify` reads: run records, index, failures, unplaced objects, objects tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from astroml_plugin.catalog import index, runs
from astroml_plugin.catalog.beside import DAMAGED, FAILURES, FAILURES_SCHEMA, UNPLACED, UNPLACED_SCHEMA, set_aside
from astroml_plugin.catalog.objects import given
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError

UNREADABLE = (pa.ArrowException, duckdb.Error, OSError, ValueError, KeyError, TypeError, AstromlError)
"""Errors of reading a file whose bytes were changed."""


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a catalog."""

    path: str
    """File, relative to the catalog."""
    what: str
    """The damage, in words for people."""
    units: int = 0
    """Units whose rows are concerned."""
    rows: int = 0
    """Rows that are concerned, as the manifest counts them."""
    mended: bool = False
    """Whether `repair` has made it again from what is there."""


def line(error: BaseException) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def records(url: str, repair: bool) -> Iterator[Damage]:
    """Read the run records and run.json, which is the newest of them."""
    folder = storage.join(url, runs.RUNS)
    paths = [f"{runs.RUNS}/{name}" for name in storage.list_files(folder, ".json")]
    for path in [*paths, *(["run.json"] if storage.exists(storage.join(url, "run.json")) else [])]:
        try:
            record = runs.checked(storage.read_json(storage.join(url, path)))
            if path != "run.json" and path != f"{runs.RUNS}/{record['run_id']}.json":
                raise ValueError(f"it is the record of run {record['run_id']}")
        except UNREADABLE as error:
            if repair:
                set_aside(url, path)
            yield Damage(path, line(error) + ("; moved into " + DAMAGED if repair else ""), mended=repair)
    known = runs.read_all(url)
    if known and all(record["state"] != "running" for record in known):
        yield from _latest(url, known[-1], repair)


def _latest(url: str, newest: runs.Record, repair: bool) -> Iterator[Damage]:
    """Compare run.json, where it can be read, with the newest record; made again where it is not there."""
    place = storage.join(url, "run.json")
    try:
        held = storage.read_json(place) if storage.exists(place) else None
    except UNREADABLE:
        return  # told already
    if held == newest:
        return
    if repair:
        storage.write_json(place, newest)
    if held is not None:
        yield Damage("run.json", f"it differs from the record of the last run, {newest['run_id']}", mended=repair)


def index_of(url: str, repair: bool) -> Iterator[Damage]:
    """Compare index.json, which readers over HTTP go by, with what it is made from; not while a run goes on."""
    path = storage.join(url, index.INDEX)
    wanted = index.made(url)
    if not storage.exists(path) or any(record.get("state") == "running" for record in wanted["runs"]):
        return
    try:
        if storage.read_json(path) == wanted:
            return
        what = "it names other files than are there"
    except UNREADABLE as error:
        what = line(error)
        if repair and isinstance(error, IsADirectoryError):
            set_aside(url, index.INDEX)
    if repair:
        index.write(url)
    yield Damage(index.INDEX, what, mended=repair)


def tables(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read the tables of failures, which are made again, and of unplaced objects, which the next `infer` writes."""
    failed = [] if storage.is_web(catalog.url) else storage.list_files(storage.join(catalog.url, runs.RUNS), ".parquet")
    kinds = [(f"{runs.RUNS}/{name}", FAILURES_SCHEMA) for name in failed]
    for name, schema in [*kinds, (FAILURES, FAILURES_SCHEMA), (UNPLACED, UNPLACED_SCHEMA)]:
        url = storage.join(catalog.url, name)
        try:
            if storage.exists(url) and storage.read_table(url).schema.names != schema.names:
                raise ValueError("it has other columns")
        except UNREADABLE as error:
            mended = repair and name != UNPLACED
            if repair:
                set_aside(catalog.url, name)
            if mended:
                catalog.write_failures(FAILURES_SCHEMA.empty_table())
            remedy = "; the same infer writes it again" if name == UNPLACED else ""
            yield Damage(name, line(error) + remedy, mended=mended)


def objects(url: str, repair: bool) -> Iterator[Damage]:
    """Read the record of the objects tables and its copy: each is made again from the other."""
    folder = storage.join(url, given.FOLDER)
    found = given.damages(folder)
    mended = bool(found) and repair and given.mend(folder)
    remedy = (
        "" if mended else f"; {given.REMEDY}" if len(found) == 2 else "; --repair makes it again from the other copy"
    )
    for name, what in found:
        yield Damage(f"{given.FOLDER}/{name}", what + remedy, mended=mended)
