"""Which kind of thing a path is, and its page."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from astroml_plugin.catalog import runs
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import changed, option_of
from astroml_plugin.core.version import DISTRIBUTION, version
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Page

KINDS = {
    "schema.json": "run",
    "metrics.json": "evaluation",
    "study.json": "study",
    "compare.json": "comparison",
    "zarr.json": "survey",
}
"""File that tells what a folder is -> folder of `reporting` whose module `door` makes its page."""


def kind_of(url: str) -> tuple[str, str]:
    """(kind, folder) of a path or URL; the file that tells may be given itself.

    Raises:
        InputError: it is nothing that has a page.
    """
    place = storage.absolute(storage.path_of(url))
    folder, _, last = place.rstrip("/").rpartition("/")
    if last in KINDS and last != "zarr.json":
        place = folder
    for name, kind in KINDS.items():
        if storage.exists(storage.join(place, name)):
            return kind, place
    what = "is not there" if not storage.exists(place) else "has no page"
    if storage.exists(storage.join(place, "card.json")):
        what = "is a bundle: judge it by evaluate first"
    raise InputError(
        f"{storage.redact(url)} {what}: a page is made of a catalog (of infer), the folder of evaluate, compare or "
        f"search, a survey or stamps (of ingest)"
    )


def page_of(url: str, options: ReportOptions | None = None) -> Page:
    """The page of what is at a path or URL.

    Raises:
        InputError: it is nothing that has a page, or cannot be read at all; parts that fail are named on the page.
    """
    kind, place = kind_of(url)
    if kind != "run" and (given := changed(options or ReportOptions())):
        named = ", ".join(map(option_of, given))
        raise InputError(f"{named} would do nothing here, only for the catalog of a run: leave it away")
    door: Callable[[str, ReportOptions], Page] = import_module(f"astroml_plugin.reporting.{kind}.door").page
    return door(place, options or ReportOptions())


def made_by(what: str) -> str:
    """The line at the bottom of a page."""
    return f"Made by {what} of {DISTRIBUTION} {version()} on {runs.now().partition('.')[0].replace('T', ' ')} UTC."
