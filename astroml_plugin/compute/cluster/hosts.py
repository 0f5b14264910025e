"""Workers of one host that compete for the same cores: not those of other sockets, nor those of other jobs."""

from __future__ import annotations

import os
from collections.abc import Iterable

from astroml_plugin.compute.job_limits import job_cores

Claim = tuple[str, tuple[int, ...]]
"""The Slurm job that counts a process's cores (empty: none does), and numbers of the cores that it is bound to."""


def own_claim() -> Claim:
    """Cores that this process may run on."""
    job = os.environ.get("SLURM_JOB_ID", "") if job_cores() is not None else ""
    return job, tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def competing(workers: Iterable[tuple[str, Claim]]) -> dict[Claim, int]:
    """Claim -> workers that share its cores, itself among them, on the host that has most.

    Workers of GPUs are often bound to the socket beside their GPU: those of the other socket take nothing from it.

    Args:
        workers: host and claim of each worker.
    """
    hosts: dict[str, list[Claim]] = {}
    for host, claim in workers:
        hosts.setdefault(host, []).append(claim)
    counts: dict[Claim, int] = {}
    for claims in hosts.values():
        for claim in set(claims):
            beside = sum(_compete(claim, other) for other in claims)
            counts[claim] = max(beside, counts.get(claim, 0))
    return counts


def _compete(one: Claim, two: Claim) -> bool:
    return one[0] == two[0] and (one == two or not set(one[1]).isdisjoint(two[1]))
