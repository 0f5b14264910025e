"""Columns of an objects table that come along with its objects, such as labels: chosen by name, typed, never lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.objects.raw import ARRAY, RawTable
from astroml_plugin.catalog.schema import is_text, without_dictionary
from astroml_plugin.core.errors import InputError

ALL = "*"
"""Stands for every column of single values."""

PREFIX = "carried:"
"""Begins the names of these columns in the sorted table, so that none is taken for one of ours."""

_TEXT = "text"
_WORDS = {"words": "of a text file"}
_KINDS = {
    "int": (r"^[+-]?(0|[1-9][0-9]{0,17})$", pa.int64()),
    "float": (r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$", pa.float64()),
    "bool": (r"^(true|false|True|False|TRUE|FALSE)$", pa.bool_()),
}
"""Kind of the words of a text file -> what they look like, and the type that they become."""


def chosen(raw: RawTable, wanted: Sequence[str], used: Collection[str], place: str) -> tuple[str, ...]:
    """Names of the columns that come along.

    Args:
        raw: the table.
        wanted: names, or `ALL`, which leaves out what holds arrays and what is used for ids and positions.
        used: columns of ids and positions.
        place: how to name the table in an error.

    Raises:
        InputError: a name that the table does not have.
    """
    if missing := [name for name in wanted if name != ALL and name not in raw.names]:
        raise InputError(f"{place} has no column {', '.join(missing)}; it has {', '.join(raw.names[:40])}")
    plain = [name for name in raw.names if raw.kinds.get(name) != ARRAY and name not in used]
    names = [one for name in wanted for one in (plain if name == ALL else [name])]
    return tuple(name for name in dict.fromkeys(names) if raw.names.count(name) == 1)


def with_carried(objects: pa.Table, chunk: pa.Table, names: Sequence[str], *, words: bool) -> pa.Table:
    """Objects with columns of the chunk that they were read from; `words`: a text file, whose columns are words."""
    for name in names:
        column = without_dictionary(chunk[name])
        told = _WORDS if words and is_text(column.type) else None
        objects = objects.append_column(pa.field(PREFIX + name, column.type, metadata=told), column)
    return objects


def names_in(table: pa.Table) -> list[str]:
    """Names of the carried columns, as they stand in a table."""
    return [name for name in table.column_names if name.startswith(PREFIX)]


def carried(rows: pa.Table) -> pa.Table:
    """The carried columns of a unit's rows under their own names."""
    mine = names_in(rows)
    return rows.select(mine).rename_columns([name.removeprefix(PREFIX) for name in mine])


def word_kinds(table: pa.Table) -> dict[str, str]:
    """Carried column of text -> the kind of its words: int, float, bool, text; "" where none has a value."""
    told = [name for name in names_in(table) if b"words" in (table.field(name).metadata or {})]
    return {name: _kind(table[name]) for name in told}


def _kind(column: pa.ChunkedArray) -> str:
    words = pc.utf8_trim_whitespace(column).drop_null()
    words = words.filter(pc.not_equal(words, ""))
    if not len(words):
        return ""
    for kind, (pattern, _) in _KINDS.items():
        if pc.all(pc.match_substring_regex(words, pattern)).as_py():
            return kind
    return _TEXT


def wider(first: str, second: str) -> str:
    """The kind that holds the words of both."""
    if first == second or not second:
        return first
    return second if not first else "float" if {first, second} == {"int", "float"} else _TEXT


def widest(kinds: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Column -> the kind that holds its words in all chunks."""
    names = dict.fromkeys(name for one in kinds for name in one)
    return {name: reduce(wider, (one.get(name, _TEXT) for one in kinds), "") for name in names}


def typed(table: pa.Table, kinds: Mapping[str, str]) -> pa.Table:
    """A table whose carried columns of text have the type of their kind; no word is no value."""
    for name, kind in kinds.items():
        if kind in _KINDS:
            words = pc.utf8_trim_whitespace(table[name])
            words = pc.replace_substring_regex(words, r"^\+", "")
            known = pc.if_else(pc.equal(words, ""), None, words)
            column = known.cast(_KINDS[kind][1])
            table = table.set_column(table.column_names.index(name), name, column)
    return table
