"""Annotations that can be asked for: classes from labels, distances to examples, clusters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.annotating import heads, reading
from astroml_plugin.catalog.annotating.clusters import HDBSCAN, ClusterOptions, sample_size
from astroml_plugin.catalog.annotating.heads import Head
from astroml_plugin.catalog.annotating.run import Wanted, vector_column
from astroml_plugin.catalog.ranking.names import check_measured
from astroml_plugin.catalog.ranking.space import WITHOUT
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64


def classes(catalog: Catalog, latent: str, ids: I64, labels: np.ndarray, seed: int) -> Wanted:
    """Classes learned from labels.

    Args:
        catalog: with the vectors.
        latent: vector column.
        ids: (n,) labelled objects.
        labels: (n,) texts.
        seed: of the folds by which the accuracy is measured.
    """

    def fit() -> Head:
        found, vectors = _of_objects(catalog, latent, ids)
        order = np.argsort(ids, kind="stable")
        head = heads.fit_classes(vectors, labels[order][np.searchsorted(ids[order], found)], seed)
        about = {**head.about, "not_found": int(len(ids) - len(found))}
        return Head(head.kind, head.arrays, head.names, about)

    told = storage.digest(sorted(zip(ids.tolist(), labels.tolist())))
    identity = {"kind": heads.CLASSES, "latent": latent, "seed": seed, "labels": told}
    return Wanted("annotate", identity, (latent,), fit)


def distances(catalog: Catalog, latent: str, ids: I64) -> Wanted:
    """Distances to examples, which are objects (n,) of the catalog with a vector in the column `latent`."""

    def fit() -> Head:
        found, vectors = _of_objects(catalog, latent, ids)
        return heads.fit_distances(vectors, found)

    identity = {"kind": heads.DISTANCES, "latent": latent, "labels": storage.digest(ids.tolist())}
    return Wanted("annotate", identity, (latent,), fit)


def groups(
    catalog: Catalog, options: ClusterOptions, progress: Callable[[str, int, int], None] | None = None
) -> Wanted:
    """Clusters of like vectors, or of like columns of numbers.

    Args:
        catalog: with these columns.
        options: how.
        progress: called with ("bootstraps", fits done, fits).

    Raises:
        InputError: no such columns.
    """
    columns = _columns(catalog, options)
    options = replace(options, scaling=options.scaling or ("standard" if options.features else "none"))

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("bootstraps", done, total)

    def fit() -> Head:
        size = sample_size(options)
        found = reading.sample(catalog, columns, size, flagged=options.flagged, seed=options.seed)
        head = heads.fit_clusters(found, options, told)
        return Head(head.kind, head.arrays, about={"columns": list(columns), **head.about})

    identity: dict[str, Any] = {"kind": "clusters", "columns": list(columns)}
    left = ("latent", "features", "least" if options.method != HDBSCAN else "clusters")
    identity |= {name: value for name, value in asdict(options).items() if name not in left}
    return Wanted("cluster", identity, columns, fit)


def _columns(catalog: Catalog, options: ClusterOptions) -> tuple[str, ...]:
    """Columns of the vectors."""
    if not options.features:
        return (vector_column(catalog, options.latent, WITHOUT),)
    if options.latent is not None:
        raise InputError("clusters are of one space: give either --latent COLUMN or --features A,B,…")
    if twice := [name for name in options.features if options.features.count(name) > 1]:
        raise InputError(f"column '{twice[0]}' is named twice in --features: name each once")
    check_measured(catalog.schema, options.features, "--features A,B,…")
    return options.features


def _of_objects(catalog: Catalog, latent: str, ids: I64) -> tuple[np.ndarray, np.ndarray]:
    found, vectors = reading.of_objects(catalog, (latent,), ids)
    if not len(found):
        raise InputError(f"none of the {len(ids)} objects has a vector in the catalog: give its object_ids")
    return found, vectors
