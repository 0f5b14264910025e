"""Objects on their way to their units: tables of any format, placed on images, bucketed by tile.

The names below are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astroml_plugin.catalog.objects.settings import ObjectSettings, parse_columns
from astroml_plugin.core.lazily import names_of

if TYPE_CHECKING:
    from astroml_plugin.catalog.objects.buckets import ObjectBuckets
    from astroml_plugin.catalog.objects.columns import OBJECT_SCHEMA, read_chunks
    from astroml_plugin.catalog.objects.readers import FORMATS

__all__ = ["FORMATS", "OBJECT_SCHEMA", "ObjectBuckets", "ObjectSettings", "parse_columns", "read_chunks"]

_HOMES = {"buckets": "ObjectBuckets", "columns": "OBJECT_SCHEMA read_chunks", "readers": "FORMATS"}

__getattr__, __dir__ = names_of(__name__, _HOMES)
