"""Ask a catalog by SQL, by a cone on the sky, or both."""

from __future__ import annotations

import shutil

import pyarrow as pa

from astroml_plugin.catalog import showing
from astroml_plugin.catalog.answers import QueryResult
from astroml_plugin.catalog.query import query
from astroml_plugin.core.description import wrapped

_REST = "… {count} more columns ({names}): --columns A,B,… chooses, --vertical shows all"

__all__ = ["QueryResult", "as_text", "query", "show"]


def show(result: QueryResult, rows: int = 40, *, vertical: bool = False, there: int | None = None) -> str:
    """The first rows of an answer as text, without the HEALPix column: see `as_text`.

    Args:
        result: the answer.
        rows: how many are shown.
        vertical: all columns, one below the other.
        there: how many rows the whole answer has, where this is the beginning of it.
    """
    text = as_text(result.shown(), rows, vertical=vertical)
    left = (result.rows if there is None else there) - min(rows, result.rows)
    if left <= 0:
        return text
    width = shutil.get_terminal_size((120, 40)).columns
    more = wrapped(f"… {left:,} more rows: --to FILE writes all, --to - and --json print all", width=width)
    return "\n".join([text, *more])


def as_text(found: pa.Table, rows: int = 40, *, vertical: bool = False, rest: str = _REST) -> str:
    """The first rows of a table as text with units: as wide as the terminal, or one below the other, all columns."""
    if vertical:
        return showing.one_below_the_other(found, rows)
    return showing.as_text(found, rows, shutil.get_terminal_size((120, 40)).columns, rest)
