"""Rows for people: a table as wide as there is room, one row below the other, or HTML; with few digits and units."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog.schema import HEALPIX
from astroml_plugin.core.description import wrapped

_LONGEST = 48
"""Letters of a text that are shown."""

_FIRST = ("rank", "object_id", "ra", "dec", "class", "label", "rank_score")
_VALUES = re.compile(r"(.*_)?(p_.*|label|.*score|e1|e2|snr|mag.*|flux.*|kind|cluster|distance|redshift|value|flags)")
_LATER = re.compile(r"(.*_)?(image|tile|x|y|label_id|folded|r11|r12|r21|r22|.*_err(95)?|primary)")
_DEGREES = ("ra", "dec", "l", "b")

REST = "{count} more columns ({names}): name those that you want"
"""Line under a table that had no room for all columns."""


def as_text(table: pa.Table, rows: int, width: int, rest: str = REST) -> str:
    """The first rows of a table in columns with units, those first that matter, as many as there is room for.

    Args:
        table: the rows.
        rows: how many are shown at most.
        width: letters of a line.
        rest: how columns are told of for which there is no room, with `count` and `names` in braces.
    """
    shown = _Shown(table, rows)
    chosen = shown.fitting(width)
    lines = [line.rstrip() for line in shown.lines(chosen)]
    left = [name for name in shown.names if name not in chosen]
    if left:
        lines += wrapped(rest.format(count=len(left), names=_few(left, width)), width=width)
    return "\n".join(lines)


def one_below_the_other(table: pa.Table, rows: int) -> str:
    """The first rows of a table, each as lines of name, value and unit; all columns."""
    shown = _Shown(table, rows)
    widest = max(map(len, shown.names), default=0)
    blocks = []
    for number in range(shown.count):
        head = f"row {number + 1}" if shown.count > 1 else ""
        told = [f"{name:<{widest}}  {shown.cells[name][number]} {shown.units[name]}".rstrip() for name in shown.names]
        blocks.append("\n".join([head, *told] if head else told))
    return "\n\n".join(blocks)


def as_html(table: pa.Table, rows: int, title: str) -> str:
    """The first rows of a table for a notebook."""
    shown = _Shown(table, rows)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in shown.names)
    units = "".join(f"<th>{html.escape(shown.units[name])}</th>" for name in shown.names)
    second = f"<tr>{units}</tr>" if any(shown.units.values()) else ""
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(shown.cells[name][number])}</td>" for name in shown.names) + "</tr>"
        for number in range(shown.count)
    )
    left = table.num_rows - shown.count
    more = f"<p>{left:,} more rows</p>" if left > 0 else ""
    return (
        f"<div><b>{html.escape(title)}</b><table><thead><tr>{head}</tr>{second}</thead><tbody>{body}</tbody></table>"
        f"{more}</div>"
    )


class _Shown:
    """Cells of the first rows of a table as text, and which of its columns matter most."""

    def __init__(self, table: pa.Table, rows: int) -> None:
        first = table.slice(0, rows)
        self.count = first.num_rows
        kept = [item for item in first.schema if item.name != HEALPIX or first.num_columns == 1]
        self.names = [item.name for item in kept]
        self.units = {item.name: (item.metadata or {}).get(b"unit", b"").decode() for item in kept}
        self.numeric = {item.name: _is_number(item.type) for item in kept}
        self.cells = {item.name: list(_cells(item, first[item.name])) for item in kept}
        self.empty = {name for name in self.names if self.count and first[name].null_count == self.count}
        self.placed = any(name == "ra" and table[name].null_count < table.num_rows for name in self.names)

    def fitting(self, width: int) -> list[str]:
        """Columns that fit into a width, in the order of the table: the first always does."""
        order = sorted(range(len(self.names)), key=lambda place: (self._worth(self.names[place]), place))
        chosen: list[int] = []
        room = width
        for place in order:
            room -= self._width(self.names[place]) + 2 * bool(chosen)
            if room < 0 and chosen:
                break
            chosen.append(place)
        return [self.names[place] for place in sorted(chosen)]

    def _worth(self, name: str) -> int:
        if name in self.empty:
            return 5
        if name in _FIRST or (name in ("x", "y") and not self.placed):
            return 0
        if self.cells[name] and self.cells[name][0].startswith("["):
            return 4  # a vector
        if _LATER.fullmatch(name):
            return 3
        return 1 if _VALUES.fullmatch(name) else 2

    def _width(self, name: str) -> int:
        return max(len(name), len(self.units[name]), *map(len, self.cells[name]), 0)

    def lines(self, chosen: Sequence[str]) -> Iterator[str]:
        """Heading, units where there are some, a rule, and the rows."""
        widths = [self._width(name) for name in chosen]
        yield self._line(chosen, chosen, widths)
        if any(self.units[name] for name in chosen):
            yield self._line([self.units[name] for name in chosen], chosen, widths)
        yield "  ".join("-" * width for width in widths)
        for number in range(self.count):
            yield self._line([self.cells[name][number] for name in chosen], chosen, widths)

    def _line(self, words: Sequence[str], chosen: Sequence[str], widths: Sequence[int]) -> str:
        pairs = zip(words, chosen, widths, strict=True)
        return "  ".join(word.rjust(width) if self.numeric[name] else word.ljust(width) for word, name, width in pairs)


def _few(names: Sequence[str], width: int) -> str:
    """The first of some names, as many as half a line takes."""
    told = names[0]
    for name in names[1:]:
        if len(told) + len(name) + 2 > width // 2:
            return f"{told}, …"
        told = f"{told}, {name}"
    return told


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cells(item: pa.Field, column: pa.ChunkedArray) -> Iterator[str]:
    digits = 5 if item.type == pa.float32() else 6
    for value in _values(column):
        yield _cell(value, f".{'6f' if item.name in _DEGREES else f'{digits}g'}")


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; texts where Python has no such value."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        try:
            return list(column.cast(pa.string()).to_pylist())
        except pa.ArrowException:
            return [f"({column.type})"] * len(column)


def _cell(value: Any, form: str) -> str:
    """A value in few letters."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:{form}}"
    if isinstance(value, list | tuple):
        told = " ".join(_cell(one, ".3g") for one in value[:3])
        return f"[{told}{f' … {len(value)}' if len(value) > 3 else ''}]"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
