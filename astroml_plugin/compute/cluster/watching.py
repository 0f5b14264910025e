"""Looks after tasks in flight: those that take too long, those that no worker has, and workers that do not come."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

from astroml_plugin.compute.cluster.places import place_of


@dataclass(frozen=True)
class Flight:
    """Units on their way as one task."""

    items: tuple[Any, ...]
    """The units, in order."""
    address: str
    """Worker that they were sent to."""
    since: float
    """Time of `Watch.clock` at which they were sent."""


@dataclass
class Watch:
    """A thread that calls futures back which would not end otherwise: they end as cancelled."""

    client: Client
    """Client that the futures belong to."""
    timeout: float | None
    """Seconds after which a unit hangs; None: never."""
    inflight: dict[Any, Flight]
    """Tasks that are watched; the caller puts futures in and takes them out."""
    overdue: set[Any] = field(default_factory=set)
    """Futures that were called back because they took too long."""
    unheld: set[Any] = field(default_factory=set)
    """Futures that were called back because no worker had them."""
    alone: float = 0.0
    """Seconds in which there was no worker and jobs were waited for: no unit hangs meanwhile."""
    empty: float = 0.0
    """The last of these seconds, without a break."""
    _missing: set[Any] = field(default_factory=set)
    """Futures that no worker had at the last look."""

    def clock(self) -> float:
        """Seconds that count for units."""
        return time.monotonic() - self.alone

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Meanwhile, tasks that take longer than the timeout, or that no worker has, are called back: they end as
        cancelled."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,), name="unit-timeouts", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, over: threading.Event) -> None:
        limit = self.timeout or math.inf
        looked = time.monotonic()
        while not over.wait(min(1.0, limit / 4)):
            before, looked = looked, time.monotonic()
            called = self._all() if self.is_lost(looked - before) else self._late(limit) + self._nowhere()
            for future in called:
                with contextlib.suppress(Exception):  # the scheduler has gone: the main thread says so
                    future.cancel(force=True)

    def _late(self, limit: float) -> list[Any]:
        """Units that take longer than the limit, which now count as overdue."""
        late = self.clock() - limit
        called = [f for f, flight in self.inflight.copy().items() if flight.since < late and not f.done()]
        self.overdue.update(called)
        return called

    def _all(self) -> list[Any]:
        return [future for future in self.inflight.copy() if not future.done()]

    def _nowhere(self) -> list[Any]:
        """Tasks that no worker has, at two looks one after the other.

        A task that is sent to a worker at the moment when it dies, while no other is there, is never given to the one
        that comes in its place: Dask looks for others only when the task is sent (distributed 2026.7).
        """
        try:
            threads = self.client.nthreads()
            missing = {
                future
                for future, flight in self.inflight.copy().items()
                if flight.address not in threads and not future.done()
            }
            if missing:
                held = {key for keys in self.client.processing().values() for key in keys}
                missing = {future for future in missing if future.key not in held}
        except Exception:  # noqa: BLE001 - the scheduler has gone: the main thread says so
            return []
        twice, self._missing = missing & self._missing, missing
        self.unheld.update(twice)
        return list(twice)

    def is_lost(self, seconds: float) -> bool:
        """Whether units wait for workers that will not come; counts the seconds in which a patient place had none."""
        place = place_of(self.client)
        if not place.patient or self._has_workers():
            self.empty = 0.0
            return False
        self.empty += seconds
        self.alone += seconds
        none_comes = place.keeper is not None and bool(place.keeper.problem)
        return none_comes or self.empty > (place.worker_timeout or math.inf)

    def _has_workers(self) -> bool:
        try:
            return bool(self.client.nthreads())
        except Exception:  # noqa: BLE001 - the scheduler has gone: the main thread says so
            return True
