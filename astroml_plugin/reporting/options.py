"""Options of a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportOptions:
    """Choices of the page of a run; with other subjects they are refused."""

    top: int = 40
    """Objects that are shown with their pixels, 200 at most."""
    by: str | None = None
    """Column or SQL expression that ranks them; default: an anomaly score, else the probability of the rarest class,
    else a signal-to-noise ratio."""
    source: str | None = None
    """Survey or stamps with the pixels; default the one that the run read."""
    evaluation: str | None = None
    """metrics.json of `evaluate` for the bundle that made the catalog: class fractions are corrected by it."""
    reference: str | None = None
    """Catalog to compare inputs and outputs with; default: what the bundles keep of their training."""
    map: str = "pca"
    """Map of the column of vectors: pca, tsne, or umap (needs umap-learn)."""
    colour: str | None = None
    """Column of the catalog or of an annotation that colours that map; default clusters, else what ranks the
    objects."""
    memory: str | None = None
    """Bound of the memory of queries, such as "4GB"."""
