"""Annotations on disk: `annotations/NAME` in a catalog's folder, with its record, its head, and one file per part.

A file's name says which rows it annotates and by which head. So a run that was stopped goes on, and files of parts that
are no longer in the catalog are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, sql
from astroml_plugin.catalog.schema import Column, arrow_type
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.places import Place

FOLDER = "annotations"
RECORD, WEIGHTS = "annotation.json", "head.safetensors"
KEY = ("object_id", "tile")
"""Columns of an annotation's rows, by which they are joined."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TAKEN = ("catalog", "failures", "unplaced")


@dataclass(frozen=True)
class Rows:
    """Rows of one file of the catalog."""

    path: str
    """File, relative to the catalog."""
    units: tuple[str, ...]
    """Units whose rows these are."""
    digest: str
    """Digest of all that decides the rows."""


@dataclass(frozen=True)
class Annotation:
    """One annotation of a catalog."""

    catalog: str
    """URL of the catalog."""
    name: str
    """Name, also of the view in queries."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.lower() in _TAKEN:
            raise InputError(
                f"{self.name!r} cannot name an annotation: take letters, digits and _, a letter first, and none of "
                f"{', '.join(_TAKEN)}"
            )

    @property
    def url(self) -> str:
        """Folder of the annotation."""
        return storage.join(self.catalog, FOLDER, self.name)

    def refuse_new(self) -> None:
        """InputError where a new annotation cannot have the name: SQL takes it for something else."""
        if self.name.lower() in sql.reserved():
            raise InputError(f"{self.name!r} cannot name an annotation: it is a word of SQL, take another name")
        for other in all_annotations(self.catalog):
            if other.name.lower() == self.name.lower():
                raise InputError(
                    f"the annotation {other.name} is there, and SQL takes {self.name} for it: choose another --name"
                )

    def record(self) -> dict[str, Any] | None:
        """How it was made; None where it is not there.

        Raises:
            InputError: the record is damaged.
        """
        place = storage.join(self.url, RECORD)
        if not storage.exists(place):
            return None
        return storage.read_record(place, columns=list, identity=dict, head=str, about=dict)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write how it is made, the head being there."""
        storage.write_json(storage.join(self.url, RECORD), dict(record))

    def columns(self) -> tuple[Column, ...]:
        """Columns of its rows, behind object_id and tile."""
        record = self.record()
        if record is None:
            raise InputError(f"there is no annotation {self.name}: make it by the verb annotate")
        return tuple(Column(**column) for column in record["columns"])

    def schema(self) -> pa.Schema:
        """Arrow schema of its rows; fields carry unit, ucd and description."""
        key = [pa.field("object_id", pa.int64()), pa.field("tile", pa.large_string())]
        return pa.schema([*key, *(_field(column) for column in self.columns())])

    def file(self, rows: Rows, head: str) -> str:
        """File of the rows of a part, relative to the catalog."""
        digest = storage.digest(rows.digest, head)[:32]
        return f"{FOLDER}/{self.name}/{digest[:2]}/{digest}.parquet"

    def files(self) -> set[str]:
        """Files of rows that are there, relative to the catalog."""
        return {f"{FOLDER}/{self.name}/{name}" for name in storage.list_files(self.url, ".parquet")}

    def current(self, catalog: Catalog) -> tuple[list[str], int]:
        """(files of the catalog's rows as they are now, files that are still missing)."""
        record = self.record()
        if record is None:
            return [], 0
        wanted = [self.file(rows, record["head"]) for rows in rows_of(catalog)]
        there = self.files()
        found = [file for file in wanted if file in there]
        return found, len(wanted) - len(found)


def _field(column: Column) -> pa.Field:
    described = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
    return pa.field(column.name, arrow_type(column.type), metadata={k: v for k, v in described.items() if v} or None)


def all_annotations(catalog: Place) -> list[Annotation]:
    """Annotations of a catalog, by name."""
    files = storage.list_files(storage.join(storage.absolute(catalog), FOLDER), RECORD)
    names = [name.partition("/")[0] for name in files if name.count("/") == 1]
    return [Annotation(storage.absolute(catalog), name) for name in names if _NAME.fullmatch(name)]


def rows_of(catalog: Catalog) -> Iterator[Rows]:
    """Rows of a catalog file by file, in order of the files."""
    current = catalog.current()
    table = current.filter(pa.array(current["rows"].to_numpy() > 0)).sort_by(
        [("path", "ascending"), ("unit", "ascending")]
    )
    paths, units, digests = (table[name].to_pylist() for name in ("path", "unit", "digest"))
    starts = np.flatnonzero([not row or paths[row] != paths[row - 1] for row in range(len(paths))]).tolist()
    for start, stop in zip(starts, [*starts[1:], len(paths)]):
        told = storage.digest([paths[start]], units[start:stop], digests[start:stop])
        yield Rows(paths[start], tuple(units[start:stop]), told)


def named(catalog: str, name: str) -> Annotation:
    """The annotation of that name.

    Raises:
        InputError: it is not there.
    """
    known = [one.name for one in all_annotations(catalog)]
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "there is none"
        raise InputError(f"the catalog has no annotation {name!r}, {there}: make it by the verb annotate")
    return Annotation(storage.absolute(catalog), name)


def verb_of(record: Mapping[str, Any] | None) -> str:
    """The verb that makes an annotation, from its record."""
    told = ((record or {}).get("about") or {}).get("provenance") or {}
    return str(told.get("made_by", "annotate"))


def lacks(name: str, files: int, verb: str) -> CorruptError:
    """The error about an annotation that rows of the catalog do not have yet.

    Args:
        name: of the annotation.
        files: of the catalog, whose rows it lacks.
        verb: makes it.
    """
    return CorruptError(
        f"the annotation {name} lacks the rows of {files} files of the catalog: run the same `astroml-plugin {verb}` "
        f"again"
    )


def views(catalog: Catalog, text: str | None, folder: str) -> dict[str, str]:
    """SQL of the views of annotations that a query names.

    Args:
        catalog: the catalog.
        text: SQL of the query.
        folder: DuckDB's name of the catalog's folder.

    Raises:
        CorruptError: rows of the catalog have no annotation yet; says what to do.
    """
    words = {word.lower() for word in re.findall(r"\w+", text or "")}
    if not words or storage.is_web(catalog.url):
        return {}
    found = {}
    for one in all_annotations(catalog.url):
        if one.name.lower() not in words:
            continue
        files, missing = one.current(catalog)
        if missing:
            raise lacks(one.name, missing, verb_of(one.record()))
        if files:
            names = sql.typed_names(one.schema())
            found[one.name] = f"SELECT {names} FROM {sql.scan([f'{folder}/{file}' for file in files])}"  # noqa: S608
    return found
