"""The bounded window of units that all distributed work goes through."""

from __future__ import annotations

import contextlib
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from distributed import CancelledError, Client, KilledWorker, as_completed
from distributed.core import CommClosedError

from astroml_plugin.compute.cluster.clients import check_client, may_restart_workers
from astroml_plugin.compute.cluster.groups import LONGEST, Answer, Line, in_lane
from astroml_plugin.compute.cluster.outcomes import Item, Outcome, Settled, UnitTimeoutError, WorkerDiedError
from astroml_plugin.compute.cluster.places import NOBODY, place_of, wait_for_worker
from astroml_plugin.compute.cluster.watching import Flight, Watch
from astroml_plugin.core.errors import AstromlError

IO_LANES = 2
"""Units per worker that read or write while others compute."""

_TRIES_IN_JOBS = 5
"""Deaths of its worker after which a unit is given up in a batch system, which ends jobs that did nothing wrong."""

_NEWS = 0.5
"""Seconds after which the scheduler is asked again which workers there are."""

_LOOKS = 10
"""Rounds over all workers for one that answers."""

_PATIENCE = 10.0
"""Seconds that a worker has for its answer."""

_GLANCE = 1.0
"""Seconds after which a result that does not come is looked at."""

_START, _RESTART = 60.0, 120.0
"""Seconds that a first worker has to join, and a new one after the others have died."""

_GONE = "the Dask scheduler went away: run the same command again, finished units are kept"

UNIT_TIMEOUT = 3600.0
"""Seconds after which a unit, a matter of seconds, is taken to hang."""


@dataclass
class _Window:
    """The units in flight, and where."""

    client: Client
    function: Callable[[Any], Any]
    io_lanes: int
    timeout: float | None
    line: Line = field(default_factory=lambda: Line(iter(())))
    inflight: dict[Any, Flight] = field(default_factory=dict)
    load: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    lanes_of_all: int = 0
    _free: list[tuple[int, str]] = field(default_factory=list)
    """Heap of (-free lanes, worker); an entry counts while the number is still right."""
    _seen: float = 0.0

    def __post_init__(self) -> None:
        self.watch = Watch(self.client, self.timeout, self.inflight)

    def refresh(self) -> None:
        """See which workers there are now; workers that joined get their share of the window."""
        self._set(dict(self.client.nthreads()))

    def _set(self, threads: dict[str, int]) -> None:
        """Take these workers for those there are."""
        self.threads = threads
        self.lanes_of_all = sum(map(self.lanes, self.threads))
        self._free = [(-free, address) for address in self.threads if (free := self._free_lanes(address)) > 0]
        heapq.heapify(self._free)
        self._seen = time.monotonic()

    def refresh_sometimes(self) -> None:
        """See which workers there are when that is known for some time."""
        if time.monotonic() - self._seen > _NEWS:
            self.refresh()

    def wait_for_worker(self, seconds: float) -> None:
        """Wait until there is a worker; AstromlError where there is none after so many seconds."""
        self._set(wait_for_worker(self.client, seconds))

    def lanes(self, address: str) -> int:
        return self.threads[address] + self.io_lanes

    def _free_lanes(self, address: str) -> int:
        """Tasks that a worker may have more: one beyond its lanes hides the latency."""
        return self.lanes(address) + 1 - self.load.get(address, 0) if address in self.threads else 0

    def free_worker(self) -> str | None:
        """The worker with the most free lanes; None when all are full."""
        while self._free:
            free, address = self._free[0]
            if -free == self._free_lanes(address):
                return address
            heapq.heappop(self._free)
        return None

    def _book(self, address: str, change: int) -> None:
        self.load[address] = self.load.get(address, 0) + change
        if (free := self._free_lanes(address)) > 0:
            heapq.heappush(self._free, (-free, address))

    def submit(self, items: tuple[Any, ...], address: str, *, anywhere: bool = True) -> Any:
        future = self.client.submit(
            in_lane,
            self.function,
            items,
            self.lanes(address),
            self.line.seconds(self.lanes_of_all),
            pure=False,
            workers=[address],
            allow_other_workers=anywhere,
        )
        self.inflight[future] = Flight(items, address, self.watch.clock())
        self._book(address, 1)
        return future

    def finish(self, future: Any) -> None:
        self._book(self.inflight.pop(future).address, -1)

    def recall(self, future: Any) -> Settled:
        """Outcomes of an overdue task: its units are tried alone where its worker was started again.

        The workers of others are left alone. A thread cannot be stopped: the task keeps its place in the window. Of
        several units nobody knows which one hangs.
        """
        flight = self.inflight[future]
        if may_restart_workers(self.client):
            if flight.address in self.client.nthreads():  # not yet, for another unit
                self.client.restart_workers([flight.address], raise_for_error=False)
            return Settled(orphans=flight.items)
        self._book(flight.address, 1)
        if len(flight.items) > 1:
            return Settled(orphans=flight.items)
        return Settled([Outcome(flight.items[0], error=self.timed_out())])

    def timed_out(self) -> UnitTimeoutError:
        return UnitTimeoutError(
            f"it took longer than {self.timeout:g} s and was given up: if it only needs longer, give it more time "
            f"(--unit-timeout), else look at its worker and storage"
        )


