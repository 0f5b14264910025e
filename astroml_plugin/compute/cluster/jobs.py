"""Jobs of a batch system that are Dask workers: replaced when they end, and waited for as long as they are queued."""

from __future__ import annotations

import logging
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from distributed.core import Status

from astroml_plugin.core.errors import AstromlError, InputError

_log = logging.getLogger(__name__)

EVERY = 15.0
"""Seconds between two looks at the queue."""

SAY_EVERY = 60.0
"""Seconds between two lines that say what is waited for."""

_ABSENT = 2
"""Looks in which a job must be missing from the queue's list before it has ended: lists may be late."""

_FRUITLESS = 3
"""Jobs per worker that may end in a row before their worker has joined; then no more are submitted."""

_NEVER = "None"
"""Id of a job that was never submitted."""
_SHOWN = 3
_PARTING = 5.0
_PATIENCE = 60.0
"""Seconds that the command which lists jobs may take."""


class JobKeeper:
    """Keeps as many jobs in the queue, or running, as workers are wanted.

    Dask's own `adapt` replaces a job whose worker had joined; one that is cancelled while it is queued, or fails before
    its worker starts, it waits for for ever (dask/dask-jobqueue#691 and others). So this looks at the queue itself.

    Args:
        cluster: of dask-jobqueue, without jobs.
        listing: command that lists this user's jobs.
        line: of a line of its output, with groups id, state and perhaps reason.
        ended: states of jobs that have ended.
        empty: of what the command says on stderr where there is no job.
    """

    def __init__(
        self, cluster: Any, listing: Sequence[str], line: re.Pattern[str], ended: Sequence[str], empty: re.Pattern[str]
    ) -> None:
        self.cluster = cluster
        self.listing, self.line, self.ended, self.empty = listing, line, ended, empty
        self.problem = ""
        """Why no more jobs are submitted; empty while they are."""
        self.replaced = 0
        """Jobs that were submitted in place of others."""
        self._absent: Counter[str] = Counter()
        self._joined: set[str] = set()
        self._fruitless = 0
        self._wanted = 0
        self._spoke = float("-inf")
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="job-keeper", daemon=True)

    def start(self, jobs: int) -> None:
        """Submit so many jobs, and keep that number from now on.

        Raises:
            InputError: the batch system refuses them.
        """
        self._wanted = jobs
        try:
            self.cluster.sync(self._submit)
        except RuntimeError as error:
            for job in self.cluster.workers.values():
                job.status = Status.failed  # else Dask asks why they are not closed
            raise InputError(f"{self._name()} refuses the jobs: {_refusal(error)}") from error
        self._watcher.start()

    def stop(self) -> None:
        """Replace no more jobs."""
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join(_PARTING)

    def check(self) -> None:
        """Raise AstromlError where no worker can come any more."""
        if self.problem:
            raise AstromlError(self.problem)

    async def _submit(self) -> None:
        """Submit all jobs. The cluster's own `scale` does so in the background, where nobody hears of a refusal."""
        while len(self.cluster.worker_spec) < self._wanted:
            self.cluster.worker_spec.update(self.cluster.new_worker_spec())
        await self.cluster

    def _watch(self) -> None:
        while not self._over.wait(min(EVERY, SAY_EVERY)):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the cluster is being closed, or Dask's own trouble: once more
                if not self._over.is_set():
                    _log.warning("looking after the jobs: %s: %s", type(error).__name__, error)

    def look(self) -> None:
        """See which jobs have ended, and submit others in their place."""
        jobs = {name: str(job.job_id) for name, job in list(self.cluster.workers.items())}
        listed = self._list()
        if listed is None:
            return
        here = self._here()
        new = {jobs[name] for name in here if name in jobs} - self._joined
        self._joined |= new
        if new:
            self._fruitless = 0
        if not here and time.monotonic() - self._spoke >= SAY_EVERY:
            self._spoke = time.monotonic()
            _log.warning("waiting for workers: %s", self._told(jobs.values(), listed))
        gone = [name for name, job in jobs.items() if name not in here and self._has_ended(job, listed)]
        if (gone or len(jobs) < self._wanted) and not self.problem:
            self._replace(gone, jobs)

    def _has_ended(self, job: str, listed: dict[str, tuple[str, str]]) -> bool:
        if job in listed and listed[job][0] not in self.ended:
            self._absent.pop(job, None)
            return False
        self._absent[job] += 1
        return self._absent[job] >= _ABSENT or job == _NEVER

    def _replace(self, gone: list[str], jobs: dict[str, str]) -> None:
        self._fruitless += sum(jobs[name] not in self._joined for name in gone)
        if self._fruitless > _FRUITLESS * self._wanted:
            self.problem = (
                f"{self._fruitless} jobs ended before their worker had joined, the last is {jobs[gone[-1]]}: see its "
                f"log, mend that and run the same command again"
            )
            _log.warning("no more jobs are submitted: %s", self.problem)
            return
        try:
            self.cluster.sync(self._submit_in_place_of, gone)
            self.replaced += len(gone) + max(0, self._wanted - len(jobs))
        except RuntimeError as error:  # the queue is full, or does not answer: next time
            _log.warning("%s refuses a job: %s", self._name(), _refusal(error))

    async def _submit_in_place_of(self, gone: list[str]) -> None:
        for name in gone:
            if (job := self.cluster.workers.pop(name, None)) is not None:
                job.status = Status.closed
        await self.cluster

    def _list(self) -> dict[str, tuple[str, str]] | None:
        """Job -> (state, reason) of this user's jobs that have not ended; None where the queue does not answer."""
        try:
            told = subprocess.run(self.listing, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if told.returncode and not self.empty.search(told.stderr):
            return None
        found = (self.line.match(line) for line in told.stdout.splitlines())
        return {one["id"]: (one["state"], one.groupdict().get("reason") or "") for one in found if one}

    def _here(self) -> set[str]:
        """Names of the jobs whose worker has joined."""
        workers = list(self.cluster.scheduler_info.get("workers", {}).values())
        return {str(one["name"]) for one in workers} & set(map(str, self.cluster.workers))

    def _told(self, jobs: Any, listed: dict[str, tuple[str, str]]) -> str:
        states = [(job, *listed.get(job, ("ended", ""))) for job in jobs if job != _NEVER]
        words = [
            f"job {job} {state}{f' ({reason})' if reason not in ('', 'None') else ''}" for job, state, reason in states
        ]
        more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
        return ", ".join(words[:_SHOWN]) + more if words else "no job is queued yet"

    def _name(self) -> str:
        return str(self.cluster.job_cls.config_name)


def _refusal(error: RuntimeError) -> str:
    """The batch system's words, out of dask-jobqueue's several lines."""
    text = str(error)
    said = text.partition("stderr:\n")[2].strip() or text.strip()
    return " ".join(said.split())
