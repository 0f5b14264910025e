"""Which shard of a run an element of an array job does, from what batch systems tell their jobs in the environment."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from astroml_plugin.core.errors import InputError

SHARDS = "ASTROML_SHARDS"
"""Environment variable: number of shards, where the batch system does not tell it or tells another one."""

_REMEDY = f"set {SHARDS} to the number of shards, or give --shard I/N"


@dataclass(frozen=True)
class ArraySystem:
    """The environment variables of a batch system's array jobs."""

    name: str
    """The system."""
    index: str
    """Number of the element."""
    count: str | None = None
    """How many elements there are."""
    first: str | None = None
    """Number of the first element, where it need not be 0."""
    last: str | None = None
    """Number of the last element."""
    step: str | None = None
    """Distance of numbers."""
    alone: str | None = None
    """Value of `index` in a job that is no array."""
    element: str | None = None
    """Variable that names the element by job[number], job:number or job-number, and a plain job otherwise."""


SYSTEMS = (
    ArraySystem(
        "Slurm",
        index="SLURM_ARRAY_TASK_ID",
        count="SLURM_ARRAY_TASK_COUNT",
        first="SLURM_ARRAY_TASK_MIN",
        last="SLURM_ARRAY_TASK_MAX",
        step="SLURM_ARRAY_TASK_STEP",
    ),
    ArraySystem("Kubernetes", index="JOB_COMPLETION_INDEX"),
    ArraySystem(
        "AWS Batch", index="AWS_BATCH_JOB_ARRAY_INDEX", count="AWS_BATCH_JOB_ARRAY_SIZE", element="AWS_BATCH_JOB_ID"
    ),
    ArraySystem("Google Batch", index="BATCH_TASK_INDEX", count="BATCH_TASK_COUNT"),
    ArraySystem("PBS", index="PBS_ARRAY_INDEX", element="PBS_JOBID"),
    ArraySystem("Torque", index="PBS_ARRAYID", element="PBS_JOBID"),
    ArraySystem("LSF", index="LSB_JOBINDEX", alone="0"),
    ArraySystem(
        "Grid Engine",
        index="SGE_TASK_ID",
        first="SGE_TASK_FIRST",
        last="SGE_TASK_LAST",
        step="SGE_TASK_STEPSIZE",
        alone="undefined",
    ),
)
"""Batch systems whose array jobs are known."""


def array_shard(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Shard (I, N) of this element of an array job: together the elements do every unit once.

    Elements that are numbered evenly are counted, wherever they begin. With ASTROML_SHARDS the number of the element is
    that of the shard, from 0 or from 1.

    A job that is submitted from within an element inherits its variables, and would do that element's shard alone. So
    Slurm is asked (`scontrol`, where it answers) whether this job is the element; PBS and AWS Batch name it.

    Args:
        environment: instead of that of this process.

    Raises:
        InputError: this is no element of an array job, or of two systems at once; the variables are those of another
            job; or the number of shards is not known, as where a part of an array was submitted again.
    """
    environment = os.environ if environment is None else environment
    found = [one for one in SYSTEMS if environment.get(one.index) not in (None, "", one.alone)]
    if not found:
        names = ", ".join(one.index for one in SYSTEMS)
        raise InputError(f"--shard auto, but this is no element of an array job (none of {names} is set): give I/N")
    if len(found) > 1:
        both = " and ".join(f"{one.index} ({one.name})" for one in found)
        raise InputError(f"--shard auto, but {both} are set: give --shard I/N")
    if other := _other_job(found[0], environment):
        raise InputError(
            f"--shard auto, but {found[0].index} is inherited: {other}; submit an array job, or give --shard I/N"
        )
    return _shard(found[0], environment)


def _other_job(system: ArraySystem, environment: Mapping[str, str]) -> str:
    """In words, why the variables are those of another job; empty where they are this job's, or nobody can tell."""
    index = environment[system.index]
    if system.name == "Slurm":
        return _other_slurm_job(index, environment)
    named = environment.get(system.element or "", "")
    if not named or re.search(rf"\[{re.escape(index)}\]|[:-]{re.escape(index)}(\.|$)", named):
        return ""
    return f"this job is {named}, no element of an array"


def _other_slurm_job(index: str, environment: Mapping[str, str]) -> str:
    array, job = environment.get("SLURM_ARRAY_JOB_ID", ""), environment.get("SLURM_JOB_ID", "")
    if not (array.isdecimal() and index.isdecimal() and job):
        return ""
    told = _slurm_says(f"{array}_{index}", environment)
    if told is None:
        return ""
    record = dict(re.findall(r"(?:^|\s)(JobId|JobState)=(\S+)", told))
    if record.get("JobId") != job:
        return f"element {array}_{index} is not this job, {job}"
    return f"job {job} has ended" if record.get("JobState") in _ENDED else ""


_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
_PATIENCE = 30.0
"""Seconds in which Slurm must answer; without an answer the variables are believed."""


def _slurm_says(job: str, environment: Mapping[str, str]) -> str | None:
    """Slurm's record of a job; empty where it knows of none, None where nobody answers (as within containers)."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, env=dict(environment), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode:
        return "" if "Invalid job id" in told.stderr else None
    return told.stdout


def _shard(system: ArraySystem, environment: Mapping[str, str]) -> tuple[int, int]:
    index = _number(environment, system.index) or 0
    first = _number(environment, system.first) or 0
    last, step = _number(environment, system.last), max(1, _number(environment, system.step) or 1)
    if (told := _number(environment, SHARDS)) is not None:
        return _numbered(system, index, told, (first, last))
    count = _number(environment, system.count)
    if last is not None:
        spanned = (last - first) // step + 1
        if count not in (None, spanned):
            raise InputError(
                f"--shard auto, but the {system.name} array has {count} elements of those from {first} to {last}: "
                f"if it does a part of an earlier array again, set {SHARDS} to the number of that one's shards, else "
                f"give --shard I/N"
            )
        count = spanned
    if count is None:
        raise InputError(f"--shard auto, but {system.name} does not tell how many elements the array has: {_REMEDY}")
    place = (index - first) // step
    if not 0 <= place < count:
        raise InputError(f"--shard auto, but {system.index} is {index} and there are {count} elements: {_REMEDY}")
    return place, count


def _numbered(system: ArraySystem, index: int, shards: int, span: tuple[int, int | None]) -> tuple[int, int]:
    """The shard that has the number of the element."""
    first, last = span
    if shards < 1 or index > shards or (last is not None and last - first >= shards):
        span_told = "" if last is None else f", of an array from {first} to {last}"
        raise InputError(
            f"--shard auto, but {SHARDS} is {shards} and {system.index} is {index}{span_told}: "
            f"number elements from 0 to N - 1 or from 1 to N"
        )
    return index, shards


def _number(environment: Mapping[str, str], name: str | None) -> int | None:
    """A variable that is a whole number; None where it is not set."""
    text = environment.get(name, "") if name else ""
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"--shard auto, but {name} is {text!r}, which is no whole number: give --shard I/N")
    return int(text)
