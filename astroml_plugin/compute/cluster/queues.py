"""Batch systems whose jobs are Dask workers, through dask-jobqueue: what each is told, and how its jobs are listed."""

from __future__ import annotations

import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask

from astroml_plugin.compute.cluster.jobs import JobKeeper
from astroml_plugin.compute.cluster.options import ClusterOptions, walltime_seconds
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.private import user_name

_LOOPBACK = "127.0.0.1:0"
_MARGIN, _LONGEST_MARGIN = 0.2, 300.0
"""Part of the walltime, and at most seconds, that a worker leaves before it ends."""
_PRELOAD = "astroml_plugin.preload"


@dataclass(frozen=True)
class Queue:
    """A batch system."""

    name: str
    """Name for `--scheduler`, and in dask-jobqueue's settings."""
    cluster: str
    """Class of dask-jobqueue."""
    listing: tuple[str, ...]
    """Command that lists this user's jobs that have not ended."""
    line: str
    """Regular expression of a line of the list, with groups id, state and perhaps reason."""
    ended: tuple[str, ...] = ()
    """States in the list of jobs that have ended all the same."""
    empty: str = "(?!)"
    """Regular expression of what the command says on stderr, with an exit status, where there is no job."""
    gpu: str = ""
    """Directive that asks for one GPU; empty: sites differ."""
    minutes: bool = False
    """Whether walltimes read HH:MM."""

    @property
    def settings(self) -> dict[str, Any]:
        """Values of Dask's configuration for this system."""
        return dict(dask.config.get(f"jobqueue.{self.name}", {}) or {})


QUEUES = {
    queue.name: queue
    for queue in (
        Queue(
            "slurm",
            "SLURMCluster",
            ("squeue", f"--user={os.getuid()}", "--noheader", "--format=%i %T %r"),
            r"(?P<id>\d+) (?P<state>\S+) (?P<reason>.*)",
            ended=("COMPLETING",),
            gpu="--gres=gpu:1",
        ),
        Queue(
            "pbs",
            "PBSCluster",
            ("qstat", "-u", user_name()),
            r"(?P<id>\d+)\S*\s+(?:\S+\s+){8}(?P<state>[A-Z])\s",
            ended=("C", "E", "F", "X"),
        ),
        Queue(
            "lsf",
            "LSFCluster",
            ("bjobs", "-w"),
            r"(?P<id>\d+)\s+\S+\s+(?P<state>[A-Z]+)\s",
            ended=("DONE", "EXIT"),
            empty="No unfinished job",
            gpu='-gpu "num=1"',
            minutes=True,
        ),
        Queue(
            "sge",
            "SGECluster",
            ("qstat", "-u", user_name()),
            r"\s*(?P<id>\d+)\s+\S+\s+\S+\s+\S+\s+(?P<state>\S+)\s",
        ),
    )
}
"""By the name of the scheduler: batch systems that worker jobs are submitted to."""


def check_queue(options: ClusterOptions) -> None:
    """Check what a batch system needs, before anything is submitted.

    Raises:
        InputError: dask-jobqueue or the system's command is not here, or nothing says what a job may use.
    """
    queue = QUEUES[options.scheduler]
    command = _class_of(queue).job_cls.submit_command.split()[0]
    if shutil.which(command) is None:
        raise InputError(
            f"scheduler {queue.name} needs the command {command}, which is not here: run on a login node of the cluster"
        )
    known = {"cores": options.job_cores or options.threads, "memory": options.job_memory}
    lacking = [name for name, value in known.items() if value is None and queue.settings.get(name) is None]
    if lacking:
        flags = {"cores": "--job-cores N", "memory": "--job-memory GB"}
        where = f"~/.config/dask/jobqueue.yaml (jobqueue.{queue.name}.{'/'.join(lacking)})"
        raise InputError(
            f"scheduler {queue.name} must know what a job may use: "
            f"give {' and '.join(flags[name] for name in lacking)}, or write it to {where}"
        )


