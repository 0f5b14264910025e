"""How much each parameter matters for the objective, with what is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from astroml_plugin.search.space import Space
from astroml_plugin.search.study import FAILED, Study, Trial

_LEAST = 8
"""Trials below which nothing is said."""
_INACTIVE = -0.25
"""Where a parameter that was not set lies on its axis of 0 to 1."""
FOREST = "permutation importance of a random forest (share of the explained variance of the rank)"
RANKS = "absolute rank correlation with the objective (install scikit-learn for a measure that sees interactions)"


def importance(study: Study, trials: Sequence[Trial], seed: int = 0) -> tuple[dict[str, float], str]:
    """Key -> importance, largest first, and the method in words; empty with fewer than eight trials.

    Ranks of the objective are explained, so that a few diverged trials do not decide. With scikit-learn it is the
    permutation importance of a random forest (Breiman 2001), out of bag in spirit: permuted values of trials that the
    forest was not fitted on, over five folds. Parameters that were not set count as a value of their own.
    """
    usable = [one for one in trials if one.status != FAILED and math.isfinite(one.value(study.main))]
    if len(usable) < _LEAST:
        return {}, f"too few trials ({len(usable)} of {_LEAST})"
    x = places(study.space, usable)
    costs = np.array([study.main.cost(one.value(study.main)) for one in usable])
    ranks = costs.argsort(kind="stable").argsort(kind="stable") / (len(costs) - 1)
    found = _forest(x, ranks, seed) if find_spec("sklearn") else _correlation(x, ranks)
    order = np.argsort(-found, kind="stable")
    return {study.space.keys[i]: round(float(found[i]), 4) for i in order}, FOREST if find_spec("sklearn") else RANKS


def places(space: Space, trials: Sequence[Trial]) -> np.ndarray:
    """(n, parameters): 0 for the lowest value or first choice to 1, a little below where a parameter was not set."""
    return np.array(
        [
            [
                one.place(trial.configuration[one.key]) if one.key in trial.configuration else _INACTIVE
                for one in space.parameters
            ]
            for trial in trials
        ]
    )


def _forest(x: np.ndarray, ranks: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    total = np.zeros(x.shape[1])
    folds = min(5, len(x) // 2)
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(x):
        forest = RandomForestRegressor(100, min_samples_leaf=2, random_state=seed).fit(x[train], ranks[train])
        found = permutation_importance(
            forest, x[test], ranks[test], n_repeats=10, random_state=seed, scoring="neg_mean_squared_error"
        )
        total += np.maximum(found.importances_mean, 0.0) * len(test)
    return total / total.sum() if total.sum() > 0 else total


def _correlation(x: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    order = x.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    spread = x.std(axis=0) > 0
    return np.array([abs(np.corrcoef(order[:, i], ranks)[0, 1]) if spread[i] else 0.0 for i in range(x.shape[1])])
