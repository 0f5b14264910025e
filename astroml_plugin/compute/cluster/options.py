"""Where distributed work runs, as the command line, a file and Python say it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from astroml_plugin.core.errors import InputError


@dataclass(frozen=True)
class ClusterOptions:
    """Where the work runs, and what jobs of a batch system are given."""

    scheduler: str = "local"
    """Where the work runs, if no client is given: "local", "processes", "cuda", a batch system ("slurm", "pbs", "lsf",
    "sge") or a scheduler's address."""
    workers: int | None = None
    """Worker processes of a cluster that is started here; jobs of a batch system."""
    threads: int | None = None
    """Threads per worker."""
    worker_timeout: float | None = None
    """Seconds to wait while there is no worker; default 60 for the first one, and in a batch system as long as jobs are
    queued."""
    job_walltime: str | None = None
    """Time that a job may take, HH:MM:SS or D-HH:MM:SS; its worker leaves before, and another job follows."""
    job_memory: int | None = None
    """Memory of a job (in Python bytes, on the command line GB)."""
    job_cores: int | None = None
    """Cores of a job."""
    partition: str | None = None
    """Partition or queue that jobs are submitted to."""
    gpus: int | None = None
    """GPUs of a job: 1."""

    def __post_init__(self) -> None:
        check_counts(self.workers, self.threads)
        for name, number in (("job-cores", self.job_cores), ("job-memory", self.job_memory)):
            if number is not None and number < 1:
                raise InputError(f"--{name} of {number}: give more than 0, or leave it out")
        if self.worker_timeout is not None and not 0 < self.worker_timeout < math.inf:
            raise InputError(f"--worker-timeout of {self.worker_timeout} s: give seconds above 0, or leave it out")
        if self.gpus not in (None, 1):
            raise InputError(f"--gpus {self.gpus}: a worker uses one GPU, so give --gpus 1 and as many --workers")
        if None not in (self.threads, self.job_cores) and self.threads != self.job_cores:
            raise InputError(
                f"--threads {self.threads} and --job-cores {self.job_cores}: a job runs one worker with a thread per "
                f"core, so give one of the two"
            )
        if self.job_walltime is not None:
            walltime_seconds(self.job_walltime)


def check_counts(workers: int | None, threads: int | None) -> None:
    """Raise InputError where a number of workers or threads is below 1; for callers that work before they connect."""
    for name, number in (("workers", workers), ("threads", threads)):
        if number is not None and number < 1:
            raise InputError(f"{number} {name}: give 1 or more, or leave it out")


def walltime_seconds(text: str) -> int:
    """Seconds of HH:MM:SS or D-HH:MM:SS.

    Raises:
        InputError: it reads otherwise, or is 0.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d)", text.strip())
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    if not (total := ((days * 24 + hours) * 60 + minutes) * 60 + seconds):
        raise InputError(f"walltime {text!r} must read HH:MM:SS or D-HH:MM:SS, for example 04:00:00")
    return total
