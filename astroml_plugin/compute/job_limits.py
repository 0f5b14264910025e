"""Cores and memory that this process may use of its machine: what a job has, and what control groups allow."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def job_cores() -> int | None:
    """Cores of this Slurm job on this node; None outside a job. Not every site confines jobs to them."""
    return _number("SLURM_CPUS_ON_NODE")


def job_memory() -> int | None:
    """Bytes of memory of this Slurm job on this node; None outside a job, and where the job may use all.

    The smaller one, where a job has both limits: one of them is then that of the job which submitted it.
    """
    whole, each, cores = _number("SLURM_MEM_PER_NODE"), _number("SLURM_MEM_PER_CPU"), job_cores()
    limits = [] if whole is None else [whole]
    limits += [] if each is None or cores is None else [each * cores]
    return min(limits) * 2**20 if limits else None


def group_cores() -> int | None:
    """Cores whose time control groups give this process, rounded up; None where they set no limit.

    Containers are held so (`docker run --cpus`, limits of Kubernetes): all cores are seen, and time on few is given.
    """
    folders = {_GROUPS, _GROUPS / "cpu", *_own_groups()}
    limits = [limit for folder in folders if (limit := _quota(folder)) is not None]
    return max(1, math.ceil(min(limits))) if limits else None


def _own_groups() -> list[Path]:
    """Folders of this process's groups and of those around them, of either version of control groups."""
    found = []
    try:
        lines = _MINE.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "cpu" in controllers.split(","):
            top = _GROUPS / "cpu" if controllers else _GROUPS
            own = Path(path.lstrip("/"))
            found += [top / part for part in (own, *own.parents)]
    return found


def _quota(folder: Path) -> float | None:
    """Cores that a group may use, as a fraction; None without a limit."""
    try:
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 and float(period) > 0 else None
    except (OSError, ValueError):  # "max", or another system
        return None


def _number(name: str) -> int | None:
    """A variable that is a whole number above 0."""
    text = os.environ.get(name, "")
    return int(text) or None if text.isdecimal() else None
