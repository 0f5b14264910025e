"""Cones asked of a catalog by `query`, and of the same rows as HATS by LSDB."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from astroml_plugin.compute.cluster import cores
from benchmarks import exports
from benchmarks.environments import ROOT, Peer, PeerMissingError, interpreter
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from tests.pages import table
from workflows.query import query

ROWS = 1_000_000
CONES = 10
COLUMNS = ("object_id", "ra", "dec")
NAMES = {
    "ours": "`query` of the catalog, three columns",
    "one": "LSDB, three columns, one thread",
    "all": "LSDB, three columns, a thread for each core",
}

Answer = tuple[float, np.ndarray]
"""Seconds of a pass over all cones, and the ids that they found."""


def run() -> Section:
    """10 cones in a catalog of 10⁶ rows in parts of 25,000, one after the other; the files are in the page cache."""
    catalog, sky = data(ROWS)
    rows, figures, notes = [], {}, []
    for radius in (0.02, 0.2):
        with ExitStack() as stack:
            arms, notes = arms_of(stack, catalog, sky, cones(ROWS, radius))
            _check(arms)
            seconds = interleave({name: (lambda call=call: call()[0]) for name, call in arms.items()})
        for name in arms:
            ratio = [theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)]
            each = [1e3 * value / CONES for value in seconds[name]]
            rows.append([f"{radius:g}", NAMES[name], median_iqr(each, 1), median_iqr(ratio, 2)])
            figures[f"{name}, {radius:g} deg"] = float(np.median(ratio))
        rows.append([f"{radius:g}", "canary, s", median_iqr(seconds["canary"]), ""])
    text = (
        f"{run.__doc__} Parquet on both sides; ours as `infer` leaves it, theirs written by `export --to hats` in "
        f"partitions of 250,000 rows and opened before the clock. In turn, {REPEATS} times, on {cores()} cores; all "
        "arms are checked to give the same objects.\n\n"
    )
    text += table(["radius, deg", "how", "ms a cone", "time ÷ ours"], rows)
    return Section("Cones beside LSDB", "\n\n".join([text, *notes]), figures)


def data(rows: int) -> tuple[str, str]:
    """A catalog of so many rows, and the same as a HATS collection; each made once. The second is "" without LSDB."""
    folder = scratch() / f"cones-{rows}"
    catalog, sky = folder / "catalog", folder / "sky"
    if not (catalog / "finished").exists():
        exports.make(catalog, rows)
    if not (sky / "finished").exists():
        shutil.rmtree(sky, ignore_errors=True)
        try:
            _export(catalog, sky)
        except PeerMissingError:
            return str(catalog), ""
    return str(catalog), str(sky)


def _export(catalog: Path, sky: Path) -> None:
    program = (
        "import sys\nfrom workflows.export import export\nif __name__ == '__main__':\n"
        "    export(sys.argv[1], to='hats', out=sys.argv[2], partition_rows=250_000)"
    )
    subprocess.run([str(interpreter("lsdb")), "-c", program, str(catalog), str(sky)], cwd=ROOT, check=True)
    (sky / "finished").touch()


def cones(rows: int, radius: float) -> list[tuple[float, float, float]]:
    """Right ascension, declination and radius in degrees of cones that lie within the catalog."""
    side = exports.STEP * int(np.ceil(np.sqrt(rows / exports.PER_PART)))
    shares = np.random.default_rng(2).uniform(0.3, 0.7, (CONES, 2))
    return [(float(150 + side * x), float(-5 + side * y), radius) for x, y in shares]


def arms_of(
    stack: ExitStack, catalog: str, sky: str, asked: Sequence[tuple[float, float, float]]
) -> tuple[dict[str, Callable[[], Answer]], list[str]]:
    """Arms by name, and a sentence for what is missing."""
    arms: dict[str, Callable[[], Answer]] = {"ours": partial(_ours, catalog, asked)}
    told: dict[str, Any] = {"collection": sky, "cones": asked, "columns": list(COLUMNS)}
    for name, threads in {"one": 1, "all": cores()}.items():
        answers = str(scratch() / f"cones-{name}.npy")
        try:
            program = {**told, "threads": threads, "answers": answers}
            peer = stack.enter_context(Peer("lsdb", "lsdb_cones", program, cores()))
            peer()
        except PeerMissingError as error:
            return arms, [f"LSDB is missing: {error}."]
        arms[name] = partial(_theirs, peer, answers)
    return arms, []


def _ours(catalog: str, asked: Sequence[tuple[float, float, float]]) -> Answer:
    started = time.perf_counter()
    sql = f"SELECT {', '.join(COLUMNS)} FROM catalog"
    found = [query(catalog, sql, cone=cone).to_arrow() for cone in asked]
    seconds = time.perf_counter() - started
    return seconds, np.concatenate([np.sort(rows["object_id"].to_numpy()) for rows in found])


def _theirs(peer: Peer, answers: str) -> Answer:
    return float(peer()["seconds"]), np.load(answers)


def _check(arms: dict[str, Callable[[], Answer]]) -> None:
    """A first pass of each, untimed: all find the same objects."""
    wanted = arms["ours"]()[1]
    for name, arm in arms.items():
        if not np.array_equal(arm()[1], wanted):
            raise RuntimeError(f"{name} finds other objects")
