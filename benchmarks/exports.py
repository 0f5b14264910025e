"""A catalog of 10⁷ rows in the files of others: time and peak memory; and what LSDB does with the HATS collection."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, Column, PartInfo, schema
from benchmarks.harness import Section, scratch
from tests.lsdb_environment import ROOT, interpreter
from tests.pages import table

ROWS, PER_PART = 10_000_000, 25_000
STEP = 0.25
"""Side of a part on the sky, deg."""

FILES = {"parquet": "sky.parquet", "fits": "sky.fits", "votable": "sky.vot", "moc": "sky.moc", "hats": "sky"}

COLUMNS = (
    *(Column(name, "float32", "", "src.ellipticity", name) for name in ("e1", "e2")),
    Column("e1_err", "float32", "", "stat.error;src.ellipticity", "Error of e1"),
    Column("p_lens", "float32", "", "stat.probability;src.class", "Probability of a lens"),
    Column("label", "string", "", "src.class", "Class"),
    Column("flux", "float64", "nJy", "phot.flux", "Flux"),
    Column("latent", "float32[8]", "", "stat.param", "Latent vector"),
)

EXPORT = """
import json, resource, sys, time
from workflows.export import export
if __name__ == "__main__":
    catalog, to, out = sys.argv[1:]
    began, cpu = time.monotonic(), time.process_time()
    rows = export(catalog, to=to, out=out).rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"rows": rows, "wall": time.monotonic() - began, "cpu": time.process_time() - cpu, "peak": peak}))
"""
"""Program that writes one format and says how long it took, in seconds, and its peak of memory, in GiB."""

LSDB = """
import json, resource, sys, time, dask, lsdb, numpy as np, pandas as pd
dask.config.set(scheduler="synchronous")
found = {}
def timed(name, work):
    began, cpu = time.monotonic(), time.process_time()
    rows = len(work())
    found[name] = {"rows": rows, "wall": time.monotonic() - began, "cpu": time.process_time() - cpu}
few = ["object_id", "ra", "dec"]
sky = lsdb.open_catalog(sys.argv[1], columns=few)
timed("all rows, three columns", sky.compute)
frame = sky.compute()
ra, dec = float(frame["ra"].median()), float(frame["dec"].median())
timed("cone of 0.1 deg", lambda: sky.cone_search(ra, dec, 360).compute())
names = {"suffixes": ("_a", "_b"), "suffix_method": "all_columns"}
timed("self-match, 0.5 arcsec", lambda: sky.crossmatch(sky, radius_arcsec=0.5, **names).compute())
some = frame.sample(100_000, random_state=1)
mine = lsdb.from_dataframe(pd.DataFrame({name: some[name].to_numpy() for name in few}), margin_threshold=10)
timed("100,000 objects matched with it", lambda: mine.crossmatch(sky, radius_arcsec=0.5, **names).compute())
print(json.dumps(found))
"""
"""Program that asks a HATS collection through LSDB, in one thread."""


def run() -> Section:
    """10⁷ rows in 400 parts, 16 columns with a vector of 8; each format in a process of its own, HATS by one worker."""
    folder = scratch() / "exports"
    catalog = folder / "catalog"
    if not (catalog / "finished").exists():
        make(catalog)
    measured: dict[str, Any] = {}
    for to, name in FILES.items():
        out = folder / name
        shutil.rmtree(out, ignore_errors=True)
        measured[to] = _told(EXPORT, str(catalog), to, str(out))
        files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
        measured[to]["gib"] = sum(path.stat().st_size for path in files) / 2**30
    asked = _told(LSDB, str(folder / "sky"))
    written = [
        [to, f"{one['wall']:.0f}", f"{one['cpu']:.0f}", f"{one['peak']:.2f}", f"{one['gib']:.2f}"]
        for to, one in measured.items()
    ]
    answers = [[name, one["rows"], f"{one['wall']:.1f}", f"{one['cpu']:.1f}"] for name, one in asked.items()]
    text = (
        f"{run.__doc__}\n\n"
        + table(["format", "wall s", "CPU s", "peak memory of the process, GiB", "size, GiB"], written)
        + "\n\nLSDB on the HATS collection, one thread:\n\n"
        + table(["question", "rows", "wall s", "CPU s"], answers)
    )
    return Section("Exports", text, {"exports": measured, "lsdb": asked})


def _told(program: str, *words: str) -> dict[str, Any]:
    """The last line that a program prints, from JSON."""
    command = [str(interpreter()), "-c", program, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def make(folder: Path, rows: int = ROWS) -> Catalog:
    """A catalog of so many rows, in parts on a square grid."""
    shutil.rmtree(folder, ignore_errors=True)
    catalog = Catalog.create(str(folder), schema(COLUMNS), {"source": "benchmark"})
    run_id = catalog.start_run({"kind": "infer"})
    generator, parts = np.random.default_rng(1), rows // PER_PART
    side = int(np.ceil(np.sqrt(parts)))
    catalog.commit_manifest(run_id, [_write(catalog, number, side, generator) for number in range(parts)])
    catalog.finish_run(run_id)
    (folder / "finished").touch()
    return catalog


def _write(catalog: Catalog, number: int, side: int, generator: np.random.Generator) -> PartInfo:
    unit, count = f"tract_r{number // side}_c{number % side}", PER_PART
    columns: dict[str, Any] = {
        "object_id": np.arange(count) + number * count + 2**60,
        **{"image": ["tract"] * count, "tile": [unit] * count},
        **{axis: generator.uniform(0, 4000, count) for axis in ("x", "y")},
        "ra": 150 + (number % side) * STEP + generator.uniform(0, STEP, count),
        "dec": -5 + (number // side) * STEP + generator.uniform(0, STEP, count),
        "primary": np.ones(count, bool),
        "flags": generator.integers(0, 16, count).astype(np.int32),
        **{name: generator.normal(size=count).astype(np.float32) for name in ("e1", "e2", "e1_err", "p_lens")},
        "label": np.array(["spiral", "elliptical", "größer"])[generator.integers(0, 3, count)],
        "flux": generator.uniform(1, 100, count),
        "latent": pa.FixedSizeListArray.from_arrays(pa.array(generator.normal(size=count * 8).astype(np.float32)), 8),
    }
    return catalog.write_part(unit, "a" * 16, pa.table(columns))
