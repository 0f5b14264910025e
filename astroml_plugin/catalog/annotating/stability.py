"""Stability of clusters: fits to resampled objects against that to all (Hennig 2007, Comput. Stat. Data Anal. 52)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from astroml_plugin.catalog.annotating import clusters
from astroml_plugin.catalog.annotating.clusters import HDBSCAN, ClusterOptions
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64

STABLE = 0.75
"""Mean Jaccard index from which a cluster is called stable."""

_DRAWN = 10_000
"""Objects that each fit is drawn from, and that fits are compared on."""


def stability(
    values: F64, number: I64, options: ClusterOptions, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """How alike the clusters are when other objects of the same sky are fitted.

    Each fit takes objects that are drawn with replacement, each once. Its clusters and those of the whole fit are
    compared on the same objects: the adjusted Rand index (1: the same, 0: chance), and of each cluster the Jaccard
    index with the one that is most like it.

    Args:
        values: (n, m) scaled vectors.
        number: (n,) their clusters.
        options: of the fit.
        progress: called with (fits done, fits).

    Returns:
        `rand` (mean), `low` and `high` (95 % of the fits), `fits`, and `jaccard` of each cluster; empty without fits.
    """
    from sklearn.metrics import adjusted_rand_score

    some, own = values[:_DRAWN], number[:_DRAWN]
    rng = np.random.default_rng([options.seed, 1])
    alike: list[float] = []
    overlaps: list[F64] = []
    for fit in range(options.bootstraps):
        drawn = np.unique(rng.integers(0, len(some), len(some)))
        how = options
        if options.method == HDBSCAN:
            part = len(drawn) / len(values)
            how = replace(options, least=max(2, round(part * clusters.min_size(options, len(values)))))
        try:
            arrays = clusters.fitted(some[drawn], how, options.seed + 1 + fit)
            other = clusters.assigned(options.method, arrays, some).number
        except InputError:  # nothing but noise: unlike any clusters
            other = np.full(len(some), clusters.NOISE)
        alike.append(float(adjusted_rand_score(own, other)))
        overlaps.append(_jaccard(own, other, int(number.max()) + 1))
        if progress is not None:
            progress(fit + 1, options.bootstraps)
    if not alike:
        return {}
    low, high = np.quantile(alike, [0.025, 0.975])
    each = [round(float(one), 4) for one in np.mean(overlaps, 0)]
    told = {"rand": round(float(np.mean(alike)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
    return {**told, "fits": len(alike), "jaccard": each}


def _jaccard(own: I64, other: I64, count: int) -> F64:
    """(count,) the largest Jaccard index of each cluster with any of the other fit; noise is no cluster."""
    table = np.zeros((count, int(other.max(initial=0)) + 1))
    both = (own >= 0) & (other >= 0)
    np.add.at(table, (own[both], other[both]), 1)
    mine = np.bincount(own[own >= 0], minlength=count)[:, None]
    theirs = np.bincount(other[other >= 0], minlength=table.shape[1])[None]
    union = np.maximum(mine + theirs - table, 1)
    return np.asarray((table / union).max(1), np.float64)
