"""Small models on stored vectors: classes from labels, clusters, distances to examples. Fitted once, kept as arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load, save

from astroml_plugin.catalog.schema import Column, refuse_one_name
from astroml_plugin.core import foreign
from astroml_plugin.core.description import and_more_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64

CLASSES, CLUSTERS, DISTANCES = "classes", "clusters", "distances"
_FOLDS = 5
_FEWEST = 2
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Head:
    """A fitted model."""

    kind: str
    """One of classes, clusters, distances."""
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    """Numbers by name."""
    names: tuple[str, ...] = ()
    """Classes in order."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the fit, for people."""

    def columns(self) -> tuple[Column, ...]:
        """Columns that it makes."""
        if self.kind == CLASSES:
            chances = [
                Column(f"p_{name}", "float32", "", "stat.probability;src.class", f"Probability of {name}, by annotate")
                for name in self.names
            ]
            return (*chances, Column("class", "string", "", "src.class", "Most probable class, by annotate"))
        if self.kind == CLUSTERS:
            far = "Distance to its centre in the space of the vectors"
            number = Column("cluster", "int32", "", "meta.code.class", "Number of the nearest cluster, from 0")
            return number, Column("cluster_distance", "float32", "", "", far)
        return (
            Column("distance", "float32", "", "", "Distance to the nearest example in the space of the vectors"),
            Column("nearest", "int64", "", "meta.id", "object_id of the nearest example"),
        )

    def apply(self, vectors: np.ndarray) -> dict[str, pa.Array]:
        """Columns of rows (n) from their vectors (n, k); null where a vector has no finite numbers."""
        good = np.isfinite(vectors).all(axis=1)
        values = np.where(good[:, None], vectors, 0).astype(np.float64)
        if self.kind == CLASSES:
            scaled = (values - self.arrays["mean"]) / self.arrays["scale"]
            chances = _softmax(scaled @ self.arrays["weight"].T + self.arrays["bias"])
            found = {f"p_{name}": _masked(chances[:, at], good, pa.float32()) for at, name in enumerate(self.names)}
            best = np.array(self.names, object)[chances.argmax(axis=1)]
            return {**found, "class": pa.array(best, pa.large_string(), mask=~good)}
        at, distance = _nearest(values, self.arrays["centres"])
        if self.kind == CLUSTERS:
            return {"cluster": _masked(at, good, pa.int32()), "cluster_distance": _masked(distance, good, pa.float32())}
        return {
            "distance": _masked(distance, good, pa.float32()),
            "nearest": _masked(self.arrays["object_id"][at], good, pa.int64()),
        }

    def to_bytes(self) -> bytes:
        """Safetensors with kind, names and facts in the header."""
        told = json.dumps({"kind": self.kind, "names": list(self.names), "about": dict(self.about)}, sort_keys=True)
        return save({name: np.ascontiguousarray(value) for name, value in self.arrays.items()}, {"head": told})

    @classmethod
    def from_bytes(cls, data: bytes, sha256: str) -> Head:
        """The head that `to_bytes` gave.

        Raises:
            InputError: it is another one, or damaged.
        """
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InputError("the head of the annotation is not the one of its record: remove its folder, make it anew")
        with foreign.refusing("the head of the annotation", "remove its folder and make it anew"):
            size = int.from_bytes(data[:8], "little")
            told = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["head"])
            return cls(told["kind"], load(data), tuple(told["names"]), told["about"])


def _masked(values: np.ndarray, good: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.array(values, mask=~good).cast(kind)


def _softmax(logits: F64) -> F64:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: F64 = powers / powers.sum(axis=1, keepdims=True)
    return found


def _nearest(values: F64, centres: np.ndarray) -> tuple[np.ndarray, F64]:
    """(n,) number of the nearest of the centres (m, k), and its distance."""
    at, best = np.zeros(len(values), np.int64), np.full(len(values), np.inf)
    step = max(1, _CHUNK // max(1, len(values)))
    squares = np.square(values).sum(axis=1)
    for start in range(0, len(centres), step):
        part = np.asarray(centres[start : start + step], np.float64)
        far = squares[:, None] + np.square(part).sum(axis=1)[None] - 2 * values @ part.T
        found = far.argmin(axis=1)
        closer = far[np.arange(len(values)), found] < best
        at[closer], best[closer] = found[closer] + start, far[np.arange(len(values)), found][closer]
    exact: F64 = np.sqrt(np.square(values - np.asarray(centres, np.float64)[at]).sum(axis=1))
    return at, exact


def _fitted(fit: Callable[[], Any]) -> Any:
    with foreign.refusing("the vectors", "choose others by --latent, or other labels"):
        return fit()


def fit_classes(vectors: np.ndarray, labels: np.ndarray, seed: int = 0) -> Head:
    """Multinomial logistic regression on standardised vectors.

    Args:
        vectors: (n, k), finite.
        labels: (n,) texts.
        seed: of the folds that its accuracy is measured by.

    Raises:
        InputError: fewer than two classes, or a class with fewer than two objects.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names, counts = np.unique(labels.astype(str), return_counts=True)
    told = {str(name): int(count) for name, count in zip(names, counts)}
    if len(names) < _FEWEST or counts.min() < _FEWEST:
        here = and_more_of([f"{name} {count:,}" for name, count in told.items()])
        raise InputError(f"give {_FEWEST} classes or more, with {_FEWEST} labelled objects each: there are {here}")
    refuse_one_name([f"p_{name}" for name in told])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
    folds = StratifiedKFold(min(_FOLDS, int(counts.min())), shuffle=True, random_state=seed)
    guessed = _fitted(lambda: cross_val_predict(model, vectors, labels.astype(str), cv=folds))
    _fitted(lambda: model.fit(vectors, labels.astype(str)))
    scaler, linear = model[0], model[1]
    weight, bias = linear.coef_, linear.intercept_
    if len(names) == _FEWEST:  # one row tells two classes apart
        weight, bias = np.concatenate([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
    arrays = {"mean": scaler.mean_, "scale": scaler.scale_, "weight": weight, "bias": bias}
    right = guessed == labels.astype(str)
    each = {str(name): round(float(right[labels.astype(str) == name].mean()), 4) for name in names}
    about = {"labelled": told, "accuracy": round(float(right.mean()), 4), "accuracy_of": each, "folds": folds.n_splits}
    return Head(CLASSES, arrays, tuple(map(str, names)), about)


def fit_clusters(vectors: np.ndarray, count: int, seed: int = 0) -> Head:
    """K-means of vectors (n, k).

    Raises:
        InputError: fewer vectors than clusters.
    """
    from sklearn.cluster import KMeans

    if not 1 <= count <= len(vectors):
        raise InputError(f"{count} clusters of {len(vectors)} vectors: choose 1 to {len(vectors)} by --clusters")
    model = _fitted(lambda: KMeans(count, n_init=3, random_state=seed).fit(vectors.astype(np.float64)))
    order = np.argsort(-np.bincount(model.labels_, minlength=count), kind="stable")  # 0 is the largest one
    return Head(CLUSTERS, {"centres": model.cluster_centers_[order]}, about={"fitted_on": len(vectors)})


def fit_distances(vectors: np.ndarray, object_id: np.ndarray) -> Head:
    """Distances to examples: their vectors (n, k) and ids (n,)."""
    arrays = {"centres": vectors.astype(np.float64), "object_id": object_id.astype(np.int64)}
    return Head(DISTANCES, arrays, about={"examples": len(vectors)})
