"""Class fractions of a catalog, and thresholds on its probabilities: the verb `class-statistics`."""

from __future__ import annotations

from typing import Any

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.export.facts import with_provenance
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.catalog.write import write_rows
from astroml_plugin.core import storage
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.evaluation import class_statistics as statistics
from astroml_plugin.evaluation.class_statistics import ClassStatistics, show
from workflows.notebook import shows_progress

__all__ = ["ClassStatistics", "class_statistics", "show"]


@shows_progress()
def class_statistics(catalog: Place, *, evaluation: Place, to: Place | None = None, **options: Any) -> ClassStatistics:
    """Class fractions of a catalog, and thresholds on its probabilities.

    Args:
        catalog: folder of a catalog with p_<class> and label.
        evaluation: metrics.json (path or URL) that `evaluate` wrote for the same bundle with the same settings.
        to: also write the thresholds to this .parquet, .csv, .ecsv, .fits or .vot.
        options: class_name, purity, top, prior, where: see `astroml_plugin.evaluation.class_statistics`.
    """
    result = statistics.class_statistics(text_of(catalog), evaluation=text_of(evaluation), **options)
    if to is not None:
        told = provenance(Catalog.open(catalog), made_by="class-statistics", evaluation=storage.redact(evaluation))
        write_rows(with_provenance(result.to_arrow(), told), to)
    return result
