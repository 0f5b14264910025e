"""Take the figures and write the results page: `python -m benchmarks [--long] [--only NAME …]`."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import Section
from tests.pages import machine

SHORT = (
    "startup",
    "ingest",
    "engine",
    "rates",
    "measure",
    "prepare",
    "shapes",
    "reading",
    "store_requests",
    "scheduler",
    "memory",
    "peers",
    "cutting",
    "query",
    "ranking",
    "classes",
    "fields",
    "alerts",
    "backends",
)
PEERS = ("cutouts", "cones", "fourier_shapes", "exports", "slurm")
"""Benchmarks that need an environment of others, or Slurm: by name only."""
LONG = (
    "ellipticity",
    "scales",
    "morphology",
    "labels",
    "small_data",
    "small_optical",
    "few_labels",
    "few_optical",
    "few_stars",
    "few_known",
    "deep_layers",
    "survey_training",
    "objects",
    "photoz",
    "foreign",
    "foreign_fields",
    "course",
    "lens",
    "segmentation",
    "anomaly",
    "anogan",
    "drawn",
    "drawn_deflectors",
    "generation",
    "search",
    "search_pays",
    "star_psf",
    "explain",
    "own_images",
    "drift",
    "drift_training",
    "clusters",
)
HERE = Path(__file__).parent
HEAD = (
    "Measured with `make bench`; every section names its machine and date. No GPU was had: all "
    "figures are of CPUs. `make bench-quick` says in three minutes "
    "whether the engine became slower (values in quick.json). Sections with other packages (peers, cutouts, cones, "
    "fourier_shapes) install these in environments of their own, below the folder `ASTROML_BENCH`; one that cannot be "
    "installed is a line that says so."
)
PACKAGES = ("torch", "dask", "zarr", "numpy", "pyarrow", "duckdb")


def main() -> None:
    """Run the benchmarks and keep the sections of those that were not run this time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--long", action="store_true", help="also those that take hours")
    parser.add_argument("--only", nargs="+", choices=(*SHORT, *PEERS, *LONG), help="these only")
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    names = options.only or (*SHORT, *(LONG if options.long else ()))
    store = HERE / "results.json"
    for name in names:
        print(f"{name} …", flush=True)
        run = importlib.import_module(f"benchmarks.{name}").run
        takes_long = "long" in inspect.signature(run).parameters
        section: Section = run(long=options.long) if takes_long else run()
        results = json.loads(store.read_text()) if store.exists() else {}  # another run may have written meanwhile
        results[name] = {
            "title": section.title,
            "text": section.text,
            "data": section.data,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": {package: version(package) for package in PACKAGES},
        }
        print(section.text, flush=True)
        store.write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(page(results))


def page(results: dict[str, dict[str, object]]) -> str:
    """The results page."""
    lines = ["# Results", "", HEAD, ""]
    for name in (*SHORT, *PEERS, *LONG):
        if name not in results:
            continue
        entry = results[name]
        packages = ", ".join(f"{package} {number}" for package, number in dict(entry["versions"]).items())  # type: ignore[call-overload]
        lines += [f"## {entry['title']}", "", str(entry["text"]), ""]
        lines += [f"*`python -m benchmarks --only {name}`, {entry['date']}, {entry['machine']}; {packages}.*", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
