"""Description of one thing on disk: facts, a table and notes, as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import html
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LONGEST = 60
"""Letters of a cell before it is broken into lines."""
_MOST = 200
"""Rows of a table that are shown."""
_WIDE, _NARROW = 110, 40
"""Letters of a line: the widest that is easy to read, and the least."""
_ANY = 100_000
"""Letters of a line of a table where no terminal says how many there are."""
_LEAST_CELL = 12
"""Letters to which the cells of a table's widest column are broken at least, before its rows become lists."""


def and_more(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def and_more_of(names: Sequence[str], most: int = 8) -> str:
    """Names by comma; of more than `most`, the first ones and how many more there are."""
    told = ", ".join(names[:most])
    return told if len(names) <= most else f"{told} and {len(names) - most:,} more"


@dataclass(frozen=True, repr=False)
class Description:
    """Facts about one file, store, bundle or catalog."""

    path: str
    """Place of the thing."""
    kind: str
    """"FITS file", "survey", "stamps", "bundle", "catalog" or "archive"."""
    facts: dict[str, str]
    """Name -> value."""
    columns: tuple[str, ...] = ()
    """Headings of the table."""
    rows: tuple[tuple[str, ...], ...] = ()
    """Rows of the table."""
    notes: tuple[str, ...] = ()
    """Sentences: what would be left out, is guessed or refused."""

    def __repr__(self) -> str:
        facts = [line for name, value in self.facts.items() for line in wrapped(f"{name}: {value}", "  ")]
        notes = [line for note in self.notes for line in wrapped(note, "  ! ")]
        table = _text_table(self.columns, self.rows[:_MOST])
        more = [f"  … {self._more}"] if self._more else []
        return "\n".join([f"{self.path}: {self.kind}", *facts, *table, *more, *notes])

    @property
    def _more(self) -> str:
        left = len(self.rows) - _MOST
        return f"{left:,} more rows: in Python `info(path)[0].rows` has all" if left > 0 else ""

    def _repr_html_(self) -> str:
        facts = "".join(f"<li>{html.escape(f'{name}: {value}')}</li>" for name, value in self.facts.items())
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        shown_rows = self.rows[:_MOST]
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in shown_rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if self.rows else ""
        table += f"<p>{html.escape(self._more)}</p>" if self._more else ""
        notes = "".join(f"<p>&#9888; {html.escape(note)}</p>" for note in self.notes)
        title = html.escape(f"{self.path}: {self.kind}")
        return f"<div><b>{title}</b><ul>{facts}</ul>{table}{notes}</div>"

    def column(self, name: str) -> list[str]:
        """Cells of one column of the table, by its heading."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


class Descriptions(tuple[Description, ...]):
    """Several descriptions, shown one below the other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n\n".join(repr(one) for one in self)

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self)


def wrapped(text: str, begin: str = "", width: int | None = None) -> list[str]:
    """A sentence in lines that fit; words, such as paths, stay whole.

    Args:
        text: the sentence.
        begin: of the first line; the others are indented by 4 or as many letters.
        width: letters of a line; default those of the terminal, between 40 and 110.
    """
    own = max(_NARROW, min(shutil.get_terminal_size((80, 24)).columns, _WIDE))
    width = own if width is None else max(width, 2 * len(begin) + 1, 10)
    indent = " " * max(4, len(begin))
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=begin,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [begin.rstrip()]


def _text_table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> list[str]:
    """A table as wide as the terminal: its widest cells are broken, or else each row becomes a list of its values."""
    if not rows:
        return []
    used = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    table = [[columns[number] for number in used], *([row[number] for number in used] for row in rows)]
    room = shutil.get_terminal_size((_ANY, 24)).columns
    broken = [[textwrap.wrap(cell, _LONGEST) or [""] for cell in row] for row in table]
    widths = _widths(broken)
    if (over := 2 + sum(widths) + 2 * (len(widths) - 1) - room) > 0:
        widest = widths.index(max(widths))
        if widths[widest] - over < _LEAST_CELL:
            return [line for row in table[1:] for line in _as_list(table[0], row, room)]
        for lines_of, texts in zip(broken, table, strict=True):
            lines_of[widest] = textwrap.wrap(texts[widest], widths[widest] - over) or [""]
        widths = _widths(broken)
    lines = []
    for row in broken:
        for number in range(max(len(cell) for cell in row)):
            parts = [cell[number] if number < len(cell) else "" for cell in row]
            lines.append(
                "  " + "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
            )
    return lines


def _widths(broken: list[list[list[str]]]) -> list[int]:
    """Letters of each column of a table whose cells are broken into lines."""
    return [max(len(line) for row in broken for line in row[number]) for number in range(len(broken[0]))]


def _as_list(names: list[str], row: list[str], room: int) -> list[str]:
    """A row as a list of names and values; what is empty is left out."""
    told = [f"{name} {value}" for name, value in zip(names, row, strict=True) if value]
    return wrapped("; ".join(told), "  - ", room)


def shown(value: Any) -> str:
    """A value in few letters: floats with four digits, lists by comma, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ",".join(shown(item) for item in value)
    return str(value)
