"""The study: a folder that knows everything about a search, so that one that was killed goes on from it alone.

    study.json            what is searched, its identity, and once chosen the winner
    trials/00007/         trial.json (its configuration), log.jsonl and checkpoint of its training, and outcome.json
                          once it has ended
    exchanges/00002.json  population-based training: who went on from whose weights after this generation
    trials.parquet, best.toml, best/ and pictures at the end

Every file is written whole or not at all. The searching process proposes trials; a trial's own process writes its
training and, at its end, the outcome. Nothing else is needed to go on: neither pickles nor Ray's own state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import DamagedError, InputError
from astroml_plugin.core.locking import alone_in
from astroml_plugin.search.objectives import Objective, finite, kept, number, pareto
from astroml_plugin.search.space import Configuration, Space
from astroml_plugin.training.checkpoint import CHECKPOINT, LOG, history_of, read_log

STUDY, TRIAL, OUTCOME, PULSE = "study.json", "trial.json", "outcome.json", "pulse.json"
ERROR = "error.json"
"""Why the latest attempt of a trial ended."""
_EXCHANGES = "exchanges"
PART = "split.limit"
"""Key of a configuration that says on how many training objects a trial is judged first."""
OPEN, FINISHED, STOPPED, FAILED = "open", "finished", "stopped", "failed"
"""Not ended yet, trained to its end, stopped by the scheduler, failed."""


@dataclass(frozen=True)
class Trial:
    """One configuration and what became of it."""

    number: int
    configuration: Configuration
    status: str = OPEN
    reason: str = ""
    """Why it failed or was stopped."""
    history: Sequence[Mapping[str, Any]] = ()
    """Records of the epochs."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Values from the trial's process at its end: node, seconds of preparation, attempts."""
    schedule: Sequence[Mapping[str, Any]] = ()
    """Population-based training: epoch, trial and configuration from each change on, along the way of its weights."""

    @property
    def kept(self) -> Mapping[str, Any] | None:
        """The record of the epoch whose weights are kept; None before the first."""
        return kept(self.history)

    def value(self, objective: Objective) -> float:
        """The objective at that epoch; NaN where there is none."""
        record = self.kept
        return math.nan if record is None else number(record.get(objective.name, self.extra.get(objective.name)))

    @property
    def seconds(self) -> float:
        """Wall seconds of its epochs and its preparation."""
        return self._sum("seconds") + finite(self.extra.get("setup_seconds"))

    @property
    def cpu_seconds(self) -> float:
        """Core-seconds of its epochs and its preparation."""
        return self._sum("cpu_seconds") + finite(self.extra.get("setup_cpu_seconds"))

    def _sum(self, name: str) -> float:
        return sum(value for record in self.history if math.isfinite(value := number(record.get(name))))


