"""The page of a survey, or of stamps."""

from __future__ import annotations

from astroml_plugin.core import storage
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Page, composed
from astroml_plugin.reporting.subjects import made_by
from astroml_plugin.reporting.survey import stamps
from astroml_plugin.reporting.survey.sections import MAKERS, facts
from astroml_plugin.reporting.survey.subject import SurveySubject
from astroml_plugin.sources.stamps import Stamps, open_source


def page(url: str, options: ReportOptions) -> Page:
    """The page of the survey or stamps at `url`."""
    source = open_source(url)
    place = storage.redact(url)
    name = place.rstrip("/").rpartition("/")[2]
    if isinstance(source, Stamps):
        sections, missing = composed(source, stamps.MAKERS)
        return Page(f"Stamps: {name}", place, "stamps", sections, missing, made_by("report"), stamps.facts(source))
    subject = SurveySubject(source)
    sections, missing = composed(subject, MAKERS)
    return Page(f"Survey: {name}", place, "survey", sections, missing, made_by("report"), facts(subject))
