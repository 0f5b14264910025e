"""Bulk inference: units of a Source, resident models, parts of a Catalog, on any Dask client.

The names below are imported when they are first used: to state a run needs no torch, to carry it out does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astroml_plugin.core.lazily import names_of

if TYPE_CHECKING:
    from astroml_plugin.inference.driver import RunWorkers, check_workers, execute
    from astroml_plugin.inference.frame import measure_frame
    from astroml_plugin.inference.in_memory import declared_schema, measure
    from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
    from astroml_plugin.inference.measuring import Measured
    from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable
    from astroml_plugin.inference.preparing import Prepared, check_run, prepare
    from astroml_plugin.inference.reports import (
        InferPlan,
        InferResult,
        Progress,
        RunObserver,
        RunProgress,
        observer_of,
    )
    from astroml_plugin.inference.resident import BundleRef
    from astroml_plugin.inference.unit import run_unit

__all__ = [
    "BundleRef",
    "ExecutionOptions",
    "InferPlan",
    "InferResult",
    "Job",
    "MeasureOptions",
    "Measured",
    "ObjectTable",
    "OutputError",
    "Prepared",
    "Progress",
    "RunObserver",
    "RunProgress",
    "RunWorkers",
    "Unit",
    "UnitResult",
    "check_run",
    "check_workers",
    "declared_schema",
    "execute",
    "measure",
    "measure_frame",
    "observer_of",
    "prepare",
    "run_unit",
]

_HOMES = {
    "driver": "RunWorkers check_workers execute",
    "frame": "measure_frame",
    "in_memory": "declared_schema measure",
    "job": "Job OutputError Unit UnitResult",
    "measuring": "Measured",
    "options": "ExecutionOptions MeasureOptions ObjectTable",
    "preparing": "Prepared check_run prepare",
    "reports": "InferPlan InferResult Progress RunObserver RunProgress observer_of",
    "resident": "BundleRef",
    "unit": "run_unit",
}

__getattr__, __dir__ = names_of(__name__, _HOMES)
