"""Bulk inference: units of a Source, resident models, parts of a Catalog, on any Dask client."""

from astroml_plugin.inference.driver import (
    InferResult,
    Progress,
    RunObserver,
    RunProgress,
    check_workers,
    execute,
    observer_of,
)
from astroml_plugin.inference.frame import measure_frame
from astroml_plugin.inference.in_memory import declared_schema, measure
from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
from astroml_plugin.inference.measuring import Measured
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable
from astroml_plugin.inference.prepare import InferPlan, Prepared, check_run, prepare
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
