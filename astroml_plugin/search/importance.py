"""How much each parameter matters for the objective, with what is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from astroml_plugin.search.space import Configuration, Parameter, Space, frozen
from astroml_plugin.search.study import FAILED, Study, Trial

_LEAST = 8
"""Trials below which nothing is said."""
_INACTIVE = -0.25
"""Where a parameter that was not set lies on its axis of 0 to 1."""
FANOVA = "share of the variance of the rank that it explains alone (fANOVA, Hutter et al. 2014)"
FOREST = "permutation importance of a random forest (share of the explained variance of the rank)"


def importance(study: Study, trials: Sequence[Trial], seed: int = 0) -> tuple[dict[str, float], str]:
    """Key -> importance, largest first, and the method in words; empty with fewer than eight trials.

    Ranks of the objective are explained, so that a few diverged trials do not decide. With optuna and scikit-learn it
    is optuna's fANOVA: main effects in a random forest, averaged over the whole space (Hutter et al. 2014). With
    scikit-learn alone it is the permutation importance of a random forest (Breiman 2001): permuted values of trials
    that the forest was not fitted on, over five folds. Parameters that were not set count as a value of their own.
    """
    usable = [
        one for one in study.alike(trials, _LEAST) if one.status != FAILED and math.isfinite(one.value(study.main))
    ]
    if len(usable) < _LEAST:
        return {}, f"too few trials ({len(usable)} of {_LEAST})"
    costs = np.array([study.main.cost(one.value(study.main)) for one in usable])
    ranks = costs.argsort(kind="stable").argsort(kind="stable") / (len(costs) - 1)
    found, method = _measured(study.space, usable, ranks, seed)
    order = np.argsort(-found, kind="stable")
    return {study.space.keys[i]: round(float(found[i]), 4) for i in order}, method


def _measured(space: Space, trials: Sequence[Trial], ranks: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """The best measure that is installed."""
    if find_spec("optuna") is None:
        return _forest(places(space, trials), ranks, seed), FOREST
    return _fanova(space, trials, ranks, seed), FANOVA


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


def _fanova(space: Space, trials: Sequence[Trial], ranks: np.ndarray, seed: int) -> np.ndarray:
    """Optuna sees places instead of values, so that a value that is not set has one too."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {one.key: _distribution(optuna, one) for one in space.parameters}
    study = optuna.create_study()
    for trial, rank in zip(trials, ranks):
        params = {one.key: _coded(one, trial.configuration) for one in space.parameters}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=float(rank)))
    found = optuna.importance.FanovaImportanceEvaluator(seed=seed).evaluate(study)
    return np.array([found.get(key, 0.0) for key in space.keys])


def _distribution(optuna: Any, one: Parameter) -> Any:
    if one.kind != "choice":
        return optuna.distributions.FloatDistribution(_INACTIVE if one.when else 0.0, 1.0)
    first = -1 if one.when else 0
    if one.numeric:
        return optuna.distributions.IntDistribution(first, len(one.values) - 1)
    return optuna.distributions.CategoricalDistribution(list(range(first, len(one.values))))


def _coded(one: Parameter, configuration: Configuration) -> float | int:
    if one.kind == "choice":
        return one.values.index(frozen(configuration[one.key])) if one.key in configuration else -1
    return one.place(configuration[one.key]) if one.key in configuration else _INACTIVE


def _forest(x: np.ndarray, ranks: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.ensemble import RandomForestRegressor  # a second that only reports need to spend
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
