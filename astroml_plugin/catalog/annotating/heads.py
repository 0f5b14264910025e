"""Small models on stored vectors: classes from labels, distances to examples, clusters. Fitted once, kept as arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load, save

from astroml_plugin.catalog.annotating import clusters
from astroml_plugin.catalog.annotating.clusters import ClusterOptions
from astroml_plugin.catalog.annotating.nearest import nearest
from astroml_plugin.catalog.annotating.reading import Sample
from astroml_plugin.catalog.annotating.stability import stability
from astroml_plugin.catalog.schema import Column, refuse_one_name
from astroml_plugin.core import foreign
from astroml_plugin.core.description import and_more_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64

CLASSES, DISTANCES = "classes", "distances"
_FOLDS = 5
_FEWEST = 2


@dataclass(frozen=True)
class Head:
    """A fitted model."""

    kind: str
    """classes, distances, or a method of clusters."""
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
        if self.kind in clusters.METHODS:
            return clusters.columns(self.kind)
        return (
            Column("distance", "float32", "", "", "Distance to the nearest example in the space of the vectors"),
            Column("nearest", "int64", "", "meta.id", "object_id of the nearest example"),
        )

    def apply(self, vectors: np.ndarray, object_id: np.ndarray, tile: Sequence[str]) -> dict[str, pa.Array]:
        """Columns of n rows; null where a vector has no finite numbers.

        Args:
            vectors: (n, k).
            object_id: (n,).
            tile: (n,).
        """
        good = np.isfinite(vectors).all(axis=1)
        values = np.where(good[:, None], vectors, 0).astype(np.float64)
        if self.kind == CLASSES:
            scaled = (values - self.arrays["mean"]) / self.arrays["scale"]
            chances = _softmax(scaled @ self.arrays["weight"].T + self.arrays["bias"])
            found = {f"p_{name}": _masked(chances[:, at], good, pa.float32()) for at, name in enumerate(self.names)}
            best = np.array(self.names, object)[chances.argmax(axis=1)]
            return {**found, "class": pa.array(best, pa.large_string(), mask=~good)}
        if self.kind in clusters.METHODS:
            return self._clusters(values, good, object_id, tile)
        at, distance = nearest(values, self.arrays["centres"])
        return {
            "distance": _masked(distance, good, pa.float32()),
            "nearest": _masked(self.arrays["object_id"][at], good, pa.int64()),
        }

    def _clusters(
        self, values: F64, good: np.ndarray, object_id: np.ndarray, tile: Sequence[str]
    ) -> dict[str, pa.Array]:
        made = clusters.assigned(self.kind, self.arrays, clusters.scaled(self.arrays, values))
        central = {(one["object_id"], one["tile"]) for one in self.about["medoids"]}
        medoid = np.zeros(len(object_id), bool)
        for row in np.flatnonzero(np.isin(object_id, [identity for identity, _ in central])).tolist():
            medoid[row] = (int(object_id[row]), tile[row]) in central
        found = {
            "cluster": _masked(made.number, good, pa.int32()),
            "cluster_probability": None if made.probability is None else _masked(made.probability, good, pa.float32()),
            "cluster_distance": None if made.distance is None else _masked(made.distance, good, pa.float32()),
            "medoid": pa.array(medoid & good),
        }
        return {name: column for name, column in found.items() if column is not None}

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


def fit_clusters(sample: Sample, options: ClusterOptions, progress: Callable[[int, int], None] | None = None) -> Head:
    """Clusters of a sample's vectors, numbered by size, with their medoids and stability.

    Args:
        sample: the objects.
        options: how.
        progress: called with (fits done, fits) of the bootstraps.

    Raises:
        InputError: the vectors have no such clusters.
    """
    arrays = clusters.scaling_of(sample.vectors, options.scaling or "none")
    values = clusters.scaled(arrays, sample.vectors)
    model = clusters.fitted(values, options, options.seed)
    model = clusters.by_size(options.method, model, clusters.assigned(options.method, model, values).number)
    number = clusters.assigned(options.method, model, values).number
    central = [
        {"cluster": cluster, "object_id": int(sample.ids[place]), "tile": str(sample.tiles[place])}
        for cluster, place in enumerate(clusters.medoids(values, number).tolist())
    ]
    about = {
        **clusters.facts(options, len(values), values.shape[1]),
        "objects": sample.objects,
        "fitted_on": len(values),
        "flagged_left_out": sample.flagged,
        "without_vector": sample.without,
        "fitted_sizes": np.bincount(number[number >= 0], minlength=len(central)).tolist(),
        "fitted_noise": int((number < 0).sum()),
        "medoids": central,
        "stability": stability(values, number, options, progress),
    }
    return Head(options.method, arrays | model, about=about)


def fit_distances(vectors: np.ndarray, object_id: np.ndarray) -> Head:
    """Distances to examples: their vectors (n, k) and ids (n,)."""
    arrays = {"centres": vectors.astype(np.float64), "object_id": object_id.astype(np.int64)}
    return Head(DISTANCES, arrays, about={"examples": len(vectors)})
