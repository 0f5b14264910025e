"""A survey on a Slurm of two nodes while one of two worker jobs is killed every minute: rows, and work done twice."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.harness import Section
from tests import universe
from tests.pages import table
from tests.slurm_cluster import SlurmCluster, missing

SIDE = 32
"""Tiles per side of the survey; of `--long` `LONG_SIDE`."""
LONG_SIDE = 100
STEP, TILE = 32, 96
"""Pixels from tile to tile, and side of a tile with its halo."""
UNIT_SECONDS, LONG_UNIT_SECONDS = 2.0, 1.0
"""Seconds that a unit sleeps before it works, so that the run lasts some minutes; of `--long` the second."""
KILL_EVERY = 60.0
SCHEDULER = ("--scheduler", "slurm", "--workers", "2", "--job-cores", "2", "--job-memory", "4")


@dataclass(frozen=True)
class Attempt:
    """A unit that a worker began."""

    unit: str
    process: str
    begun: float
    """Unix time."""
    ended: float | None
    """Unix time; None where its worker died first."""


def run(long: bool = False) -> Section:
    """Workers are jobs of `--scheduler slurm`; one is killed by `scancel --full --signal=KILL`."""
    if why := missing():
        return Section("Workers that die, on Slurm", f"Not run: {why}.", {})
    with tempfile.TemporaryDirectory() as place:
        slurm = SlurmCluster(Path(place) / "slurm")
        slurm.folder.mkdir()
        try:
            slurm.start()
            return _section(Path(place), slurm, *((LONG_SIDE, LONG_UNIT_SECONDS) if long else (SIDE, UNIT_SECONDS)))
        finally:
            slurm.stop()


def _section(place: Path, slurm: SlurmCluster, side: int, sleep: float) -> Section:
    shape = (side * STEP, side * STEP)
    universe.make_survey(str(place / "survey.zarr"), shape=shape, tile_size=TILE)
    universe.make_objects(place / "objects.parquet", count=4 * side * side, shape=shape)
    universe.make_bundle(str(place / "kind"))
    _infer(place, slurm, "quiet").wait()
    started, kills = time.time(), []
    with (place / "log").open("w") as log:
        disturbed = _infer(place, slurm, "disturbed", *SCHEDULER, log=log, slow=(sleep, place / "units"))
        while disturbed.poll() is None:
            time.sleep(1)
            last = kills[-1] if kills else started
            if time.time() - last > KILL_EVERY and (running := [k for k, v in slurm.jobs().items() if v == "RUNNING"]):
                slurm.ask("scancel", "--full", "--signal=KILL", running[len(kills) % len(running)])
                kills.append(time.time())
    seconds = time.time() - started
    attempts = list(_attempts(place / "units"))
    lost = sum(min(k for k in (*kills, time.time()) if k >= one.begun) - one.begun for one in attempts if not one.ended)
    done: dict[str, list[float]] = {}
    for one in attempts:
        if one.ended:
            done.setdefault(one.unit, []).append(one.ended - one.begun)
    work = sum(sum(seconds) for seconds in done.values())
    again = sum(sum(seconds[1:]) for seconds in done.values())
    equal = _rows(place / "quiet") == _rows(place / "disturbed")
    rows = [
        ["tiles", f"{side * side:,}"],
        ["exit status", str(disturbed.returncode)],
        ["seconds", f"{seconds:.0f}"],
        ["worker jobs killed", str(len(kills))],
        ["worker jobs in all", str(len(slurm.completed()))],
        ["units begun", f"{len(attempts):,}"],
        ["units cut off by a kill", str(sum(one.ended is None for one in attempts))],
        ["units that were done twice", str(sum(len(seconds) - 1 for seconds in done.values()))],
        ["seconds of work of units", f"{work:.0f}"],
        ["of them done twice", f"{again:.1f}"],
        ["seconds cut off, and repeated", f"{lost:.1f}"],
        ["rows equal to a quiet local run, every column", "yes" if equal else "no"],
    ]
    text = f"{run.__doc__} Each unit sleeps {sleep:g} s, which counts as work.\n\n{table(['', ''], rows)}"
    data = {
        "tiles": side * side,
        "kills": len(kills),
        "lost": lost,
        "again": again,
        "work": work,
        "equal": equal,
        "seconds": seconds,
    }
    return Section("Workers that die, on Slurm", text, data)


def _infer(
    place: Path, slurm: SlurmCluster, out: str, *more: str, log: object = None, slow: tuple[float, Path] | None = None
) -> subprocess.Popen[bytes]:
    given = ["survey.zarr", "--bundle", "kind", "--objects", "objects.parquet", "--out", out]
    changes = {} if slow is None else {"SLOW_UNITS": f"{slow[0]:g}", "UNITS_LOG": str(slow[1])}
    program = Path(sys.executable).with_name("astroml-plugin")
    return subprocess.Popen(
        [str(program), "infer", *given, *more],
        cwd=place,
        env=slurm.environment | changes,
        stderr=log or subprocess.DEVNULL,
    )


def _attempts(path: Path) -> Iterator[Attempt]:
    """Attempts from the log of tests/slow_units."""
    open_ones: dict[tuple[str, str], float] = {}
    for line in path.read_text().splitlines():
        process, unit, what, moment = line.split()
        if what == "begun":
            open_ones[process, unit] = float(moment)
        else:
            yield Attempt(unit, process, open_ones.pop((process, unit)), float(moment))
    for (process, unit), begun in open_ones.items():
        yield Attempt(unit, process, begun, None)


def _rows(catalog: Path) -> list[tuple[object, ...]]:
    files = os.fspath(catalog / "parts" / "**" / "*.parquet")
    return duckdb.sql(f"SELECT * FROM read_parquet('{files}', hive_partitioning=false) ORDER BY object_id").fetchall()
