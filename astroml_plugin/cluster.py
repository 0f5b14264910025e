"""Dask clients for every kind of place, and the bounded window of units that all distributed work goes through."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import dask
from distributed import CancelledError, Client, KilledWorker, LocalCluster, as_completed, get_worker, secede
from distributed.core import CommClosedError

from astroml_plugin.errors import AstromlError, InputError
from astroml_plugin.storage import redact

Item = TypeVar("Item")

IO_LANES = 2
"""Units per worker that read or write while others compute."""

_LOOPBACK = "127.0.0.1"
_LOOPBACK_ONLY = {"dashboard_address": f"{_LOOPBACK}:0", "worker_dashboard_address": f"{_LOOPBACK}:0"}
"""Dask starts web servers also where none is asked for, and would open them to every interface."""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_counts(workers: int | None, threads: int | None) -> None:
    """Raise InputError where a number of workers or threads is below 1; for callers that work before they connect."""
    for name, number in (("workers", workers), ("threads", threads)):
        if number is not None and number < 1:
            raise InputError(f"{number} {name}: give 1 or more, or leave it out")


@contextlib.contextmanager
def connect(scheduler: str = "local", *, workers: int | None = None, threads: int | None = None) -> Iterator[Client]:
    """A Dask client for `scheduler`; what was started here is stopped at the end, what was there stays.

    Args:
        scheduler: "local" (threads of this process), "processes", "cuda" (one process per GPU), "slurm" or an address.
        workers: worker processes (default: one for local, one per core for processes, one per GPU for cuda).
        threads: compute threads per worker.

    Raises:
        InputError: the scheduler cannot be reached, what it needs is not installed, or a number is below 1.
    """
    check_counts(workers, threads)
    # On clusters of our own one death is enough to hand a unit back: the driver retries it alone.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), contextlib.ExitStack() as stack:
        if scheduler in _STARTERS:
            cluster = _STARTERS[scheduler](workers, threads)
            stack.callback(_close, cluster)
            client = Client(cluster)
        else:
            client = _join(scheduler)
        stack.callback(_close, client)
        yield client


def _close(started: Any) -> None:
    """Stop a client or cluster; that it takes too long on a busy machine takes nothing from what was done."""
    with contextlib.suppress(OSError, CommClosedError):  # a TimeoutError is an OSError
        started.close()


def _join(address: str) -> Client:
    if "://" not in address and ":" not in address:
        known = ", ".join(_STARTERS)
        raise InputError(f"scheduler {address!r} is neither one of {known} nor an address such as tcp://host:8786")
    try:
        return Client(address, timeout="10s")
    except (OSError, TimeoutError, ValueError, CommClosedError) as error:
        raise InputError(
            f"no Dask scheduler answers at {redact(address)}: start one with `dask scheduler`, or check the address"
        ) from error


def _threaded(workers: int | None, threads: int | None) -> LocalCluster:
    return LocalCluster(
        processes=False,
        n_workers=workers or 1,
        threads_per_worker=threads or max(1, cores() // (workers or 1)),
        memory_limit=0,
        **_LOOPBACK_ONLY,
    )


def _processes(workers: int | None, threads: int | None) -> LocalCluster:
    count = workers or cores()
    return LocalCluster(
        host=_LOOPBACK,
        n_workers=count,
        threads_per_worker=threads or max(1, cores() // count),
        memory_limit=0,
        **_LOOPBACK_ONLY,
    )


def _cuda(workers: int | None, threads: int | None) -> Any:
    remedy = "install the extra with pip install 'astroml-plugin[cuda]' on a Linux machine with an NVIDIA driver"
    try:
        from dask_cuda import LocalCUDACluster

        return LocalCUDACluster(n_workers=workers, threads_per_worker=threads or 1, host=_LOOPBACK, **_LOOPBACK_ONLY)
    except Exception as error:  # every way in which CUDA can be absent
        raise InputError(f"no CUDA cluster can be started here ({type(error).__name__}): {remedy}") from error


def _slurm(workers: int | None, threads: int | None) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise InputError("scheduler slurm needs dask-jobqueue: pip install 'astroml-plugin[slurm]'") from error
    settings = {} if threads is None else {"cores": threads, "processes": 1}
    cluster = SLURMCluster(**settings)
    cluster.scale(jobs=workers or 1)
    return cluster


_STARTERS: dict[str, Callable[[int | None, int | None], Any]] = {
    "local": _threaded,
    "processes": _processes,
    "cuda": _cuda,
    "slurm": _slurm,
}


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of one unit of work."""

    item: Item
    """The unit, as given."""
    value: Any = None
    """What the function returned; None after an error."""
    error: BaseException | None = None
    """Why it failed; None when it did not."""
    attempts: int = 1
    """How often it was started."""


