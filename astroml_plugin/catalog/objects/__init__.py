"""Objects on their way to their units: tables of any format, placed on images, bucketed by tile."""

from astroml_plugin.catalog.objects.buckets import ObjectBuckets
from astroml_plugin.catalog.objects.columns import OBJECT_SCHEMA, ObjectSettings, parse_columns, read_chunks
from astroml_plugin.catalog.objects.readers import FORMATS

__all__ = ["FORMATS", "OBJECT_SCHEMA", "ObjectBuckets", "ObjectSettings", "parse_columns", "read_chunks"]
