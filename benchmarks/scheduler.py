"""What the bounded window costs per unit, for units that do nothing, and whether it grows with their number."""

from __future__ import annotations

import gc
import os
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from astroml_plugin.compute.cluster import connect, run_window
from benchmarks.harness import REPEATS, Section, canary, median_iqr, tree_pss
from tests.pages import table

COUNTS = (1_000, 10_000, 100_000)
LONGEST = 1_000_000
"""Of `--long`."""
SAMPLES = 50
"""Of memory, over one run."""


def nothing(unit: int) -> int:
    """A unit without work."""
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
    canaries = []
    for round_number in range(REPEATS):
        canaries.append(canary())
        for count in found:
            if round_number == 0 or count <= COUNTS[1]:
                found[count].append(_windowed(count))
    rows = [_row(count, runs) for count, runs in found.items()]
    base = float(np.median([r.cpu for r in found[COUNTS[0]]]))
    growth = float(np.median([r.cpu for r in found[COUNTS[-1]]])) / base
    wall = float(np.median([r.wall for r in found[COUNTS[-1]]]))
    text = (
        f"{run.__doc__} {REPEATS} repeats up to {COUNTS[1]:,} units, one beyond. CPU time is that of client, "
        "scheduler and worker together, which share one process here; it stands still while other programs have the "
        "cores. Memory is the slope of a line through the second half of a run.\n\n"
        + table(["units", "wall, ms per unit", "CPU, ms per unit", "CPU of the last tenth, ms", "bytes per unit"], rows)
        + f"\n\nGrowth of the CPU time per unit from {COUNTS[0]:,} to {COUNTS[-1]:,} units: {growth:.3f}. "
        "Calculated, not measured: with units of one second the scheduler is busy for "
        f"{wall / 1000:.4f} of the time per thread at work, one keeps about {1000 / wall:,.0f} busy. "
        f"Canary {median_iqr(canaries)} s."
    )
    data = {
        "growth": growth,
        "ms": {str(c): float(np.median([r.wall for r in runs])) for c, runs in found.items()},
        "cpu_ms": {str(c): float(np.median([r.cpu for r in runs])) for c, runs in found.items()},
        "bytes_per_unit": {str(c): float(np.median([r.slope for r in runs])) for c, runs in found.items()},
    }
    return Section("Scheduler", text, data)


def _row(count: int, runs: list[Windowed]) -> list[str]:
    columns = [[getattr(r, name) for r in runs] for name in ("wall", "cpu", "late")]
    cells = [median_iqr(values) if len(values) > 1 else f"{values[0]:.3f}" for values in columns]
    return [f"{count:,}", *cells, f"{np.median([r.slope for r in runs]):.0f}" if count >= COUNTS[1] else ""]


def _windowed(count: int) -> Windowed:
    step = max(1, count // SAMPLES)
    marks: list[tuple[float, float, int]] = []
    gc.collect()
    with connect("local", threads=1) as client:
        for _ in run_window(client, nothing, range(50)):  # start-up apart
            pass
        marks.append(_mark())
        for done, _ in enumerate(run_window(client, nothing, range(count), timeout=3600), 1):
            if done % step == 0:
                marks.append(_mark())
    wall, cpu, memory = (np.array(values, float) for values in zip(*marks))
    per_step = np.array([b - a for a, b in pairwise(cpu)]) / step * 1000
    tenth = max(1, len(per_step) // 10)
    half = len(memory) // 2
    slope = np.polyfit(np.arange(half, len(memory)) * step, memory[half:], 1)[0] if half > 1 else 0.0
    total = step * (len(marks) - 1)
    return Windowed(
        (wall[-1] - wall[0]) / total * 1000,
        (cpu[-1] - cpu[0]) / total * 1000,
        float(per_step[:tenth].mean()),
        float(per_step[-tenth:].mean()),
        float(slope),
    )


def _mark() -> tuple[float, float, int]:
    return time.perf_counter(), time.process_time(), tree_pss(os.getpid())
