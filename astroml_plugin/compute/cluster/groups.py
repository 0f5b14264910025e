"""Units that travel to a worker together: how many, and their work there.

A task of Dask's costs some milliseconds in client, scheduler and worker, whatever it does. Units that are shorter than
`TARGET` share tasks, so that this cost stays a few per cent of their work. Each unit has its own outcome, and a
task ends when its time is over, also where its units take longer than was foreseen. A process that is killed takes all
units of its tasks with it: those whose rows are there already are not done again, the others go on their way singly.
"""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import get_worker, secede

from astroml_plugin.core.errors import AstromlError

TARGET = 0.1
"""Seconds of work of one task."""

RATE = 100.0
"""Tasks a second that one client and scheduler bear: where there are more lanes than this times `TARGET`, tasks are
longer."""

LONGEST = 30.0
"""Most seconds of a task."""

LARGEST = 128
"""Most units of a task."""

_OVERTIME = 2.0
"""A task that has taken so many times its seconds begins no further unit."""

_MEMORY = 0.05
"""Weight of the newest unit in the mean time of a unit."""

PROFILER_DEADLOCKS = sys.version_info < (3, 11, 9)
"""Dask's profiler looks at all threads' frames. Before Python 3.11.9 that can stop the interpreter for good while a
thread ends, which here happens after every task (python/cpython#106883, dask/distributed#8616)."""

_lane_lock = threading.Lock()
_lanes: dict[str, threading.BoundedSemaphore] = {}


@dataclass(frozen=True)
class Answer:
    """Value or error of one unit of a task, on its way back to the driver."""

    value: Any
    """Value that the function returned; None after an error."""
    error: Exception | None
    """Why it failed; None when it did not."""
    seconds: float
    """Wall seconds it took."""


def in_lane(function: Callable[[Any], Any], items: Sequence[Any], lanes: int, seconds: float) -> list[Answer]:
    """Work on a worker outside its thread pool, so that I/O lanes come on top of its compute threads.

    Args:
        function: does one unit.
        items: the units, in order.
        lanes: tasks that the worker does at once.
        seconds: no further unit begins when twice this time is over; the first always does.

    Returns:
        An answer for each unit that was begun.
    """
    worker = get_worker()
    if worker.state.nthreads < lanes:
        secede()
    with _lane(worker, lanes):
        answers: list[Answer] = []
        begun = time.perf_counter()
        for item in items:
            started = time.perf_counter()
            if answers and started - begun > _OVERTIME * seconds:
                break
            value, error = None, None
            try:
                value = function(item)
            except Exception as caught:  # noqa: BLE001 - a bad unit is an outcome; the driver decides what it means
                error = _portable(caught)
            answers.append(Answer(value, error, time.perf_counter() - started))
        return answers


def _lane(worker: Any, lanes: int) -> threading.BoundedSemaphore:
    """Semaphore for the tasks of a worker that run at once; made at its first task."""
    key = f"{worker.address}/{lanes}"
    with _lane_lock:
        if key not in _lanes:
            _lanes[key] = threading.BoundedSemaphore(lanes)
            if PROFILER_DEADLOCKS and "profile" in worker.periodic_callbacks:
                worker.loop.add_callback(worker.periodic_callbacks["profile"].stop)
        return _lanes[key]


def _portable(error: Exception) -> Exception:
    """The error itself where it survives pickling, else its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, made in this line
    except Exception:  # noqa: BLE001 - any error of another library may refuse
        return AstromlError(f"{type(error).__name__}: {error}")
    return error


@dataclass
class Line:
    """Units that wait, taken in groups whose work takes about `seconds`; those that come back are taken first."""

    source: Iterator[Any]
    total: int | None = None
    """Units of the source at most; None where that is not known."""
    limit: float = LONGEST
    """Most seconds of a group."""
    taken: int = 0
    """Units taken from the source."""
    _mean: float | None = None
    _back: deque[tuple[Any, ...]] = field(default_factory=deque)
    _over: bool = False

    def seconds(self, lanes: int) -> float:
        """Seconds of work of one task, where so many are done at once."""
        return min(max(TARGET, lanes / RATE), LONGEST, self.limit)

    def group(self, lanes: int) -> tuple[Any, ...]:
        """The next units for one task; empty when none are left.

        A source that is slow is not waited for: what it gave goes on its way.

        Args:
            lanes: tasks that are done at once.
        """
        if self._back:
            return self._back.popleft()
        group: list[Any] = []
        size, began = self._size(lanes), time.perf_counter()
        while not self._over and len(group) < size:
            try:
                group.append(next(self.source))
            except StopIteration:
                self._over = True
            if time.perf_counter() - began > TARGET / 4:
                break
        self.taken += len(group)
        return tuple(group)

    def _size(self, lanes: int) -> int:
        """Units of the next group: 1 until it is known how long they take, few when the end is near."""
        if self._mean is None:
            return 1
        size = int(self.seconds(lanes) / max(self._mean, 1e-6))
        if self.total is not None:
            size = min(size, (self.total - self.taken) // (2 * max(1, lanes)))
        return max(1, min(size, LARGEST))

    def heard(self, answers: Sequence[Answer]) -> None:
        """Take note of how long units took."""
        for answer in answers:
            weight = 1.0 if self._mean is None else _MEMORY
            self._mean = (1 - weight) * (self._mean or 0.0) + weight * answer.seconds

    def give_back(self, items: Sequence[Any], *, singly: bool = False) -> None:
        """Units that were not begun, or (`singly`) that must not be together again."""
        if singly:
            self._back += [(item,) for item in items]
        elif items:
            self._back.append(tuple(items))
