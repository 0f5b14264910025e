"""The sections of a run's page, in their order. A section is added here."""

from __future__ import annotations

from astroml_plugin.reporting.pages import Maker
from astroml_plugin.reporting.run import (
    attributions,
    classes,
    clusters,
    columns,
    drift,
    flags,
    latent,
    record,
    sky,
    top,
)

MAKERS = (
    Maker(record.GLANCE, record.glance),
    Maker(sky.TITLE, sky.section),
    Maker(columns.MAGNITUDES, columns.magnitudes),
    Maker(classes.TITLE, classes.section),
    Maker(top.TITLE, top.section),
    Maker(attributions.TITLE, attributions.section),
    Maker(clusters.TITLE, clusters.section),
    Maker(latent.TITLE, latent.section),
    Maker(drift.TITLE, drift.section),
    Maker(columns.NUMBERS, columns.numbers),
    Maker(flags.TITLE, flags.section),
    Maker(top.DUPLICATES, top.duplicates),
    Maker(record.FAILURES, record.failures),
    Maker(record.TIMES, record.times),
    Maker(record.ORIGIN, record.origin),
    Maker(record.NEXT, record.next_steps),
)
