"""Clusters of vectors without labels: k-means, Gaussian mixtures, HDBSCAN; kept as arrays that assign any vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from astroml_plugin.catalog.annotating.nearest import nearest
from astroml_plugin.catalog.schema import Column
from astroml_plugin.core import foreign
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_below
from astroml_plugin.core.typing import F64, I64

KMEANS, MIXTURE, HDBSCAN = "kmeans", "mixture", "hdbscan"
METHODS = (KMEANS, MIXTURE, HDBSCAN)
NOISE = -1
"""Number of what belongs to no cluster."""

Arrays = dict[str, np.ndarray]

_STARTS = 10
_DISTANT = 99.0
"""Per cent of a cluster's fitted objects whose own neighbours are nearer than its limit."""
_FEWEST = 5
"""Objects of a cluster of HDBSCAN, at least."""
_PART = 200
"""Part of the sample that a cluster of HDBSCAN has at least, where nothing is said: one in so many."""
_CENTRAL = 2000
"""Members of a cluster among which its medoid is looked for."""


@dataclass(frozen=True)
class ClusterOptions:
    """Choices of clusters."""

    method: str = "kmeans"
    """kmeans (round, alike in size), mixture (Gaussians of any shape) or hdbscan (dense parts, the rest is -1)."""
    clusters: int = 8
    """Number of clusters, for kmeans and mixture."""
    least: int | None = None
    """Fewest objects of a cluster in the sample, for hdbscan; default one in 200 of the sample."""
    latent: str | None = None
    """Vector column; default `latent`, or the only `<bundle>_latent`."""
    features: tuple[str, ...] = ()
    """Instead, columns of numbers."""
    scaling: str | None = None
    """Numbers before distances are taken: none, standard (each divided by its standard deviation) or whiten (principal
    axes, each of unit variance); default none for a vector column, standard for features."""
    sample: int = 50_000
    """Objects that clusters are fitted on, chosen by their hashed ids (hdbscan: 10,000 at most); all are assigned."""
    flagged: bool = False
    """Fit on objects that carry a flag too."""
    bootstraps: int = 20
    """Fits to resampled objects, by which the stability is measured; 0: none."""
    seed: int = 0
    """Seed of the sample, the fits and the bootstraps."""

    def __post_init__(self) -> None:
        for name, value, known in (("method", self.method, METHODS), ("scaling", self.scaling or "none", SCALINGS)):
            if value not in known:
                raise InputError(f"--{name} {value} is unknown: choose {', '.join(known)}")
        refuse_below(self, {"clusters": 2, "sample": 10, "bootstraps": 0, "least": 2, "seed": 0})


SCALINGS = ("none", "standard", "whiten")
_MOST = {KMEANS: 1_000_000, MIXTURE: 200_000, HDBSCAN: 10_000}
"""Objects that a method is fitted on, at most."""


def sample_size(options: ClusterOptions) -> int:
    """Objects to fit on."""
    return min(options.sample, _MOST[options.method])


@dataclass(frozen=True)
class Assigned:
    """Clusters of n vectors."""

    number: I64
    """(n,) from 0; -1 is noise."""
    distance: F64 | None = None
    """(n,) in the scaled space: of kmeans to the centre, of hdbscan to the nearest fitted object."""
    probability: F64 | None = None
    """(n,) of mixture that of the cluster, of hdbscan the strength of membership."""


def columns(method: str) -> tuple[Column, ...]:
    """Columns that a method makes."""
    noise = "; -1 is noise" if method == HDBSCAN else ""
    found = [Column("cluster", "int32", "", "meta.code.class", f"Number of the cluster, 0 is the largest{noise}")]
    if method != KMEANS:
        what = "Strength of membership in the cluster, 0 to 1" if method == HDBSCAN else "Probability of the cluster"
        found.append(Column("cluster_probability", "float32", "", "stat.probability", what))
    if method != MIXTURE:
        where = "the nearest fitted object" if method == HDBSCAN else "the cluster's centre"
        found.append(Column("cluster_distance", "float32", "", "", f"Distance to {where} in the scaled space"))
    return *found, Column(
        "medoid", "bool", "", "meta.code", "Whether it is the most central fitted object of its cluster"
    )


# ---- scaling -----------------------------------------------------------------------------------------------------


def scaling_of(vectors: F64, kind: str) -> Arrays:
    """`mean` (k,) and `axes` (k, m): scaled vectors are (vectors - mean) @ axes.

    Raises:
        InputError: all vectors are alike.
    """
    mean, spread = vectors.mean(0), vectors.std(0)
    varies = spread > 1e-9 * np.maximum(np.abs(mean), 1e-30)
    if not varies.any():
        raise InputError("all objects have the same numbers, there are no clusters: choose others by --features")
    if kind == "none":
        return {"mean": np.zeros(len(mean)), "axes": np.eye(len(mean))}
    standard = np.diag(np.where(varies, 1 / np.where(varies, spread, 1), 0))[:, varies]
    if kind == "standard":
        return {"mean": mean, "axes": standard}
    values, axes = np.linalg.eigh(np.cov((vectors - mean) @ standard, rowvar=False).reshape(varies.sum(), -1))
    kept = values > 1e-6 * values.max()
    return {"mean": mean, "axes": standard @ axes[:, kept] / np.sqrt(values[kept])}


def scaled(arrays: Mapping[str, np.ndarray], vectors: np.ndarray) -> F64:
    """(n, m) vectors (n, k) as distances are taken between them."""
    found: F64 = (np.asarray(vectors, np.float64) - arrays["mean"]) @ arrays["axes"]
    return found


# ---- fits --------------------------------------------------------------------------------------------------------


