"""Classifiers the classical way: scikit-learn on catalogued features, on principal components of pixels, or on both.

A fitted method is never saved: it lives as long as its comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64, Array
from astroml_plugin.evaluation.baselines.fitting import InputColumns, Method, Table, best_epoch, method_of, part

VERSION = 1
"""Version of methods and features: raised when either gives other numbers."""

_FLOOR = 1e-3
"""Least probability before the temperature: a leaf or a forest without an object of a class does not exclude it."""


def _random_forest(seed: int) -> Any:
    return RandomForestClassifier(300, min_samples_leaf=2, random_state=seed)


def _gradient_boosting(seed: int) -> Any:
    return HistGradientBoostingClassifier(
        learning_rate=0.06, max_iter=150, l2_regularization=1.0, early_stopping=False, random_state=seed
    )


def _svm(seed: int) -> Any:
    return SVC(C=3.0, decision_function_shape="ovo", cache_size=500, random_state=seed)


def _adaboost(seed: int) -> Any:
    stump = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=seed)
    return AdaBoostClassifier(stump, n_estimators=200, learning_rate=0.3, random_state=seed)


def _bagging(seed: int) -> Any:
    tree = DecisionTreeClassifier(min_samples_leaf=2, random_state=seed)
    return BaggingClassifier(tree, n_estimators=100, random_state=seed)


_MAKERS = {
    "cart": Method(
        (),
        lambda seed: DecisionTreeClassifier(random_state=seed),
        choices=(("min_samples_leaf", 10), ("min_samples_leaf", 20), ("min_samples_leaf", 40)),
    ),
    "bagging": Method((), _bagging),
    "random_forest": Method((), _random_forest),
    "adaboost": Method((), _adaboost),
    "gradient_boosting": Method((), _gradient_boosting),
    "svm": Method((), _svm, largest=20_000),
    "mlp": Method(
        (),
        lambda seed: MLPClassifier((64,), alpha=1e-2, learning_rate_init=1e-3, batch_size=64, random_state=seed),
    ),
}
_SEEN = {"": ("features",), "_pca": ("pixels",), "_both": ("features", "pixels")}

METHODS: dict[str, Method] = {
    **{
        f"{name}{suffix}": replace(method, inputs=inputs)
        for suffix, inputs in _SEEN.items()
        for name, method in _MAKERS.items()
    },
    "simple_forest": Method(("simple",), _random_forest),
    "gabor_svm": Method(("gabor",), _svm, largest=20_000),
    "edges_logistic": Method(
        ("edges",),
        lambda seed: LogisticRegression(max_iter=2000, random_state=seed),
        largest=20_000,
        choices=(("C", 1e-4), ("C", 1e-3), ("C", 1e-2), ("C", 1e-1)),
    ),
}
"""cart (Breiman et al. 1984), bagging (of 100 such trees, Breiman 1996), random_forest (Breiman 2001), adaboost (of
trees of three levels, Freund & Schapire 1997), gradient_boosting (Friedman 2001, on histograms), svm (radial basis
functions), mlp (one layer of 64) on shape features, `…_pca` on 50 principal components of the pixels, `…_both` on both;
simple_forest on fluxes, asymmetry and the colour of the centre against its surroundings; gabor_svm and edges_logistic
as in the strong-lens finding challenge."""


class Classifier:
    """One of `METHODS`, fitted to a training and calibrated on a validation part.

    Probabilities: of `svm` by a logistic regression of the decision values (Platt 1999, for several classes), of the
    others tempered by one number (Guo et al. 2017), both fitted to the validation part. They hold for the class
    fractions of the training part: weights of classes are undone.

    Args:
        name: of the method.
        train, validation: inputs (n, columns) by kind.
        targets, validation_targets: (n,) class numbers.
        classes: how many there are.
        weights: (classes,) weight of each class in the fit; none for equal ones.
        seed: of everything random.

    Raises:
        InputError: no such method, or the training part has one class only.
    """

    def __init__(
        self,
        name: str,
        train: Table,
        targets: I64,
        validation: Table,
        validation_targets: I64,
        *,
        classes: int,
        weights: Sequence[float] = (),
        seed: int = 0,
    ) -> None:
        chosen = method_of(METHODS, name)
        if len(np.unique(targets)) < 2:
            raise InputError(f"{name} needs two classes or more among its {len(targets)} training objects")
        rows = part(len(targets), chosen.largest, seed)
        self.trained = len(rows)
        """Objects that were learned from."""
        self._columns = InputColumns(chosen.inputs, {kind: train[kind][rows] for kind in chosen.inputs}, seed)
        x, y = self._columns(train, rows), np.asarray(targets)[rows]
        held = self._columns(validation), np.asarray(validation_targets)
        weight = np.asarray(weights, np.float64) if len(weights) else np.ones(classes)
        self._estimator = _best(chosen, x, y, weight[y], held, seed)
        scale = _tempered if hasattr(self._estimator, "predict_proba") else _platt
        self._scale = scale(self._scores(held[0]), held[1], np.log(weight))
        self._classes = classes

    def probabilities(self, table: Table) -> Array:
        """(n, classes) float64 that sum to 1."""
        found = np.zeros((len(next(iter(table.values()))), self._classes))
        known, values = self._scale(self._scores(self._columns(table)))
        found[:, known] = values
        return found

    def _scores(self, x: Array) -> tuple[I64, Array]:
        """Class numbers seen in training, and their probabilities or the decision values of each pair of them."""
        known = np.asarray(self._estimator.classes_)
        if hasattr(self._estimator, "predict_proba"):
            return known, self._estimator.predict_proba(x)
        values = self._estimator.decision_function(x)
        return known, values.reshape(len(x), -1)


Scale = Callable[[tuple[I64, Array]], tuple[I64, Array]]
"""From classes and their scores to classes and their probabilities."""


def _best(chosen: Method, x: Array, y: I64, weight: Array, held: tuple[Array, I64], seed: int) -> Any:
    """The fitted estimator, with the choice that gives the validation part the highest likelihood."""
    tried = [
        _fitted(chosen.make(seed).set_params(**{name: value}), x, y, weight, held, seed)
        for name, value in chosen.choices
    ]
    return (
        min(tried, key=lambda made: _loss(made, held))
        if tried
        else _fitted(chosen.make(seed), x, y, weight, held, seed)
    )


def _loss(estimator: Any, held: tuple[Array, I64]) -> float:
    """Mean of -ln p over objects of classes that the estimator knows; 0 without any."""
    known = np.asarray(estimator.classes_)
    inside = np.isin(held[1], known)
    if not inside.any():
        return 0.0
    found = estimator.predict_proba(held[0][inside])[np.arange(inside.sum()), np.searchsorted(known, held[1][inside])]
    return float(-np.log(np.maximum(found, _FLOOR)).mean())


def _fitted(estimator: Any, x: Array, y: I64, weight: Array, held: tuple[Array, I64], seed: int) -> Any:
    if hasattr(estimator, "partial_fit"):
        return _fitted_by_epochs(estimator, x, y, weight, held, seed)
    return estimator.fit(x, y, sample_weight=weight)


def _fitted_by_epochs(estimator: Any, x: Array, y: I64, weight: Array, held: tuple[Array, I64], seed: int) -> Any:
    """The estimator after the epoch that is best on the validation part; weights set how often an object is drawn."""
    even, classes = bool((weight == weight[0]).all()), np.unique(y)

    def draw(rng: np.random.Generator) -> I64:
        return rng.permutation(len(y)) if even else rng.choice(len(y), len(y), p=weight / weight.sum())

    def learn(made: Any, rows: I64) -> None:
        made.partial_fit(x[rows], y[rows], classes=classes)

    return best_epoch(estimator, len(y), draw=draw, learn=learn, loss=lambda made: _loss(made, held), seed=seed)


def _tempered(scores: tuple[I64, Array], targets: I64, offset: Array) -> Scale:
    """Probabilities drawn together or apart by one number, less what weights added to their logarithms (classes,)."""
    known, found = scores
    inside = np.isin(targets, known)
    place = np.searchsorted(known, targets[inside])

    def scaled(values: Array, temperature: float) -> Array:
        return np.asarray(softmax(np.log(np.maximum(values, _FLOOR)) / temperature - offset[known], axis=1))

    grid = np.logspace(-1, 1, 101)
    losses = [-np.log(scaled(found[inside], value)[np.arange(len(place)), place]).sum() for value in grid]
    temperature = float(grid[int(np.argmin(losses))]) if len(place) else 1.0
    return lambda given: (given[0], scaled(given[1], temperature))


def _platt(scores: tuple[I64, Array], targets: I64, offset: Array) -> Scale:
    """Logistic regression of the decision values."""
    if len(np.unique(targets)) < 2:
        raise InputError(f"the {len(targets)} validation objects have one class: probabilities need two or more")
    model = LogisticRegression(C=1.0, max_iter=5000).fit(scores[1], targets)
    return lambda given: (np.asarray(model.classes_), model.predict_proba(given[1]))
