"""A table of any size, sorted into the units that own its objects: bounded memory, resumable, written once.

Pass 1 reads chunks, places each on the images and writes it sorted by tile. Ids are spilled by hash to find those that
occur twice anywhere in the table. Pass 2 merges ranges of tiles; a unit then reads only its own rows. Pass 2 makes
(chunks x partitions) small range reads: with the default of a million rows, 10^9 objects need 10^6 of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from astroml_plugin.catalog.objects.bucket_files import (
    GROUP,
    bad_bucket,
    checked_chunks,
    encode_groups,
    is_damage,
    primary_rows,
    read_range,
    row_groups,
)
from astroml_plugin.catalog.objects.carried import names_in, typed, widest, word_kinds
from astroml_plugin.catalog.objects.columns import CHUNK_ROWS, OBJECT_SCHEMA
from astroml_plugin.catalog.objects.given import GivenTable, chunk_digest, content_digest
from astroml_plugin.catalog.objects.placing import PLACED_SCHEMA, UNITS_ORDER, Placer
from astroml_plugin.catalog.objects.settings import ObjectSettings
from astroml_plugin.catalog.parts import open_parquet
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.hashing import GOLDEN
from astroml_plugin.core.typing import I64, Bool
from astroml_plugin.sources.survey import Survey

Progress = Callable[[str, int, int | None], None]
"""Called with (stage: "place" | "sort", rows done, rows in all or None)."""

FORMAT = 2
IDS_AT_ONCE = 4_000_000
"""Ids compared at once while looking for duplicates."""

_COLUMNS = ("object_id", "x", "y", "ra", "dec", "primary")
UNIT_SCHEMA = pa.schema([*(PLACED_SCHEMA.field(name) for name in _COLUMNS), pa.field("duplicate", pa.bool_())])
INDEX_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("image", pa.string()),
        ("tile", pa.int64()),
        ("file", pa.string()),
        ("group", pa.int32()),
        ("offset", pa.int64()),
        ("rows", pa.int64()),
        ("digest", pa.string()),
    ]
)
_UNPLACED = pa.schema([*OBJECT_SCHEMA, pa.field("reason", pa.string())])


@dataclass(frozen=True)
class ObjectBuckets:
    """The objects of a survey by unit. Small and picklable."""

    url: str
    """Folder of the sorted table."""
    rows: int
    """Objects in the input table."""
    placed: int
    """Rows of all units (an object on several images counts several times)."""
    unplaced_rows: int
    """Objects that no unit owns."""

    @classmethod
    def build(
        cls,
        objects: str | Sequence[GivenTable],
        survey: Survey,
        folder: str,
        *,
        settings: ObjectSettings | None = None,
        progress: Progress | None = None,
        chunk_rows: int = CHUNK_ROWS,
        partition_rows: int = CHUNK_ROWS,
    ) -> ObjectBuckets:
        """Sort tables by unit below `folder`; what an earlier, killed build wrote is used, a finished one is opened.

        Args:
            objects: path or URL of a table, or several tables that are one list of objects.
            survey: whose tiles own the objects.
            folder: where the sorted copy goes.
            settings: how a single table is read.
            progress: hears how far it is.
            chunk_rows, partition_rows: rows that are held at once in both passes.

        Raises:
            InputError: the table cannot be read, has no rows, no positions or no exact ids.
        """
        tables = [GivenTable(objects, settings or ObjectSettings())] if isinstance(objects, str) else list(objects)
        sizes = [FORMAT, chunk_rows, partition_rows]
        key = storage.digest([one.identity() for one in tables], _survey_identity(survey), sizes)[:24]
        url = storage.join(storage.absolute(folder), key)
        build = _Build(url, survey, progress or (lambda stage, done, total: None), partition_rows)
        for again in (True, False):
            try:
                if not storage.exists(storage.join(url, "index.json")):
                    try:
                        build.run(tables, chunk_rows)
                    except FileNotFoundError:
                        if not storage.exists(storage.join(url, "index.json")):
                            raise  # else another driver has finished the same work and cleaned up
                return cls.open(url)
            except (CorruptError, pa.ArrowException, OSError) as error:
                if not again or not (is_damage(error) or isinstance(error, FileNotFoundError)):
                    raise
                build.clear()  # all of it is made from the table and the survey
        raise AssertionError("unreachable")

    @classmethod
    def open(cls, url: str) -> ObjectBuckets:
        """A finished build.

        Raises:
            InputError: there is none.
            DamagedError: its index or the table of objects that no unit owns was changed.
        """
        try:
            info = storage.read_record(storage.join(url, "index.json"), rows=int, placed=int, unplaced=int)
        except FileNotFoundError as error:
            raise InputError(f"there is no sorted objects table at {storage.redact(url)}") from error
        found = cls(url, info["rows"], info["placed"], info["unplaced"])
        held = sum(found._index["rows"].to_pylist()), found.unplaced().num_rows
        if held != (found.placed, found.unplaced_rows):
            raise storage.damaged(storage.join(url, "index.json"), f"{held} rows and {found.placed} were placed")
        return found

    def contents(self) -> list[tuple[int, str]]:
        """(objects, digest of ids and positions) of each table."""
        told = storage.read_record(storage.join(self.url, "index.json"), tables=list)["tables"]
        return [(int(rows), str(content)) for rows, content in told]

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectBuckets, (self.url, self.rows, self.placed, self.unplaced_rows)

    @cached_property
    def _index(self) -> pa.Table:
        return storage.read_table(storage.join(self.url, "index.parquet"))

    def units(self) -> dict[str, tuple[int, str]]:
        """Unit -> (rows, digest of its rows), for units with objects."""
        columns = (self._index[name].to_pylist() for name in ("unit", "rows", "digest"))
        return {unit: (rows, digest) for unit, rows, digest in zip(*columns, strict=True)}

    def read(self, unit: str) -> pa.Table:
        """Rows of one unit: object_id, image, x, y, ra, dec (null without a WCS), primary, duplicate; by object_id.

        Columns that came along follow, see `carried.carried`.
        """
        number = pc.index(self._index["unit"], unit).as_py()
        if number < 0:
            return _with_image(UNIT_SCHEMA.empty_table(), "")
        entry = self._index.slice(number, 1).to_pylist()[0]
        url = storage.join(self.url, entry["file"])
        try:
            with open_parquet(url) as file:
                table = file.read_row_group(entry["group"]).slice(entry["offset"], entry["rows"])
            right = _digest(table, entry["image"]) == entry["digest"]
        except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
            if not is_damage(error):
                raise
            raise bad_bucket(self.url, entry["file"], error) from error
        if not right:
            raise bad_bucket(self.url, entry["file"], "its rows are others than were written")
        return _with_image(table, entry["image"])

    def primaries(self) -> dict[str, int]:
        """Unit -> rows that are primary, for units with objects; reads one column, file after file."""
        return primary_rows(self.url, self._index)

    def unplaced(self) -> pa.Table:
        """Objects that no unit owns: object_id, image, x, y, ra, dec, reason."""
        return storage.read_table(storage.join(self.url, "unplaced.parquet"))


def _with_image(table: pa.Table, image: str) -> pa.Table:
    return table.add_column(1, "image", pa.array([image] * table.num_rows, pa.string()))


def _content(chunks: list[dict[str, Any]]) -> tuple[int, str]:
    return sum(chunk["rows"] for chunk in chunks), content_digest([chunk["content"] for chunk in chunks])


def _survey_identity(survey: Survey) -> list[Any]:
    """The tiles that exist and where they are; their pixels do not matter here."""
    table = survey.index_table()
    columns = [name for name in table.column_names if name.startswith(("index", "name", "image", "inner", "source_id"))]
    hashed = hashlib.sha256()
    for name in sorted(columns):
        hashed.update(repr(table[name].to_pylist()).encode())
    return [survey.id, hashed.hexdigest()]


class _Build:
    """One build: each step's output has a fixed name and is skipped when it is there."""

    def __init__(self, url: str, survey: Survey, progress: Progress, partition_rows: int) -> None:
        self.url = url
        self.survey = survey
        self.progress = progress
        self.partition_rows = partition_rows

    def at(self, name: str) -> str:
        return storage.join(self.url, name)

    def run(self, tables: list[GivenTable], chunk_rows: int) -> None:
        chunks = self.place(tables, chunk_rows)
        duplicates = self.duplicates(chunks)
        placed = self.sort(chunks, duplicates)
        unplaced = self.gather_unplaced(chunks)
        rows = sum(chunk["rows"] for chunk in chunks)
        info = {
            "format": FORMAT,
            "objects": [one.name for one in tables],
            "tables": [_content([c for c in chunks if c["table"] == number]) for number in range(len(tables))],
            "rows": rows,
            "placed": placed,
            "unplaced": unplaced,
        }
        storage.write_json(self.at("index.json"), info)
        for name in storage.list_files(self.at("chunks")):
            storage.remove(self.at(f"chunks/{name}"))

    def clear(self) -> None:
        """Delete everything, what says that the build is finished first."""
        storage.remove(self.at("index.json"))
        for name in storage.list_files(self.url):
            storage.remove(self.at(name))

    # Pass 1

    def place(self, tables: list[GivenTable], chunk_rows: int) -> list[dict[str, Any]]:
        """Place every chunk of every table; returns what each holds."""
        if storage.exists(self.at("chunks.json")):
            return checked_chunks(storage.read_json(self.at("chunks.json")), self.at("chunks.json"))
        placer: Placer | None = None
        chunks: list[dict[str, Any]] = []
        start = 0
        for number, table in ((number, chunk) for number, one in enumerate(tables) for chunk in one.chunks(chunk_rows)):
            name = f"chunks/{len(chunks):06d}"
            if storage.exists(self.at(name + ".json")):
                chunks += checked_chunks([storage.read_json(self.at(name + ".json"))], self.at(name + ".json"))
            else:
                placer = placer or Placer(self.survey.images())
                chunks.append(self._place_chunk(placer, table, start, name, number))
            start += table.num_rows
            self.progress("place", start, None)
        storage.write_json(self.at("chunks.json"), chunks)
        return chunks

    def _place_chunk(self, placer: Placer, table: pa.Table, start: int, name: str, number: int) -> dict[str, Any]:
        placed, unplaced = placer.place(table.select(OBJECT_SCHEMA.names), start)
        placed = placed.sort_by([("tile", "ascending"), ("row", "ascending")])
        for along in names_in(table):
            placed = placed.append_column(table.field(along), table[along].take(pc.subtract(placed["row"], start)))
        ids = np.asarray(table["object_id"].to_numpy())
        bucket = ((ids.astype(np.uint64) * GOLDEN) >> np.uint64(56)).astype(np.uint8)  # hash of each id, 0 … 255
        order = np.lexsort([ids, bucket])
        spilled = pa.table({"bucket": bucket[order], "object_id": ids[order]})
        storage.write_table(self.at(name + ".placed.parquet"), placed, row_group_size=GROUP)
        storage.write_table(self.at(name + ".ids.parquet"), spilled, row_group_size=GROUP)
        storage.write_table(self.at(name + ".unplaced.parquet"), unplaced)
        info = {"name": name, "rows": table.num_rows, "placed": placed.num_rows, "unplaced": unplaced.num_rows}
        info |= {"table": number, "content": chunk_digest(table), "words": word_kinds(table)}
        storage.write_json(self.at(name + ".json"), info)
        return info

    def duplicates(self, chunks: list[dict[str, Any]]) -> I64:
        """Sorted ids that occur more than once in the table, placed or not."""
        total = sum(chunk["rows"] for chunk in chunks)
        steps = max(1, -(-total // IDS_AT_ONCE))
        edges = np.linspace(0, 256, min(steps, 256) + 1).astype(int)
        found = [np.zeros(0, np.int64)]
        for low, high in pairwise(edges):
            parts = [
                read_range(self.at(c["name"] + ".ids.parquet"), "bucket", low, high - 1)["object_id"].to_numpy()
                for c in chunks
            ]
            ids = np.sort(np.concatenate(parts))
            found.append(np.unique(ids[1:][ids[1:] == ids[:-1]]))
        return np.sort(np.concatenate(found))

    # Pass 2

    def sort(self, chunks: list[dict[str, Any]], duplicates: I64) -> int:
        """Merge tile ranges of all chunks into files and their index; returns the rows."""
        table = self.survey.index_table()
        names = dict(zip(table["index"].to_pylist(), zip(table["name"].to_pylist(), table["image"].to_pylist())))
        total, done = sum(chunk["placed"] for chunk in chunks), 0
        indexes = [INDEX_SCHEMA.empty_table()]
        for number, (low, high) in enumerate(self._partitions(chunks)):
            target = self.at(f"index/{number:06d}.parquet")
            if not storage.exists(target):
                storage.write_table(target, self._merge(chunks, number, low, high, duplicates, names))
            indexes.append(storage.read_table(target))
            done += sum(indexes[-1]["rows"].to_pylist())
            self.progress("sort", done, total)
        if done != total:
            raise RuntimeError(
                f"{total} rows were placed, {done} sorted: delete {storage.redact(self.url)} and run again"
            )
        storage.write_table(self.at("index.parquet"), pa.concat_tables(indexes))
        return done

    def _partitions(self, chunks: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
        """Ranges [low, high] of tile indices with about `partition_rows` rows each."""
        counts: dict[int, int] = {}
        for chunk in chunks:
            with open_parquet(self.at(chunk["name"] + ".placed.parquet")) as file:
                tiles, many = np.unique(file.read(["tile"])["tile"].to_numpy(), return_counts=True)
            for tile, rows in zip(tiles.tolist(), many.tolist()):
                counts[tile] = counts.get(tile, 0) + rows
        low, held, last = None, 0, None
        for tile in sorted(counts):
            if low is not None and held + counts[tile] > self.partition_rows:
                yield low, last or 0
                low, held = None, 0
            low = tile if low is None else low
            held, last = held + counts[tile], tile
        if low is not None:
            yield low, last or 0

    def _merge(
        self, chunks: list[dict[str, Any]], number: int, low: int, high: int, duplicates: I64, names: dict[int, Any]
    ) -> pa.Table:
        """Write the sorted rows of a range of tiles; returns their index."""
        parts = [read_range(self.at(c["name"] + ".placed.parquet"), "tile", low, high) for c in chunks]
        kinds = widest([c.get("words", {}) for c in chunks])
        table = pa.concat_tables([typed(part, kinds) for part in parts], promote_options="permissive")
        order = [(name, "ascending") for name in UNITS_ORDER]
        table = table.take(pc.sort_indices(table, sort_keys=order)).combine_chunks()
        ids = table["object_id"].to_numpy()
        table = table.append_column("duplicate", pa.array(_contains(duplicates, ids)))
        tiles = table["tile"].to_numpy()
        starts = np.flatnonzero(np.diff(tiles, prepend=-1))
        bounds = list(zip(starts.tolist(), [*starts[1:].tolist(), len(tiles)]))
        file = f"units/{number:06d}.parquet"
        entries, groups = [], row_groups(bounds)
        for group, members in enumerate(groups):
            first = members[0][0]
            for start, stop in members:
                tile = int(tiles[start])
                unit, image = names[tile]
                digest = _digest(table.slice(start, stop - start), image)
                entries.append([unit, image, tile, file, group, start - first, stop - start, digest])
        along = [table.schema.field(name) for name in names_in(table)]
        schema = pa.schema([*UNIT_SCHEMA, *along])
        body = table.select(schema.names).cast(schema)
        storage.write_atomic(self.at(file), encode_groups(body, [(g[0][0], g[-1][1]) for g in groups]))
        return pa.Table.from_pylist([dict(zip(INDEX_SCHEMA.names, entry)) for entry in entries], schema=INDEX_SCHEMA)

    def gather_unplaced(self, chunks: list[dict[str, Any]]) -> int:
        """One table of all objects that no unit owns; returns its rows."""
        sink = pa.BufferOutputStream()
        rows = 0
        with pq.ParquetWriter(sink, _UNPLACED, compression="zstd") as writer:
            for chunk in chunks:
                if chunk["unplaced"]:
                    table = storage.read_table(self.at(chunk["name"] + ".unplaced.parquet"))
                    writer.write_table(table.select(_UNPLACED.names).cast(_UNPLACED))
                    rows += table.num_rows
        storage.write_atomic(self.at("unplaced.parquet"), sink.getvalue().to_pybytes())
        return rows


def _contains(sorted_values: I64, values: I64) -> Bool:
    if not len(sorted_values):
        return np.zeros(len(values), bool)
    position = np.minimum(np.searchsorted(sorted_values, values), len(sorted_values) - 1)
    return np.asarray(sorted_values[position] == values)


def _digest(rows: pa.Table, image: str) -> str:
    """Digest of a unit's rows, whatever chunks they came from."""
    hashed = hashlib.sha256(image.encode())
    for name in UNIT_SCHEMA.names:
        column = rows[name]
        values = pc.fill_null(column, float("nan")) if pa.types.is_floating(column.type) else column
        hashed.update(np.ascontiguousarray(values.to_numpy()).tobytes())
    return hashed.hexdigest()[:32]
