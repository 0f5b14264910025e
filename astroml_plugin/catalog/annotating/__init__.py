"""New columns of a catalog's rows, made from its vectors without pixels."""

from astroml_plugin.catalog.annotating.labels import labelled_ids
from astroml_plugin.catalog.annotating.run import Annotated, Wanted, make, vector_column

__all__ = ["Annotated", "Wanted", "labelled_ids", "make", "vector_column"]
