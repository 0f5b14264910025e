"""Groups without labels at scale: time and peak memory of `cluster` at 10⁶ and 10⁷ rows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, Column, schema
from benchmarks.harness import Section, kept, scratch
from tests.pages import table

COLUMNS = (Column("latent", "float32[8]", "", "stat.param", "Vector"),)
SIZES = (1_000_000, 10_000_000)
PART = 1_000_000
"""Rows of a part."""
GROUPS = 5
METHODS = {"kmeans": 20, "mixture": 4}
"""Method -> bootstraps. The larger catalog is grouped by the first alone."""


def run() -> Section:
    """`cluster CATALOG --clusters 5` in a process of its own, on vectors with 8 numbers, in parts of 10⁶ rows."""
    found = []
    for size in SIZES:
        for method, bootstraps in METHODS.items():
            if size == SIZES[0] or method == "kmeans":
                name = f"clusters-{method}-{size}"
                found.append(kept(name, partial(_grouped, size, method, bootstraps)))
    rows = []
    for one in sorted(found, key=lambda one: list(METHODS).index(one["method"])):
        rate, size = f"{one['rows'] / one['seconds']:,.0f}", f"{one['rows']:,}"
        rows.append([one["method"], size, f"{one['seconds']:,.0f}", rate, f"{one['peak']:,.0f}", f"{one['right']:.4f}"])
    text = (
        f"{run.__doc__} The rows are drawn around {GROUPS} points; right is the part of 100,000 of them whose cluster "
        "is that of its point. Fitted on the default samples (50,000 rows), "
        f"bootstraps: {', '.join(f'{name} {count}' for name, count in METHODS.items())}. Peak: of the process, MB, "
        "start and libraries included. On a machine that others used too.\n\n"
        + table(["method", "rows", "seconds", "rows per second", "peak, MB", "right"], rows)
    )
    return Section("Groups without labels", text, {"runs": found})


def _catalog(size: int) -> Path:
    """A catalog of vectors, made where it is missing."""
    place = scratch() / f"clusters-{size}"
    if (place / "finished").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    catalog = Catalog.create(str(place), schema(COLUMNS), {"source": "drawn", "bundle": "none"})
    run = catalog.start_run({"kind": "infer"})
    infos = []
    for number in range(size // PART):
        vectors, _ = drawn(number)
        rng = np.random.default_rng([number, 1])
        name = f"im_{number}"
        rows = {
            "object_id": np.arange(PART) + number * PART,
            "image": pa.array(["im"]).take(pa.array(np.zeros(PART, np.int32))),
            "tile": pa.array([name]).take(pa.array(np.zeros(PART, np.int32))),
            **{axis: rng.uniform(0, 4000, PART) for axis in "xy"},
            "ra": number * 0.2 + rng.uniform(0, 0.2, PART),
            "dec": rng.uniform(-0.1, 0.1, PART),
            "primary": np.ones(PART, bool),
            "flags": np.zeros(PART, np.int32),
            "latent": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        }
        infos.append(catalog.write_part(name, "a" * 16, pa.table(rows)))
    catalog.commit_manifest(run, infos)
    catalog.finish_run(run)
    (place / "finished").touch()
    return place


def drawn(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 8) of one part, and the number (n,) of the point that each is drawn around."""
    points = np.random.default_rng(3).normal(0, 4, (GROUPS, 8)).astype(np.float32)
    rng = np.random.default_rng([number, 2])
    kind = rng.integers(0, GROUPS, PART)
    return points[kind] + rng.standard_normal((PART, 8), np.float32), kind


def _grouped(size: int, method: str, bootstraps: int) -> dict[str, Any]:
    """Seconds, peak memory and rightness of a run."""
    place = _catalog(size)
    shutil.rmtree(place / "annotations", ignore_errors=True)
    began = time.perf_counter()
    told = subprocess.check_output([sys.executable, "-c", _CLUSTER, str(place), method, str(bootstraps)], text=True)
    seconds = time.perf_counter() - began
    found = re.search(r"(\d+) ([\d.]+) ([\d.]+)", told)
    assert found is not None, told
    assert int(found[1]) == size
    shutil.rmtree(place / "annotations")
    return {
        **{"method": method, "rows": size, "seconds": seconds},
        **{"peak": float(found[2]), "right": float(found[3])},
    }


_CLUSTER = """
import re, sys
import numpy as np
from workflows.cluster import cluster
done = cluster(sys.argv[1], name="groups", method=sys.argv[2], clusters=5, bootstraps=int(sys.argv[3]))
peak = int(re.search("VmHWM:\\\\s+(\\\\d+)", open("/proc/self/status").read())[1]) / 2**10
from benchmarks.clusters import GROUPS, drawn
from workflows.query import query
sql = "SELECT object_id, cluster FROM groups WHERE object_id < 100000 ORDER BY object_id"
mine = query(sys.argv[1], sql).to_arrow()
kind, cluster = drawn(0)[1][mine["object_id"].to_numpy()], mine["cluster"].to_numpy()
right = sum(np.bincount(cluster[(kind == one) & (cluster >= 0)], minlength=1).max() for one in range(GROUPS))
print(done.rows, peak, right / len(kind))
"""
