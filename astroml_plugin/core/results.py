"""Base of what functions give back: few letters in a terminal, a table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

_LONGEST = 100
"""Letters of a value that are shown."""
_MANY = 6
"""Entries of a table or list that are shown."""


class Result:
    """A frozen dataclass that shows its fields in few letters, however much is in them."""

    def __repr__(self) -> str:
        told = [f"  {name}: {value}" for name, value in self._told()]
        return "\n".join([f"{type(self).__name__}", *told])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self._told()
        )
        return f"<div><b>{type(self).__name__}</b><table><tbody>{rows}</tbody></table></div>"

    def _told(self) -> Iterator[tuple[str, str]]:
        """Names and values of the fields that have something to tell."""
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if item.repr and value is not None and value != "" and value != () and value != {} and value != []:
                text = " ".join(short(value).split())
                yield item.name, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def short(value: Any) -> str:
    """A value in few letters: numbers with four or five digits, the beginning of lists and tables with their length."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        told = [f"{name} {short(item)}" for name, item in list(value.items())[:_MANY]]
        return _with_more(told, len(value))
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return _with_more([short(item) for item in value[:_MANY]], len(value))
    return str(value)


def _with_more(told: list[str], count: int) -> str:
    return ", ".join([*told, f"… {count - _MANY} more"] if count > _MANY else told)
