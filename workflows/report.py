"""A page about a run, an evaluation, a comparison, a search, a survey or stamps: one HTML file that opens offline."""

from __future__ import annotations

import time
from dataclasses import dataclass

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import with_changes
from astroml_plugin.reporting.html import document
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.subjects import kind_of, page_of
from workflows.notebook import shows_progress

__all__ = ["ReportOptions", "ReportResult", "report", "show"]

NAME = "report.html"
"""File of a page where no name is given."""


@dataclass(frozen=True, repr=False)
class ReportResult(Result):
    """A page that was written."""

    out: str
    """File or URL."""
    kind: str
    """Kind of the thing: run, evaluation, comparison, search, survey or stamps."""
    sections: tuple[str, ...]
    """Titles of its sections."""
    missing: tuple[tuple[str, str], ...]
    """(title, reason) of sections that are not there."""
    bytes: int
    """Size of the file."""
    seconds: float
    """Wall time."""


@shows_progress()
def report(
    path: Place, *, out: Place | None = None, options: ReportOptions | None = None, **changes: object
) -> ReportResult:
    """Write a page about a catalog, an evaluation, a comparison, a search, a survey or stamps.

    The file loads nothing from the network. Rows are summed up by SQL: a catalog of any size needs little memory.

    Args:
        path: folder or URL of the thing, as infer, evaluate, compare, search or ingest wrote it.
        out: the HTML file to write; default report.html in that folder; of a survey a file of its name
            beside it, and of something on a web server report.html here.
        options: what the page shows.
        changes: single fields of the options by name, for example `by="p_lens"`.

    Raises:
        InputError: nothing is there that has a page, or `out` is no name of an HTML file.
    """
    started = time.perf_counter()
    chosen = with_changes(ReportOptions, options, changes, "the options of report")
    path = text_of(path)
    target = _target(path, None if out is None else text_of(out))
    page = page_of(path, chosen)
    data = document(page).encode()
    storage.write_atomic(target, data)
    missing = tuple((one.title, one.reason) for one in page.missing)
    titles = tuple(section.title for section in page.sections)
    return ReportResult(target, page.kind, titles, missing, len(data), round(time.perf_counter() - started, 3))


def _target(path: str, out: str | None) -> str:
    if out is None:
        kind, place = kind_of(path)
        if storage.is_web(place):
            return storage.absolute(NAME)
        return f"{place.removesuffix('.zarr')}.html" if kind == "survey" else storage.join(place, NAME)
    if not out.lower().endswith((".html", ".htm")):
        raise InputError(f"cannot write {storage.redact(out)}: a page is a file that ends in .html")
    return storage.absolute(out)


def show(result: ReportResult) -> str:
    """The outcome for a terminal: where the page is, and what is not on it."""
    lines = [f"{len(result.sections)} sections ({result.bytes / 1e6:.1f} MB) written to {result.out}"]
    lines += [f"  not there: {title}: {reason}" for title, reason in result.missing]
    return "\n".join([*lines, "open it in a browser; it needs no network"])
