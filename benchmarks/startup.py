"""How long the command takes before it does anything, and for a run that has almost nothing to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import skies
from benchmarks.harness import Section, interleave, median_iqr, scratch, timed
from tests.pages import table
from workflows.ingest import ingest

STAMPS, SIDE = 100, 48
REPEATS = 9


def run() -> Section:
    """Fresh processes, warm file cache: an empty Python, `--help`, the import of `infer`, and `infer` of 100 stamps."""
    arms: dict[str, Callable[[], None]] = {
        "python -c pass": lambda: _command("-c", "pass"),
        "astroml-plugin --help": lambda: _command("-m", "workflows.cli", "--help"),
        "import workflows.infer": lambda: _command("-c", "import workflows.infer"),
        f"astroml-plugin infer of {STAMPS} stamps": _infer(),
    }
    timings = interleave({name: _both(arm) for name, arm in arms.items()}, repeats=REPEATS)
    rows = [[name, *(median_iqr([pair[k] for pair in timings[name]]) for k in range(2))] for name in arms]
    short = dict(zip(("empty", "help", "infer", "run"), arms))
    data = {
        f"{key}{suffix}": float(np.median([pair[k] for pair in timings[name]]))
        for key, name in short.items()
        for k, suffix in enumerate(("", "_cpu"))
    }
    text = f"{run.__doc__} {REPEATS} rounds in turns.\n\n" + table(["what", "wall, s", "CPU, s"], rows)
    return Section("Start-up", text, data)


def _command(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _both(arm: Callable[[], None]) -> Callable[[], tuple[float, float]]:
    """Wall and CPU seconds of the processes that a call starts."""
    wall = timed(arm)

    def call() -> tuple[float, float]:
        before = os.times()
        seconds = wall()
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        return seconds, spent

    return call


def _infer() -> Callable[[], None]:
    """The command for a small store of stamps, into a new catalog at each call."""
    folder = scratch() / "startup"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pixels = np.random.default_rng(0).normal(0, 1, (STAMPS, len(skies.BANDS), SIDE, SIDE)).astype(np.float32)
    np.savez(folder / "stamps.npz", images=pixels, bands=np.array(skies.BANDS), pixel_scale=skies.SCALE)
    ingest(str(folder / "stamps.npz"), out=str(folder / "stamps.zarr"))
    bundle, out = skies.bundle("startup", SIDE), folder / "catalog"

    def call() -> None:
        shutil.rmtree(out, ignore_errors=True)
        options = ("--bundle", bundle, "--out", str(out), "--device", "cpu")
        _command("-m", "workflows.cli", "infer", str(folder / "stamps.zarr"), *options)
        if not Path(out, "run.json").exists():
            raise RuntimeError("the run wrote no catalog")

    return call
