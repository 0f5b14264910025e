"""Shear from a catalog: mean per bin with bootstrap errors; biases where the true shear is known."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.export.facts import with_provenance
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.catalog.write import write_rows
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import with_changes
from astroml_plugin.evaluation.shear_catalog import ShearBin, ShearOptions, ShearResult, measure_shear, show
from workflows.notebook import shows_progress

__all__ = ["ShearBin", "ShearOptions", "ShearResult", "shear", "show"]


@shows_progress()
def shear(
    catalog: Place, *, options: ShearOptions | None = None, to: Place | None = None, **changes: Any
) -> ShearResult:
    """Mean shear (<R> + R_S)^-1 <e> of a catalog, in bins, with bootstrap errors; and its biases where truth is known.

    Args:
        catalog: folder of a catalog with e1, e2, r11, r12, r21, r22.
        options: selection, bins, truth, calibration.
        to: also write the bins to this .parquet, .csv, .ecsv, .fits or .vot.
        changes: single fields of the options by name, for example `by="snr"`.

    Raises:
        InputError: an unknown option, columns, labels or branches that are missing, no object left, SQL that fails.
    """
    started = time.perf_counter()
    result = measure_shear(text_of(catalog), with_changes(ShearOptions, options, changes, "the options of shear"))
    if to is not None:
        told = provenance(Catalog.open(catalog), made_by="shear", where=result.where, frame=result.frame)
        write_rows(with_provenance(result.to_arrow(), told), to)
    return replace(result, seconds=round(time.perf_counter() - started, 3))
