"""Annotate: new columns for the rows of a catalog, from its stored vectors, without pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.annotating import Annotated, classes, distances, labelled_ids, make, vector_column
from astroml_plugin.catalog.annotating.run import Progress
from astroml_plugin.catalog.annotation_files import Annotation, all_annotations
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import with_changes
from workflows.notebook import shows_progress

__all__ = ["AnnotateOptions", "Annotated", "Annotation", "all_annotations", "annotate"]


@dataclass(frozen=True)
class AnnotateOptions:
    """Kind of an annotation."""

    label: str = "label"
    """Column of the classes in the table of labels."""
    like: tuple[int, ...] | None = None
    """Instead of labels: object_ids of examples; gives `distance` and `nearest`."""
    latent: str | None = None
    """Vector column; default `latent`, or the only `<bundle>_latent`."""
    seed: int = 0
    """Seed of the folds by which the accuracy of classes is measured."""


@shows_progress()
def annotate(
    catalog: Place,
    *,
    name: str,
    labels: Place | pa.Table | None = None,
    options: AnnotateOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Annotated:
    """Add columns to a catalog, from the vectors that a bundle has stored: classes or distances (clusters: `cluster`).

    Run again when the catalog has grown, or after a stop: rows that are done are not done again, and the model that was
    fitted first is used for all. A query joins the columns: `FROM catalog JOIN NAME USING (object_id, tile)`.

    Args:
        catalog: folder of a catalog, a path or an fsspec URL.
        name: name of the annotation, which is the view's name in queries.
        labels: CSV or Parquet table (from Python also an Arrow table) with object_id and a column of classes: gives
            the probabilities p_CLASS and `class`.
        options: examples in place of labels, and the vectors.
        progress: called with ("annotate", files done, files).
        changes: single fields of the options by name, for example `like=(17, 23)`.

    Raises:
        InputError: not exactly one of labels and like; no vectors; labels that nothing can be learned from;
            another annotation of that name.
    """
    how = with_changes(AnnotateOptions, options, changes, "the options of annotate")
    if (labels is None) == (how.like is None):
        raise InputError(
            "an annotation is of one kind: give either --labels TABLE or --like ID,… (clusters have a verb, cluster)"
        )
    opened = Catalog.open(catalog)
    column = vector_column(opened, how.latent)
    if labels is not None:
        ids, texts = labelled_ids(labels, how.label)
        return make(opened, name, classes(opened, column, ids, texts, how.seed), progress)
    examples = np.unique(np.array(how.like, np.int64))
    return make(opened, name, distances(opened, column, examples), progress)


def show(result: Annotated) -> str:
    """Outcome in words."""
    about = result.about
    told = ""
    if "accuracy" in about:
        told = f", accuracy {about['accuracy']:.3f} by {about['folds']}-fold cross-validation"
    lost = f"; {result.left_out} rows with repeated ids have none" if result.left_out else ""
    return (
        f"annotated {result.rows} rows of {result.files} files ({result.files_skipped} there already) with "
        f"{', '.join(result.columns)}{told}{lost}, in {result.seconds:.1f} s: "
        f"JOIN {result.name} USING (object_id, tile)"
    )
