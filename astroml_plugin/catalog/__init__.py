"""A catalog: a folder of Parquet parts, one per unit, with its schema, manifest and run records."""

from astroml_plugin.catalog.beside import FAILURES_SCHEMA, UNPLACED_SCHEMA
from astroml_plugin.catalog.compact import CompactResult, compact
from astroml_plugin.catalog.parts import PartInfo, part_path
from astroml_plugin.catalog.schema import COMMON_COLUMNS, HEALPIX, Column, columns_of, schema, type_name
from astroml_plugin.catalog.store import Catalog

__all__ = [
    "COMMON_COLUMNS",
    "FAILURES_SCHEMA",
    "HEALPIX",
    "UNPLACED_SCHEMA",
    "Catalog",
    "Column",
    "CompactResult",
    "PartInfo",
    "columns_of",
    "compact",
    "part_path",
    "schema",
    "type_name",
]