class WorkerDiedError(AstromlError):
    """A unit whose worker process died twice while it was being worked on."""


_lane_lock = threading.Lock()
_lanes: dict[str, threading.BoundedSemaphore] = {}


def _in_lane(function: Callable[[Any], Any], item: Any, lanes: int) -> Any:
    """Run on a worker outside its thread pool, so that I/O lanes come on top of its compute threads."""
    worker = get_worker()
    if worker.state.nthreads < lanes:
        secede()
    with _lane_lock:
        lane = _lanes.setdefault(f"{worker.address}/{lanes}", threading.BoundedSemaphore(lanes))
    with lane:
        try:
            return function(item)
        except Exception as error:  # noqa: BLE001 - a bad unit is an outcome; the driver decides what it means
            return _Failure(_portable(error))


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


@dataclass
class _Window:
    """The units in flight, and where."""

    client: Client
    function: Callable[[Any], Any]
    io_lanes: int
    inflight: dict[Any, tuple[Any, str]] = field(default_factory=dict)
    load: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)

    def refresh(self) -> None:
        """See which workers there are now; workers that joined get their share of the window."""
        self.threads = dict(self.client.nthreads())

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
        self.inflight[future] = (item, address)
        self.load[address] = self.load.get(address, 0) + 1
        return future

    def finish(self, future: Any) -> Any:
        item, address = self.inflight.pop(future)
        self.load[address] -= 1
        return item


def run_window(
    client: Client, function: Callable[[Any], Any], items: Iterable[Item], *, io_lanes: int = IO_LANES
) -> Iterator[Outcome[Item]]:
    """Run `function(item)` for every item on the client's workers and yield each outcome as it completes.

    The number of units in flight follows the workers as they join and leave, so memory does not grow with the number
    of items. A unit whose worker is killed is tried again alone, so that innocent neighbours are not blamed; a
    second death is its outcome. An exception of `function` is an outcome, not an end.

    Args:
        client: Dask client; its workers are never restarted.
        function: module-level function or `functools.partial` of one, small enough to travel with every unit.
        items: small descriptors, taken only as fast as they are worked on.
        io_lanes: units per worker on top of its threads, for reading and writing while others compute.

    Raises:
        AstromlError: the scheduler went away. What was finished stays finished.
    """
    window = _Window(client, function, io_lanes)
    window.refresh()
    if not window.threads:
        client.wait_for_workers(1, timeout=60)
        window.refresh()
    completed = as_completed(with_results=False)
    orphans: deque[Any] = deque()
    source = iter(items)
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
                raise AstromlError("all Dask workers are gone: start workers and run the same command again")
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
    item, _ = window.inflight[future]
    try:
        value = future.result() if future.status in ("finished", "error") else None
    except (KilledWorker, CancelledError):
        return None
    if future.status == "finished":
        return Outcome(item, error=value.error) if isinstance(value, _Failure) else Outcome(item, value=value)
    if window.client.status == "running":  # the result was lost with its worker before it got here
        return None
    raise AstromlError("the Dask scheduler went away: run the same command again, finished units are kept")


def _alone(window: _Window, item: Any) -> Outcome[Any]:
    """A second and last try with nothing beside it."""
    window.client.wait_for_workers(1, timeout=120)
    window.refresh()
    address = min(window.threads, key=lambda a: window.load.get(a, 0))
    future = window.submit(item, address, anywhere=True)
    try:
        next(as_completed([future]))
        outcome = _settle(window, future)
    finally:
        window.finish(future)
    if outcome is None:
        return Outcome(item, error=WorkerDiedError("its worker process died twice while working on it"), attempts=2)
    return Outcome(item, value=outcome.value, error=outcome.error, attempts=2)
