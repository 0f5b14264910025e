"""The catalog on disk: opening and creating, writing parts, listing what is done, manifest and run records."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import beside, exposures, index, loss, manifest, origins, parts, runs
from astroml_plugin.catalog.beside import FAILURES, FAILURES_SCHEMA, UNPLACED, UNPLACED_SCHEMA
from astroml_plugin.catalog.declared import SCHEMA, declaration, read_schema
from astroml_plugin.catalog.exposures import Exposure
from astroml_plugin.catalog.index import MANIFEST
from astroml_plugin.catalog.parts import MANIFEST_SCHEMA, MergedFile, PartInfo
from astroml_plugin.catalog.schema import columns_of
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, DamagedError, InputError
from astroml_plugin.core.places import Place

_SEGMENTS = 64
"""Flushes of one run after which its manifest files are merged into one."""

_READERS = 16
"""Threads that read footers."""


@dataclass(frozen=True)
class Catalog:
    """A folder of Parquet parts with one declared schema. Small and picklable: workers get it whole."""

    url: str
    """Folder, a path or an fsspec URL."""
    schema: pa.Schema
    """Columns of every part."""
    identity: dict[str, Any]
    """Source, bundles and settings, on which all rows depend."""

    @classmethod
    def create(cls, url: Place, schema: pa.Schema, identity: Mapping[str, Any]) -> Catalog:
        """A new catalog at `url`, or the one that is there when schema and identity are the same.

        Raises:
            InputError: the catalog there was made from something else; the sentence names what differs.
        """
        url = storage.absolute(url)
        plain = json.loads(json.dumps(dict(identity)))  # as it comes back from the file: tuples are lists
        if storage.exists(storage.join(url, SCHEMA)):
            return cls.open(url)._matching(schema, plain)
        _refuse_foreign_folder(url)
        storage.write_json(storage.join(url, SCHEMA), declaration(columns_of(schema), plain))
        return cls.open(url)._matching(schema, plain)  # another driver may have been faster

    @classmethod
    def open(cls, url: Place) -> Catalog:
        """The catalog at `url`; InputError when there is none or its format is newer than this package."""
        url = storage.absolute(url)
        return cls(url, *read_schema(url))

    def _matching(self, schema: pa.Schema, identity: dict[str, Any]) -> Catalog:
        """This catalog, when it was made from the same."""
        place = storage.redact(self.url)
        for key in sorted({*identity, *self.identity}):
            there, here = self.identity.get(key), identity.get(key)
            if there != here:
                raise InputError(
                    f"the catalog {place} was made with {key} = {_short(there)}, this run has {_short(here)}: "
                    "choose another --out"
                )
        if [(f.name, f.type) for f in schema] != [(f.name, f.type) for f in self.schema]:
            differing = sorted(set(schema.names) ^ set(self.schema.names)) or "types or order"
            raise InputError(f"the catalog {place} has other columns than this run ({differing}): choose another --out")
        return self

    # Parts

    def encode_part(
        self,
        table: pa.Table,
        unit: str,
        digest: str,
        exposure: Exposure | None = None,
        origin: origins.Origin | None = None,
    ) -> tuple[PartInfo, bytes]:
        """Verified, sorted rows as Parquet bytes; `_healpix_29` is computed when absent. Nothing is written."""
        told = exposures.packed({} if exposure is None else {unit: exposure})
        told |= origins.packed({} if origin is None else {unit: origin})
        return parts.encode_part(self.schema, table, unit, digest, told)

    def put_part(self, info: PartInfo, data: bytes) -> PartInfo:
        """Write encoded bytes at their name, atomically."""
        place = storage.join(self.url, info.path)
        try:
            storage.write_atomic(place, data)
        except IsADirectoryError:  # a wrong copy made a folder of this name
            beside.set_aside(self.url, info.path)
            storage.write_atomic(place, data)
        return info

    def write_part(self, unit: str, digest: str, table: pa.Table, exposure: Exposure | None = None) -> PartInfo:
        """Encode and write one unit's rows (none is fine: the unit is done)."""
        return self.put_part(*self.encode_part(table, unit, digest, exposure))

    def listed(self) -> dict[str, set[str]]:
        """Unit -> digests that are done, from one listing and the footers of compacted files."""
        paths, merged = self.listing()
        return manifest.units_of(paths, merged)

    def listing(self) -> tuple[list[str], list[MergedFile]]:
        """Relative paths of all part files and the footers of the merged ones.

        On a web server, which lists nothing, those of the files that the manifest names and that are there.
        """
        if storage.is_web(self.url):
            named = pc.unique(self.entries()["path"]).to_pylist()
            with ThreadPoolExecutor(_READERS) as pool:
                there = pool.map(lambda path: storage.exists(storage.join(self.url, path)), named)
                paths = [path for path, present in zip(named, there, strict=True) if present]
        else:
            names = storage.list_files(storage.join(self.url, parts.PARTS), ".parquet")
            paths = [f"{parts.PARTS}/{name}" for name in names]
        merged = [path for path in paths if parts.is_merged(path)]
        with ThreadPoolExecutor(_READERS) as pool:
            return paths, list(pool.map(lambda path: parts.read_merged(self.url, path), merged))

    # Manifest

    def commit_manifest(self, run_id: str, infos: Iterable[PartInfo], *, time_ns: int | None = None) -> None:
        """Add rows to the manifest of a run; call it every few hundred parts, after they are written."""
        table = parts.manifest_table(infos, time_ns or time.time_ns())
        if table.num_rows == 0:
            return
        storage.write_table(self._manifest_url(f"{run_id}.{time.time_ns()}.parquet"), table)
        if len(self._segments(run_id)) >= _SEGMENTS:
            self._consolidate(run_id)

    def _manifest_url(self, name: str) -> str:
        return storage.join(self.url, MANIFEST, name)

    def _segments(self, run_id: str) -> list[str]:
        names = storage.list_files(storage.join(self.url, MANIFEST), ".parquet")
        return [name for name in names if name.startswith(run_id + ".")]

    def _consolidate(self, run_id: str) -> None:
        """One manifest file for the run. A kill in between leaves equal rows twice, which does no harm."""
        names = self._segments(run_id)
        table, whole = self._read_entries(names)
        if not whole:  # what cannot be read stays, so that every reader compares with the listing
            return
        if table.num_rows:
            target = run_id + ".parquet"
            storage.write_table(self._manifest_url(target), table)
            self.remove_manifests([name for name in names if name != target])

    def remove_manifests(self, names: Iterable[str]) -> None:
        """Delete manifest files whose rows another one holds."""
        for name in names:
            storage.remove(self._manifest_url(name))

    def manifest_names(self) -> list[str]:
        """Names of the manifest files."""
        if storage.is_web(self.url):
            return list(index.read(self.url)["manifests"])
        return storage.list_files(storage.join(self.url, MANIFEST), ".parquet")

    def _read_entries(self, names: Collection[str]) -> tuple[pa.Table, bool]:
        """Rows of manifest files, and whether all could be read: where not, the footers of the parts say the same."""
        tables, whole = [], True
        for name in names:
            try:
                tables.append(self._read_manifest(name))
            except FileNotFoundError:  # merged into another one meanwhile: the listing will tell
                return self._read_entries(
                    [
                        other
                        for other in self.manifest_names()
                        if other.split(".")[0] in {n.split(".")[0] for n in names}
                    ]
                )
            except (DamagedError, OSError):
                whole = False
        fitting = [table for table in tables if table.schema.equals(MANIFEST_SCHEMA)]
        return pa.concat_tables([MANIFEST_SCHEMA.empty_table(), *fitting]), whole and len(fitting) == len(tables)

    def _read_manifest(self, name: str) -> pa.Table:
        """Rows of one manifest file; CorruptError for one of a web server, where nothing else tells what it names."""
        try:
            table = storage.read_table(self._manifest_url(name))
            if storage.is_web(self.url) and not table.schema.equals(MANIFEST_SCHEMA):
                raise pa.ArrowInvalid("it is no manifest")
        except (FileNotFoundError, DamagedError, pa.ArrowException) as error:
            if not storage.is_web(self.url):
                raise
            raise CorruptError(
                f"the file manifest/{name} of {storage.redact(self.url)} is gone or damaged: copy it anew, or run "
                f"`astroml-plugin verify CATALOG --repair` where the catalog is stored"
            ) from error
        return table

    def entries(self) -> pa.Table:
        """All manifest rows (MANIFEST_SCHEMA), several per unit where parts were superseded or merged."""
        return self._read_entries(self.manifest_names())[0]

    def current(self, *, reconcile: bool | None = None) -> pa.Table:
        """The files that make the view: one row (MANIFEST_SCHEMA) per unit, sorted by unit.

        Args:
            reconcile: compare with one listing. Default: when a run goes on or was killed, or manifests are lost.
        """
        return self.current_and_lost(reconcile=reconcile)[0]

    def current_and_lost(self, *, reconcile: bool | None = None) -> tuple[pa.Table, loss.Lost]:
        """The files that make the view (MANIFEST_SCHEMA), and units with rows that no file holds any more.

        What is lost is known only where the manifest is compared with a listing; see `current`.
        """
        if reconcile is None:
            reconcile = self._must_reconcile()
            entries, whole = self._read_entries(self.manifest_names())
            reconcile = reconcile or not whole
        else:
            entries = self.entries()
        if not reconcile:
            return manifest.resolve(entries), loss.NOTHING
        records = self.runs()  # before the listing: a run that ends in between counts more than it shows
        there = manifest.resolve(self._reconciled(entries))
        return there, loss.lost(entries, there, records)

    def _must_reconcile(self) -> bool:
        if storage.is_web(self.url):
            return False  # `index.read` has refused what may lack rows
        records = runs.read_all(self.url)
        if len(records) != runs.count(self.url):
            return True  # what is damaged may have named more
        if not records or any(record["state"] == "running" for record in records):
            return True
        absorbed = {name for record in records for name in record.get("absorbed", ())}
        expected = {record["manifest"] for record in records if record.get("manifest")} - absorbed
        return not expected <= set(self.manifest_names())

    def _reconciled(self, entries: pa.Table) -> pa.Table:
        """Entries of the files that are there, with those that no manifest names yet as the newest."""
        paths, merged = self.listing()
        dead = manifest.dead_paths(merged)
        alive = [path for path in paths if path not in dead]
        entries = manifest.keep_present(entries, set(alive))
        lacking = manifest.unlisted(entries, alive)
        newest = (pc.max(entries["time"]).as_py() or 0) + 1
        new = set(lacking)
        members = [member for file in merged if file.path in new for member in file.members]
        plain = self._ordered_infos([path for path in lacking if not parts.is_merged(path)])
        tables = [parts.manifest_table(group, newest + rank) for rank, group in enumerate(plain)]
        return pa.concat_tables([entries, *tables, parts.manifest_table(members, newest)])

    def _ordered_infos(self, paths: list[str]) -> list[list[PartInfo]]:
        """Footers of parts, in groups without a repeated unit: oldest files of a unit first."""
        with ThreadPoolExecutor(_READERS) as pool:
            infos = list(pool.map(lambda path: parts.read_part_info(self.url, path), paths))
        by_unit: dict[str, list[PartInfo]] = {}
        for info in infos:
            by_unit.setdefault(info.unit, []).append(info)
        for same in by_unit.values():
            if len(same) > 1:
                same.sort(key=lambda info: (self._modified(info.path), info.digest))
        deepest = max((len(same) for same in by_unit.values()), default=0)
        return [[same[rank] for same in by_unit.values() if len(same) > rank] for rank in range(deepest)]

    def _modified(self, path: str) -> float:
        url = storage.join(self.url, path)
        if storage.is_local(url):
            return storage.local_path(url).stat().st_mtime
        fs, remote = storage.filesystem(url)
        return float(fs.modified(remote).timestamp())

    def rebuild_manifest(self, distrusted: Collection[str] = (), *, keep_lost: bool = True) -> int:
        """Write one manifest from the listing and footers in place of all others; returns its units.

        Args:
            distrusted: paths of files whose entries are wrong: their footers count.
            keep_lost: keep the entries of units whose files are gone, so that the loss stays known.
        """
        entries = self.entries()
        wrong = pc.is_in(entries["path"], value_set=pa.array(list(distrusted), pa.string()))
        table = manifest.resolve(self._reconciled(entries.filter(pc.invert(wrong))))
        if keep_lost:
            table = pa.concat_tables([table, loss.absent(entries, table)])
        old = self.manifest_names()
        name = f"rebuilt-{time.time_ns()}.parquet"
        storage.write_table(self._manifest_url(name), table)
        self.remove_manifests(old)
        index.write(self.url)
        return int(table.num_rows)

    def absorb_manifests(self, run_id: str) -> None:
        """One manifest file of this run in place of those of all runs that ended; what no manifest names is added."""
        running = {record["run_id"] for record in self.runs() if record["state"] == "running"}
        old = [name for name in self.manifest_names() if name.split(".")[0] not in running]
        entries = self.entries()
        table = self._reconciled(entries)
        table = pa.concat_tables([table, loss.absent(entries, table)])  # what is lost stays known
        storage.write_table(self._manifest_url(f"{run_id}.{time.time_ns()}.parquet"), table)
        runs.write(self.url, {**runs.read(self.url, run_id), "absorbed": old})
        self.remove_manifests(old)

    def later(self) -> int:
        """A time in ns after every manifest row, whatever the clocks of other machines said."""
        return max(time.time_ns(), (pc.max(self.entries()["time"]).as_py() or 0) + 1)

    def drop_parts(self, paths: Iterable[str]) -> None:
        """Delete files, named relative to the catalog."""
        for path in paths:
            storage.remove(storage.join(self.url, path))

    # Runs

    def start_run(self, record: Mapping[str, Any] | None = None) -> str:
        """Begin a run: writes runs/<run id>.json in state "running" and run.json; returns the id."""
        return runs.start(self.url, dict(record or {}))

    def finish_run(self, run_id: str, record: Mapping[str, Any] | None = None) -> None:
        """End a run (state "done" unless the record gives another): one manifest file, then the record.

        Runs that were killed before and did the same work are closed, their parts enter this run's manifest.
        """
        mine = runs.read(self.url, run_id)
        over = [other for other in runs.read_all(self.url) if runs.is_over(other, mine)]
        if over:
            self._adopt(run_id)
        self._consolidate(run_id)
        for other in over:
            self._consolidate(other["run_id"])
            runs.write(
                self.url,
                {**other, "state": "interrupted", "finished": runs.now(), **self._manifest_of(other["run_id"])},
            )
        ended = {**mine, "state": "done", "finished": runs.now(), **self._manifest_of(run_id), **dict(record or {})}
        runs.write(self.url, {**ended, loss.TOTALS: loss.totals(self.entries())})
        index.write(self.url)

    def _manifest_of(self, run_id: str) -> dict[str, str]:
        name = run_id + ".parquet"
        return {"manifest": name} if name in self.manifest_names() else {}

    def _adopt(self, run_id: str) -> None:
        """Enter parts that no manifest names (a killed run wrote them) into this run's manifest."""
        before = self.entries()
        added = self._reconciled(before)
        known = pc.unique(before["path"]) if before.num_rows else pa.array([], pa.string())
        added = added.filter(pc.invert(pc.is_in(added["path"], value_set=known)))
        if added.num_rows:
            storage.write_table(self._manifest_url(f"{run_id}.{time.time_ns()}.parquet"), added)

    def runs(self) -> list[dict[str, Any]]:
        """All run records, oldest first; of a catalog on a web server, their ids, kinds, sources and versions."""
        if storage.is_web(self.url):
            return list(index.read(self.url)["runs"])
        return runs.read_all(self.url)

    # Failures and unplaced objects

    def write_failures(self, table: pa.Table, run_id: str = "run") -> None:
        """Record the units that failed in a run (FAILURES_SCHEMA) and derive failures.parquet of the whole catalog.

        A unit that is done meanwhile is no failure; of several failures of one unit the newest run's counts.
        """
        beside.write_failures(self.url, table, run_id, lambda: set(self.current()["unit"].to_pylist()))

    def failures(self) -> pa.Table:
        """Units that failed (FAILURES_SCHEMA), empty when there are none."""
        return beside.read(self.url, FAILURES, FAILURES_SCHEMA)

    def write_unplaced(self, table: pa.Table) -> None:
        """Write the objects that no unit owns (UNPLACED_SCHEMA), replacing the table there."""
        beside.write(self.url, UNPLACED, table, UNPLACED_SCHEMA)

    def unplaced(self) -> pa.Table:
        """Objects that no unit owns (UNPLACED_SCHEMA), empty when there are none."""
        return beside.read(self.url, UNPLACED, UNPLACED_SCHEMA)


def _refuse_foreign_folder(url: str) -> None:
    """InputError when `url` is a file or a folder with something else in it."""
    if not storage.is_local(url):
        return
    path = storage.local_path(url)
    if path.is_file():
        raise InputError(f"{path} is a file: --out of a catalog is a folder")
    if path.is_dir() and any(entry.name == "zarr.json" for entry in path.iterdir()):
        raise InputError(f"{path} holds a Zarr store, not a catalog: choose another --out")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
