"""Whether a catalog is whole: every file read and compared with what vouches for it, and what can be made again is.

Parts carry a checksum for each Parquet page, which pyarrow compares when it is asked to; DuckDB does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from astroml_plugin.catalog import index, manifest, parts, runs, sql
from astroml_plugin.catalog.labels import LABELS, LabelMaps
from astroml_plugin.catalog.schema import FORMAT, schema_to_json
from astroml_plugin.catalog.store import FAILURES, SCHEMA, UNPLACED, Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, CorruptError, InputError
from astroml_plugin.core.flags import OBJECT_FLAGS
from astroml_plugin.core.version import version

DAMAGED = "damaged"
"""Folder of a catalog into which `verify` moves files that cannot be used."""

_READERS = 4
"""Files read at once."""

_UNREADABLE = (pa.ArrowException, duckdb.Error, OSError, ValueError, KeyError, TypeError, AstromlError)
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


@dataclass(frozen=True)
class VerifyResult:
    """Result of a verification."""

    catalog: str
    """Folder of the catalog."""
    files: int
    """Files looked at."""
    rows: int
    """Rows read and found right."""
    bytes: int
    """Bytes of the parts."""
    damages: tuple[Damage, ...]
    """All that is wrong; empty for a whole catalog."""
    seconds: float
    """Wall time."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong that `repair` has not mended."""
        return all(damage.mended for damage in self.damages)


def verify(url: str, *, repair: bool = False, progress: Callable[[int, int], None] | None = None) -> VerifyResult:
    """Read everything in a catalog and compare it with its checksums, footers, schema and manifest.

    Args:
        url: folder of the catalog, a path or an fsspec URL.
        repair: make again what is derived (manifest, run records, schema, failures), and move files that cannot be
            used into the folder `damaged`: the next `infer` with the same arguments does their units again.
        progress: called with (files read, files in all).

    Raises:
        InputError: there is no catalog.
    """
    began, url = time.monotonic(), storage.absolute(url)
    if repair:
        storage.refuse_web(url)
    if storage.is_web(url):
        return _verify_web(url, began, progress)
    if not storage.list_files(url):
        raise InputError(f"there is no catalog at {storage.redact(url)}: give the --out folder of an infer run")
    damages = [*_schema(url, repair), *_records(url, repair)]
    if any(not damage.mended and damage.path == SCHEMA for damage in damages):
        return VerifyResult(url, 1, 0, 0, tuple(damages), time.monotonic() - began)
    catalog = Catalog.open(url)
    damages += [*_manifests(catalog, repair), *_index(url, repair)]
    paths = [f"{parts.PARTS}/{name}" for name in storage.list_files(storage.join(url, parts.PARTS), ".parquet")]
    rows, size, unusable = _parts(catalog, paths, repair, progress)
    damages += unusable
    damages += _absent(catalog, {damage.path for damage in damages})
    damages += [*_tables(catalog, repair), *_label_maps(catalog, repair)]
    if repair and damages:
        catalog.rebuild_manifest()
    return VerifyResult(url, len(paths), rows, size, tuple(damages), time.monotonic() - began)


def _verify_web(url: str, began: float, progress: Callable[[int, int], None] | None) -> VerifyResult:
    """Check a catalog on a web server: the files that its index and manifest name; label maps cannot be listed."""
    catalog = Catalog.open(url)
    paths = sorted(catalog.listing()[0])
    rows, size, damages = _parts(catalog, paths, False, progress)
    damages += [*_absent(catalog, {damage.path for damage in damages}), *_tables(catalog, False)]
    return VerifyResult(url, len(paths), rows, size, tuple(damages), time.monotonic() - began)


