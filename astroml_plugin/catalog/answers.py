"""Rows as an answer: to Arrow, pandas, astropy or a file; with a length, columns, positions and a face in notebooks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from astroml_plugin.catalog.schema import HEALPIX, Column
from astroml_plugin.catalog.showing import as_html, as_text
from astroml_plugin.catalog.write import file_format, to_astropy
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_unknown

if TYPE_CHECKING:
    import pandas as pd

_ROWS, _WIDTH, _ROWS_OF_HTML = 10, 120, 20


class TableResult:
    """Rows with named columns."""

    @abstractmethod
    def to_arrow(self) -> pa.Table:
        """The rows as Arrow; fields carry unit, ucd and description."""

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas data frame."""
        return self.to_arrow().to_pandas()

    def to_qtable(self) -> QTable:
        """The rows as an astropy QTable with units; integers (ids, flags) stay integers.

        Null integers, booleans and texts are masked, other null numbers are NaN. `meta` tells where the rows come from:
        runs, bundles, source, SQL, the meaning of the flags.
        """
        return QTable(to_astropy(self.to_arrow()))

    def to_skycoord(self) -> SkyCoord:
        """Positions of the rows, ICRS; NaN where a row has none.

        Raises:
            InputError: the rows have no columns ra and dec.
        """
        table = self.to_arrow()
        if lacking := [name for name in ("ra", "dec") if name not in table.column_names]:
            raise InputError(f"the rows have no column {' and no '.join(lacking)}: ask for ra and dec too")
        ra, dec = (table[name].cast(pa.float64()).to_numpy() for name in ("ra", "dec"))
        return SkyCoord(ra * u.deg, dec * u.deg, frame="icrs")

    def shown(self) -> pa.Table:
        """The rows for people: without the hidden HEALPix column."""
        table = self.to_arrow()
        return table.drop_columns([HEALPIX]) if HEALPIX in table.column_names else table

    def __len__(self) -> int:
        return int(self.to_arrow().num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as name -> value."""
        for batch in self.to_arrow().to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def __getitem__(self, name: str) -> Any:
        """A column as astropy has it: a Quantity where it has a unit.

        Raises:
            InputError: there is no such column; names the nearest one.
        """
        table = self.to_arrow()
        refuse_unknown([name], table.column_names, "the columns of the answer")
        return QTable(to_astropy(table.select([name])))[name]

    def __repr__(self) -> str:
        table = self.shown()
        left = table.num_rows - _ROWS
        more = f"\n… {left:,} more rows" if left > 0 else ""
        return f"{self._title(table)}\n{as_text(table, _ROWS, _WIDTH)}{more}"

    def _repr_html_(self) -> str | None:
        table = self.shown()
        return as_html(table, _ROWS_OF_HTML, self._title(table))

    def _title(self, table: pa.Table) -> str:
        return f"{type(self).__name__}: {table.num_rows:,} rows, {table.num_columns} columns"


@dataclass(frozen=True, repr=False)
class QueryResult(TableResult):
    """An answer."""

    rows: int
    """Rows of the answer."""
    to: str | None
    """File it was written to."""
    seconds: float
    """Wall time."""
    columns: tuple[Column, ...]
    """Names, types, and where they are columns of the catalog, units and descriptions."""
    parts: int
    """Part files looked at."""
    table: pa.Table | None = field(default=None, repr=False)
    """The rows; None when they went to a file."""

    def to_arrow(self) -> pa.Table:
        """The rows as Arrow; fields carry unit, ucd and description. A Parquet file is read back."""
        if self.table is not None:
            return self.table
        if self.to is not None and file_format(self.to) == "parquet":
            return storage.read_table(self.to)
        raise InputError(f"the answer went to {self.to}: read it there, or query without `to`")

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        if self.table is not None:
            return super().__repr__()
        return f"QueryResult: {self.rows:,} rows, {len(self.columns)} columns, in {storage.redact(str(self.to))}"

    def _repr_html_(self) -> str | None:
        return None if self.table is None else super()._repr_html_()
