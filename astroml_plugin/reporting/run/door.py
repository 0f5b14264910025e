"""The page of a catalog."""

from __future__ import annotations

from astroml_plugin.core import storage
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Page, composed
from astroml_plugin.reporting.run import record
from astroml_plugin.reporting.run.makers import MAKERS
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.subjects import made_by


def page(url: str, options: ReportOptions) -> Page:
    """The page of the catalog at `url`."""
    with RunSubject.opened(url, options) as subject:
        sections, missing = composed(subject, MAKERS)
        place = storage.redact(subject.catalog.url)
        name = place.rstrip("/").rpartition("/")[2]
        return Page(f"Run: {name}", place, "run", sections, missing, made_by("report"), record.facts(subject))
