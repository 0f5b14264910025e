"""The sections of an evaluation's page, in their order. A section is added here."""

from __future__ import annotations

from astroml_plugin.reporting.evaluation import classes, record, values
from astroml_plugin.reporting.pages import Maker

MAKERS = (
    Maker(record.SCORES, record.scores),
    Maker(classes.CALIBRATION, classes.calibration),
    Maker(classes.CONFUSION, classes.confusion),
    Maker(classes.BUDGET, classes.budget),
    Maker(classes.CURVES, classes.each),
    Maker(values.SHAPES, values.shapes),
    Maker(values.RESIDUALS, values.residuals),
    Maker(values.RANKINGS, values.rankings),
    Maker(values.ROBUST, values.robustness),
    Maker(record.FIGURES, record.figures),
    Maker(record.ORIGIN, record.origin),
    Maker(record.NEXT, record.next_steps),
)
