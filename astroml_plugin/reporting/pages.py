"""The page as plain values: sections of words, charts, tables and pictures, and why others are not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from astroml_plugin.core.errors import AstromlError
from astroml_plugin.reporting.charts import Chart

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    columns: Sequence[str]
    """Headings."""
    rows: Sequence[Sequence[str]]
    """Cells."""
    title: str = ""
    left_out: int = 0
    """Further rows that are not shown."""
    folded: bool = False
    """Whether it is shown when a reader opens it."""
    numbered: bool = False
    """Whether the places of `Spots` lead to its rows."""


@dataclass(frozen=True)
class Picture:
    """A picture with words below it."""

    data: bytes
    """PNG."""
    alt: str
    """Description for those who cannot see it."""
    caption: Sequence[str] = ()
    """Lines below it."""


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side."""

    pictures: Sequence[Picture]
    wide: bool = False
    """Whether they are figures, not stamps."""
    title: str = ""
    """Heading above them."""


@dataclass(frozen=True)
class Spots:
    """A picture on which places answer to the mouse and the keyboard."""

    picture: Picture
    size: tuple[int, int]
    """(width, height) of the picture in pixels."""
    places: Sequence[tuple[float, float, float, str]]
    """(x, y, radius, text) in its pixels, y down; the n-th leads to the row of that number of the next table."""


@dataclass(frozen=True)
class Note:
    """A sentence that a reader must not miss."""

    text: str
    bad: bool = False
    """Whether something is wrong."""


@dataclass(frozen=True)
class Commands:
    """Command lines to go on with."""

    lines: Sequence[tuple[str, str]]
    """(what it does, the command)."""


@dataclass(frozen=True)
class Download:
    """A small file within the page."""

    name: str
    data: bytes
    text: str
    """Words of the link."""


Block = Chart | Table | Pictures | Spots | Note | Commands | Download


@dataclass(frozen=True)
class Section:
    """One section of a page."""

    title: str
    text: str
    """Description in words; paragraphs are parted by blank lines."""
    blocks: Sequence[Block] = ()
    threshold: str = ""
    """The rule by which something here is called good or bad; empty where nothing is judged."""


@dataclass(frozen=True)
class Missing:
    """A section that is not there."""

    title: str
    reason: str
    """One sentence."""


@dataclass(frozen=True)
class Page:
    """All of a page."""

    title: str
    subject: str
    """Path or URL of the thing that it is about."""
    kind: str
    """"run", "evaluation", "comparison", "search" or "survey"."""
    sections: Sequence[Section]
    missing: Sequence[Missing] = ()
    made_by: str = ""
    """Package, version and date."""
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """(name, value) below the title."""


@dataclass(frozen=True)
class Maker:
    """Makes one section of a subject's page."""

    title: str
    """Used where the section cannot be made."""
    make: Callable[[Any], Section | Missing | None]
    """Gives the section, or why there is none; None: nobody would miss it."""


def composed(subject: Any, makers: Iterable[Maker]) -> tuple[list[Section], list[Missing]]:
    """The sections of a subject in order, and those that are not there.

    A section that fails says so and lets the others be: a page of a foreign catalog must not stop at its first oddity.
    With ASTROML_DEBUG in the environment unexpected errors are raised.
    """
    sections: list[Section] = []
    missing: list[Missing] = []
    for maker in makers:
        try:
            made = maker.make(subject)
        except AstromlError as error:
            made = Missing(maker.title, str(error))
        except Exception as error:
            if os.environ.get("ASTROML_DEBUG"):
                raise
            made = Missing(maker.title, f"it could not be made ({type(error).__name__}: {error})")
        if isinstance(made, Section):
            sections.append(made)
        elif made is not None:
            missing.append(made)
    return sections, missing
