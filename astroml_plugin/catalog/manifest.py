"""Which file holds each unit's rows: pure decisions on manifest entries, so that no unit counts twice.

Entries are rows of MANIFEST_SCHEMA. For one unit the newest entry counts, with one exception: as long as a merged
file is in use its claim on its units stands, because its rows cannot be hidden one by one (a newer part of such a
unit becomes visible when the merged file is rewritten without it).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.parts import COMPACT, MANIFEST_SCHEMA, MergedFile, is_merged, parse_path


def resolve(entries: pa.Table) -> pa.Table:
    """One current entry per unit, sorted by unit.

    Args:
        entries: (n entries) any order, several per unit allowed.
    """
    if entries.num_rows == 0:
        return MANIFEST_SCHEMA.empty_table()
    entries = entries.sort_by([("unit", "ascending"), ("time", "ascending"), ("path", "ascending")])
    newest = entries.filter(_last_of_run(entries["unit"]))
    if newest.num_rows == entries.num_rows:
        return newest
    in_use = pc.unique(newest["path"].filter(pc.starts_with(newest["path"], COMPACT + "/")))
    if len(in_use) == 0:
        return newest
    claims = entries.filter(pc.is_in(entries["path"], value_set=in_use))
    claims = claims.filter(_last_of_run(claims["unit"]))
    free = newest.filter(pc.invert(pc.is_in(newest["unit"], value_set=claims["unit"].combine_chunks())))
    return pa.concat_tables([claims, free]).sort_by("unit")


def _last_of_run(sorted_names: pa.ChunkedArray) -> pa.Array:
    """Mask of the last row of each run of equal names."""
    codes = sorted_names.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    last = np.ones(len(codes), bool)
    last[:-1] = codes[1:] != codes[:-1]
    return pa.array(last)


def dead_paths(merged: Iterable[MergedFile]) -> set[str]:
    """Files whose rows another, present merged file holds."""
    files = list(merged)
    replaced = {path for file in files for path in file.replaces}
    roots = [file for file in files if file.path not in replaced]
    return {path for file in roots for path in file.replaces} | {file.path for file in files if file.path in replaced}


def units_of(paths: Iterable[str], merged: Iterable[MergedFile]) -> dict[str, set[str]]:
    """Unit -> digests that are done, from listed paths and the footers of the merged files among them."""
    done: dict[str, set[str]] = {}
    for unit, digest in places_of(paths, merged):
        done.setdefault(unit, set()).add(digest)
    return done


def places_of(paths: Iterable[str], merged: Iterable[MergedFile]) -> dict[tuple[str, str], str]:
    """(unit, digest) -> file that holds its rows; arguments as of `units_of`."""
    files = list(merged)
    dead = dead_paths(files)
    places = {named: path for path in paths if path not in dead and (named := parse_path(path)) is not None}
    for file in files:
        if file.path not in dead:
            places |= {(member.unit, member.digest): file.path for member in file.members}
    return places


def keep_present(entries: pa.Table, present: set[str]) -> pa.Table:
    """Entries whose file is there."""
    known = pc.unique(entries["path"]) if entries.num_rows else pa.array([], pa.string())
    alive = pa.array([path for path in known.to_pylist() if path in present], pa.string())
    return entries.filter(pc.is_in(entries["path"], value_set=alive))


def unlisted(entries: pa.Table, listed: Iterable[str]) -> list[str]:
    """Parts and merged files of a listing that no manifest entry names."""
    known = set(pc.unique(entries["path"]).to_pylist()) if entries.num_rows else set()
    return [path for path in listed if path not in known and (is_merged(path) or parse_path(path) is not None)]
