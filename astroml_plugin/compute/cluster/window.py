"""The bounded window of units that all distributed work goes through."""

from __future__ import annotations

import contextlib
import math
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from distributed import CancelledError, Client, KilledWorker, as_completed, get_worker, secede
from distributed.core import CommClosedError

from astroml_plugin.compute.cluster.clients import check_client, may_restart_workers
from astroml_plugin.compute.cluster.places import NOBODY, place_of, wait_for_worker
from astroml_plugin.core.errors import AstromlError

Item = TypeVar("Item")

IO_LANES = 2
"""Units per worker that read or write while others compute."""

_TRIES_IN_JOBS = 5
"""Deaths of its worker after which a unit is given up in a batch system, which ends jobs that did nothing wrong."""

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


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """Result or error of one unit of work."""

    item: Item
    """The unit, as given."""
    value: Any = None
    """Value that the function returned; None after an error."""
    error: BaseException | None = None
    """Why it failed; None when it did not."""
    attempts: int = 1
    """Number of times it was started."""


class WorkerDiedError(AstromlError):
    """A unit whose worker process died twice while it was being worked on."""


class UnitTimeoutError(AstromlError):
    """A unit that did not come to an end in the time it was given."""


PROFILER_DEADLOCKS = sys.version_info < (3, 11, 9)
"""Dask's profiler looks at all threads' frames. Before Python 3.11.9 that can stop the interpreter for good while a
thread ends, which here happens after every unit (python/cpython#106883, dask/distributed#8616)."""

_lane_lock = threading.Lock()
_lanes: dict[str, threading.BoundedSemaphore] = {}


def _in_lane(function: Callable[[Any], Any], item: Any, lanes: int) -> Any:
    """Run on a worker outside its thread pool, so that I/O lanes come on top of its compute threads."""
    worker = get_worker()
    if worker.state.nthreads < lanes:
        secede()
    with _lane(worker, lanes):
        try:
            return function(item)
        except Exception as error:  # noqa: BLE001 - a bad unit is an outcome; the driver decides what it means
            return _Failure(_portable(error))


def _lane(worker: Any, lanes: int) -> threading.BoundedSemaphore:
    """Semaphore for the units of a worker that run at once; made at its first unit."""
    key = f"{worker.address}/{lanes}"
    with _lane_lock:
        if key not in _lanes:
            _lanes[key] = threading.BoundedSemaphore(lanes)
            if PROFILER_DEADLOCKS and "profile" in worker.periodic_callbacks:
                worker.loop.add_callback(worker.periodic_callbacks["profile"].stop)
        return _lanes[key]


@dataclass(frozen=True)
class _Failure:
    """An exception on its way back to the driver."""

    error: Exception


def _portable(error: Exception) -> Exception:
    """The error itself where it survives pickling, else its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, made in this line
    except Exception:  # noqa: BLE001 - any error of another library may refuse
        return AstromlError(f"{type(error).__name__}: {error}")
    return error


@dataclass(frozen=True)
class _Flight:
    """A unit on its way."""

    item: Any
    address: str
    since: float


@dataclass
class _Window:
    """The units in flight, and where."""

    client: Client
    function: Callable[[Any], Any]
    io_lanes: int
    timeout: float | None
    inflight: dict[Any, _Flight] = field(default_factory=dict)
    load: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    overdue: set[Any] = field(default_factory=set)
    """Futures that were called back because they took too long."""
    alone: float = 0.0
    """Seconds in which there was no worker and jobs were waited for: no unit hangs meanwhile."""
    empty: float = 0.0
    """The last of these seconds, without a break."""

    def clock(self) -> float:
        """Seconds that count for units."""
        return time.monotonic() - self.alone

    def refresh(self) -> None:
        """See which workers there are now; workers that joined get their share of the window."""
        self.threads = dict(self.client.nthreads())

    def wait_for_worker(self, seconds: float) -> None:
        """Wait until there is a worker; AstromlError where there is none after so many seconds."""
        self.threads = wait_for_worker(self.client, seconds)

    def lanes(self, address: str) -> int:
        return self.threads[address] + self.io_lanes

    def free_worker(self) -> str | None:
        """The worker with the most free lanes; None when all are full. One extra unit each hides the latency."""
        best = max(self.threads, key=lambda a: self.lanes(a) + 1 - self.load.get(a, 0), default=None)
        return best if best is not None and self.load.get(best, 0) <= self.lanes(best) else None

    def submit(self, item: Any, address: str, *, anywhere: bool = True) -> Any:
        future = self.client.submit(
            _in_lane,
            self.function,
            item,
            self.lanes(address),
            pure=False,
            workers=[address],
            allow_other_workers=anywhere,
        )
        self.inflight[future] = _Flight(item, address, self.clock())
        self.load[address] = self.load.get(address, 0) + 1
        return future

    def finish(self, future: Any) -> Any:
        flight = self.inflight.pop(future)
        self.load[flight.address] -= 1
        return flight.item

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Meanwhile, units that take longer than the timeout are called back: their futures end as cancelled."""
        if self.timeout is None and not place_of(self.client).patient:
            yield
            return
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
            called = self._call_back_all() if self._is_lost(looked - before) else self._late(limit)
            for future in called:
                with contextlib.suppress(Exception):  # the scheduler has gone: the main thread says so
                    future.cancel(force=True)

    def _late(self, limit: float) -> list[Any]:
        """Units that take longer than the limit, which now count as overdue."""
        late = self.clock() - limit
        called = [f for f, flight in self.inflight.copy().items() if flight.since < late and not f.done()]
        self.overdue.update(called)
        return called

    def _call_back_all(self) -> list[Any]:
        return [future for future in self.inflight.copy() if not future.done()]

    def _is_lost(self, seconds: float) -> bool:
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

    def recall(self, future: Any) -> Outcome[Any] | None:
        """Outcome of an overdue unit: None when its worker was started again and it may be tried alone.

        The workers of others are left alone. A thread cannot be stopped: the unit keeps its place in the window.
        """
        flight = self.inflight[future]
        if may_restart_workers(self.client):
            if flight.address in self.client.nthreads():  # not yet, for another unit
                self.client.restart_workers([flight.address], raise_for_error=False)
            return None
        self.load[flight.address] += 1
        return Outcome(flight.item, error=self.timed_out())

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
) -> Iterator[Outcome[Item]]:
    """Run `function(item)` for every item on the client's workers and yield each outcome as it completes.

    The number of units in flight follows the workers as they join and leave, so memory does not grow with the number
    of items. A unit whose worker is killed is tried again alone, so that innocent neighbours are not blamed; a
    second death is its outcome. A unit that hangs costs its worker on a cluster that `connect` started, is tried again
    alone and given up when it hangs again; elsewhere it is given up at once. An exception of `function` is an outcome.

    Args:
        client: Dask client; workers that `connect` did not start are never restarted.
        function: module-level function or `functools.partial` of one, small enough to travel with every unit.
        items: small descriptors, taken only as fast as they are worked on.
        io_lanes: units per worker on top of its threads, for reading and writing while others compute.
        timeout: seconds from submission after which a unit hangs; None waits for ever.

    Raises:
        AstromlError: the scheduler went away, or no worker is left. What was finished stays finished.
    """
    check_client(client)
    window = _Window(client, function, io_lanes, timeout)
    with window.watched():
        try:
            yield from _outcomes(window, iter(items))
        except CommClosedError as error:
            raise AstromlError(_GONE) from error