def run_window(
    client: Client,
    function: Callable[[Any], Any],
    items: Iterable[Item],
    *,
    io_lanes: int = IO_LANES,
    timeout: float | None = None,
    total: int | None = None,
    survived: Callable[[Any], Any] | None = None,
) -> Iterator[Outcome[Item]]:
    """Run `function(item)` for every item on the client's workers and yield each outcome as it completes.

    The number of units in flight follows the workers as they join and leave, so memory does not grow with the number
    of items. Short units travel in groups (`groups`). A unit whose worker is killed is tried again alone, so that
    innocent neighbours are not blamed; a second death is its outcome. A unit that hangs costs its worker on a cluster
    that `connect` started, is tried again alone and given up when it hangs again; elsewhere it is given up at once, or,
    where it was in a group, when it hangs again. An exception of `function` is an outcome.

    Args:
        client: Dask client; workers that `connect` did not start are never restarted.
        function: module-level function or `functools.partial` of one, small enough to travel with every unit.
        items: small descriptors, taken only as fast as they are worked on.
        io_lanes: units per worker on top of its threads, for reading and writing while others compute.
        timeout: seconds from submission after which a unit hangs; None waits for ever.
        total: number of items at most, so that the last ones are spread over all lanes; None where it is not known.
        survived: the value of a unit that was finished before its worker died, None where it was not: it is not done
            again then.

    Raises:
        AstromlError: the scheduler went away, or no worker is left. What was finished stays finished.
    """
    check_client(client)
    line = Line(iter(items), total, LONGEST if timeout is None else timeout / 4)
    window = _Window(client, function, io_lanes, timeout, line)
    with window.watch.going_on():
        try:
            yield from _outcomes(window, survived)
        except CommClosedError as error:
            raise AstromlError(_GONE) from error


def _outcomes(window: _Window, survived: Callable[[Any], Any] | None) -> Iterator[Outcome[Any]]:
    client = window.client
    window.wait_for_worker(_START)
    completed = as_completed(loop=client.loop, with_results=False)
    orphans: deque[Any] = deque()
    try:
        while True:
            exhausted = False
            while not exhausted and (address := window.free_worker()) is not None:
                if group := window.line.group(window.lanes_of_all):
                    completed.add(window.submit(group, address))
                exhausted = not group
            if not window.inflight:
                if exhausted:
                    break
                if not (place_of(client).patient or may_restart_workers(client)):
                    raise AstromlError(NOBODY)
                window.wait_for_worker(_RESTART)  # the only worker has died, and another one is started
                continue
            future = next(completed)
            settled = _settle(window, future)
            window.finish(future)
            if future in window.watch.unheld and may_restart_workers(client):  # where one death ends a task: not begun
                window.line.give_back(settled.orphans)
            else:
                orphans += settled.orphans
            yield from settled.outcomes
            if settled.orphans:
                window.refresh()
            window.refresh_sometimes()
        while orphans:
            yield _once_more(window, orphans.popleft(), survived)
    finally:
        if window.inflight:
            with contextlib.suppress(Exception):
                client.cancel(list(window.inflight), force=True)