def _parts(
    catalog: Catalog, paths: list[str], repair: bool, progress: Callable[[int, int], None] | None
) -> tuple[int, int, list[Damage]]:
    """Rows and bytes of the files that are right, and the others."""
    rows = size = 0
    damages: list[Damage] = []
    named = _named(catalog)
    with ThreadPoolExecutor(_READERS) as pool:
        for number, (path, outcome) in enumerate(zip(paths, pool.map(lambda path: _read(catalog, path), paths)), 1):
            if isinstance(outcome, str):
                damages.append(_unusable(catalog, path, outcome, named.get(path, (0, 0)), repair))
            else:
                rows, size = rows + outcome[0], size + outcome[1]
            if progress is not None:
                progress(number, len(paths))
    return rows, size, damages


def check_file(catalog: Catalog, path: str) -> tuple[int, int]:
    """Rows and bytes of a part or merged file whose every page, footer and column is right.

    Raises:
        CorruptError: it is not; says what is wrong.
    """
    outcome = _read(catalog, path)
    if isinstance(outcome, str):
        raise CorruptError(
            f"{path} is damaged ({outcome}): run `astroml-plugin verify CATALOG --repair`, then the same infer again"
        )
    return outcome


def _read(catalog: Catalog, path: str) -> tuple[int, int] | str:
    """Rows and bytes of a file that is right, or what is wrong with it."""
    url = storage.join(catalog.url, path)
    try:
        if parts.is_merged(path):
            expected = sum(member.rows for member in parts.read_merged(catalog.url, path).members)
        else:
            expected = parts.read_part_info(catalog.url, path).rows
        with parts.open_parquet(url, check=True) as file:
            rows = sum(batch.num_rows for batch in file.iter_batches(parts.ROW_GROUP))
            names = file.schema_arrow.names
            types = [file.schema_arrow.field(name).type for name in catalog.schema.names if name in names]
        if rows != expected:
            return f"it has {rows} rows and its footer says {expected}"
        if types != [item.type for item in catalog.schema]:
            return "it has other columns than the catalog"
        with sql.connect() as database:  # the reader of `query`, which looks at other bytes than pyarrow
            scanned = sql.scan([f"{sql.root(database, catalog.url)}/{path}"])
            database.execute(f"SELECT bit_xor(hash(r)) FROM {scanned} r").fetchall()  # noqa: S608
        return rows, parts.size_of(url)
    except _UNREADABLE as error:
        return _line(error)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _named(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Path -> units and rows that the manifest counts in it."""
    named: dict[str, tuple[int, int]] = {}
    for row in manifest.resolve(catalog.entries()).select(["path", "rows"]).to_pylist():
        units, rows = named.get(row["path"], (0, 0))
        named[row["path"]] = (units + 1, rows + row["rows"])
    return named


def _unusable(catalog: Catalog, path: str, what: str, counted: tuple[int, int], repair: bool) -> Damage:
    if repair:
        set_aside(catalog.url, path)
        what += f"; moved into {DAMAGED}, infer measures its objects again"
    return Damage(path, what, *counted)


def set_aside(url: str, path: str) -> None:
    """Move a file out of the way, so that it can still be looked at."""
    storage.write_atomic(
        storage.join(url, DAMAGED, path.replace("/", "__")), storage.read_bytes(storage.join(url, path))
    )
    storage.remove(storage.join(url, path))


def _absent(catalog: Catalog, known: set[str]) -> Iterator[Damage]:
    """Files that the manifest names and that are not there."""
    by_path: dict[str, tuple[int, int]] = {}
    try:
        lost = catalog.current_and_lost(reconcile=True)[1].to_pylist()
    except _UNREADABLE:
        return  # a damaged file, which is told already, is in the way
    for row in lost:
        units, rows = by_path.get(row["path"], (0, 0))
        by_path[row["path"]] = (units + 1, rows + row["rows"])
    for path, counted in by_path.items():
        if path not in known:
            yield Damage(path, "the file is gone: put it back, or run the same infer again", *counted)


def _schema(url: str, repair: bool) -> Iterator[Damage]:
    """Read schema.json; made again from a part and a run record."""
    try:
        Catalog.open(url)
    except InputError as error:
        if storage.exists(storage.join(url, SCHEMA)):
            raise
        what = str(error)
    except _UNREADABLE as error:
        what = _line(error)
    else:
        return
    mended = repair and _write_schema(url)
    yield Damage(SCHEMA, what if not mended else f"{what}; made again from a part and a run record", mended=mended)


def _write_schema(url: str) -> bool:
    """Whether schema.json could be made again."""
    identity = next((record["identity"] for record in runs.read_all(url) if "identity" in record), None)
    names = storage.list_files(storage.join(url, parts.PARTS), ".parquet")
    for name in names if identity is not None else []:
        path = f"{parts.PARTS}/{name}"
        if parts.is_merged(path):
            continue
        try:
            with parts.open_parquet(storage.join(url, path)) as file:
                columns = schema_to_json(file.schema_arrow)
        except _UNREADABLE:
            continue
        declared = {"format": FORMAT, "package_version": version(), "columns": columns}
        storage.write_json(storage.join(url, SCHEMA), {**declared, "flags": OBJECT_FLAGS, "identity": identity})
        return True
    return False


def _records(url: str, repair: bool) -> Iterator[Damage]:
    """Read the run records and run.json, which is the newest of them."""
    folder = storage.join(url, runs.RUNS)
    paths = [f"{runs.RUNS}/{name}" for name in storage.list_files(folder, ".json")]
    for path in [*paths, *(["run.json"] if storage.exists(storage.join(url, "run.json")) else [])]:
        try:
            runs.checked(storage.read_json(storage.join(url, path)))
        except _UNREADABLE as error:
            if repair:
                set_aside(url, path)
            yield Damage(path, _line(error) + ("; moved into " + DAMAGED if repair else ""), mended=repair)
    if repair and not storage.exists(storage.join(url, "run.json")) and (records := runs.read_all(url)):
        storage.write_json(storage.join(url, "run.json"), records[-1])


def _manifests(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read the manifest files; what they say is in the footers too."""
    for name in catalog.manifest_names():
        url = storage.join(catalog.url, "manifest", name)
        try:
            table = storage.read_table(url)
            if table.schema.names != parts.MANIFEST_SCHEMA.names:
                raise ValueError("it is no manifest")
        except _UNREADABLE as error:
            if repair:
                set_aside(catalog.url, f"manifest/{name}")
            yield Damage(f"manifest/{name}", _line(error), mended=repair)


def _index(url: str, repair: bool) -> Iterator[Damage]:
    """Compare index.json, which readers over HTTP go by, with what it is made from; not while a run goes on."""
    path = storage.join(url, index.INDEX)
    wanted = index.made(url)
    if not storage.exists(path) or any(record.get("state") == "running" for record in wanted["runs"]):
        return
    try:
        if storage.read_json(path) == wanted:
            return
        what = "it names other files than are there"
    except _UNREADABLE as error:
        what = _line(error)
    if repair:
        index.write(url)
    yield Damage(index.INDEX, what, mended=repair)


def _tables(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read the tables of failures and of unplaced objects."""
    for name in (FAILURES, UNPLACED):
        url = storage.join(catalog.url, name)
        try:
            if storage.exists(url):
                storage.read_table(url)
        except _UNREADABLE as error:
            mended = repair and name == FAILURES
            if repair:
                set_aside(catalog.url, name)
            if mended:
                catalog.write_failures(pa.Table.from_pylist([], schema=catalog.failures().schema))
            yield Damage(name, _line(error), mended=mended)


def _label_maps(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read the label maps, whose chunks have checksums of their own."""
    if not storage.exists(storage.join(catalog.url, LABELS, "zarr.json")):
        return
    maps = LabelMaps.open(catalog.url)
    for number in sorted(maps.present()):
        try:
            maps.read(number)
        except _UNREADABLE as error:
            if repair:
                maps.remove(number)
            yield Damage(f"{LABELS} tile {number}", _line(error))
