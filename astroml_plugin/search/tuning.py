"""Ray Tune around a function that trains one configuration.

Tune places trials, watches their processes, retries them and lets a scheduler stop the hopeless ones. What a search
has to remember is in the `Study`; Tune starts afresh each time and is told what has ended, because its own
`Tuner.restore` loses the rungs of ASHA and the seconds since its last snapshot, and unpickles files of the folder.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError, LostError
from astroml_plugin.search.population import Population
from astroml_plugin.search.proposals import Proposals, SegmentProposals
from astroml_plugin.search.ray_cluster import Liveness, Resources, room
from astroml_plugin.search.running import DISK, FATAL, TrialSegment, Work, run_trial
from astroml_plugin.search.samplers import Sampler
from astroml_plugin.search.schedulers import Scheduling, scheduler_of
from astroml_plugin.search.study import ERROR, FAILED, FINISHED, OUTCOME, STOPPED, Study, Trial

_TUNE = "ray"
"""Tune's own folder in that of the study."""
_PULSE_SECONDS = 10.0
_LOOK_SECONDS, _LEAVE_SECONDS = 1.0, 10.0


@dataclass(frozen=True)
class Budget:
    """When a search is over; whatever comes first."""

    trials: int | None = None
    hours: float | None = None
    epochs: int | None = None
    """Over all trials."""


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is."""

    ended: Mapping[str, int]
    """Status -> trials."""
    running: Sequence[tuple[int, int]]
    """(trial, epochs done) of those that run now."""
    best: Trial | None
    objective: str
    value: float
    """Objective of the best trial so far; NaN before there is one."""
    trials: int
    """Proposed so far."""
    epochs: int
    """Over all trials."""
    fraction: float | None
    """Fraction of the budget that is spent; None where it has no end."""
    seconds_left: float | None


Progress = Callable[[SearchProgress], None]


def run_trials(
    study: Study,
    work: Work,
    sampler: Sampler,
    *,
    budget: Budget,
    scheduling: Scheduling,
    resources: Resources,
    population: Population | None = None,
    progress: Progress | None = None,
) -> None:
    """Try configurations until the budget is spent; everything found is in the study. Ray must be connected.

    Args:
        study: may hold trials of an earlier call: those that ended stay, the others go on.
        work: picklable; called in the trials' processes.
        sampler: proposes configurations.
        budget, scheduling, resources: how much, which, on what.
        population: for population-based training, how its members are exchanged; the sampler gives the first ones.
        progress: told after every epoch and outcome.

    Raises:
        InputError: every trial fails.
        OSError: the disk is full; the trials that ran go on next time.
    """
    watch = _Watch(study, budget, scheduling, population, progress)
    trainable = partial(
        run_trial,
        work=work,
        url=study.url,
        objective=study.main.name,
        sign=study.main.cost(1.0),
    )
    with_resources = tune.with_resources(_named(trainable), {"cpu": resources.cpus, "gpu": resources.gpus})
    proposals = SegmentProposals(study, sampler, watch, population) if population else Proposals(study, sampler, watch)
    tuner = tune.Tuner(
        with_resources,
        tune_config=tune.TuneConfig(
            search_alg=proposals,
            scheduler=scheduler_of(study, scheduling, watch.trials.values()),
            num_samples=-1,
            # nodes may join a cluster later: Tune then keeps one trial waiting for room
            max_concurrent_trials=resources.concurrent or (None if resources.address else room(resources)),
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=_TUNE,
            storage_path=study.url if storage.is_local(study.url) else storage.filesystem(study.url)[1],
            storage_filesystem=_storage_filesystem(study.url),
            failure_config=tune.FailureConfig(max_failures=scheduling.retries),
            stop=_Stop(watch),
            callbacks=[watch, _Silent()],
            verbose=0,
        ),
    )
    try:
        _guarded(tuner.fit, watch, Liveness(resources))
    except LostError:
        raise
    except Exception as error:
        raise watch.explained(error) from error
    finally:
        watch.pulse(force=True)
    _forget_tune(study.url)
    if watch.fatal is not None:
        raise watch.fatal


def _forget_tune(url: str) -> None:
    """Delete what Tune keeps beside the trials: nothing reads it again, and it has pickles."""
    fs, path = storage.filesystem(storage.join(url, _TUNE))
    with suppress(OSError):
        fs.rm(path, recursive=True)


def _guarded(fit: Callable[[], Any], watch: _Watch, liveness: Liveness) -> None:
    """Run Tune in a thread of its own, and leave it there where Ray has died or this process is to end.

    Raises:
        LostError: Ray has died.
    """
    failed: list[Exception] = []

    def run() -> None:
        try:
            fit()
        except Exception as error:  # noqa: BLE001 - it is raised below
            failed.append(error)

    thread = threading.Thread(target=run, name="tune", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            if thread.is_alive():
                liveness.check()
    except BaseException as error:
        watch.halted = True
        if not isinstance(error, LostError):
            thread.join(_LEAVE_SECONDS)
        raise
    if failed:
        raise failed[0]


def _named(function: Callable[..., None]) -> Callable[[dict[str, Any]], None]:
    """A function with a name and one argument, as Tune wants it."""

    def trial(config: dict[str, Any]) -> None:
        function(config)

    return trial


def _name(trial: Any) -> str:
    segment, _ = TrialSegment.from_config(trial.config)
    return f"{segment.number:05d}" + ("" if segment.until is None else f"-{segment.until:05d}")


def _storage_filesystem(url: str) -> Any:
    if storage.is_local(url):
        return None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(storage.filesystem(url)[0]))


class _Watch(tune.Callback):
    """Keeps the trials as they are now, writes outcomes, tells the progress, and knows when to end."""

    def __init__(
        self,
        study: Study,
        budget: Budget,
        scheduling: Scheduling,
        population: Population | None,
        progress: Progress | None,
    ) -> None:
        self.study, self.budget, self.scheduling, self.progress = study, budget, scheduling, progress
        self.population = population
        self.trials = {one.number: one for one in study.trials()}
        self.before, self.started, self.pulsed = study.spent, time.monotonic(), -math.inf
        self.running: set[int] = set()
        self.attempts: dict[int, int] = {}
        self.fatal: Exception | None = None
        self.halted = False
        """Whether this process was told to end."""

    def __getstate__(self) -> dict[str, Any]:  # Tune snapshots its callbacks; ours has nothing to keep there
        return {}

    @property
    def seconds(self) -> float:
        """Searched so far, earlier calls included."""
        return self.before + time.monotonic() - self.started

    @property
    def epochs(self) -> int:
        """Trained so far, over all trials."""
        return sum(len(one.history) for one in self.trials.values())

    @property
    def over(self) -> bool:
        """Whether nothing new may begin and what runs must end."""
        budget = self.budget
        hours = budget.hours is not None and self.seconds >= 3600 * budget.hours
        if self.halted or self.fatal is not None:
            return True
        return hours or (budget.epochs is not None and self.epochs >= budget.epochs)

    def full(self, proposed: int) -> bool:
        """Whether the budget has no room for a further trial."""
        return self.budget.trials is not None and proposed >= self.budget.trials

    # ---- called by Tune ------------------------------------------------------------------------------------------

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has a process."""
        self.running.add(TrialSegment.from_config(trial.config)[0].number)
        self.tell()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done, or the disk is full."""
        if FATAL in result:
            self.fatal = OSError(result["errno"], result[FATAL], storage.redact(self.study.url))
            return
        if "record" not in result:
            return
        one = self.trials[TrialSegment.from_config(trial.config)[0].number]
        history = [record for record in one.history if record["epoch"] < result["record"]["epoch"]]
        self.trials[one.number] = replace(one, history=[*history, result["record"]], extra=result["extra"])
        self.pulse()
        self.tell()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end or was stopped."""
        segment, _ = TrialSegment.from_config(trial.config)
        number, one = segment.number, self.trials[segment.number]
        whole = len(one.history) >= self.scheduling.epochs
        paused = segment.until is not None and len(one.history) >= segment.until
        ended = storage.exists(storage.join(self.study.folder(number), OUTCOME))
        if (self.over or paused) and not whole and not ended:
            self.running.discard(number)  # still open: another segment follows, or a larger budget goes on with it
            return
        reason = "" if whole else f"by {self.scheduling.kind} after {len(one.history)} epochs"
        status = FINISHED if whole else STOPPED
        self._end(number, status, reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An attempt failed; another follows."""
        number = TrialSegment.from_config(trial.config)[0].number
        self.attempts[number] = self.attempts.get(number, 1) + 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The last attempt failed."""
        number = TrialSegment.from_config(trial.config)[0].number
        if self.fatal is None:
            self._end(number, FAILED, self._reason(number))

    # ---- what it does with it ------------------------------------------------------------------------------------

    def _end(self, number: int, status: str, reason: str) -> None:
        extra = {**self.trials[number].extra, "attempts": self.attempts.get(number, 1)}
        try:
            self.study.end(number, status, reason, **extra)
            self.trials[number] = self.study.trial(number)
        except OSError as error:
            self.fatal = error
        self.running.discard(number)
        self._refuse_only_failures()
        self.tell()

    def _reason(self, number: int) -> str:
        place = storage.join(self.study.folder(number), ERROR)
        attempts = self.attempts.get(number, 1)
        why = str(storage.read_record(place).get("reason", "?")) if storage.exists(place) else "its process died"
        return f"{why} ({attempts} attempts)"

    def _refuse_only_failures(self) -> None:
        failed = [one for one in self.trials.values() if one.status == FAILED]
        good = [one for one in self.trials.values() if one.status != FAILED and one.history]
        if len(failed) >= self.scheduling.give_up and not good and self.fatal is None:
            reasons = list(dict.fromkeys(one.reason for one in failed))[:3]
            self.fatal = InputError(f"all of the first {len(failed)} trials failed: {'; '.join(reasons)}")

    def pulse(self, force: bool = False) -> None:
        """Keep the time spent, now and then."""
        if force or time.monotonic() - self.pulsed > _PULSE_SECONDS:
            self.pulsed = time.monotonic()
            with suppress(OSError):
                self.study.pulse(self.seconds)

    def tell(self) -> None:
        """Say how far it is."""
        if self.progress is not None:
            self.progress(self.search_progress())

    def search_progress(self) -> SearchProgress:
        """How far the search is."""
        every = list(self.trials.values())
        ended = {name: sum(one.status == name for one in every) for name in (FINISHED, STOPPED, FAILED)}
        running = [(number, len(self.trials[number].history)) for number in sorted(self.running)]
        fraction = self._fraction(sum(ended.values()))
        left = None
        if fraction:
            left = (time.monotonic() - self.started) * (1 - fraction) / fraction if fraction < 1 else 0.0
            if self.budget.hours is not None:
                left = min(left, max(0.0, 3600 * self.budget.hours - self.seconds))
        best, main = self.study.winner(every), self.study.main
        value = math.nan if best is None else best.value(main)
        return SearchProgress(ended, running, best, main.name, value, len(every), self.epochs, fraction, left)

    def _fraction(self, ended: int) -> float | None:
        budget = self.budget
        parts = [ended / budget.trials] if budget.trials else []
        if self.population is not None:
            parts = [self.epochs / (self.population.size * self.population.epochs)]
        parts += [self.seconds / (3600 * budget.hours)] if budget.hours else []
        parts += [self.epochs / budget.epochs] if budget.epochs else []
        return min(1.0, max(parts)) if parts else None

    def explained(self, error: Exception) -> Exception:
        """The reason behind an error of Tune, else that error."""
        if self.fatal is not None:
            return self.fatal
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in DISK:
                return OSError(cause.errno, cause.strerror, storage.redact(self.study.url))
            cause = cause.__cause__ or cause.__context__
        return error


class _Silent(TrialProgressCallback):
    """Takes the place of what prints on stdout, which is for data."""

    def _print(self, msg: str) -> None:
        return


class _Stop(tune.Stopper):
    """Ends everything once the watch says so."""

    def __init__(self, watch: _Watch) -> None:
        self.watch = watch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial ends now."""
        return FATAL in result

    def stop_all(self) -> bool:
        """Whether all end now."""
        return self.watch.over
