"""Ask a catalog by SQL, by a cone on the sky, or both."""

from __future__ import annotations

import shutil

import pyarrow as pa

from astroml_plugin.catalog import showing
from astroml_plugin.catalog.answers import QueryResult
from astroml_plugin.catalog.query import query

_REST = "… {count} more columns ({names}): --columns A,B,… chooses, --vertical shows all"

__all__ = ["QueryResult", "as_text", "query", "show"]


def show(result: QueryResult, rows: int = 40, *, vertical: bool = False) -> str:
    """The first rows of an answer as text, without the HEALPix column: see `as_text`."""
    return as_text(result.shown(), rows, vertical=vertical)


def as_text(found: pa.Table, rows: int = 40, *, vertical: bool = False) -> str:
    """The first rows of a table as text with units: as wide as the terminal, or one below the other, all columns."""
    width = shutil.get_terminal_size((120, 40)).columns
    below, beside = showing.one_below_the_other, showing.as_text
    text = below(found, rows) if vertical else beside(found, rows, width, _REST)
    if found.num_rows <= rows:
        return text
    return f"{text}\n… {found.num_rows - rows:,} more rows: --to FILE writes all, --to - and --json print all"
