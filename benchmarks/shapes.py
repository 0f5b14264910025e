"""Two more shapes of work: stamps to ellipticities, and whole tiles through a U-Net."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin import inference
from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.core.registry import TASKS, load
from astroml_plugin.inference import Prepared, prepare
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import models_of
from astroml_plugin.inference.unit import read_and_measure
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import Card, ModelBundle
from benchmarks import skies
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from tests.pages import table

STAMPS, SIZE, BLOCK = 16384, 48, 1024
SIDE, TILE, HALO = 2, 1024, 128


def run() -> Section:
    """Start-up apart, arms interleaved; stages alone are those of the same units, one per core, without a catalog."""
    cases: dict[str, tuple[str, Callable[[Path], Prepared]]] = {
        f"{STAMPS:,} stamps of {SIZE} px with PSF, bundle `ellipticity`": ("stamps", ellipticities),
        f"{SIDE**2} tiles of {TILE}², network `unet` of the task `segment`, nothing to find": ("tiles", _fields),
    }
    texts, data = [], {}
    for label, (name, make) in cases.items():
        text, data[name] = _case(label, partial(make, scratch() / f"shapes-{name}"))
        texts.append(text)
    head = (
        f"{run.__doc__} {REPEATS} repeats, median (quartiles). R1 = forward / cores / wall, R2 = (forward + read and "
        "decode + encode) / cores / wall; the forward includes its answers' way to columns."
    )
    return Section("The engine: stamps and whole tiles", "\n\n".join([head, *texts]), data)


def _case(label: str, make: Callable[[], Prepared]) -> tuple[str, dict[str, float]]:
    with connect("local") as client, ThreadPoolExecutor(cores()) as pool:
        make_and_run = partial(whole, client, make)
        make_and_run()
        timings = interleave({"whole": make_and_run, "alone": partial(_alone, pool, make())})
    stages = timings["alone"]
    walls = timings["whole"]

    def share(*names: str) -> list[float]:
        parts = [sum(stage.get(name, 0.0) for name in names) for stage in stages]
        return [part / cores() / wall for part, wall in zip(parts, walls)]

    pure, strict = share("forward"), share("forward", "read", "encode")
    wide = share("forward", "read", "encode", "copy", "prepare", "detect")
    rows = [["whole run, wall s", median_iqr(walls)]]
    seen = [name for name in ("read", "prepare", "forward", "detect", "encode") if any(name in s for s in stages)]
    rows += [[f"{name} alone, core-s", median_iqr([stage.get(name, 0.0) for stage in stages])] for name in seen]
    rows += [["**R1**", median_iqr(pure)], ["**R2**", median_iqr(strict)], ["R2 with all stages", median_iqr(wide)]]
    rows.append(["canary, s", median_iqr(timings["canary"])])
    figures = {"R1": float(np.median(pure)), "R2": float(np.median(strict)), "R2_wide": float(np.median(wide))}
    return f"### {label}\n\n" + table(["figure", "value"], rows), figures


def whole(client: Any, make: Callable[[], Prepared]) -> float:
    """Wall seconds of a run into an empty catalog; its models are loaded before."""
    ready = make()
    skies.load_models(ready.job)
    tally = inference.execute(client, ready.units(), ready.catalog, run_id=ready.job.run, total=0)
    ready.catalog.finish_run(ready.job.run)
    if tally.failed or not tally.done:
        raise RuntimeError(f"the run is wrong: {tally}")
    return tally.seconds


def _alone(pool: ThreadPoolExecutor, ready: Prepared) -> dict[str, float]:
    """Core-seconds by stage of all units."""

    def one(unit: Any) -> dict[str, float]:
        torch.set_num_threads(1)
        meter = Meter()
        rows = read_and_measure(unit, models_of(unit.job), meter).table
        with meter.stage("encode"):
            ready.catalog.encode_part(rows, unit.name, unit.digest)
        return meter.seconds

    total: dict[str, float] = {}
    for seconds in pool.map(one, ready.units()):
        for name, value in seconds.items():
            total[name] = total.get(name, 0.0) + value
    return total


def ellipticities(out: Path) -> Prepared:
    """A run of the bundle `ellipticity` over stamps that are made once."""
    store = scratch() / f"shapes-{STAMPS}.zarr"
    if not store.exists():
        _make_stamps(store, ModelBundle.load("ellipticity").task())
    shutil.rmtree(out, ignore_errors=True)
    return prepare(str(store), bundle="ellipticity", out=str(out), device="cpu")


def _make_stamps(store: Path, task: Any) -> None:
    """Round galaxies on noise, with their PSF."""
    making = store.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    rng, psf_size = np.random.default_rng(7), task.settings.psf_size
    bands = task.bands
    stamps = Stamps.create(
        str(making),
        bands=bands,
        size=(SIZE, SIZE),
        block=BLOCK,
        pixel_scale=task.pixel_scale,
        psf_size=(psf_size, psf_size),
        variance=True,
    )
    first = stamps.reserve(STAMPS // BLOCK)
    for number in range(STAMPS // BLOCK):
        image = blob(SIZE, 3.0)[None, None] * rng.uniform(2e3, 2e4, (BLOCK, 1, 1, 1)) + rng.normal(
            0, 3, (BLOCK, len(bands), SIZE, SIZE)
        )
        psf = np.broadcast_to(blob(psf_size, 1.7), (BLOCK, len(bands), psf_size, psf_size)).astype(np.float32)
        image = image.astype(np.float32)
        checksum = stamps.write_block(first + number, image, np.full_like(image, 9.0), psf)
        ids = np.arange(number * BLOCK, (number + 1) * BLOCK)
        stamps.commit_objects(first + number, pa.table({"object_id": ids}), checksum)
    making.rename(store)


def blob(size: int, sigma: float) -> np.ndarray:
    """(size, size) Gaussian of unit sum around the pixel size // 2."""
    y, x = np.mgrid[:size, :size] - size // 2
    values = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return np.asarray(values / values.sum())


def _fields(out: Path) -> Prepared:
    folder = skies.noise_survey(SIDE, TILE, HALO, 100)
    shutil.rmtree(out, ignore_errors=True)
    return prepare(str(folder / "survey.zarr"), bundle=_blind_segmenter(), out=str(out), device="cpu", label_maps=False)


def _blind_segmenter() -> str:
    """A bundle whose network works as usual and sees no light, so that the forward is what is measured."""
    torch.manual_seed(0)
    task = load(TASKS, "segment").from_settings({"bands": list(skies.BANDS), "window": 512})
    network = task.build_network("unet", {})
    bias = [parameter for parameter in network.parameters() if parameter.ndim == 1][-1]
    with torch.no_grad():
        bias[: 4 * 3] = -50.0  # light, centres and their surroundings, of four pixels each
    url = str(scratch() / "bundle-unet")
    ModelBundle.save(url, network, Card("unet", "segment", task.to_settings(), "unet", {}))
    return url