def _settle(window: _Window, future: Any) -> Settled:
    """Outcomes of a completed future; units that were not begun, or cannot be told apart, go back into the line."""
    items = window.inflight[future].items
    if future in window.watch.overdue and future.status != "finished":
        return window.recall(future)
    try:
        answers = _brought(window, future) if future.status in ("finished", "error") else []
    except (KilledWorker, CancelledError):
        return Settled(orphans=items)
    except TimeoutError:  # done, but its worker stands still before it has said how
        return window.recall(future)
    except Exception as error:  # noqa: BLE001 - Dask's own, such as for an answer that cannot travel
        if len(items) == 1:
            return Settled([Outcome(items[0], error=error)])
        window.line.give_back(items, singly=True)
        return Settled()
    if future.status == "finished":
        window.line.heard(answers)
        window.line.give_back(items[len(answers) :])
        told = zip(items, answers, strict=False)
        return Settled([Outcome(item, value=answer.value, error=answer.error) for item, answer in told])
    if window.client.status == "running":  # the result was lost with its worker before it got here
        return Settled(orphans=items)
    raise AstromlError(_GONE)


def _brought(window: _Window, future: Any) -> list[Answer]:
    """The answers of a completed future.

    Raises:
        CancelledError: they were lost with their worker. Dask would do the task again, and may wait for ever: a task
            that was sent to a worker that has gone is not given to the one that comes in its place.
        TimeoutError: its worker stands still.
    """
    end = None if window.timeout is None else time.monotonic() + window.timeout
    glance = _GLANCE
    while True:
        try:
            answers: list[Answer] = future.result(glance)
            return answers
        except TimeoutError:
            glance *= 2  # each try fetches it anew: a large one on a slow line must come through
            if future.status not in ("finished", "error"):
                raise CancelledError(future.key) from None
            if end is not None and time.monotonic() > end:
                raise


def _answering(window: _Window) -> str:
    """The least busy worker that answers.

    One that has just died may still be in the scheduler's list: a unit sent there would be blamed for its death.
    """
    for _ in range(_LOOKS):
        window.wait_for_worker(_RESTART)
        for address in sorted(window.threads, key=lambda a: window.load.get(a, 0)):
            if _answers(window.client, address):
                return address
    raise AstromlError(NOBODY)


def _answers(client: Client, address: str) -> bool:
    """Whether a worker does a task of its own."""
    probe = client.submit(_ready, workers=[address], pure=False)
    try:
        return bool(probe.result(_PATIENCE))
    except Exception:  # noqa: BLE001 - it is gone, stands still, or lacks this package
        probe.cancel(force=True)
        return False


def _ready() -> bool:
    """Answer from a worker that has this package."""
    return True


def _once_more(window: _Window, item: Any, survived: Callable[[Any], Any] | None) -> Outcome[Any]:
    """Outcome of a unit whose worker died: it may have been done before, else it is tried again."""
    value = None if survived is None else survived(item)
    return _alone(window, item) if value is None else Outcome(item, value=value)


def _alone(window: _Window, item: Any) -> Outcome[Any]:
    """Further tries with nothing beside it: one, and a few more where jobs of a batch system end for other reasons."""
    tries = 2 if place_of(window.client).keeper is None else _TRIES_IN_JOBS
    attempt = 2
    while attempt <= tries:
        future = window.submit((item,), _answering(window), anywhere=True)
        try:
            next(as_completed([future], loop=window.client.loop))
            settled = _settle(window, future)
        finally:
            window.finish(future)
        if settled.outcomes:
            (outcome,) = settled.outcomes
            return Outcome(item, value=outcome.value, error=outcome.error, attempts=attempt)
        if future in window.watch.overdue:
            return Outcome(item, error=window.timed_out(), attempts=attempt)
        attempt += future not in window.watch.unheld  # which no worker has seen
    times = "twice" if tries == 2 else f"{tries} times"
    return Outcome(item, error=WorkerDiedError(f"its worker process died {times} while working on it"), attempts=tries)
