"""Ask a catalog by SQL, by a cone on the sky, or both."""

from __future__ import annotations

import shutil

import pyarrow as pa

from astroml_plugin.catalog.query import QueryResult, query
from astroml_plugin.catalog.write import to_astropy

__all__ = ["QueryResult", "as_text", "query", "show"]


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
