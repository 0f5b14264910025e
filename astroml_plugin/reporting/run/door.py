"""The page of a catalog."""

from __future__ import annotations

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.ranking import score_sql
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Page, composed
from astroml_plugin.reporting.run import classes, drift, latent, record, top
from astroml_plugin.reporting.run.makers import MAKERS
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.subjects import made_by


def _check_cheap(url: str, chosen: ReportOptions) -> None:
    """InputError for what the columns alone can tell, before anything is asked of the rows."""
    if not 1 <= chosen.top <= top.MOST:
        raise InputError(f"--top is {chosen.top}: a page shows 1 to {top.MOST} objects; `rank` writes longer lists")
    latent.check_map(chosen.map)
    if chosen.by is not None:
        score_sql(Catalog.open(url).schema, chosen.by, "--by")


def _check(subject: RunSubject) -> None:
    """InputError where something was asked for that cannot be had: that is no section that is merely missing."""
    chosen = subject.options
    if chosen.by is not None:
        top.ranked(subject)
    if chosen.evaluation is not None:
        classes.corrected(subject)
    if chosen.source is not None:
        subject.pixels()
    if chosen.colour is not None:
        latent.colour_of(subject)
    if chosen.reference is not None:
        drift.reference_for(subject)


def page(url: str, options: ReportOptions) -> Page:
    """The page of the catalog at `url`."""
    _check_cheap(url, options)
    with RunSubject.opened(url, options) as subject:
        _check(subject)
        sections, missing = composed(subject, MAKERS)
        place = storage.redact(subject.catalog.url)
        name = place.rstrip("/").rpartition("/")[2]
        return Page(f"Run: {name}", place, "run", sections, missing, made_by("report"), record.facts(subject))
