"""Which configuration is tried next: a function of a number and the trials so far, nothing remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from astroml_plugin.core.registry import optional
from astroml_plugin.search.objectives import Objective
from astroml_plugin.search.sizes import Sizes
from astroml_plugin.search.space import Configuration, Parameter, Space, frozen
from astroml_plugin.search.study import FAILED, OPEN, Trial
from astroml_plugin.search.warm_start import Learned

Sampler = Callable[[int, Sequence[Trial]], Configuration | None]
"""sampler(number, trials so far) gives the configuration of a new trial, None where there is no further one."""

STARTUP = 10
"""Random trials before TPE models them (Bergstra et al. 2011 use 20; optuna 10)."""


def random_sampler(space: Space, seed: int) -> Sampler:
    """Independent draws."""
    return lambda number, trials: space.drawn(seed, number)


def beginning_with(first: Sequence[Configuration], sampler: Sampler) -> Sampler:
    """A sampler that proposes `first`, one after another, and then asks another."""
    return lambda number, trials: dict(first[number]) if number < len(first) else sampler(number, trials)


def halving_sampler(sizes: Sizes, sampler: Sampler, whole: int, objective: Objective) -> Sampler:
    """Successive halving in training objects: what earned more of them comes first, then new configurations.

    Args:
        sizes: of the training set.
        sampler: of new configurations, by their number.
        whole: so many first trials see all objects.
        objective: that promotes.
    """

    def sample(number: int, trials: Sequence[Trial]) -> Configuration | None:
        if number > whole and (found := sizes.promoted(trials, objective)) is not None:
            return found
        begun = sum(sizes.rung(one) == 0 for one in trials[whole:])
        new = sampler(min(number, whole + begun), trials)  # those that are tried again take no number of the sampler
        return None if new is None else sizes.sized(new, len(sizes.limits) - 1 if number < whole else 0)

    return sample


def grid_sampler(space: Space) -> Sampler:
    """Every combination once, in order."""
    points = space.grid()
    return lambda number, trials: points[number] if number < len(points) else None


def tpe_sampler(
    space: Space,
    seed: int,
    objectives: Sequence[Objective],
    known: Sequence[Learned] = (),
    alike: Callable[[Sequence[Trial]], Sequence[Trial]] = tuple,
) -> Sampler:
    """Tree-structured Parzen estimator of optuna (Bergstra et al. 2011), random for its first trials.

    Args:
        space, seed, objectives: of the search.
        known: trials of earlier searches; with one objective, they count like random first ones.
        alike: those of all trials that can be compared.

    Raises:
        InputError: optuna is not installed.
    """
    missing = "algorithm tpe needs optuna: install astroml-plugin[optuna], or take asha or random"
    optuna = optional("optuna", missing)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    earlier = known if len(objectives) == 1 else ()
    return partial(_tpe, optuna, space, seed, objectives, earlier, alike)


def _tpe(
    optuna: Any,
    space: Space,
    seed: int,
    objectives: Sequence[Objective],
    earlier: Sequence[Learned],
    alike: Callable[[Sequence[Trial]], Sequence[Trial]],
    number: int,
    trials: Sequence[Trial],
) -> Configuration:
    """One proposal from a study that is rebuilt each time, so that it depends on the given trials only."""
    if number + len(earlier) < STARTUP:
        return space.drawn(seed, number)
    sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + number, n_startup_trials=0, constant_liar=True)
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(objectives))
    known = [_known(optuna, space, objectives, trial) for trial in alike(trials)]
    study.add_trials(_ranked(optuna, space, earlier, [trial for trial in known if trial is not None]))
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


def _ranked(optuna: Any, space: Space, earlier: Sequence[Learned], known: Sequence[Any]) -> list[Any]:
    """Trials with those of earlier searches: by their ranks, where there are any, since values of other data have
    another scale and TPE looks at the order alone."""
    if not earlier:
        return list(known)
    complete = optuna.trial.TrialState.COMPLETE
    values = sorted(one.value for one in known if one.state == complete)
    found = []
    for one in known:
        if one.state == complete:
            rank = values.index(one.value) / len(values)
            made = {"params": one.params, "distributions": one.distributions, "value": rank, "state": complete}
            one = optuna.trial.create_trial(**made)
        found.append(one)
    for past in earlier:
        params, distributions = _stored(optuna, space, past.configuration)
        made = {"params": params, "distributions": distributions, "value": past.rank, "state": complete}
        found.append(optuna.trial.create_trial(**made))
    return found


def _stored(optuna: Any, space: Space, configuration: Configuration) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and distributions of a configuration, as optuna stores them."""
    set_here = [one for one in space.parameters if one.key in configuration]
    values = {one.key: _coded(one, configuration[one.key]) for one in set_here}
    return values, {one.key: _distribution(optuna, one) for one in set_here}


def _known(optuna: Any, space: Space, objectives: Sequence[Objective], trial: Trial) -> Any:
    """A trial as optuna stores it; None for one that failed or did not report yet an ended result."""
    parameters, distributions = _stored(optuna, space, trial.configuration)
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