def fitted(values: F64, options: ClusterOptions, seed: int) -> Arrays:
    """Arrays of a fit to scaled vectors (n, m), from which `assigned` tells the cluster of any vector.

    Raises:
        InputError: fewer vectors than clusters, or no cluster was found.
    """
    if options.method != HDBSCAN and len(values) < options.clusters:
        raise InputError(f"{options.clusters} clusters of {len(values)} objects: choose fewer by --clusters")
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        foreign.refusing("the vectors", "choose others by --latent or --features, or another --scaling"),
    ):
        warnings.simplefilter("ignore")  # of fits that did not settle: bootstraps say how much that matters
        return _FITS[options.method](values, options, seed)


def _kmeans(values: F64, options: ClusterOptions, seed: int) -> Arrays:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(options.clusters, n_init=_STARTS, batch_size=4096, random_state=seed).fit(values)
    return {"centres": model.cluster_centers_}


def _mixture(values: F64, options: ClusterOptions, seed: int) -> Arrays:
    from sklearn.mixture import GaussianMixture

    start = _kmeans(values, options, seed)["centres"]
    model = GaussianMixture(options.clusters, reg_covar=1e-4, max_iter=300, means_init=start, random_state=seed)
    model.fit(values)
    return {"means": model.means_, "factors": model.precisions_cholesky_, "weights": model.weights_}


def _hdbscan(values: F64, options: ClusterOptions, seed: int) -> Arrays:
    from sklearn import cluster
    from sklearn.neighbors import NearestNeighbors

    least = min_size(options, len(values))
    if len(values) <= 2 * least:
        raise InputError(f"{len(values)} objects are too few for clusters of {least}: choose fewer by --least")
    near = min(least, 25)
    model = cluster.HDBSCAN(min_cluster_size=least, min_samples=near, copy=True).fit(values)
    if model.labels_.max() < 0:
        raise InputError(
            f"hdbscan finds no cluster of {least} objects among {len(values)}: choose fewer by --least, or kmeans"
        )
    core = NearestNeighbors(n_neighbors=near).fit(values).kneighbors(values)[0][:, -1]
    limits = [np.percentile(core[model.labels_ == number], _DISTANT) for number in range(model.labels_.max() + 1)]
    return {
        "fitted": values.astype(np.float32),
        "labels": model.labels_.astype(np.int64),
        "strength": model.probabilities_,
        "limits": np.array(limits),
    }


_FITS: dict[str, Callable[[F64, ClusterOptions, int], Arrays]] = {
    KMEANS: _kmeans,
    MIXTURE: _mixture,
    HDBSCAN: _hdbscan,
}


def min_size(options: ClusterOptions, count: int) -> int:
    """Fewest objects of a cluster of HDBSCAN in a sample of `count`."""
    return options.least or max(_FEWEST, count // _PART)


def assigned(method: str, arrays: Mapping[str, np.ndarray], values: F64) -> Assigned:
    """Clusters of scaled vectors (n, m).

    Fitted objects keep the number of the fit. With HDBSCAN others have that of the nearest fitted object, unless it is
    noise or farther away than 99 % of the cluster's own objects are from their neighbours.
    """
    if method == KMEANS:
        at, far = nearest(values, arrays["centres"])
        return Assigned(at, distance=far)
    if method == MIXTURE:
        logs = np.stack(
            [
                np.log(max(weight, 1e-300))
                + np.log(np.diag(factor)).sum()
                - 0.5 * np.square((values - mean) @ factor).sum(1)
                for mean, factor, weight in zip(arrays["means"], arrays["factors"], arrays["weights"], strict=True)
            ],
            1,
        )
        chances = np.exp(logs - logs.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        best = chances.argmax(1)
        return Assigned(best, probability=chances[np.arange(len(best)), best])
    at, far = nearest(values, arrays["fitted"])
    number = arrays["labels"][at]
    limit = np.where(number >= 0, arrays["limits"][number], 0)
    number = np.where(far <= np.maximum(limit, _SAME * np.sqrt(np.square(values).sum(1))), number, NOISE)
    return Assigned(number, far, np.where(number >= 0, arrays["strength"][at], 0.0))


_SAME = 1e-5
"""Relative distance below which a vector is one of the fitted ones, which are kept in single precision."""


def by_size(method: str, arrays: Arrays, number: I64) -> Arrays:
    """Arrays whose clusters are numbered by their members, the largest first; empty clusters are left out.

    Args:
        method: of the fit.
        arrays: of the fit.
        number: (n,) clusters of the fitted objects.
    """
    counts = np.bincount(number[number >= 0])
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    if method == HDBSCAN:
        place = np.full(len(counts) + 1, NOISE)  # the last one stands for -1
        place[order] = np.arange(len(order))
        return arrays | {"labels": place[arrays["labels"]], "limits": arrays["limits"][order]}
    return {name: value[order] for name, value in arrays.items()}


def medoids(values: F64, number: I64) -> I64:
    """(clusters,) places of the most central members: those with the least mean distance to others of their cluster.

    Args:
        values: (n, m) scaled vectors.
        number: (n,) their clusters. Of a large cluster the first 2,000 members are looked at.
    """
    found = []
    for cluster in range(int(number.max()) + 1):
        members = np.flatnonzero(number == cluster)[:_CENTRAL]
        some = values[members]
        squares = np.square(some).sum(1)
        apart = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * some @ some.T, 0))
        found.append(members[apart.mean(1).argmin()])
    return np.array(found, np.int64)


def facts(options: ClusterOptions, count: int, dimensions: int) -> dict[str, Any]:
    """Choices of a fit in words, for its record."""
    told: dict[str, Any] = {"method": options.method, "scaling": options.scaling, "dimensions": dimensions}
    return {**told, "least": min_size(options, count)} if options.method == HDBSCAN else told
