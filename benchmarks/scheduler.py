"""What the bounded window costs per unit, for units that do nothing, and whether it grows with their number."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
from distributed import Client

from astroml_plugin.compute.cluster import connect, groups, run_window
from benchmarks.harness import REPEATS, Section, canary, median_iqr, tree_pss
from tests.pages import table

COUNTS = (1_000, 10_000, 100_000)
LONGEST = 1_000_000
"""Of `--long`."""
SAMPLES = 50
"""Of memory, over one run."""

ALONE = 200
"""Units that are sent one by one: they cost most."""
PROCESSES, THREADS = 2, 1000
"""Of the simulated crowd: units that sleep need no cores."""
NAP = 1.0
"""Seconds that such a unit sleeps."""
CROWD = 10_000_000
"""Units of the crowd: far more than are done, so that the end of the run is not seen."""
BEGUN, LATEST, WATCHED = 2, 40.0, 20.0
"""Units per thread after which the crowd is watched, seconds after which it is in any case, and seconds of watching."""


def nothing(unit: int) -> int:
    """A unit without work."""
    return unit


def nap(unit: int) -> int:
    """A unit that only takes time."""
    time.sleep(NAP)
    return unit


@dataclass(frozen=True)
class Windowed:
    """One run of units without work."""

    wall: float
    """ms per unit."""
    cpu: float
    """ms of CPU per unit, client, scheduler and worker together."""
    early: float
    """CPU ms per unit of the first thousandth … tenth: see `late`."""
    late: float
    """CPU ms per unit of the last tenth."""
    slope: float
    """Bytes of memory more per unit, by a line through the second half of the run."""


def run(long: bool = False) -> Section:
    """`run_window` on one in-process worker, units that return at once."""
    found: dict[int, list[Windowed]] = {count: [] for count in (*COUNTS, *([LONGEST] if long else []))}
    one_by_one, canaries = [], []
    processes: dict[int, list[tuple[float, float]]] = {1: [], groups.LARGEST: []}
    for round_number in range(REPEATS):
        canaries.append(canary())
        for largest, costs in processes.items():
            costs.append(_in_processes(largest, ALONE if largest == 1 else COUNTS[0]))
        with patch.object(groups, "LARGEST", 1):
            one_by_one.append(_windowed(ALONE))
        for count in found:
            if round_number == 0 or count <= COUNTS[1]:
                found[count].append(_windowed(count))
    crowd = _crowd()
    rows = [_row(f"{ALONE:,}, one by one", one_by_one), *(_row(f"{n:,}", runs) for n, runs in found.items())]
    base = float(np.median([r.cpu for r in found[COUNTS[1]]]))
    growth = float(np.median([r.cpu for r in found[COUNTS[-1]]])) / base
    alone = float(np.median([r.cpu for r in one_by_one]))
    here = [
        [
            "one by one" if largest == 1 else "in groups",
            *(median_iqr([pair[k] for pair in costs]) for k in range(2)),
        ]
        for largest, costs in processes.items()
    ]
    text = (
        f"{run.__doc__} {REPEATS} repeats up to {COUNTS[1]:,} units, one beyond. CPU time is that of client, "
        "scheduler and worker together, which share one process here; it stands still while other programs have the "
        "cores. `One by one` sends each unit as a task of its own, as units longer than "
        f"{groups.TARGET} s are. Memory is the slope of a line through the second half of a run.\n\n"
        + table(["units", "wall, ms per unit", "CPU, ms per unit", "CPU of the last tenth, ms", "bytes per unit"], rows)
        + f"\n\nGrowth of the CPU time per unit from {COUNTS[1]:,} to {COUNTS[-1]:,} units: {growth:.3f}. "
        f"Canary {median_iqr(canaries)} s.\n\n"
        f"Two worker processes, {ALONE:,} units one by one, {COUNTS[0]:,} in groups, in "
        "turn:\n\n"
        + table(["units", "CPU of client and scheduler, ms per unit", "CPU of the workers, ms per unit"], here)
        + f"\n\nA crowd: {PROCESSES} worker processes with {THREADS:,} threads each, units that sleep {NAP:g} s, "
        f"watched for {WATCHED:g} s after {crowd['begun']:.0f} s: {crowd['rate']:,.0f} units/s of the "
        f"{PROCESSES * THREADS / NAP:,.0f} that the threads can do, in tasks of {crowd['group']:.1f} units. A task "
        f"takes {crowd['cpu_ms']:.1f} ms of CPU in client and scheduler (one process, busy for {crowd['busy']:.2f} "
        f"of the time) and {crowd['worker_ms']:.1f} ms in the workers."
    )
    data = {
        "growth": growth,
        "one_by_one_cpu_ms": alone,
        "ms": {str(c): float(np.median([r.wall for r in runs])) for c, runs in found.items()},
        "cpu_ms": {str(c): float(np.median([r.cpu for r in runs])) for c, runs in found.items()},
        "bytes_per_unit": {str(c): float(np.median([r.slope for r in runs])) for c, runs in found.items()},
        "processes_cpu_ms": {str(n): float(np.median([sum(pair) for pair in costs])) for n, costs in processes.items()},
        "crowd": crowd,
    }
    return Section("Scheduler", text, data)


def _in_processes(largest: int, units: int) -> tuple[float, float]:
    """ms of CPU per unit of this process and of two worker processes, with tasks of so many units at most."""
    with (
        patch.object(groups, "LARGEST", largest),
        connect("processes", workers=2, threads=1) as client,
    ):
        for _ in run_window(client, nothing, range(50)):  # start-up apart
            pass
        before, cpu = _of_workers(client), time.process_time()
        done = sum(1 for _ in run_window(client, nothing, range(units), timeout=3600))
        return (time.process_time() - cpu) / done * 1000, (_of_workers(client) - before) / done * 1000


def _of_workers(client: Client) -> float:
    """Seconds of CPU of all worker processes."""
    return float(sum(client.run(time.process_time).values()))


@dataclass
class _Tasks:
    """Tasks that were sent, counted."""

    sent: int = 0

    def counting(self, submit: Callable[..., Any]) -> Callable[..., Any]:
        """`submit`, which counts its calls."""

        def counted(*arguments: Any, **settings: Any) -> Any:
            self.sent += 1
            return submit(*arguments, **settings)

        return counted


def _crowd() -> dict[str, float]:
    """Units/s in the middle of a long run, and ms of CPU per task, with thousands of threads that sleep."""
    tasks, started, done = _Tasks(), time.perf_counter(), 0
    with (
        connect("processes", workers=PROCESSES, threads=THREADS) as client,
        patch.object(client, "submit", tasks.counting(client.submit)),
    ):
        outcomes = run_window(client, nap, range(CROWD), io_lanes=0, total=CROWD)
        for _ in outcomes:
            done += 1
            if done >= BEGUN * PROCESSES * THREADS or time.perf_counter() - started > LATEST:
                break
        begun, first, sent = time.perf_counter(), done, tasks.sent
        workers, cpu = _of_workers(client), time.process_time()
        for _ in outcomes:
            done += 1
            if time.perf_counter() - begun > WATCHED:
                break
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
        workers, sent = _of_workers(client) - workers, tasks.sent - sent
    return {
        "rate": (done - first) / wall,
        "begun": begun - started,
        "group": (done - first) / max(1, sent),
        "busy": cpu / wall,
        "cpu_ms": cpu / max(1, sent) * 1000,
        "worker_ms": workers / max(1, sent) * 1000,
    }


def _row(name: str, runs: list[Windowed]) -> list[str]:
    columns = [[getattr(r, name) for r in runs] for name in ("wall", "cpu", "late")]
    cells = [median_iqr(values) if len(values) > 1 else f"{values[0]:.3f}" for values in columns]
    slopes = [r.slope for r in runs if r.slope]
    return [name, *cells, f"{np.median(slopes):.0f}" if slopes else ""]


def _windowed(count: int) -> Windowed:
    step = max(1, count // SAMPLES)
    watch = _Watch()
    gc.collect()
    with connect("local", threads=1) as client:
        for _ in run_window(client, nothing, range(50)):  # start-up apart
            pass
        watch.mark()
        for done, _ in enumerate(run_window(client, nothing, range(count), timeout=3600), 1):
            if done % step == 0:
                watch.mark()
    wall, cpu, memory = (np.array(values, float) for values in zip(*watch.marks))
    per_step = np.array([b - a for a, b in pairwise(cpu)]) / step * 1000
    tenth = max(1, len(per_step) // 10)
    half = len(memory) // 2
    slope = np.polyfit(np.arange(half, len(memory)) * step, memory[half:], 1)[0] if half > 1 else 0.0
    total = step * (len(watch.marks) - 1)
    return Windowed(
        (wall[-1] - wall[0]) / total * 1000,
        (cpu[-1] - cpu[0]) / total * 1000,
        float(per_step[:tenth].mean()),
        float(per_step[-tenth:].mean()),
        float(slope),
    )


@dataclass
class _Watch:
    """Wall seconds, CPU seconds and memory in the course of a run, without what looking at memory costs."""

    marks: list[tuple[float, float, int]] = field(default_factory=list)
    _wall: float = 0.0
    _cpu: float = 0.0

    def mark(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.marks.append((wall - self._wall, cpu - self._cpu, tree_pss(os.getpid())))
        self._wall += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu
