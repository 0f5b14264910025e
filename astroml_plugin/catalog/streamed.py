"""The rows of a whole catalog, as they count, a batch at a time: what exports read, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import primary, sql
from astroml_plugin.catalog.annotation_columns import AnnotationColumns
from astroml_plugin.catalog.export.facts import metadata
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.catalog.query import create_views, files_to_read, one_select, typed_batches, unreadable
from astroml_plugin.catalog.schema import HEALPIX
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.typing import I64

_BATCH = 65_536


@dataclass(frozen=True)
class CatalogRows:
    """Rows of a catalog that can be read again and again. Small and picklable: workers get it whole."""

    catalog: Catalog
    """The catalog."""
    schema: pa.Schema
    """Columns that are read; the metadata tell where the rows come from."""
    paths: tuple[str, ...]
    """Files that hold the rows, relative to the catalog."""
    decided: primary.State | None
    """Which rows are primary where images overlap."""
    where: str = ""
    """SQL condition on the rows; empty: all."""
    memory: str = "1GB"
    """Bound of DuckDB's memory."""
    annotations: tuple[AnnotationColumns, ...] = ()
    """Annotations whose columns stand behind those of the catalog."""

    @classmethod
    def of(
        cls,
        url: str,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        annotations: Sequence[str] = (),
        memory: str = "1GB",
    ) -> CatalogRows:
        """All rows of the catalog at `url` that count now.

        Args:
            url: path or URL of its folder.
            columns: names of those to read, in this order; default: all but the hidden HEALPix index.
            where: SQL condition on the rows, as in `query`; may name columns of the annotations.
            annotations: names of annotations whose columns are read too; rows without one have nulls.
            memory: bound of DuckDB's memory, such as "1GB".

        Raises:
            InputError: no catalog there, a column or annotation that it lacks, a condition that is none.
            CorruptError: rows are lost or not annotated, or a run goes on where images overlap.
        """
        catalog = Catalog.open(url)
        current, lost = catalog.current_and_lost()
        lost.refuse()
        records = catalog.runs()
        decided = primary.read(catalog.url, records)
        if decided is not None and not decided.is_of(current):
            raise CorruptError(f"{storage.redact(catalog.url)}: {primary.UNDECIDED}")
        joined = AnnotationColumns.all_of(catalog, annotations)
        fields = {item.name: item for item in (*catalog.schema, *(item for one in joined for item in one.fields))}
        names = [name for name in fields if name != HEALPIX] if columns is None else list(columns)
        lacking = [name for name in names if name not in fields]
        if lacking:
            raise InputError(f"the catalog has no column {lacking[0]!r}: it has {', '.join(fields)}")
        about = {one.name: one.head for one in joined} or None
        told = provenance(catalog, records, where=where, annotations=about)
        schema = pa.schema([fields[name] for name in names], metadata=metadata(told))
        rows = cls(catalog, schema, tuple(files_to_read(current)), decided, where or "", memory, joined)
        rows._check_condition()
        return rows

    def _check_condition(self) -> None:
        """InputError where the condition is none on rows of this catalog."""
        if self.where:
            for _ in replace(self, paths=()).batches():
                pass

    def having(self, columns: Sequence[str], paths: Sequence[str] | None = None) -> CatalogRows:
        """Rows with these columns only; those of some files, where given."""
        fields = {item.name: item for one in self.annotations for item in one.fields}
        chosen = [fields.get(name) or self.catalog.schema.field(name) for name in columns]
        schema = pa.schema(chosen, metadata=self.schema.metadata)
        return replace(self, schema=schema, paths=self.paths if paths is None else tuple(paths))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows, or these columns of them, in batches; in the order of the files.

        Raises:
            CorruptError: a file is gone or cannot be read.
            InputError: the condition fails on a row.
        """
        wanted = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        options = {"memory_limit": self.memory, "threads": "2"}
        with (
            tempfile.TemporaryDirectory(prefix="astroml-") as spill,
            sql.connect(temp_directory=spill, **options) as database,
        ):
            try:
                text = f"SELECT {sql.names(wanted.names)} FROM catalog"  # noqa: S608
                for one in self._needed(wanted):
                    text += f" LEFT JOIN {one.source(database, self.paths)} USING (object_id, tile)"
                if self.where:
                    text = one_select(database, f"{text} WHERE (\n{self.where}\n)")
                create_views(database, self.catalog, list(self.paths), self.decided, None, None, text)
                yield from typed_batches(database.sql(text).to_arrow_reader(_BATCH), wanted)
            except duckdb.IOException as error:
                raise unreadable(error) from error
            except duckdb.Error as error:
                raise InputError(f"the rows cannot be read ({str(error).splitlines()[0]}): see `where`") from error

    def _needed(self, wanted: pa.Schema) -> list[AnnotationColumns]:
        """Annotations that these columns, or the condition, come from."""
        return [one for one in self.annotations if self.where or {item.name for item in one.fields} & {*wanted.names}]

    def count(self) -> int:
        """Number of rows."""
        return sum(batch.num_rows for batch in self.batches(self.schema.names[:1]))

    def groups(self, rows: int) -> list[tuple[str, ...]]:
        """The files in groups of about so many rows, in an order that is always the same."""
        current = self.catalog.current()
        sizes = dict(zip(current["path"].to_pylist(), [0] * current.num_rows, strict=True))
        for path, count in zip(current["path"].to_pylist(), current["rows"].to_pylist(), strict=True):
            sizes[path] += count
        found: list[list[str]] = []
        filled = rows
        for path in self.paths:
            if filled >= rows:
                found.append([])
                filled = 0
            found[-1].append(path)
            filled += sizes.get(path, 0)
        return [tuple(group) for group in found]


def rows_by_cell(rows: CatalogRows, shift: int) -> tuple[I64, I64, int]:
    """HEALPix cells (k,) that hold rows, sorted, the rows of each (k,), and the rows without a position.

    Args:
        rows: of a catalog.
        shift: cells are nested ones of the order 29 - `shift` / 2.
    """
    cells, counts, none = np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    for batch in rows.having([HEALPIX]).batches():
        none += batch.column(0).null_count
        own, count = np.unique(np.asarray(pc.drop_null(batch.column(0))) >> shift, return_counts=True)
        cells, place = np.unique(np.concatenate([cells, own]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, count]), len(cells)).astype(np.int64)
    return cells, counts, none
