"""Merging finished parts into files of a good size. A kill at any moment leaves the same view of the catalog."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from astroml_plugin.catalog import manifest, parts, primary, runs
from astroml_plugin.catalog.checking import check_file
from astroml_plugin.catalog.merge import merge
from astroml_plugin.catalog.parts import PartInfo
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.results import Result

TARGET_BYTES = 512_000_000

_FOOTER = 16_000
"""Bytes of a part that describe it; merging leaves them out."""

_ABANDONED = 3600.0
"""Seconds after which a half-written file is a killed program's."""


@dataclass(frozen=True, repr=False)
class CompactResult(Result):
    """Result of a compaction."""

    catalog: str
    """Folder of the catalog."""
    files_before: int
    """Part files before."""
    files_after: int
    """Part files after."""
    parts_merged: int
    """Files that were merged."""
    files_written: int
    """Files that took their place."""
    rows: int
    """Rows of the catalog."""
    bytes: int
    """Bytes of the parts after."""
    seconds: float
    """Wall time."""


def compact(
    catalog: Catalog | Place,
    *,
    target_bytes: int = TARGET_BYTES,
    memory: str = "1GB",
    progress: Callable[[int, int], None] | None = None,
) -> CompactResult:
    """Merge finished parts, in HEALPix order; a kill at any moment changes nothing of what the catalog shows.

    Steps, each safe to be killed after: a merged file appears whole and claims its units by its footer; the manifest
    names it; then the files it replaces are deleted. What a killed run left is cleaned first. A unit whose rows are
    being superseded by a run that goes on keeps its rows until that run ends.

    Args:
        catalog: folder of the catalog, a path or an fsspec URL, or the open catalog.
        target_bytes: size of the merged files, about.
        memory: bound of the sort's memory; beyond it goes to a temporary folder.
        progress: called with (files merged, files to merge).

    Raises:
        InputError: another compaction of this catalog is going on, or a target that is not positive.
        CorruptError: a file is damaged or gone, or the manifest says something else of it; nothing is deleted.
    """
    if target_bytes < 1:
        raise InputError(f"a target of {target_bytes} bytes: give a positive size")
    catalog = catalog if isinstance(catalog, Catalog) else Catalog.open(catalog)
    began = time.monotonic()
    catalog.current_and_lost(reconcile=True)[1].refuse()
    run_id = _begin(catalog)
    try:
        _clean(catalog)
        catalog.absorb_manifests(run_id)
        primary.decide(catalog)
        if all(record["run_id"] == run_id or record["state"] != "running" for record in catalog.runs()):
            primary.clean(catalog)
        decided = primary.read(catalog.url)
        infos = _settled(catalog)
        groups = plan(infos, target_bytes)
        total, done = sum(len({m.path for m in group}) for group in groups), 0
        for group in groups:
            done += _merge_group(catalog, run_id, group, memory, decided)
            if progress is not None:
                progress(done, total)
    except BaseException:
        catalog.finish_run(run_id, {"state": "interrupted"})
        raise
    after = catalog.current(reconcile=True)
    catalog.finish_run(run_id, {"files_merged": done, primary.FOLDER: primary.decide(catalog)})
    paths = set(after["path"].to_pylist())
    size = sum(parts.size_of(storage.join(catalog.url, path)) for path in paths)
    rows = sum(after["rows"].to_pylist())
    before = len({info.path for info in infos})
    seconds = time.monotonic() - began
    return CompactResult(catalog.url, before, len(paths), done, len(groups), rows, size, seconds)


def plan(infos: list[PartInfo], target_bytes: int) -> list[list[PartInfo]]:
    """Groups of units that become one file each: neighbours on the sky, about `target_bytes` together.

    Merged files of at least half the target stay as they are; a group of one file is left alone.
    """
    files: dict[str, list[PartInfo]] = {}
    for info in infos:
        files.setdefault(info.path, []).append(info)
    sizes = {path: sum(max(member.bytes - _FOOTER, 1) for member in members) for path, members in files.items()}
    small = [path for path in files if not parts.is_merged(path) or sizes[path] < target_bytes / 2]
    small.sort(key=lambda path: (_first(files[path]), path))
    groups: list[list[str]] = []
    filled = target_bytes
    for path in small:
        if filled + sizes[path] > target_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(path)
        filled += sizes[path]
    return [[m for path in group for m in files[path]] for group in groups if len(group) > 1]


def _first(members: list[PartInfo]) -> tuple[int, int]:
    """Sort key on the sky; files without a position come last."""
    starts = [m.healpix_min for m in members if m.healpix_min is not None]
    return (0, min(starts)) if starts else (1, 0)


def _begin(catalog: Catalog) -> str:
    for record in catalog.runs():
        if record["state"] == "running" and record.get("kind") == "compact" and runs.may_be_alive(record):
            raise InputError(
                f"a compaction of this catalog began {record['started']} on {record['host']} (process {record['pid']}) "
                f"and may go on: wait for it, or delete runs/{record['run_id']}.json if it is gone"
            )
    return catalog.start_run({"kind": "compact"})


def _merge_group(
    catalog: Catalog, run_id: str, group: list[PartInfo], memory: str, decided: primary.State | None
) -> int:
    """Merge one group, whose files are checked first: they are the only copy; returns the files that went.

    Where detections of overlapping images were matched, `primary` is written as it was decided.
    """
    by_path: dict[str, list[PartInfo]] = {}
    for member in group:
        by_path.setdefault(member.path, []).append(member)
    for path, members in sorted(by_path.items()):
        check_file(catalog, path, members)
    options = {} if decided is None or decided.rule != primary.MATCHED else {"source": decided.source}
    merged = merge(catalog.url, catalog.schema, group, memory=memory, **options)
    catalog.commit_manifest(run_id, merged.members, time_ns=catalog.later())
    catalog.drop_parts(merged.replaces)
    return len(merged.replaces)


def _clean(catalog: Catalog) -> None:
    """Delete what a killed compaction left: files that a merged file has taken the place of."""
    paths, merged = catalog.listing()
    dead = manifest.dead_paths(merged)
    catalog.drop_parts(sorted(dead & set(paths), key=parts.is_merged))  # merged ones last: they claim their parts
    if storage.is_local(catalog.url):
        folder = storage.local_path(catalog.url) / parts.COMPACT
        for half in folder.glob(".*.tmp"):
            if time.time() - half.stat().st_mtime > _ABANDONED:
                half.unlink(missing_ok=True)


def _settled(catalog: Catalog) -> list[PartInfo]:
    """The files of the view, without units that are in doubt (two digests there: the next infer run decides)."""
    doubtful = {unit for unit, digests in catalog.listed().items() if len(digests) > 1}
    infos = [PartInfo(**row) for row in catalog.current(reconcile=True).drop_columns(["time"]).to_pylist()]
    doubtful_files = {info.path for info in infos if info.unit in doubtful}
    return [info for info in infos if info.path not in doubtful_files]
