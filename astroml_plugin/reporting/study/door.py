"""The page of a search."""

from __future__ import annotations

from astroml_plugin.core import storage
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Page, composed
from astroml_plugin.reporting.study.sections import MAKERS, StudySubject, facts
from astroml_plugin.reporting.subjects import made_by


def page(url: str, options: ReportOptions) -> Page:
    """The page of the search in the folder `url`."""
    subject = StudySubject.opened(url)
    sections, missing = composed(subject, MAKERS)
    place = storage.redact(url)
    title = f"Search: {place.rstrip('/').rpartition('/')[2]}"
    return Page(title, place, "search", sections, missing, made_by("report"), facts(subject))
