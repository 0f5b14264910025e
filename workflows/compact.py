"""Merge a catalog's finished parts into files of a good size."""

from astroml_plugin.catalog import CompactResult, compact

__all__ = ["CompactResult", "compact"]
