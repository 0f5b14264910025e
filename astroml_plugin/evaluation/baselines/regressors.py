"""Numbers the classical way: regressors of scikit-learn on catalogued features, on principal components, or on both.

A fitted method is never saved: it lives as long as its comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVR

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Array
from astroml_plugin.evaluation.baselines.fitting import InputColumns, Method, Table, best_epoch, method_of, part

_MAKERS = {
    "linear": Method((), lambda seed: Ridge(alpha=1.0, random_state=seed)),
    "random_forest": Method(
        (),
        lambda seed: RandomForestRegressor(200, min_samples_leaf=3, max_features=0.4, random_state=seed),
        largest=50_000,
    ),
    "gradient_boosting": Method(
        (),
        lambda seed: HistGradientBoostingRegressor(
            learning_rate=0.06, max_iter=250, l2_regularization=1.0, early_stopping=False, random_state=seed
        ),
    ),
    "svm": Method((), lambda _: SVR(C=3.0, epsilon=0.05, cache_size=500), largest=20_000),
    "mlp": Method(
        (),
        lambda seed: MLPRegressor(
            hidden_layer_sizes=(64,), alpha=1e-2, learning_rate_init=1e-3, batch_size=64, random_state=seed
        ),
    ),
}
_SEEN = {"": ("features", "moments"), "_pca": ("pixels",), "_both": ("features", "moments", "pixels")}

METHODS: dict[str, Method] = {
    f"{name}{suffix}": replace(method, inputs=inputs)
    for suffix, inputs in _SEEN.items()
    for name, method in _MAKERS.items()
}
"""linear (ridge regression, Hoerl & Kennard 1970), random_forest (Breiman 2001), gradient_boosting (Friedman 2001, on
histograms), svm (support vector regression with radial basis functions, Drucker et al. 1997), mlp (one layer of 64) on
shape features and moments, `…_pca` on 50 principal components of the pixels, `…_both` on both."""


class Regressor:
    """One of `METHODS`, one estimator per number, fitted to a training part.

    Numbers are learned with mean 0 and standard deviation 1. The validation part stops `mlp`.

    Args:
        name: of the method.
        train, validation: inputs (n, columns) by kind.
        targets, validation_targets: (n, k) finite numbers.
        seed: of everything random.

    Raises:
        InputError: no such method, or fewer than two training objects.
    """

    def __init__(
        self,
        name: str,
        train: Table,
        targets: F64,
        validation: Table,
        validation_targets: F64,
        *,
        seed: int = 0,
    ) -> None:
        chosen = method_of(METHODS, name, " for numbers")
        if len(targets) < 2:
            raise InputError(f"{name} needs two training objects or more, not {len(targets)}")
        rows = part(len(targets), chosen.largest, seed)
        self.trained = len(rows)
        """Objects that were learned from."""
        self._columns = InputColumns(chosen.inputs, {kind: train[kind][rows] for kind in chosen.inputs}, seed)
        self._centre, spread = targets[rows].mean(0), targets[rows].std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        x, y = self._columns(train, rows), (targets[rows] - self._centre) / self._spread
        held = self._columns(validation), (validation_targets - self._centre) / self._spread
        self._estimators = [
            _fitted(chosen.make(seed), x, y[:, place], (held[0], held[1][:, place]), seed)
            for place in range(y.shape[1])
        ]

    def values(self, table: Table) -> F64:
        """(n, k) float64."""
        x = self._columns(table)
        found: F64 = np.stack([estimator.predict(x) for estimator in self._estimators], axis=1).astype(np.float64)
        return np.asarray(found * self._spread + self._centre, np.float64)


def _fitted(estimator: Any, x: Array, y: F64, held: tuple[Array, F64], seed: int) -> Any:
    if not hasattr(estimator, "partial_fit"):
        return estimator.fit(x, y)

    def learn(made: Any, rows: I64) -> None:
        made.partial_fit(x[rows], y[rows])

    def loss(made: Any) -> float:
        return float(np.square(made.predict(held[0]) - held[1]).mean()) if len(held[1]) else 0.0

    return best_epoch(estimator, len(y), draw=lambda rng: rng.permutation(len(y)), learn=learn, loss=loss, seed=seed)


def usual() -> Sequence[str]:
    """Methods that a comparison takes unasked: those on features and moments."""
    return tuple(_MAKERS)
