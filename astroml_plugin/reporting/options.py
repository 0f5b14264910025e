"""Options of a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportOptions:
    """Choices of a page; of other subjects than a run they do nothing."""

    top: int = 40
    """Objects that are shown with their pixels."""
    by: str | None = None
    """Column or SQL expression that ranks them; default: an anomaly score, else the probability of the rarest class,
    else a signal-to-noise ratio."""
    source: str | None = None
    """Survey or stamps with the pixels; default the one that the run read."""
    evaluation: str | None = None
    """metrics.json of `evaluate` for the bundle that made the catalog: class fractions are corrected by it."""
    memory: str | None = None
    """Bound of the memory of queries, such as "4GB"."""
