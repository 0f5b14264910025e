"""Cores and memory that a Slurm job may use of its node, which not every site confines it to."""

from __future__ import annotations

import os


def job_cores() -> int | None:
    """Cores of this job on this node; None outside a job."""
    return _number("SLURM_CPUS_ON_NODE")


def job_memory() -> int | None:
    """Bytes of memory of this job on this node; None outside a job, and where the job may use all."""
    if (whole := _number("SLURM_MEM_PER_NODE")) is not None:
        return whole * 2**20
    each, cores = _number("SLURM_MEM_PER_CPU"), job_cores()
    return None if each is None or cores is None else each * cores * 2**20


def _number(name: str) -> int | None:
    """A variable that is a whole number above 0."""
    text = os.environ.get(name, "")
    return int(text) or None if text.isdecimal() else None
