"""Objects a second of every shipped bundle on all cores, from pixels on disk to rows."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import numpy as np
from distributed import Client

from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.compute.precision import FLOAT32, cpu_bfloat16
from astroml_plugin.inference import prepare
from astroml_plugin.inference.deciding import recorded_forms
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.bundle import ModelBundle, shipped
from benchmarks import skies
from benchmarks.backends import drawn_stamps
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from tests.pages import table
from workflows.simulate import simulate

COUNT = 16384
"""Stamps of a run."""
TILES, TILE = 4, 2048
"""Tiles of sky of a run, and their side in pixels, rims of 128 included."""
WANTED = {
    "anomaly": 4_000,
    "ellipticity": 12_000,
    "lens": 8_000,
    "morphology": 8_000,
    "objects": 4_000,
    "segmentation": 5,
}
"""Objects a second on two cores that we want; millions of pixels of sky for `segmentation`."""
FULL, AUTO = "float32", "--precision auto"


def run() -> Section:
    """Start-up apart, arms in turns. Stamps are drawn as the bundle's own, the sky is simulated (preset `fields`)."""
    arms: dict[str, dict[str, Any]] = {FULL: {}, **({AUTO: {"precision": "auto"}} if cpu_bfloat16() else {})}
    rows, data = [], {}
    with connect("local") as client:
        for name in shipped():
            source, size = _source(name)
            found = interleave({arm: partial(_taken, client, name, source, how) for arm, how in arms.items()})
            rates = {arm: [size / wall for wall, _ in found[arm]] for arm in arms}
            cpu = [spent / size * 1e6 for _, spent in found[FULL]]
            digits = 1 if name == "segmentation" else 0
            form = next(iter((recorded_forms(_catalog(name, AUTO)) or {}).values()), FLOAT32)
            shown = [*(median_iqr(rates[arm], digits) for arm in arms), *([form] if AUTO in arms else [])]
            rows.append([name, *shown, f"{WANTED[name]:,}", f"{np.median(cpu) / (1e6 if digits else 1):.3g}"])
            data[name] = {"rates": rates, "form": form, "canary": found["canary"]}
    head = ["bundle", *(f"{arm}, objects/s" for arm in arms), *(["decided"] if AUTO in arms else [])]
    text = (
        f"{run.__doc__} {COUNT:,} stamps, {TILES} tiles of {TILE}²; {cores()} cores, {REPEATS} rounds, median "
        "(quartiles). For `segmentation` an object is a million pixels of sky, without rims, and its CPU time is in "
        "seconds; label maps are written.\n\n" + table([*head, "wanted", "CPU in float32, µs an object"], rows)
    )
    return Section("Rates of the shipped bundles", text, data)


def _source(name: str) -> tuple[str, float]:
    """Pixels for a bundle, made once, and how many objects or millions of pixels they are."""
    if name != "segmentation":
        return drawn_stamps(name, ModelBundle.load(name).task(), COUNT), COUNT
    folder = scratch() / f"rates-sky-{TILE}"
    if not (folder / "survey.zarr").exists():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        simulate(out=str(making), kind="survey", preset="fields", count=TILES, tile_size=TILE, seed=8801)
        making.rename(folder)
    survey = Survey.open(str(folder / "survey.zarr"))
    boxes = [survey.tile(index).inner for index in range(len(survey))]
    return str(folder / "survey.zarr"), sum(box.width * box.height for box in boxes) / 1e6


def _catalog(name: str, arm: str) -> str:
    return str(scratch() / f"rates-catalog-{name}-{arm.replace(' ', '')}")


def _taken(client: Client, name: str, source: str, how: dict[str, Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one run into an empty catalog; the models are loaded before."""
    out = _catalog(name, AUTO if how else FULL)
    shutil.rmtree(out, ignore_errors=True)
    return skies.timed_run(prepare(source, bundle=name, out=out, device="cpu", **how), client)
