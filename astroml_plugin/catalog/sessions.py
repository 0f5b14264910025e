"""Several questions to a catalog as it is at one moment: its manifest is read once, and footers of its files once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from astroml_plugin.catalog import Catalog, primary, sql
from astroml_plugin.catalog.query import create_views, files_to_read, one_select, unreadable
from astroml_plugin.core.errors import InputError

if TYPE_CHECKING:
    import duckdb


class CatalogSession:
    """A catalog that is open for SQL over the views `catalog`, `failures` and `unplaced`."""

    def __init__(
        self, catalog: Catalog, database: duckdb.DuckDBPyConnection, current: pa.Table, doubt: str = ""
    ) -> None:
        self.catalog = catalog
        self.current = current
        """The files that make the view, one row per unit (`MANIFEST_SCHEMA`)."""
        self.doubt = doubt
        """A sentence where `primary` was not decided for all rows yet; else empty."""
        self._database = database

    def table(self, text: str) -> pa.Table:
        """Rows of one SELECT.

        Raises:
            InputError: SQL that fails.
            CorruptError: a part cannot be read.
        """
        import duckdb

        try:
            return self._database.sql(one_select(self._database, text)).to_arrow_table()
        except duckdb.IOException as error:
            raise unreadable(error) from error
        except duckdb.Error as error:
            raise InputError(f"the query failed: {str(error).splitlines()[0]}") from error

    def rows(self, text: str) -> list[dict[str, Any]]:
        """Rows of one SELECT as plain values."""
        found: list[dict[str, Any]] = self.table(text).to_pylist()
        return found

    def row(self, text: str) -> dict[str, Any]:
        """The only row of one SELECT."""
        return self.rows(text)[0]


@contextmanager
def open_session(
    catalog: Catalog, *, views: Sequence[str] = ("failures",), memory: str | None = None
) -> Iterator[CatalogSession]:
    """Open a catalog for several questions.

    Args:
        catalog: the catalog.
        views: names of views besides `catalog` and `unplaced` that will be asked: `failures`, annotations.
        memory: bound of DuckDB's memory, such as "4GB"; what needs more goes to a temporary folder.

    Raises:
        InputError: rows are lost, or files cannot be read.
    """
    options = {} if memory is None else {"memory_limit": memory}
    with (
        tempfile.TemporaryDirectory(prefix="astroml-") as spill,
        sql.connect(temp_directory=spill, **options) as database,
    ):
        current, lost = catalog.current_and_lost()
        lost.refuse()
        decided = primary.read(catalog.url, catalog.runs())
        doubt = "" if decided is None or decided.is_of(current) else primary.UNDECIDED
        database.execute("SET parquet_metadata_cache = true")
        create_views(database, catalog, files_to_read(current), decided, None, None, " ".join(views))
        yield CatalogSession(catalog, database, current, doubt)
