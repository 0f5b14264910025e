"""New columns of a catalog's rows, made from its vectors without pixels."""

from astroml_plugin.catalog.annotating.clusters import ClusterOptions
from astroml_plugin.catalog.annotating.labels import labelled_ids
from astroml_plugin.catalog.annotating.run import Annotated, Wanted, make, vector_column
from astroml_plugin.catalog.annotating.wanted import classes, distances, groups

__all__ = [
    "Annotated",
    "ClusterOptions",
    "Wanted",
    "classes",
    "distances",
    "groups",
    "labelled_ids",
    "make",
    "vector_column",
]
