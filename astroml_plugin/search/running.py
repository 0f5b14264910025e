"""One trial, in its own process: trains in its folder of the study, tells Tune every epoch, writes how it ended."""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import ray
import torch
from ray import tune

from astroml_plugin.core import storage
from astroml_plugin.core.errors import DivergedError, InputError
from astroml_plugin.core.settings import refuse_unknown
from astroml_plugin.search.objectives import kept
from astroml_plugin.search.space import Configuration
from astroml_plugin.search.study import ERROR, FAILED, FINISHED, write_outcome


class Report(Protocol):
    """How a trial tells what it found."""

    def __call__(self, record: Mapping[str, Any]) -> None:
        """An epoch's record; does not return where the trial is stopped."""

    def note(self, name: str, value: Any) -> None:
        """Something that holds for the whole trial."""


Work = Callable[[Configuration, str, Report, int | None], None]
"""work(configuration, folder, report, until) trains in a folder, from its checkpoint where it has one, and reports
epochs; it pauses after `until` of them, if that is given."""

COST, EPOCHS, FATAL = "cost", "epochs_done", "fatal"
"""Keys of what a trial tells Tune: its objective so that small is good, epochs done, and a full disk."""
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


_SEGMENT = "_leg"


@dataclass(frozen=True)
class TrialSegment:
    """Epochs of a trial that one call trains: usually all."""

    number: int
    """Number of the trial."""
    until: int | None = None
    """Epochs after which it pauses; None: it trains to its end."""
    known: int = 0
    """Epochs that need no report any more."""

    def to_config(self, configuration: Configuration) -> dict[str, Any]:
        """Encode with a configuration in a config dict of Tune."""
        return {_SEGMENT: asdict(self), **configuration}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> tuple[TrialSegment, Configuration]:
        """Decode segment and configuration from a config dict of Tune."""
        return cls(**config[_SEGMENT]), {key: value for key, value in config.items() if key != _SEGMENT}


def run_trial(config: dict[str, Any], *, work: Work, url: str, objective: str, sign: float) -> None:
    """One trial: trains in its folder, reports each epoch, writes its outcome."""
    segment, configuration = TrialSegment.from_config(config)
    folder = storage.join(url, "trials", f"{segment.number:05d}")
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    reporter = TuneReporter(objective, sign, segment.known)
    try:
        work(configuration, folder, reporter, segment.until)
        if segment.until is None:
            write_outcome(folder, FINISHED, **reporter.extra)
    except (DivergedError, InputError) as error:  # would fail again in the same way
        write_outcome(folder, FAILED, storage.redact(str(error)), **reporter.extra)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:  # not the trial's fault: the search has to end
            tune.report({FATAL: f"{error.strerror}", "errno": error.errno})
            return
        with suppress(OSError):
            reason = storage.redact(f"{type(error).__name__}: {' '.join(str(error).split())}")
            storage.write_json(storage.join(folder, ERROR), {"reason": reason})
        raise


class TuneReporter:
    """Reports an epoch's record to Tune, with the cost of the best weights so far."""

    def __init__(self, objective: str, sign: float, known: int) -> None:
        self.objective, self.sign, self.known = objective, sign, known
        self.history: list[Mapping[str, Any]] = []
        self.started, self.cpu = time.perf_counter(), time.process_time()
        node = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"
        self.extra: dict[str, Any] = {"node": node}

    def note(self, name: str, value: Any) -> None:
        """Keep a value that holds for the whole trial."""
        self.extra[name] = value

    def __call__(self, record: Mapping[str, Any]) -> None:
        if record["epoch"] < self.known:
            self.history.append(record)
            return
        if "setup_seconds" not in self.extra:
            seconds = time.perf_counter() - self.started - float(record.get("seconds", 0.0))
            cpu = time.process_time() - self.cpu - float(record.get("cpu_seconds", 0.0))
            self.extra |= {"setup_seconds": round(max(0.0, seconds), 3), "setup_cpu_seconds": round(max(0.0, cpu), 3)}
        self.history.append(record)
        known = {**self.extra, **record}
        refuse_unknown([self.objective], [name for name, value in known.items() if _number(value)], "the objectives")
        best = kept(self.history)
        value = math.nan if best is None else float({**self.extra, **best}.get(self.objective, math.nan))
        if not math.isfinite(record["validation_loss"]) or not math.isfinite(value):
            raise DivergedError(f"{self.objective} became {record.get(self.objective)} in epoch {record['epoch']}")
        tune.report({COST: self.sign * value, EPOCHS: record["epoch"] + 1, "record": dict(record), "extra": self.extra})


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
