"""Files of the sorted objects table: row groups of units, ranges of rows, and what was changed in them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from astroml_plugin.catalog.parts import open_parquet
from astroml_plugin.core import storage
from astroml_plugin.core.errors import DamagedError

GROUP = 65_536
"""Rows of a row group, about."""


def is_damage(error: Exception) -> bool:
    """Whether an error tells of changed bytes, not of a disk or a network."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return False
    return not isinstance(error, OSError) or (error.errno is None and not storage.is_remote_failure(error))


def bad_bucket(url: str, file: str, reason: object) -> DamagedError:
    """The error for a file of a finished build that cannot be read any more."""
    return DamagedError(
        f"{file} of the sorted objects table is damaged ({' '.join(str(reason).split())[:100]}): delete the folder "
        f"{storage.redact(url)} and run the same command again"
    )


def checked_chunks(records: Any, url: str) -> list[dict[str, Any]]:
    """Records of chunks as `_place_chunk` wrote them; DamagedError where they are others."""
    kinds = {"name": str, "rows": int, "placed": int, "unplaced": int, "table": int, "content": str}
    if (
        not isinstance(records, list)
        or not records
        or not all(
            isinstance(one, dict) and all(isinstance(one.get(name), kind) for name, kind in kinds.items())
            for one in records
        )
    ):
        raise storage.damaged(url, "other records than were written")
    return records


def row_groups(bounds: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Neighbouring units together until a row group has enough rows: a unit is never split."""
    groups: list[list[tuple[int, int]]] = []
    for start, stop in bounds:
        if not groups or groups[-1][-1][1] - groups[-1][0][0] >= GROUP // 2:
            groups.append([])
        groups[-1].append((start, stop))
    return groups


def encode_groups(table: pa.Table, groups: list[tuple[int, int]]) -> bytes:
    """Parquet bytes of a table with these row groups, [start, stop) each."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        for start, stop in groups:
            writer.write_table(table.slice(start, stop - start), row_group_size=max(stop - start, 1))
    return bytes(sink.getvalue().to_pybytes())


def read_range(url: str, column: str, low: int, high: int) -> pa.Table:
    """Rows of a Parquet file sorted by `column` with low <= column <= high; only the row groups that may hold them."""
    with open_parquet(url, check=True) as file:
        number = file.schema_arrow.get_field_index(column)
        wanted = []
        for group in range(file.num_row_groups):
            bounds = file.metadata.row_group(group).column(number).statistics
            if bounds is None or not bounds.has_min_max or (bounds.min <= high and bounds.max >= low):
                wanted.append(group)
        table = file.read_row_groups(wanted)
    values = table[column]
    return table.filter(pc.and_(pc.greater_equal(values, int(low)), pc.less_equal(values, int(high))))


def primary_rows(url: str, index: pa.Table) -> dict[str, int]:
    """Unit -> rows that are primary, by one column of every file that the index of a finished build names."""
    found: dict[str, int] = {}
    for name in pc.unique(index["file"]).to_pylist():
        with open_parquet(storage.join(url, name)) as file:
            groups: dict[int, Any] = {}
            for entry in index.filter(pc.equal(index["file"], name)).to_pylist():
                group = entry["group"]
                if group not in groups:
                    groups = {group: file.read_row_group(group, ["primary"])["primary"].to_numpy()}
                rows = groups[group][entry["offset"] : entry["offset"] + entry["rows"]]
                found[entry["unit"]] = int(rows.sum())
    return found
