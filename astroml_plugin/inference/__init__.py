"""Bulk inference: units of a Source, resident models, parts of a Catalog, on any Dask client."""

from astroml_plugin.inference.driver import Progress, Tally, execute
from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
from astroml_plugin.inference.planning import (
    check_bundles,
    declared_schema,
    detecting_bundle,
    find_repeated_ids,
    identity,
    map_bytes,
    select_shard,
    units_of,
)
from astroml_plugin.inference.resident import BundleRef, check_device
from astroml_plugin.inference.unit import run_unit

__all__ = [
    "BundleRef",
    "Job",
    "OutputError",
    "Progress",
    "Tally",
    "Unit",
    "UnitResult",
    "check_bundles",
    "check_device",
    "declared_schema",
    "detecting_bundle",
    "execute",
    "find_repeated_ids",
    "identity",
    "map_bytes",
    "run_unit",
    "select_shard",
    "units_of",
]
