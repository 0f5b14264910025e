"""A cone in a catalog of many small parts, before and after `compact`. Run by hand:

python -m benchmarks.query --parts 100000 --out FOLDER     # writes FOLDER (about 4 GB) when it is not there
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, Column, compact, schema
from astroml_plugin.query import query

COLUMNS = (Column("e1", "float32"), Column("e2", "float32"), Column("flux", "float64", "nJy"))


def make(folder: Path, parts: int, rows: int) -> Catalog:
    """A catalog of `parts` square tiles on a band of the sky, `rows` rows each; written without fsync."""
    catalog = Catalog.create(str(folder), schema(COLUMNS), {"source": "benchmark"})
    run = catalog.start_run({"kind": "infer"})
    side = int(np.ceil(np.sqrt(parts)))
    generator = np.random.default_rng(0)
    infos = []
    for number in range(parts):
        infos.append(_write(catalog, number, side, rows, generator))
        if len(infos) == 5000:
            catalog.commit_manifest(run, infos)
            infos = []
            print(f"{number + 1} parts", flush=True)
    catalog.commit_manifest(run, infos)
    catalog.finish_run(run)
    return catalog


def _write(catalog: Catalog, number: int, side: int, rows: int, generator: np.random.Generator) -> Any:
    unit, step = f"tract_r{number // side}_c{number % side}", 0.2
    ra = (number % side) * step + generator.uniform(0, step, rows)
    dec = -30 + (number // side) * step + generator.uniform(0, step, rows)
    columns: dict[str, Any] = {"object_id": generator.integers(0, 2**62, rows)}
    columns |= {"image": ["tract"] * rows, "tile": [unit] * rows, "x": ra * 1e4, "y": dec * 1e4, "ra": ra, "dec": dec}
    columns |= {"primary": np.ones(rows, bool), "flags": np.zeros(rows, np.int32)}
    columns |= {name: generator.normal(size=rows).astype(np.float32) for name in ("e1", "e2")}
    info, data = catalog.encode_part(pa.table({**columns, "flux": ra}), unit, f"{number:016x}")
    path = folder_of(catalog) / info.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return info


def folder_of(catalog: Catalog) -> Path:
    """The catalog's folder."""
    return Path(catalog.url)


def best(function: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """(shortest wall time in s, last result)."""
    times, result = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - began)
    return min(times), result


def measure(catalog: Catalog, side: float) -> dict[str, Any]:
    """Wall times of typical questions, s."""
    centre = (side * 0.1, -30 + side * 0.1)
    found: dict[str, Any] = {}
    for radius in (0.05, 0.5):
        seconds, result = best(lambda radius=radius: query(catalog.url, cone=(*centre, radius)))  # type: ignore[misc]
        found[f"cone_{radius}_s"] = round(seconds, 3)
        found[f"cone_{radius}"] = [result.rows, result.parts]
    found["manifest_s"] = round(best(catalog.current)[0], 3)
    found["count_s"] = round(best(lambda: query(catalog.url, "SELECT count(*) AS n FROM catalog"), 1)[0], 3)
    found["avg_s"] = round(best(lambda: query(catalog.url, "SELECT avg(flux) AS f FROM catalog"), 1)[0], 3)
    found["listed_s"] = round(best(catalog.listed, 1)[0], 3)
    return found


def main() -> None:
    """Write, measure, compact, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=50, help="rows per part")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    fresh = not (options.out / "schema.json").exists()
    catalog = make(options.out, options.parts, options.rows) if fresh else Catalog.open(str(options.out))
    side = float(np.ceil(np.sqrt(options.parts)))
    print(json.dumps({"before": measure(catalog, side)}), flush=True)
    result = compact(catalog)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"compact_s": round(result.seconds, 1), "files": result.files_after, "peak_MB": round(peak)}))
    print(json.dumps({"after": measure(catalog, side)}), flush=True)


if __name__ == "__main__":
    main()