class Study:
    """The folder of one search.

    Args:
        url: folder or URL.
        record: what `study.json` holds.
    """

    def __init__(self, url: str, record: dict[str, Any]) -> None:
        self.url, self.record = url, record
        self.space = Space.from_mapping(record["space"])
        self.objectives = [Objective.parse(text) for text in record["objectives"]]
        if not self.objectives:
            raise storage.damaged(storage.join(url, STUDY), "it has no objective")

    @classmethod
    def opened(cls, url: str, record: Mapping[str, Any]) -> Study:
        """The study of `record["identity"]` in a folder, made there if the folder has none.

        Raises:
            InputError: the folder holds another study, or something else.
        """
        url = storage.absolute(url)
        place = storage.join(url, STUDY)
        if storage.exists(place):
            found = storage.read_record(place, identity=str, space=dict, objectives=list)
            if found["identity"] != record["identity"]:
                raise InputError(
                    f"{storage.redact(url)} holds another study: {_difference(found, record)}; "
                    "choose another output or remove it"
                )
            return cls(url, found)
        for name in ("zarr.json", "schema.json", "card.json"):
            if storage.exists(storage.join(url, name)):
                raise InputError(f"{storage.redact(url)} holds a store, catalog or bundle: choose another output")
        study = cls(url, {**record, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        study.save()
        return study

    @property
    def main(self) -> Objective:
        """The objective that chooses the winner."""
        return self.objectives[0]

    def save(self, **changes: Any) -> None:
        """Write `study.json`, with changes."""
        self.record |= changes
        storage.write_json(storage.join(self.url, STUDY), self.record)

    # ---- trials --------------------------------------------------------------------------------------------------

    def folder(self, number: int) -> str:
        """Where a trial's files are."""
        return storage.join(self.url, "trials", f"{number:05d}")

    def propose(self, number: int, configuration: Configuration) -> Trial:
        """Write a new trial; from then on it is one of the study."""
        place = storage.join(self.folder(number), TRIAL)
        storage.write_json(place, {"number": number, "configuration": configuration})
        return Trial(number, configuration)

    def end(self, number: int, status: str, reason: str = "", **extra: Any) -> None:
        """Write a trial's outcome; one that is there stays, for the trial's own process may have written it."""
        if not storage.exists(storage.join(self.folder(number), OUTCOME)):
            write_outcome(self.folder(number), status, reason, **extra)

    def reopen(self, number: int) -> None:
        """Forget how a trial ended, so that it is tried again."""
        for name in (OUTCOME, ERROR):
            storage.remove(storage.join(self.folder(number), name))

    def take_over(self, number: int, parent: Trial, configuration: Configuration) -> None:
        """Let a trial go on from another's weights with a configuration; done twice it is the same as once."""
        for name in (LOG, CHECKPOINT):
            data = storage.read_bytes(storage.join(self.folder(parent.number), name))
            storage.write_atomic(storage.join(self.folder(number), name), data)
        before = parent.schedule or [{"epoch": 0, "trial": parent.number, "configuration": parent.configuration}]
        change = {"epoch": len(parent.history), "trial": number, "configuration": configuration}
        told = {"number": number, "configuration": configuration, "schedule": [*before, change]}
        storage.write_json(storage.join(self.folder(number), TRIAL), told)
        self.reopen(number)

    def exchanges(self) -> list[dict[str, Any]]:
        """Records of the exchanges after each generation, in order."""
        folder = storage.join(self.url, _EXCHANGES)
        return [storage.read_record(storage.join(folder, name)) for name in sorted(storage.list_files(folder, ".json"))]

    def write_exchange(self, generation: int, record: Mapping[str, Any]) -> None:
        """Keep what was decided after a generation."""
        storage.write_json(storage.join(self.url, _EXCHANGES, f"{generation:05d}.json"), record)

    def trial(self, number: int) -> Trial:
        """A trial as it is now."""
        folder = self.folder(number)
        proposed = storage.read_record(storage.join(folder, TRIAL), configuration=dict)
        ended = _outcome(storage.join(folder, OUTCOME))
        try:
            history = read_log(folder)
        except DamagedError:
            if not storage.exists(storage.join(folder, CHECKPOINT)):
                raise
            history = history_of(folder)  # the checkpoint has it too, but for an epoch that it may lack
        extra = {key: value for key, value in ended.items() if key not in ("status", "reason")}
        schedule = proposed.get("schedule", ())
        return Trial(number, proposed["configuration"], ended["status"], ended["reason"], history, extra, schedule)

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        names = storage.list_files(storage.join(self.url, "trials"), TRIAL)
        return [self.trial(int(name.partition("/")[0])) for name in sorted(names)]

    def whole(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials of all training objects: not those that were judged on a part."""
        return [one for one in trials if PART not in one.configuration or PART in self.space.keys]

    def alike(self, trials: Sequence[Trial], least: int) -> list[Trial]:
        """Trials of the largest training set on which `least` or more ended; without one, of that of most trials.

        Values of training sets of different sizes are not of one scale, so a model of the objective is fitted to one
        of them (as BOHB does: Falkner et al. 2018).
        """
        groups: dict[float, list[Trial]] = {}
        whole = {one.number for one in self.whole(trials)}
        for one in trials:
            size = math.inf if one.number in whole else float(one.configuration[PART])
            groups.setdefault(size, []).append(one)
        full = [size for size, group in groups.items() if sum(t.status in (FINISHED, STOPPED) for t in group) >= least]
        if full:
            return groups[max(full)]
        return max(groups.values(), key=len, default=[])

    def winner(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial of all training objects that is best in the first objective; of equal ones the first."""
        return next(iter(self.usable(trials)), None)

    def usable(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials of all training objects that did not fail and have a finite first objective, the best first."""
        known = [one for one in self.whole(trials) if math.isfinite(one.value(self.main)) and one.status != FAILED]
        return sorted(known, key=lambda one: (self.main.cost(one.value(self.main)), one.number))

    def forget_checkpoints(self, trials: Sequence[Trial], keep: int | None) -> None:
        """Delete the checkpoints of ended trials except one: of a closed study nothing goes on."""
        for one in trials:
            if one.number != keep:
                storage.remove(storage.join(self.folder(one.number), CHECKPOINT))

    # ---- time spent ----------------------------------------------------------------------------------------------

    @property
    def spent(self) -> float:
        """Seconds that earlier calls searched, also those that were killed (to the last pulse)."""
        place = storage.join(self.url, PULSE)
        return finite(storage.read_record(place, seconds=(int, float))["seconds"]) if storage.exists(place) else 0.0

    def pulse(self, seconds: float) -> None:
        """Keep the seconds searched so far."""
        storage.write_json(storage.join(self.url, PULSE), {"seconds": round(seconds, 1)})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the study, so that no second process of this machine searches it at once (folders only, not URLs).

        Raises:
            InputError: another process holds it.
        """
        with alone_in(self.url, "searches in"):
            yield

    # ---- tables --------------------------------------------------------------------------------------------------

    def table(self, trials: Sequence[Trial]) -> pa.Table:
        """One row per trial: number, status, parameters, objectives, epochs, costs, reason.

        Columns: number, status, epochs, best_epoch, one per objective, pareto, seconds, cpu_seconds, node, reason,
        and one per parameter ("param_" and its key; null where it does not apply). Where trials are judged on a part of
        the training objects, `training_objects` has their number; null is all.
        """
        values = {one.name: [_null(trial.value(one)) for trial in trials] for one in self.objectives}
        columns: dict[str, Any] = {
            "number": pa.array([one.number for one in trials], pa.int64()),
            "status": pa.array([one.status for one in trials], pa.string()),
            "epochs": pa.array([len(one.history) for one in trials], pa.int64()),
            "best_epoch": pa.array([_epoch(one.kept) for one in trials], pa.int64()),
            **{name: pa.array(column, pa.float64()) for name, column in values.items()},
            "pareto": pa.array(self.front(trials), pa.bool_()),
            "seconds": pa.array([one.seconds for one in trials], pa.float64()),
            "cpu_seconds": pa.array([one.cpu_seconds for one in trials], pa.float64()),
            "node": pa.array([_text(one.extra.get("node")) for one in trials], pa.string()),
            "reason": pa.array([one.reason or None for one in trials], pa.string()),
        }
        for parameter in self.space.parameters:
            given = [one.configuration.get(parameter.key) for one in trials]
            columns[f"param_{parameter.key}"] = _column(given)
        if len(self.whole(trials)) < len(trials):
            columns["training_objects"] = pa.array([one.configuration.get(PART) for one in trials], pa.int64())
        return pa.table(columns)

    def front(self, trials: Sequence[Trial]) -> list[bool]:
        """Which trials no other beats in all objectives."""
        costs = [[one.cost(trial.value(one)) for one in self.objectives] for trial in trials]
        whole = {one.number for one in self.whole(trials)}
        usable = [
            i
            for i, cost in enumerate(costs)
            if all(map(math.isfinite, cost)) and trials[i].status != FAILED and trials[i].number in whole
        ]
        best = {usable[i] for i, on in enumerate(pareto([costs[i] for i in usable])) if on}
        return [i in best for i in range(len(trials))]


def ranked(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """Trials that ended with a finite objective, the best first; of equal ones the earlier."""
    ended = [one for one in trials if one.status in (FINISHED, STOPPED) and math.isfinite(one.value(objective))]
    return sorted(ended, key=lambda one: (objective.cost(one.value(objective)), one.number))


def _outcome(url: str) -> dict[str, Any]:
    """How a trial ended; one whose record is damaged is open, so that its own process writes it again."""
    try:
        return storage.read_record(url, status=str, reason=str)
    except (FileNotFoundError, DamagedError):
        return {"status": OPEN, "reason": ""}


def write_outcome(folder: str, status: str, reason: str = "", **extra: Any) -> None:
    """How a trial ended, beside its training."""
    told = {"status": status, "reason": reason, **extra, "ended": round(time.time(), 1)}
    storage.write_json(storage.join(folder, OUTCOME), told)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names of the entries in which two studies differ, in words."""
    names = [key for key in wanted if key != "identity" and found.get(key) != wanted[key]]
    return f"its {' and '.join(names) or 'version'} differ"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _epoch(record: Mapping[str, Any] | None) -> int | None:
    """Number of the epoch of a record; None where it has none that can be right."""
    value = number(None if record is None else record.get("epoch"))
    return int(value) if 0 <= value < 2**53 else None


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _column(values: Sequence[Any]) -> pa.Array:
    """Numbers, texts or truth values as they are, anything mixed or nested as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and kinds:
        return pa.array([None if v is None else float(v) for v in values] if float in kinds else values)
    if len(kinds) == 1 and kinds <= {str, bool}:
        return pa.array(values)
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
