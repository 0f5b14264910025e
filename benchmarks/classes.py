"""Stored stamps of 64 px in three bands to classified rows of a catalog, per network."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from distributed import Client

from astroml_plugin.compute.cluster import connect
from astroml_plugin.inference import prepare
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle, shipped
from benchmarks import skies
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from tests.pages import table

COUNT, SIZE = 16384, 64
TARGET = 4000
"""Objects per second on two cores that issue 4 asks for."""


def run() -> Section:
    """Stamps of noise with a blob; Dask's start-up and the loading of models apart, as for runs of any length."""
    bundles = {"strided_cnn of three stages": (skies.bundle("classes", SIZE), "float32", skies.BANDS)}
    for name in ("morphology", "lens"):
        if name in shipped():
            task = ModelBundle.load(name).task()
            bundles[f"shipped `{name}`"] = (name, task.settings.dtype, task.bands)
    sources = {label: str(_stamps(dtype, bands)) for label, (_, dtype, bands) in bundles.items()}
    with connect("local") as client:
        found = interleave(
            {label: partial(_rate, client, label, bundle, sources[label]) for label, (bundle, _, _) in bundles.items()}
        )
    rates = {label: [wall for wall, _ in found[label]] for label in bundles}
    work = {label: [core for _, core in found[label]] for label in bundles}
    rows = [[label, median_iqr(rates[label], 0), median_iqr(work[label], 0)] for label in bundles]
    rows.append(["canary, s", median_iqr(found["canary"]), ""])
    text = (
        f"{run.__doc__} {COUNT:,} stamps, arms interleaved, {REPEATS} repeats, median (quartiles); {TARGET:,} "
        "objects/s are asked for. The last column divides by the processor time instead, which other work on the "
        "machine hardly changes.\n\n" + table(["network", "objects/s", "objects per core-second"], rows)
    )
    return Section("Classification speed", text, {"rates": rates, "work": work, "canary": found["canary"]})


def _stamps(dtype: str, bands: tuple[str, ...]) -> Path:
    """Stamps of noise around a blob, made once."""
    folder = scratch() / f"classes-1-{dtype}-{'-'.join(bands)}-{COUNT}.zarr"
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    rng = np.random.default_rng(3)
    sky = {} if dtype == "uint8" else {"pixel_scale": skies.SCALE, "zero_points": (31.4,) * len(bands)}
    store = Stamps.create(str(making), bands=bands, size=(SIZE, SIZE), dtype=dtype, **sky)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    blob = 100 * np.exp(-(x**2 + y**2) / 60.0)
    blocks = -(-COUNT // store.block)
    first = store.reserve(blocks)
    for number in range(blocks):
        count = min(store.block, COUNT - number * store.block)
        image = rng.normal(20, 3, (count, len(bands), SIZE, SIZE)) + blob
        checksum = store.write_block(first + number, np.clip(image, 0, 255).astype(dtype), None, None)
        ids = np.arange(count) + number * store.block
        store.commit_objects(first + number, pa.table({"object_id": ids}), checksum)
    return making.rename(folder)


def _rate(client: Client, label: str, bundle: str, source: str) -> tuple[float, float]:
    """Objects per second, and per second of processor time, of one run into an empty catalog."""
    out = scratch() / f"classes-catalog-{''.join(filter(str.isalnum, label))}"
    shutil.rmtree(out, ignore_errors=True)
    wall, spent = skies.timed_run(prepare(source, bundle=bundle, out=str(out), device="cpu"), client)
    return COUNT / wall, COUNT / spent