def _outcomes(window: _Window, source: Iterator[Item]) -> Iterator[Outcome[Item]]:
    client = window.client
    window.wait_for_worker(_START)
    completed = as_completed(loop=client.loop, with_results=False)
    orphans: deque[Any] = deque()
    exhausted = False
    count = 0
    try:
        while True:
            while not exhausted and (address := window.free_worker()) is not None:
                try:
                    item = next(source)
                except StopIteration:
                    exhausted = True
                    break
                completed.add(window.submit(item, address))
            if not window.inflight:
                if exhausted:
                    break
                if not (place_of(client).patient or may_restart_workers(client)):
                    raise AstromlError(NOBODY)
                window.wait_for_worker(_RESTART)  # the only worker has died, and another one is started
                continue
            future = next(completed)
            outcome = _settle(window, future)
            if outcome is None:
                orphans.append(window.finish(future))
            else:
                window.finish(future)
                yield outcome
            count += 1
            if count % 16 == 0 or outcome is None:
                window.refresh()
        while orphans:
            yield _alone(window, orphans.popleft())
    finally:
        if window.inflight:
            with contextlib.suppress(Exception):
                client.cancel(list(window.inflight), force=True)


def _settle(window: _Window, future: Any) -> Outcome[Any] | None:
    """The outcome of a completed future; None when its worker died and it must be tried again alone."""
    item = window.inflight[future].item
    if future in window.overdue and future.status != "finished":
        return window.recall(future)
    try:
        value = _brought(window, future) if future.status in ("finished", "error") else None
    except (KilledWorker, CancelledError):
        return None
    except TimeoutError:  # done, but its worker stands still before it has said how
        return window.recall(future)
    except Exception as error:  # noqa: BLE001 - Dask's own, such as for an answer that cannot travel
        return Outcome(item, error=error)
    if future.status == "finished":
        return Outcome(item, error=value.error) if isinstance(value, _Failure) else Outcome(item, value=value)
    if window.client.status == "running":  # the result was lost with its worker before it got here
        return None
    raise AstromlError(_GONE)


def _brought(window: _Window, future: Any) -> Any:
    """The value of a completed future.

    Raises:
        CancelledError: it was lost with its worker. Dask would do the task again, and may wait for ever: a task that
            was sent to a worker that has gone is not given to the one that comes in its place.
        TimeoutError: its worker stands still.
    """
    end = None if window.timeout is None else time.monotonic() + window.timeout
    while True:
        try:
            return future.result(_GLANCE)
        except TimeoutError:
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


def _alone(window: _Window, item: Any) -> Outcome[Any]:
    """Further tries with nothing beside it: one, and a few more where jobs of a batch system end for other reasons."""
    tries = 2 if place_of(window.client).keeper is None else _TRIES_IN_JOBS
    for attempt in range(2, tries + 1):
        future = window.submit(item, _answering(window), anywhere=True)
        try:
            next(as_completed([future], loop=window.client.loop))
            outcome = _settle(window, future)
        finally:
            window.finish(future)
        if outcome is not None:
            return Outcome(item, value=outcome.value, error=outcome.error, attempts=attempt)
        if future in window.overdue:
            return Outcome(item, error=window.timed_out(), attempts=attempt)
    times = "twice" if tries == 2 else f"{tries} times"
    return Outcome(item, error=WorkerDiedError(f"its worker process died {times} while working on it"), attempts=tries)
