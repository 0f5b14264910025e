"""How figures are taken: arms interleaved, medians of at least five, a canary for drift, memory of the whole tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 5


@dataclass(frozen=True)
class Section:
    """One part of the results page."""

    title: str
    text: str
    """Markdown."""
    data: dict[str, Any] = field(default_factory=dict)


def scratch() -> Path:
    """Where simulated data are kept between runs: ASTROML_BENCH, or a folder of the system's temporary place."""
    folder = Path(os.environ.get("ASTROML_BENCH", Path(tempfile.gettempdir()) / "astroml-benchmarks"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def words_of(function: Callable[..., Any]) -> str:
    """The docstring of a function, in one line: it says what its table shows."""
    return " ".join((function.__doc__ or "").split())


def kept(name: str, measure: Callable[[], Any]) -> Any:
    """What `measure` gives, as JSON; a piece that was finished below `scratch` is not measured again."""
    store = scratch() / f"{name}.json"
    if not store.exists():
        part = store.with_suffix(".part")
        part.write_text(json.dumps(measure()))
        part.rename(store)
    return json.loads(store.read_text())


def kept_arrays(name: str, measure: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """As `kept`, for named arrays."""
    store = scratch() / f"{name}.npz"
    if not store.exists():
        store.parent.mkdir(parents=True, exist_ok=True)
        part = store.with_suffix(".part.npz")
        np.savez(part, **measure())  # type: ignore[arg-type]
        part.rename(store)
    with np.load(store) as found:
        return dict(found)


def shared_data(name: str) -> Path | None:
    """A file or folder of the real images: of ASTROML_TEST_DATA, or beside the project; None where it is not there."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("ASTROML_TEST_DATA", default)) / name
    return path if path.exists() else None


def canary() -> float:
    """Seconds of a fixed piece of work: if it drifts, so did the machine."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(600, 600))
    started = time.perf_counter()
    for _ in range(5):
        values @ values
    return time.perf_counter() - started


def interleave(arms: Mapping[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, list[Any]]:
    """Run every arm once per round, in turn; name -> what each call returned, and the canary under "canary"."""
    results: dict[str, list[Any]] = {name: [] for name in (*arms, "canary")}
    for _ in range(repeats):
        results["canary"].append(canary())
        for name, arm in arms.items():
            results[name].append(arm())
    return results


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    """A function that calls `function` and returns its wall seconds."""

    def call() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return call


def median_iqr(values: Sequence[float], digits: int = 3) -> str:
    """Median and inter-quartile range as text."""
    low, middle, high = np.percentile(np.asarray(values, float), [25, 50, 75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def tree_pss(root: int) -> int:
    """Proportional set size in bytes of a process and all its descendants."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError):  # the process has gone meanwhile
            continue
    return total


def pss_series(
    arguments: Sequence[str], position: Callable[[], int], interval: float = 0.05
) -> tuple[list[tuple[int, int]], int]:
    """(what `position` says, PSS in bytes over the process tree) of a Python command while it runs, and its status."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples = []
    while process.poll() is None:
        size = tree_pss(process.pid)
        if size:
            samples.append((position(), size))
        time.sleep(interval)
    return samples, process.wait()
