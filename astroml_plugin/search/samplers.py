"""Which configuration is tried next: a function of a number and the trials so far, nothing remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from astroml_plugin.core.registry import optional
from astroml_plugin.search.objectives import Objective
from astroml_plugin.search.space import Configuration, Parameter, Space, frozen
from astroml_plugin.search.study import FAILED, OPEN, Trial

Sampler = Callable[[int, Sequence[Trial]], Configuration | None]
"""sampler(number, trials so far) gives the configuration of a new trial, None where there is no further one."""

STARTUP = 10
"""Random trials before TPE models them (Bergstra et al. 2011 use 20; optuna 10)."""


def random_sampler(space: Space, seed: int) -> Sampler:
    """Independent draws."""
    return lambda number, trials: space.drawn(seed, number)


def starting_with(first: Configuration, sampler: Sampler) -> Sampler:
    """A sampler that proposes `first` for trial 0 and then asks another."""
    return lambda number, trials: dict(first) if number == 0 else sampler(number, trials)


def grid_sampler(space: Space) -> Sampler:
    """Every combination once, in order."""
    points = space.grid()
    return lambda number, trials: points[number] if number < len(points) else None


def tpe_sampler(space: Space, seed: int, objectives: Sequence[Objective]) -> Sampler:
    """Tree-structured Parzen estimator of optuna (Bergstra et al. 2011), random for its first trials.

    Raises:
        InputError: optuna is not installed.
    """
    missing = "algorithm tpe needs optuna: install astroml-plugin[optuna], or take asha or random"
    optuna = optional("optuna", missing)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return partial(_tpe, optuna, space, seed, objectives)


def _tpe(
    optuna: Any, space: Space, seed: int, objectives: Sequence[Objective], number: int, trials: Sequence[Trial]
) -> Configuration:
    """One proposal from a study that is rebuilt each time, so that it depends on the given trials only."""
    if number < STARTUP:
        return space.drawn(seed, number)
    sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + number, n_startup_trials=0, constant_liar=True)
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(objectives))
    known = [_known(optuna, space, objectives, trial) for trial in trials if trial.number < number]
    study.add_trials([trial for trial in known if trial is not None])
    asked = study.ask()
    return space.configured(lambda one: _suggested(asked, one))


def _suggested(asked: Any, one: Parameter) -> Any:
    if one.kind == "choice":
        places = range(len(one.values))
        if one.numeric:
            return one.values[asked.suggest_int(one.key, 0, places[-1])]
        return one.values[asked.suggest_categorical(one.key, list(places))]
    suggest = asked.suggest_int if one.whole else asked.suggest_float
    return suggest(one.key, *one.values, log=one.logarithmic)


def _known(optuna: Any, space: Space, objectives: Sequence[Objective], trial: Trial) -> Any:
    """A trial as optuna stores it; None for one that failed or did not report yet an ended result."""
    parameters, distributions = {}, {}
    for one in space.parameters:
        if one.key in trial.configuration:
            parameters[one.key] = _coded(one, trial.configuration[one.key])
            distributions[one.key] = _distribution(optuna, one)
    costs = [one.cost(trial.value(one)) for one in objectives]
    state = optuna.trial.TrialState
    if trial.status == OPEN:
        return optuna.trial.create_trial(params=parameters, distributions=distributions, state=state.RUNNING)
    if trial.status == FAILED or not all(map(math.isfinite, costs)):
        return None
    return optuna.trial.create_trial(params=parameters, distributions=distributions, values=costs, state=state.COMPLETE)


def _coded(one: Parameter, value: Any) -> Any:
    return one.values.index(frozen(value)) if one.kind == "choice" else value


def _distribution(optuna: Any, one: Parameter) -> Any:
    kinds = optuna.distributions
    if one.kind == "choice":
        places = list(range(len(one.values)))
        return kinds.IntDistribution(0, places[-1]) if one.numeric else kinds.CategoricalDistribution(places)
    make = kinds.IntDistribution if one.whole else kinds.FloatDistribution
    return make(*one.values, log=one.logarithmic)
