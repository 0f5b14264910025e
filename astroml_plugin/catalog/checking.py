"""Whether a catalog is whole: every file read and compared with what vouches for it, and what can be made again is.

Parts carry a checksum for each Parquet page, which pyarrow compares when it is asked to; DuckDB does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from astroml_plugin.catalog import declared, index, loss, manifest, parts, primary, runs, small_files, sql
from astroml_plugin.catalog.annotation_checks import annotation_damages
from astroml_plugin.catalog.beside import DAMAGED, set_aside
from astroml_plugin.catalog.declared import SCHEMA, Declared
from astroml_plugin.catalog.labels import LABELS, LabelMaps
from astroml_plugin.catalog.parts import PartInfo
from astroml_plugin.catalog.schema import schema
from astroml_plugin.catalog.small_files import Damage
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.catalog.whole_files import against_manifest, read_whole
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.results import Result

_READERS = 4
"""Files read at once."""


@dataclass(frozen=True, repr=False)
class VerifyResult(Result):
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


@dataclass
class _Parts:
    """Outcome of reading the files of rows."""

    rows: int = 0
    bytes: int = 0
    damages: list[Damage] = field(default_factory=list)
    distrusted: list[str] = field(default_factory=list)
    """Right files of which the manifest says something else."""
    told: str = ""
    """The first such difference."""


def verify(
    url: str,
    *,
    repair: bool = False,
    forget_lost: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyResult:
    """Read everything in a catalog and compare it with its checksums, footers, schema and manifest.

    Args:
        url: folder of the catalog, a path or an fsspec URL.
        repair: make again what is derived (manifest, run records, schema, failures), and move files that cannot be
            used into the folder `damaged`: the next `infer` with the same arguments does their units again. Until
            then their rows are lost, which `query` and `compact` refuse.
        forget_lost: give up what is lost after the check: the rows that are left are the catalog from then on.
        progress: called with (files read, files in all).

    Raises:
        InputError: there is no catalog.
    """
    began, url = time.monotonic(), storage.absolute(url)
    if repair or forget_lost:
        storage.refuse_web(url)
    if storage.is_web(url):
        return _verify_web(url, began, progress)
    _refuse_other(url)
    damages = [*_schema(url, repair), *small_files.records(url, repair)]
    if any(not damage.mended and damage.path == SCHEMA for damage in damages):
        return VerifyResult(url, 1, 0, 0, tuple(damages), time.monotonic() - began)
    catalog, paths = Catalog.open(url), _paths(url)
    most = declared.of_most_files(url, paths)
    if most is not None and (what := declared.read(url).differs(most[0])):
        damages.append(_outvoted(catalog, most, what, repair))
        catalog = replace(catalog, schema=schema(most[0].columns))
    damages += [*_manifests(catalog, repair), *small_files.index_of(url, repair)]
    damages += _folders(url, repair)
    found = _parts(catalog, paths, repair, progress)
    damages += found.damages
    damages += _absent(catalog, {damage.path for damage in damages})
    damages += [*small_files.tables(catalog, repair), *small_files.objects(url, repair), *_label_maps(catalog, repair)]
    if repair and damages:
        catalog.rebuild_manifest(found.distrusted)
    damages += [*_primary(catalog, repair), *annotation_damages(catalog, repair)]
    if forget_lost:
        forget(catalog)
    return VerifyResult(url, len(paths), found.rows, found.bytes, tuple(damages), time.monotonic() - began)


def forget(catalog: Catalog) -> None:
    """Give up the rows that are lost: the files that are there are the catalog from now on."""
    run_id = catalog.start_run({"kind": "verify", loss.FORGETS: True})
    catalog.rebuild_manifest(keep_lost=False)
    catalog.finish_run(run_id, {primary.FOLDER: primary.decide(catalog)})


def _refuse_other(url: str) -> None:
    """InputError for a folder that is no catalog, not even a damaged one."""
    if storage.exists(storage.join(url, SCHEMA)) or any(
        storage.list_files(storage.join(url, folder)) for folder in (parts.PARTS, runs.RUNS)
    ):
        return
    place = storage.redact(url)
    if storage.exists(storage.join(url, "zarr.json")):
        raise InputError(f"{place} is a Zarr store, as surveys and stamps are, and no catalog: give the --out of infer")
    raise InputError(f"there is no catalog at {place}: give the --out folder of an infer run")


def _folders(url: str, repair: bool) -> Iterator[Damage]:
    """Folders that stand where files of rows belong, as a wrong copy makes them."""
    if not storage.is_local(url):
        return
    for place in sorted(storage.local_path(storage.join(url, parts.PARTS)).glob("*/*.parquet/")):
        if place.is_dir():
            path = f"{parts.PARTS}/{place.parent.name}/{place.name}"
            if repair:
                set_aside(url, path)
            yield Damage(path, "it is a folder" + (f"; moved into {DAMAGED}" if repair else ""), mended=repair)


def _paths(url: str) -> list[str]:
    return [f"{parts.PARTS}/{name}" for name in storage.list_files(storage.join(url, parts.PARTS), ".parquet")]


def _verify_web(url: str, began: float, progress: Callable[[int, int], None] | None) -> VerifyResult:
    """Check a catalog on a web server: the files that its index and manifest name; label maps cannot be listed."""
    catalog = Catalog.open(url)
    paths = sorted(catalog.listing()[0])
    found = _parts(catalog, paths, False, progress)
    damages = [*found.damages, *_absent(catalog, {damage.path for damage in found.damages})]
    damages += [*small_files.tables(catalog, False), *_primary(catalog, False)]
    return VerifyResult(url, len(paths), found.rows, found.bytes, tuple(damages), time.monotonic() - began)


def _parts(catalog: Catalog, paths: list[str], repair: bool, progress: Callable[[int, int], None] | None) -> _Parts:
    """Rows and bytes of the files that are right, and the others."""
    found, named = _Parts(), _named(catalog)
    with ThreadPoolExecutor(_READERS) as pool:
        for number, (path, outcome) in enumerate(zip(paths, pool.map(lambda path: _read(catalog, path), paths)), 1):
            rows = named.get(path, {})
            what, excused = (outcome, False) if isinstance(outcome, str) else against_manifest(*outcome, rows)
            if what and not excused:
                counted = (len(rows), sum(row["rows"] for row in rows.values()))
                found.damages.append(_unusable(catalog, path, what, counted, repair))
            elif not isinstance(outcome, str):
                found.rows, found.bytes = found.rows + sum(info.rows for info in outcome[0]), found.bytes + outcome[1]
            if excused:
                found.distrusted.append(path)
                found.told = found.told or f"{path}: {what}"
            if progress is not None:
                progress(number, len(paths))
    if found.distrusted:
        count = len(found.distrusted)
        found.damages.append(
            Damage(index.MANIFEST, f"it differs from {count} files, such as {found.told}", count, mended=repair)
        )
    return found


def check_file(catalog: Catalog, path: str, members: Sequence[PartInfo] = ()) -> None:
    """Check that every page, footer and column of a part or merged file is right, and `members` from the manifest.

    Raises:
        CorruptError: something is not; says what is wrong.
    """
    outcome = _read(catalog, path)
    what = outcome if isinstance(outcome, str) else ""
    if not isinstance(outcome, str):
        what, _ = against_manifest(*outcome, {member.unit: asdict(member) for member in members})
    if what:
        raise CorruptError(
            f"{path} is damaged ({what}): run `astroml-plugin verify CATALOG --repair`, then the same infer again"
        )


def _read(catalog: Catalog, path: str) -> tuple[list[PartInfo], int] | str:
    """Units and bytes of a file that is right, or what is wrong with it."""
    url = storage.join(catalog.url, path)
    try:
        infos = read_whole(catalog.url, path, catalog.schema)
        with sql.connect() as database:  # the reader of `query`, which looks at other bytes than pyarrow
            scanned = sql.scan([f"{sql.root(database, catalog.url)}/{path}"])
            database.execute(f"SELECT bit_xor(hash(r)) FROM {scanned} r").fetchall()  # noqa: S608
        return infos, parts.size_of(url)
    except CorruptError as error:
        return str(error)
    except small_files.UNREADABLE as error:
        return small_files.line(error)


def _named(catalog: Catalog) -> dict[str, dict[str, dict[str, Any]]]:
    """Path -> unit -> what the manifest says of it."""
    named: dict[str, dict[str, dict[str, Any]]] = {}
    for row in manifest.resolve(catalog.entries()).to_pylist():
        named.setdefault(row["path"], {})[row["unit"]] = row
    return named


def _unusable(catalog: Catalog, path: str, what: str, counted: tuple[int, int], repair: bool) -> Damage:
    if repair:
        set_aside(catalog.url, path)
        what += f"; moved into {DAMAGED}, infer measures its objects again"
    return Damage(path, what, *counted)


def _absent(catalog: Catalog, known: set[str]) -> Iterator[Damage]:
    """Files that the manifest names and that are not there."""
    by_path: dict[str, tuple[int, int]] = {}
    try:
        lost = catalog.current_and_lost(reconcile=True)[1]
    except small_files.UNREADABLE:
        return  # a damaged file, which is told already, is in the way
    for row in lost.named.to_pylist():
        units, rows = by_path.get(row["path"], (0, 0))
        by_path[row["path"]] = (units + 1, rows + row["rows"])
    for path, counted in by_path.items():
        if path not in known:
            yield Damage(path, "the file is gone: put it back, or run the same infer again", *counted)
    if lost.unnamed and not any(path.startswith(parts.PARTS + "/") for path in known):
        what = "files are gone that run records count: put them back, or run the same infer again"
        yield Damage(parts.PARTS, what, lost.unnamed, lost.unnamed_rows)


def _schema(url: str, repair: bool) -> Iterator[Damage]:
    """Read schema.json; made again from a part and a run record."""
    try:
        Catalog.open(url)
    except InputError as error:
        if storage.exists(storage.join(url, SCHEMA)):
            raise
        what = str(error)
    except small_files.UNREADABLE as error:
        what = small_files.line(error)
    else:
        return
    mended = repair and _write_schema(url)
    yield Damage(SCHEMA, what if not mended else f"{what}; made again from the parts and a run record", mended=mended)


def _write_schema(url: str) -> bool:
    """Whether schema.json could be made again."""
    identity = next((record["identity"] for record in runs.read_all(url) if "identity" in record), None)
    most = declared.of_most_files(url, _paths(url))
    if identity is None or most is None:
        return False
    value = declared.declaration(most[0].columns, identity, dict(most[0].flags))
    storage.write_json(storage.join(url, SCHEMA), value)
    return True


def _outvoted(catalog: Catalog, most: tuple[Declared, int, int], what: str, repair: bool) -> Damage:
    """Damage of a schema.json that most files contradict; made again as they have it."""
    found, count, total = most
    if repair:
        value = declared.declaration(found.columns, catalog.identity, dict(found.flags))
        storage.write_json(storage.join(catalog.url, SCHEMA), value)
        what += "; made again from them"
    return Damage(SCHEMA, f"{count} of {total} files agree against it: {what}", mended=repair)


def _manifests(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read the manifest files; what they say is in the footers too."""
    for name in catalog.manifest_names():
        url = storage.join(catalog.url, "manifest", name)
        try:
            table = storage.read_table(url)
            if table.schema.names != parts.MANIFEST_SCHEMA.names:
                raise ValueError("it is no manifest")
        except small_files.UNREADABLE as error:
            if repair:
                set_aside(catalog.url, f"manifest/{name}")
            yield Damage(f"manifest/{name}", small_files.line(error), mended=repair)


def _primary(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read what is decided about overlapping images, and compare it with the parts; not while a run goes on."""
    path, what, records = primary.INDEX, "", catalog.runs()
    try:
        found = primary.read(catalog.url, records)
        for path in [] if found is None else found.files():
            storage.read_table(storage.join(catalog.url, path))
        path = primary.INDEX
        going_on = any(record["state"] == "running" for record in records)
        if found is not None and not going_on and not found.is_of(catalog.current(reconcile=True)):
            what = "it was made from other parts than are there"
    except small_files.UNREADABLE as error:
        what = small_files.line(error)
    if what:
        if repair:
            primary.decide(catalog, again=True)
        yield Damage(path, what + ("; made again from the parts" if repair else ""), mended=repair)


def _label_maps(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read the label maps, whose chunks have checksums of their own."""
    if not storage.exists(storage.join(catalog.url, LABELS, "zarr.json")):
        return
    maps = LabelMaps.open(catalog.url)
    for number in sorted(maps.present()):
        try:
            maps.read(number)
        except small_files.UNREADABLE as error:
            if repair:
                maps.remove(number)
            yield Damage(f"{LABELS} tile {number}", small_files.line(error))
