"""A cone and full scans in a catalog of 10⁵ small parts, before and after `compact`."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, Column, PartInfo, compact, schema
from astroml_plugin.catalog.query import query
from benchmarks.harness import Section, interleave, median_iqr, scratch, timed
from tests.pages import table

COLUMNS = (Column("e1", "float32"), Column("e2", "float32"), Column("flux", "float64", "nJy"))
PARTS, ROWS = 100_000, 20
STEP = 0.2
"""Side of a part on the sky, deg."""


def run() -> Section:
    """100,000 parts of 20 rows on a square grid of 0.2 deg; warm cache."""
    small = scratch() / f"query-{PARTS}-{ROWS}"
    catalog = Catalog.open(str(small)) if (small / "finished").exists() else make(small)
    merged, seconds = _compacted(small)
    side = int(np.ceil(np.sqrt(PARTS)))
    centre = (side * STEP / 2, -30 + side * STEP / 2)
    questions: dict[str, dict[str, Any]] = {
        "cone of 0.05 deg": {"cone": (*centre, 0.05)},
        "cone of 0.5 deg": {"cone": (*centre, 0.5)},
    }
    arms = {
        f"{question}/{state}": timed(partial(query, str(place), **settings))
        for question, settings in questions.items()
        for state, place in (("parts", small), ("compacted", merged))
    }
    timings = interleave(arms)
    rows = [
        [name, median_iqr(timings[f"{name}/parts"]), median_iqr(timings[f"{name}/compacted"])] for name in questions
    ]
    count = {"sql": "SELECT count(*) AS n FROM catalog"}
    once = [f"{timed(partial(query, str(place), **count))():.2f}" for place in (small, merged)]
    rows.append(["count(*), once", *once])
    for name, settings in questions.items():
        one, two = (query(str(place), **settings).to_arrow() for place in (small, merged))
        if not one.equals(two):
            raise RuntimeError(f"{name} differs after compact")
    text = (
        f"{run.__doc__} `compact` took {seconds:.0f} s. The manifest alone prunes a cone to the few "
        f"files it touches, so that compact pays where a question reads everything.\n\n"
        + table(["question, wall s", "before `compact`", "after"], rows)
    )
    return Section("Queries", text, {"timings": timings, "compact_s": seconds, "parts": catalog.current().num_rows})


def make(folder: Path, parts: int = PARTS) -> Catalog:
    """The catalog of so many small parts; written without fsync, since only reading is measured."""
    shutil.rmtree(folder, ignore_errors=True)
    catalog = Catalog.create(str(folder), schema(COLUMNS), {"source": "benchmark"})
    run_id = catalog.start_run({"kind": "infer"})
    side = int(np.ceil(np.sqrt(parts)))
    generator = np.random.default_rng(0)
    for first in range(0, parts, 5000):
        numbers = range(first, min(first + 5000, parts))
        catalog.commit_manifest(run_id, [_write(catalog, number, side, generator) for number in numbers])
    catalog.finish_run(run_id)
    (folder / "finished").touch()
    return catalog


def _write(catalog: Catalog, number: int, side: int, generator: np.random.Generator) -> PartInfo:
    unit = f"tract_r{number // side}_c{number % side}"
    ra = (number % side) * STEP + generator.uniform(0, STEP, ROWS)
    dec = -30 + (number // side) * STEP + generator.uniform(0, STEP, ROWS)
    columns: dict[str, Any] = {"object_id": generator.integers(0, 2**62, ROWS)}
    columns |= {"image": ["tract"] * ROWS, "tile": [unit] * ROWS, "x": ra * 1e4, "y": dec * 1e4, "ra": ra, "dec": dec}
    columns |= {"primary": np.ones(ROWS, bool), "flags": np.zeros(ROWS, np.int32)}
    columns |= {name: generator.normal(size=ROWS).astype(np.float32) for name in ("e1", "e2")}
    info, data = catalog.encode_part(pa.table({**columns, "flux": ra}), unit, f"{number:016x}")
    path = Path(catalog.url) / info.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return info


def _compacted(small: Path) -> tuple[Path, float]:
    """A compacted copy (of hard links: compact never writes into a file) and the seconds that compact took."""
    merged = small.with_name(small.name + "-compacted")
    shutil.rmtree(merged, ignore_errors=True)
    shutil.copytree(small, merged, copy_function=os.link)
    return merged, compact(Catalog.open(str(merged))).seconds
