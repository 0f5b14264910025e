"""Ask a catalog by SQL, by a cone on the sky, or both."""

from __future__ import annotations

import shutil

import pyarrow as pa

from astroml_plugin.catalog.cones import Cone
from astroml_plugin.catalog.query import QueryResult
from astroml_plugin.catalog.query import query as ask
from astroml_plugin.catalog.write import to_astropy


def query(
    catalog: str,
    sql: str | None = None,
    *,
    cone: Cone | None = None,
    to: str | None = None,
    limit: int | None = None,
    memory: str | None = None,
) -> QueryResult:
    """Answer one question about a catalog.

    Args:
        catalog: folder of the catalog, a path or an fsspec URL.
        sql: one SELECT over the views `catalog`, `failures`, `unplaced`; default: everything in `catalog`.
        cone: (ra, dec, radius) in degrees, ICRS; with `sql`, the SQL sees only these rows.
        to: .parquet, .csv, .fits or .vot file for the answer.
        limit: at most so many rows.
        memory: bound of the database's memory, such as "4GB".

    Returns:
        The answer: `to_arrow()`, `to_pandas()`, `to_qtable()` (units restored).
    """
    return ask(catalog, sql, cone=cone, to=to, limit=limit, memory=memory)


def show(result: QueryResult, rows: int = 40) -> str:
    """The first rows of an answer as text with units, as wide as the terminal, without the HEALPix column."""
    return as_text(result.shown(), rows)


def as_text(found: pa.Table, rows: int = 40) -> str:
    """The first rows of a table as text with units, as wide as the terminal."""
    table = to_astropy(found.slice(0, rows))
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            table[name].info.format = ".6f" if name in ("ra", "dec") else ".6g"
    width = shutil.get_terminal_size((120, 40)).columns
    lines = table.pformat(max_lines=-1, max_width=width, show_unit=any(table[name].unit for name in table.colnames))
    if found.num_rows > rows:
        lines.append(f"… {found.num_rows - rows} more rows: --to FILE writes them all")
    return "\n".join(lines)
