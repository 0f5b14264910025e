"""Columns of annotations behind those of a catalog: the rows of some of its files, joined by object_id and tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.annotation_files import KEY, lacks, named, rows_of, verb_of
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError


@dataclass(frozen=True)
class AnnotationColumns:
    """The columns of one annotation. Small and picklable."""

    catalog: str
    """URL of the catalog."""
    name: str
    """Name of the annotation."""
    head: str
    """SHA-256 of the model that made it."""
    fields: tuple[pa.Field, ...]
    """Columns by the names that they get: where the catalog or another annotation has one of that name,
    `<annotation>_` is put before it."""
    own: tuple[str, ...]
    """Their names in the files of the annotation."""
    files: tuple[tuple[str, str], ...]
    """File of the catalog, and the file of its annotation, relative to the catalog."""

    @classmethod
    def all_of(cls, catalog: Catalog, names: Sequence[str]) -> tuple[AnnotationColumns, ...]:
        """The annotations of these names.

        Raises:
            InputError: one is not there, or named twice, or its columns have no name of their own.
            CorruptError: rows of the catalog are not annotated yet.
        """
        if not names:
            return ()
        if storage.is_web(catalog.url):
            raise InputError("catalogs on a web server show no annotations: leave them away, or copy the catalog")
        if len({*names}) < len(names):
            raise InputError(f"an annotation is named twice in {', '.join(names)}: name each once")
        found = [named(catalog.url, name) for name in names]
        schemas = [one.schema() for one in found]
        columns = [[item for item in schema if item.name not in KEY] for schema in schemas]
        taken = [*catalog.schema.names, *(item.name for some in columns for item in some)]
        lower = [name.lower() for name in taken]
        made = []
        for one, some in zip(found, columns, strict=True):
            fields = [
                item.with_name(f"{one.name}_{item.name}") if lower.count(item.name.lower()) > 1 else item
                for item in some
            ]
            record = one.record() or {}
            files = {rows.path: one.file(rows, str(record["head"])) for rows in rows_of(catalog)}
            if missing := {*files.values()} - one.files():
                raise lacks(one.name, len(missing), verb_of(record))
            own = tuple(item.name for item in some)
            made.append(cls(catalog.url, one.name, str(record["head"]), tuple(fields), own, tuple(files.items())))
        names_now = [*catalog.schema.names, *(item.name for one in made for item in one.fields)]
        twice = next((name for name in names_now if [n.lower() for n in names_now].count(name.lower()) > 1), None)
        if twice is not None:
            raise InputError(f"two columns would be named {twice}: make the annotation under another name")
        return tuple(made)

    def source(self, database: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> str:
        """SQL of the rows that belong to some files of the catalog, under the annotation's name.

        Args:
            database: in which it is used.
            paths: of the catalog's files.
        """
        wanted = {*paths}
        folder = sql.root(database, self.catalog)
        files = [f"{folder}/{file}" for path, file in self.files if path in wanted]
        schema = pa.schema([("object_id", pa.int64()), ("tile", pa.large_string()), *self.fields])
        if not files:
            database.register(f"no {self.name}", schema.empty_table())
            return f"{sql.name(f'no {self.name}')} AS {sql.name(self.name)}"
        renamed = (f"{sql.name(own)} AS {sql.name(item.name)}" for own, item in zip(self.own, self.fields, strict=True))
        return f"(SELECT {sql.names(KEY)}, {', '.join(renamed)} FROM {sql.scan(files)}) AS {sql.name(self.name)}"  # noqa: S608
