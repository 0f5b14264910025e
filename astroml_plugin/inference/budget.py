"""Limit on reading ahead: bytes of pixels that a process holds at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import psutil
from distributed.system import MEMORY_LIMIT

from astroml_plugin.compute.job_limits import job_memory

_SHARE = 0.5
"""Fraction of the free memory for pixels: stamps, the network and its outputs need the rest."""

_workers_here = 1


class ByteBudget:
    """Lets units in while their pixels fit; one that is larger than the whole budget goes in alone.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        """Bytes of the units that are in."""
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Wait until `count` bytes more fit, and hold them inside."""
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + count <= self.limit)
            self.held += count
        try:
            yield
        finally:
            with self._changed:
                self.held -= count
                self._changed.notify_all()


@lru_cache(maxsize=16)
def budget(limit: int | None) -> ByteBudget:
    """The process's budget of `limit` bytes; None: half of what its host has free now, shared among its workers."""
    if limit is None:
        free = min(psutil.virtual_memory().available, MEMORY_LIMIT, job_memory() or MEMORY_LIMIT)
        limit = int(_SHARE * free / _workers_here)
    return ByteBudget(limit)


def share_host(workers: int) -> None:
    """Say that this process is one of so many workers of its host, before its first unit."""
    global _workers_here
    _workers_here = max(1, workers)
    budget.cache_clear()