def start_queue(options: ClusterOptions) -> Any:
    """A cluster whose workers are jobs; jobs that end are replaced as long as it is open.

    Raises:
        InputError: as in `check_queue`, or the system refuses the jobs.
    """
    check_queue(options)
    queue = QUEUES[options.scheduler]
    cluster = _class_of(queue)(security=True, **_settings(queue, options))
    try:
        cluster.keeper = JobKeeper(cluster, queue.listing, re.compile(queue.line), queue.ended, re.compile(queue.empty))
        cluster.keeper.start(options.workers or 1)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _class_of(queue: Queue) -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        raise InputError(f"scheduler {queue.name} needs dask-jobqueue: pip install 'astroml-plugin[slurm]'") from error
    return getattr(dask_jobqueue, queue.cluster)


def _settings(queue: Queue, options: ClusterOptions) -> dict[str, Any]:
    """Arguments of dask-jobqueue's cluster: ours over those of Dask's configuration."""
    given: dict[str, Any] = {"processes": 1}
    if (cores := options.job_cores or options.threads) is not None:
        given["cores"] = cores
    if options.job_memory is not None:
        given["memory"] = f"{options.job_memory}B"
    if options.partition is not None:
        given["queue"] = options.partition
    seconds = _walltime(queue, options)
    if options.job_walltime is not None and seconds is not None:
        given["walltime"] = _as_text(seconds, minutes=queue.minutes)
    if options.gpus:
        given |= _gpu(queue, given)
    if queue.settings.get("shared-temp-directory") is None:
        given["shared_temp_directory"] = str(Path.home())  # on every node; the files in it are their owner's alone
    # Dask starts web servers also where none is asked for, and would open them to every interface.
    given["scheduler_options"] = {"dashboard_address": _LOOPBACK, **(queue.settings.get("scheduler-options") or {})}
    given["worker_extra_args"] = _worker_arguments(list(queue.settings.get("worker-extra-args") or ()), seconds)
    return given


def _worker_arguments(own: list[str], walltime: float | None) -> list[str]:
    """Arguments of `dask worker`: those of the site, and ours where it says nothing of them."""
    words = [*own]
    if "--dashboard-address" not in own:
        words += ["--dashboard-address", _LOOPBACK]
    if walltime is not None and "--lifetime" not in own:
        margin = min(_MARGIN * walltime, _LONGEST_MARGIN)
        words += ["--lifetime", f"{walltime - margin:.0f}s", "--lifetime-stagger", f"{margin / 3:.0f}s"]
    return [*words, "--preload", _PRELOAD]


def _gpu(queue: Queue, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments that ask for a GPU."""
    if queue.gpu:
        return {"job_extra_directives": [*(queue.settings.get("job-extra-directives") or ()), queue.gpu]}
    if queue.name == "pbs" and queue.settings.get("resource-spec") is None and {"cores", "memory"} <= given.keys():
        memory = math.ceil(int(given["memory"][:-1]) / 2**20)
        return {"resource_spec": f"select=1:ncpus={given['cores']}:ngpus=1:mem={memory}mb"}
    where = {"pbs": "resource-spec"}.get(queue.name, "job-extra-directives")
    raise InputError(
        f"--gpus 1 cannot be told to {queue.name} here: leave it away and ask for a GPU in "
        f"jobqueue.{queue.name}.{where} of ~/.config/dask/jobqueue.yaml"
    )


def _walltime(queue: Queue, options: ClusterOptions) -> float | None:
    """Seconds that a job may take, where they can be told."""
    if options.job_walltime is not None:
        return walltime_seconds(options.job_walltime)
    return configured_seconds(str(queue.settings.get("walltime") or ""), minutes=queue.minutes)


def configured_seconds(text: str, *, minutes: bool = False) -> float | None:
    """Seconds of a walltime as sites write it: [D-]HH:MM:SS and D-HH[:MM]; two numbers are MM:SS, or HH:MM.

    Args:
        text: the walltime.
        minutes: whether the last number is of minutes where there are one or two.

    Returns:
        None where it reads otherwise.
    """
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return None
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        parts = [*parts, 0, 0][:3]
    elif len(parts) < 3 and (minutes or len(parts) == 1):
        parts = [0, *parts, 0][-3:]
    seconds = sum(part * scale for part, scale in zip(reversed(parts), (1, 60, 3600), strict=False))
    return float(seconds + 86400 * int(days or 0)) or None


def _as_text(seconds: float, *, minutes: bool) -> str:
    whole = math.ceil(seconds / 60) * 60 if minutes else int(seconds)
    text = f"{whole // 3600:02d}:{whole // 60 % 60:02d}"
    return text if minutes else f"{text}:{whole % 60:02d}"
