"""The page of an evaluation."""

from __future__ import annotations

from astroml_plugin.core import storage
from astroml_plugin.reporting.evaluation import record
from astroml_plugin.reporting.evaluation.makers import MAKERS
from astroml_plugin.reporting.evaluation.subject import EvaluationSubject
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Page, composed
from astroml_plugin.reporting.subjects import made_by


def page(url: str, options: ReportOptions) -> Page:
    """The page of the evaluation in the folder `url`."""
    subject = EvaluationSubject.opened(url)
    sections, missing = composed(subject, MAKERS)
    title = f"Evaluation of {subject.record.get('bundle', 'a bundle')}"
    return Page(title, storage.redact(url), "evaluation", sections, missing, made_by("report"), record.facts(subject))
