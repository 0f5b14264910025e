"""A reader for hats-import: the rows of a catalog in groups of files, with the headers that its files shall have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog.export.extents import text_lengths_of
from astroml_plugin.catalog.export.headers import reader_metadata
from astroml_plugin.catalog.parts import with_metadata
from astroml_plugin.catalog.streamed import CatalogRows

GROUP = 1_000_000
"""Rows of the files that are read as one piece of work."""

_BYTES = 128 << 20
"""Bytes of rows that are handed over at once."""


@dataclass(frozen=True)
class GroupReader:
    """A reader of hats-import whose input files are names of groups: `group-0`, `group-1`, …"""

    rows: CatalogRows
    """The rows with the columns that are written."""
    schema: pa.Schema
    """Their schema with the headers of the files to be."""
    groups: tuple[tuple[str, ...], ...]
    """Files of each group, relative to the catalog."""

    @classmethod
    def of(cls, rows: CatalogRows) -> GroupReader:
        """A reader of all rows. Their texts are read once: headers tell the longest."""
        lengths = text_lengths_of(rows)[1]
        return cls(rows, with_metadata(rows.schema, reader_metadata(rows.schema, lengths)), tuple(rows.groups(GROUP)))

    @property
    def names(self) -> list[str]:
        """Names of the groups, in order."""
        return [f"group-{number}" for number in range(len(self.groups))]

    def read(self, input_file: Any, read_columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of a group, some after others; hats-import calls it in its workers.

        Args:
            input_file: name of the group, perhaps with folders in front.
            read_columns: the columns that are needed; default: all.
        """
        number = int(str(input_file).rpartition("-")[2])
        names = self.schema.names if read_columns is None else list(read_columns)
        schema = pa.schema([self.schema.field(name) for name in names], metadata=self.schema.metadata)
        waiting: list[pa.RecordBatch] = []
        for batch in self.rows.having(names, self.groups[number]).batches():
            waiting.append(batch)
            if sum(item.nbytes for item in waiting) >= _BYTES:
                yield pa.Table.from_batches(waiting).cast(schema)
                waiting = []
        if waiting:
            yield pa.Table.from_batches(waiting).cast(schema)
