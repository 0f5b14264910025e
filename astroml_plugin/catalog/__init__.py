"""A catalog: a folder of Parquet parts, one per unit, with its schema, manifest and run records.

The names below are imported when they are first used: columns need no DuckDB, and options of an objects table no FITS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astroml_plugin.catalog.schema import COMMON_COLUMNS, HEALPIX, Column, columns_of, schema, type_name
from astroml_plugin.core.lazily import names_of

if TYPE_CHECKING:
    from astroml_plugin.catalog.beside import FAILURES_SCHEMA, UNPLACED_SCHEMA
    from astroml_plugin.catalog.compacting import CompactResult, compact
    from astroml_plugin.catalog.parts import PartInfo, part_path
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

_HOMES = {
    "beside": "FAILURES_SCHEMA UNPLACED_SCHEMA",
    "compacting": "CompactResult compact",
    "parts": "PartInfo part_path",
    "store": "Catalog",
}

__getattr__, __dir__ = names_of(__name__, _HOMES)
