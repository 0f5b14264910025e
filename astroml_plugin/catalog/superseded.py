"""Parts that newer ones replace: the manifest names the current ones, then the others go."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from astroml_plugin.catalog import manifest, parts
from astroml_plugin.catalog.merge import merge
from astroml_plugin.catalog.parts import MergedFile
from astroml_plugin.catalog.store import Catalog

_READERS = 16
"""Footers read at once."""


def drop_superseded(catalog: Catalog, run_id: str, current: Iterable[tuple[str, str]]) -> list[str]:
    """Make (unit, digest) pairs the current ones and delete the other parts of these units.

    Call it at the end of a run with the units that have several digests in `Catalog.listed()`. The manifest names the
    current parts before the others go; units inside a merged file are taken out of it by rewriting it.
    """
    wanted = dict(current)
    paths, merged = catalog.listing()
    dead = manifest.dead_paths(merged)
    merged = [file for file in merged if file.path not in dead]
    plain = [path for path in paths if _unit(path) in wanted]
    keep = {path for path in plain if path == parts.part_path(_unit(path), wanted[_unit(path)])}
    with ThreadPoolExecutor(_READERS) as pool:
        infos = list(pool.map(lambda path: parts.read_part_info(catalog.url, path), sorted(keep)))
    catalog.commit_manifest(run_id, infos, time_ns=catalog.later())
    replaced = {_unit(path) for path in keep}
    for file in merged:
        if replaced & {member.unit for member in file.members}:
            rewrite_merged(catalog, run_id, file, replaced)
    there = replaced | {m.unit for file in merged for m in file.members if wanted.get(m.unit) == m.digest}
    dropped = [path for path in plain if path not in keep and _unit(path) in there]
    catalog.drop_parts(dropped)
    return dropped


def rewrite_merged(catalog: Catalog, run_id: str, file: MergedFile, without: Collection[str]) -> None:
    """Take units out of a merged file: a new file, its manifest rows, then the old file goes."""
    left = [member for member in file.members if member.unit not in without]
    if left:
        smaller = merge(catalog.url, catalog.schema, left)
        catalog.commit_manifest(run_id, smaller.members, time_ns=catalog.later())
    catalog.drop_parts([file.path])


def _unit(path: str) -> str:
    named = parts.parse_path(path)
    return named[0] if named else ""
