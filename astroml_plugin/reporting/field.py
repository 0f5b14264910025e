"""The page of a picture of a survey: its objects can be pointed at, and stand in a table."""

from __future__ import annotations

from astroml_plugin.core import storage
from astroml_plugin.reporting.pages import Block, Missing, Page, Picture, Section, Spots, Table
from astroml_plugin.reporting.subjects import made_by
from astroml_plugin.reporting.words import many, number
from astroml_plugin.showing.objects import Objects
from astroml_plugin.showing.picture import Showing
from astroml_plugin.showing.view import View

_LISTED = 1000


def field_page(view: View, drawn: Showing, objects: Objects | None, path: str) -> Page:
    """The page of a view.

    Args:
        view: the view.
        drawn: its picture.
        objects: rows of a catalog in it.
        path: what was asked for.
    """
    picture = Picture(drawn.png, f"{view.title}, {view.box.width} by {view.box.height} pixels")
    shown: list[Block] = [Spots(picture, drawn.size, drawn.spots[:_LISTED])]
    sections = [Section("Picture", "\n\n".join(drawn.legend), shown)]
    missing = []
    if objects is None:
        missing.append(Missing("Objects", "a survey alone was given, and no catalog"))
    else:
        rows = [_row(one) for one in objects.rows.slice(0, _LISTED).to_pylist()]
        head = ("object_id", "label", "x", "y", "ra", "dec", "flags", "primary")
        left = objects.total - len(rows)
        text = f"{many(objects.total, 'row')} in view."
        sections.append(Section("Objects", text, [Table(head, rows, "Objects in view", left, numbered=True)]))
    facts = [("image", view.image), ("pixels", f"{view.box.width} × {view.box.height}")]
    if objects is not None:
        facts.append(("objects", f"{objects.total:,}"))
    return Page(view.title, storage.redact(path), "picture", sections, missing, made_by("show"), facts)


def _row(row: dict[str, object]) -> list[str]:
    places = [f"{row[name]:.2f}" if row[name] is not None else "–" for name in ("x", "y")]
    sky = [f"{row[name]:.6f}" if row[name] is not None else "–" for name in ("ra", "dec")]
    return [str(row["object_id"]), str(row["label"] or ""), *places, *sky, number(row["flags"]), number(row["primary"])]
