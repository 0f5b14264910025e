"""Tune's schedulers, told what ended in earlier calls: which trials are stopped early."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from astroml_plugin.search.objectives import kept
from astroml_plugin.search.running import COST, EPOCHS
from astroml_plugin.search.study import FINISHED, STOPPED, Study, Trial


@dataclass(frozen=True)
class Scheduling:
    """Which trials are stopped early."""

    kind: str = "asha"
    """asha or none."""
    epochs: int = 30
    """Epochs of a trial, at most."""
    grace: int = 1
    """Epochs before a trial may be stopped."""
    reduction: float = 3.0
    """ASHA: one of so many goes on at each rung (Li et al. 2020)."""
    retries: int = 2
    """Further attempts of a trial whose process fails."""
    give_up: int = 5
    """So many failed trials, and none that did not fail, end the search."""


def scheduler_of(study: Study, scheduling: Scheduling, trials: Any) -> TrialScheduler:
    """Tune's scheduler, which has seen the trials that ended in earlier calls."""
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
