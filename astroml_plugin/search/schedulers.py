"""Tune's schedulers, told what ended in earlier calls: which trials are stopped early, or changed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from astroml_plugin.search.objectives import kept
from astroml_plugin.search.running import COST, EPOCHS
from astroml_plugin.search.space import Parameter, Space
from astroml_plugin.search.study import FINISHED, STOPPED, Study, Trial


@dataclass(frozen=True)
class Scheduling:
    """Which trials are stopped early, or changed."""

    kind: str = "asha"
    """asha, none, or pbt: no workflow offers that yet, since with more trials than fit at once some stayed paused."""
    epochs: int = 30
    """Of a trial, at most."""
    grace: int = 1
    """Epochs before a trial may be stopped."""
    reduction: float = 3.0
    """ASHA: one of so many goes on at each rung (Li et al. 2020)."""
    interval: int = 1
    """PBT: epochs between exchanges (Jaderberg et al. 2017)."""
    retries: int = 2
    """Further attempts of a trial whose process fails."""
    give_up: int = 5
    """So many failed trials, and none that did not fail, end the search."""


def scheduler_of(study: Study, scheduling: Scheduling, trials: Any) -> TrialScheduler:
    if scheduling.kind == "pbt":
        return _population(study.space, scheduling)
    if scheduling.kind != "asha":
        return FIFOScheduler()
    scheduler = ASHAScheduler(
        time_attr=EPOCHS,
        metric=COST,
        mode="min",
        max_t=scheduling.epochs,
        grace_period=min(scheduling.grace, scheduling.epochs),
        reduction_factor=scheduling.reduction,
    )
    for one in trials:
        if one.status in (FINISHED, STOPPED):
            _replay(scheduler, study, one)
    return scheduler


def _replay(scheduler: TrialScheduler, study: Study, one: Trial) -> None:
    """Let the scheduler see an ended trial again, so that its rungs are as they were."""
    shadow = SimpleNamespace(trial_id=f"ended-{one.number}")
    scheduler.on_trial_add(None, shadow)
    told: dict[str, Any] = {}
    for count in range(1, len(one.history) + 1):
        best = kept(one.history[:count])
        value = math.nan if best is None else float({**one.extra, **best}.get(study.main.name, math.nan))
        if math.isfinite(value):
            told = {EPOCHS: count, COST: study.main.cost(value)}
            scheduler.on_trial_result(None, shadow, told)
    scheduler.on_trial_complete(None, shadow, told)


def _population(space: Space, scheduling: Scheduling) -> TrialScheduler:
    random.seed(0)
    return PopulationBasedTraining(
        time_attr=EPOCHS,
        metric=COST,
        mode="min",
        perturbation_interval=scheduling.interval,
        hyperparam_mutations={one.key: partial(_mutated, one) for one in space.parameters},
        custom_explore_fn=partial(_bounded, space),
        require_attrs=True,
    )


def _mutated(one: Parameter) -> Any:
    return one.at(random.random())  # noqa: S311 - not for secrets


def _bounded(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """Values that left their range put back to its end, whole numbers whole."""
    for one in space.parameters:
        if one.kind != "choice":
            value = min(max(config[one.key], one.values[0]), one.values[1])
            config[one.key] = round(value) if one.whole else value
    return config
