"""Objects tables that a catalog's rows are of: what each is called, how it is read, whether it has changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.objects.columns import CHUNK_ROWS, read_chunks
from astroml_plugin.catalog.objects.readers import file_names
from astroml_plugin.catalog.objects.settings import ObjectSettings
from astroml_plugin.core import storage
from astroml_plugin.core.errors import DamagedError, InputError

FORMAT = 1
FOLDER = "objects"
"""Folder of a catalog that holds its objects tables, sorted, and their record."""

_RECORD, _COPY = "tables.json", "tables.copy.json"
_SEAL = "sha256"
_NAMED = re.compile(r"given-[0-9a-f]{16}\.parquet")
REMEDY = "put a copy of the file back, or choose another --out"


@dataclass(frozen=True)
class GivenTable:
    """An objects table and how it is read."""

    url: str
    """Path or URL; a local path is absolute."""
    settings: ObjectSettings = field(default_factory=ObjectSettings)
    """How to read it."""
    carry: tuple[str, ...] = ()
    """Further columns that come along with the objects, see `carried.chosen`."""

    @property
    def name(self) -> str:
        """The path or URL without secrets."""
        return storage.redact(storage.absolute(self.url) if storage.is_local(self.url) else self.url)

    def identity(self) -> list[Any]:
        """Plain values that change when the table or the way to read it does."""
        known = [_file_identity(self.url), self.settings.identity()]
        return [*known, list(self.carry)] if self.carry else known

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[pa.Table]:
        """Chunks of its objects, see `read_chunks`."""
        return read_chunks(self.url, self.settings, rows, self.carry)


@dataclass(frozen=True)
class TableRecord:
    """One table of a catalog, as its record has it."""

    name: str
    """Path or URL without secrets."""
    rows: int
    """Objects in it."""
    content: str
    """Digest of ids and positions."""
    settings: dict[str, Any]
    """Fields of `ObjectSettings`."""

    @classmethod
    def of(cls, table: GivenTable, rows: int, content: str) -> TableRecord:
        """The record of a table that was read."""
        plain = asdict(table.settings) | {"columns": table.settings.mapping() or None}
        known = {name: plain[name] for name in ObjectSettings.__dataclass_fields__}
        return cls(table.name, rows, content, known)

    def table(self) -> GivenTable:
        """The table, to be read again."""
        return GivenTable(self.name, ObjectSettings(**self.settings))


def read_record(folder: str) -> list[TableRecord]:
    """Tables of the catalog whose folder of objects this is; none where no run has written them.

    Raises:
        DamagedError: the record and its copy are damaged.
    """
    errors: list[Exception] = []
    for name in (_RECORD, _COPY):
        try:
            return _read(storage.join(folder, name))
        except FileNotFoundError:
            continue
        except (DamagedError, IsADirectoryError) as error:
            errors.append(error)
    if errors:
        raise DamagedError(f"{storage.redact(storage.join(folder, _RECORD))} is damaged: {REMEDY}") from errors[0]
    return []


def _read(url: str) -> list[TableRecord]:
    told = storage.read_record(url, tables=list)
    sealed = {key: value for key, value in told.items() if key != _SEAL}
    if _SEAL in told and told[_SEAL] != storage.digest(sealed):
        raise storage.damaged(url, "its digest is another one")
    try:
        return [TableRecord(**one) for one in told["tables"]]
    except TypeError as error:
        raise storage.damaged(url, error) from error


def write_record(folder: str, tables: Sequence[TableRecord]) -> None:
    """Keep the tables of a catalog, and a copy, as nothing else tells how they were read."""
    told = {"format": FORMAT, "tables": [asdict(one) for one in tables]}
    sealed = {**told, _SEAL: storage.digest(told)}
    for name in (_RECORD, _COPY):
        place = storage.join(folder, name)
        if storage.is_local(place) and storage.local_path(place).is_dir():
            storage.local_path(place).rename(storage.local_path(f"{place}.damaged"))
        storage.write_json(place, sealed)


def damages(folder: str) -> list[tuple[str, str]]:
    """(file, words) of the record and its copy where they are damaged, or gone while the other is there.

    A lone record without a digest is whole: older versions wrote no copy.
    """
    found: dict[str, str] = {}
    read: dict[str, list[TableRecord]] = {}
    for name in (_RECORD, _COPY):
        try:
            read[name] = _read(storage.join(folder, name))
        except FileNotFoundError:
            found[name] = "it is gone"
        except (DamagedError, OSError) as error:
            found[name] = "it is a folder" if isinstance(error, IsADirectoryError) else "it cannot be read as written"
    if set(found.values()) == {"it is gone"} and len(found) == 2:
        return []
    if found == {_COPY: "it is gone"} and _SEAL not in storage.read_json(storage.join(folder, _RECORD)):
        return []
    if len(read) == 2 and read[_RECORD] != read[_COPY]:  # killed between the two, or an older one was put back
        found[_COPY] = "it differs from the record"
    return list(found.items())


def mend(folder: str) -> bool:
    """Make the record and its copy again from the one that is whole; False where none is."""
    try:
        tables = read_record(folder)
    except DamagedError:
        return False
    if tables:
        write_record(folder, tables)
    return bool(tables)


def chosen_tables(mine: GivenTable, known: Sequence[TableRecord], *, extend: bool, catalog: str) -> list[GivenTable]:
    """The tables that a run measures: those of the catalog, with this one.

    A table that the catalog has, by its name or by equal objects, stands for itself; any other is added with `extend`.

    Args:
        mine: the table of this run.
        known: tables of the catalog, as recorded.
        extend: add a table that the catalog does not have.
        catalog: URL of the catalog, for the sentence that refuses.

    Raises:
        InputError: another table, without `extend`.
    """
    if not known:
        return [mine]
    same = next((number for number, one in enumerate(known) if one.name == mine.name), None)
    if same is None:
        rows, content = fingerprint(mine.chunks())
        same = next((number for number, one in enumerate(known) if one.content == content), None)
        if same is None and not extend:
            told = " and ".join(f"the {one.rows} objects of {one.name}" for one in known)
            raise InputError(
                f"the catalog {storage.redact(catalog)} holds {told}; this run has the {rows} objects of {mine.name}: "
                "add them with --extend, or choose another --out"
            )
    tables = [one.table() for one in known]
    for number, other in enumerate(tables):
        if number != same:
            _check_there(other, catalog)
    if same is None:
        return [*tables, mine]
    tables[same] = mine
    return tables


def _check_there(other: GivenTable, catalog: str) -> None:
    try:
        other.identity()
    except InputError as error:
        raise InputError(
            f"the catalog {storage.redact(catalog)} has the objects of {other.name} too, which is gone: put it back, "
            "or choose another --out"
        ) from error


def changes(known: Sequence[TableRecord], now: Sequence[TableRecord]) -> list[str]:
    """Sentences about tables whose objects are others than before under one name."""
    before = {one.name: one for one in known}
    return [
        f"{one.name} has changed: its {one.rows} objects replace the {before[one.name].rows} that it had"
        for one in now
        if one.name in before and before[one.name].content != one.content
    ]


def fingerprint(chunks: Iterator[pa.Table]) -> tuple[int, str]:
    """(objects, digest of ids and positions) of a table in chunks of CHUNK_ROWS."""
    rows, digests = 0, []
    for chunk in chunks:
        rows += chunk.num_rows
        digests.append(chunk_digest(chunk))
    return rows, content_digest(digests)


def content_digest(chunks: Sequence[str]) -> str:
    """Digest of a table from those of its chunks."""
    return storage.digest(list(chunks))[:32]


def chunk_digest(chunk: pa.Table) -> str:
    """Digest of ids and positions of a chunk (OBJECT_SCHEMA)."""
    hashed = hashlib.sha256(np.ascontiguousarray(chunk["object_id"].to_numpy()).tobytes())
    for name in ("x", "y", "ra", "dec"):
        hashed.update(np.ascontiguousarray(pc.fill_null(chunk[name], float("nan")).to_numpy()).tobytes())
    if chunk["image"].null_count < len(chunk):
        hashed.update(repr(chunk["image"].to_pylist()).encode())
    return hashed.hexdigest()[:32]


def given_name(digest: str) -> str:
    """Name of the file of a table that was given in memory, by the digest of its content."""
    return f"given-{digest}.parquet"


def _file_identity(objects: str) -> list[Any]:
    """Identity of a file, or of all files of a folder or pattern: name, size, time or tag.

    A file that is named after its content is the same wherever it lies.
    """
    files = file_names(objects)
    if list(files) == [objects]:
        stand, name = _stand(objects), objects.rpartition("/")[2]
        return [name] if _NAMED.fullmatch(name) else stand
    return [objects, storage.digest([_stand(one) for one in files])]


def _stand(url: str) -> list[Any]:
    try:
        if storage.is_local(url):
            status = storage.local_path(url).expanduser().stat()
            return [storage.absolute(url), status.st_size, status.st_mtime_ns]
        fs, path = storage.filesystem(url)
        info = storage.retrying(fs.info, path)
    except FileNotFoundError as error:
        raise InputError(f"the objects table {storage.redact(url)} does not exist") from error
    return [url, info.get("size"), str(info.get("ETag") or info.get("mtime") or info.get("created"))]
