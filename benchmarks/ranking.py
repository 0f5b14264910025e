"""Short lists from two million rows: the top by a score, neighbours in latent space, with and without an index."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, Column, schema
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.ranking import like, top
from astroml_plugin.catalog.ranking.index import LatentIndex
from astroml_plugin.catalog.schema import vectors
from benchmarks.harness import Section, interleave, median_iqr, scratch, timed
from tests.pages import table

PARTS, ROWS, SIZE = 20, 100_000, 16
COLUMNS = (
    Column("anomaly_score", "float32"),
    *(Column(f"part_{number}", "float32") for number in range(6)),
    Column("latent", f"float32[{SIZE}]"),
)


def run() -> Section:
    """20 parts of 100,000 rows with 16 numbers of latent space, normally distributed: the hardest case for an index."""
    folder = scratch() / f"ranking-{PARTS}-{ROWS}"
    url = (Catalog.open(str(folder)) if (folder / "finished").exists() else make(folder)).url
    index = LatentIndex.build(url)
    arms = {
        "reading the score": partial(query, url, "SELECT max(anomaly_score) AS m FROM catalog"),
        "rank --top 100": partial(top, url, 100),
        "rank --top 10000": partial(top, url, 10_000),
        "rank --top 100 --fold-radius 60": partial(top, url, 100, fold_radius=60.0),
        "reading the vectors": partial(query, url, "SELECT sum(latent[1]) AS m FROM catalog"),
        "rank --like ID --top 100": partial(like, url, 12345, 100),
        "the same from an index": partial(index.like, 12345, 100),
    }
    timings = interleave({name: timed(arm) for name, arm in arms.items()})
    base = float(np.median(timings["reading the score"]))
    rows = [
        [name, median_iqr(values), f"{np.median(values) / base:.1f}"]
        for name, values in timings.items()
        if name in arms
    ]
    exact, found = (set(part.table["object_id"].to_pylist()) for part in (like(url, 12345), index.like(12345)))
    text = (
        f"{run.__doc__} Warm cache. The index ({index.lists} lists, {index.probes} looked at) took "
        f"{index.seconds:.0f} s to build; it finds {index.recall:.3f} of the 100 nearest of 128 objects, "
        f"{len(exact & found)} of 100 here.\n\n" + table(["question", "wall s", "÷ reading the score"], rows)
    )
    data = {"timings": timings, "rows": PARTS * ROWS, "recall": index.recall, "index_s": index.seconds}
    return Section("Ranking", text, data)


def make(folder: Path) -> Catalog:
    """The catalog, seeded."""
    shutil.rmtree(folder, ignore_errors=True)
    catalog = Catalog.create(str(folder), schema(COLUMNS), {"source": "benchmark"})
    run_id = catalog.start_run({"kind": "infer"})
    rng = np.random.default_rng(0)
    catalog.commit_manifest(run_id, [catalog.write_part(f"t_{k}", "a" * 16, _rows(k, rng)) for k in range(PARTS)])
    catalog.finish_run(run_id)
    (folder / "finished").touch()
    return catalog


def _rows(number: int, rng: np.random.Generator) -> pa.Table:
    columns = {
        "object_id": np.arange(number * ROWS, (number + 1) * ROWS),
        "image": pa.array(["image"] * ROWS),
        "tile": pa.array([f"t_{number}"] * ROWS),
        "x": rng.uniform(0, 4000, ROWS),
        "y": rng.uniform(0, 4000, ROWS),
        "ra": 10 + 0.2 * number + rng.uniform(0, 0.2, ROWS),
        "dec": rng.uniform(0, 0.2, ROWS),
        "primary": np.ones(ROWS, bool),
        "flags": np.zeros(ROWS, np.int32),
        "anomaly_score": rng.exponential(1, ROWS).astype(np.float32),
    }
    parts = {f"part_{k}": rng.normal(size=ROWS).astype(np.float32) for k in range(6)}
    return pa.table({**columns, **parts, "latent": vectors(rng.normal(size=(ROWS, SIZE)).astype(np.float32))})
