"""What `quick` measures: the stages of shipped bundles, segmentation, ingest, cones, a whole run, and start-up."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.compute.cluster import connect
from astroml_plugin.inference import Prepared, Unit, prepare
from astroml_plugin.inference.models import models_of
from astroml_plugin.inference.unit import encode, read_and_measure, write
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from benchmarks import ingest as ingesting
from benchmarks import query as querying
from benchmarks import shapes, skies
from benchmarks.canaries import Arm, CpuMeter, cpu_of
from benchmarks.harness import scratch
from workflows.ingest import ingest
from workflows.query import query

BUNDLES = ("morphology", "lens", "ellipticity", "anomaly")
STAMPS, BLOCK = 1024, 256
SIDE, TILE, HALO = 2, 1024, 128
IMAGES, PIXELS = 2, 2048
PARTS, CONES = 2500, 10


def arms() -> dict[str, Arm]:
    """By name: CPU seconds of 1,000 stamps, of a megapixel, of a cone, of a run of 16 units, of a command."""
    stamps = {f"{name}, 1,000 stamps": partial(_stages, _stamped(name), 1e3 / STAMPS) for name in BUNDLES}
    megapixels = SIDE**2 * TILE**2 / 1e6
    return {
        **stamps,
        "segmentation, Mpix": partial(_stages, _segmented(), 1 / megapixels),
        "run of 1,000 stamps": _Run(),
        "ingest, Mpix": partial(_ingested, _images()),
        "query of a cone": partial(_cones, _catalog()),
        "infer --help": partial(_command, "-m", "workflows.cli", "infer", "--help"),
        "import workflows.infer": partial(_command, "-c", "import workflows.infer"),
    }


def _stages(ready: Prepared, scale: float) -> Mapping[str, float]:
    """CPU seconds by stage of all units, one after the other, times `scale`; parts are written over each other."""
    torch.set_num_threads(1)
    meter, catalog = CpuMeter(), Catalog.open(ready.catalog.url)
    for unit in ready.units():
        _unit(unit, catalog, meter)
    return {name: scale * seconds for name, seconds in meter.seconds.items() if name != "wait"}


def _unit(unit: Unit, catalog: Catalog, meter: CpuMeter) -> None:
    measured = read_and_measure(unit, models_of(unit.job), meter)
    part, data = encode(measured.table, unit, catalog, meter, measured.exposure)
    write(unit.index, part, data, None, catalog, None, meter)


def _stamped(bundle: str) -> Prepared:
    """A run of a shipped bundle over stamps of its own bands and size."""
    store = scratch() / f"quick-{bundle}.zarr"
    if not store.exists():
        _make_stamps(store, ModelBundle.load(bundle).task())
    return _prepared(store, bundle)


def _prepared(source: Path, bundle: str) -> Prepared:
    out = scratch() / f"quick-{bundle}"
    shutil.rmtree(out, ignore_errors=True)
    return prepare(str(source), bundle=bundle, out=str(out), device="cpu")


def _make_stamps(store: Path, task: object) -> None:
    """Round galaxies on noise, with variance and PSF."""
    making = store.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    size, bands, generator = task.stamp_size, task.bands, np.random.default_rng(3)  # type: ignore[attr-defined]
    psf_side = 25
    stamps = Stamps.create(
        str(making),
        bands=bands,
        size=(size, size),
        block=BLOCK,
        dtype=task.settings.dtype,  # type: ignore[attr-defined]
        zero_points=() if task.settings.dtype == "uint8" else (31.4,) * len(bands),  # type: ignore[attr-defined]
        pixel_scale=task.pixel_scale or skies.SCALE,  # type: ignore[attr-defined]
        psf_size=(psf_side, psf_side),
        variance=True,
    )
    first = stamps.reserve(STAMPS // BLOCK)
    galaxy, star = shapes.blob(size, 3.0), shapes.blob(psf_side, 1.7).astype(np.float32)
    for number in range(STAMPS // BLOCK):
        noise = generator.normal(0, 3, (BLOCK, len(bands), size, size))
        image = noise + galaxy * generator.uniform(2e3, 2e4, (BLOCK, 1, 1, 1))
        image = np.clip(image + 20, 0, 255).astype(np.uint8) if stamps.dtype == np.uint8 else image.astype(np.float32)
        psf = np.broadcast_to(star, (BLOCK, len(bands), psf_side, psf_side))
        checksum = stamps.write_block(first + number, image, np.full(image.shape, 9.0, np.float32), psf)
        ids = np.arange(number * BLOCK, (number + 1) * BLOCK)
        stamps.commit_objects(first + number, pa.table({"object_id": ids}), checksum)
    making.rename(store)


def _segmented() -> Prepared:
    """A run of the shipped segmentation over tiles of noise in its band."""
    bands = tuple(ModelBundle.load("segmentation").task().bands)
    folder = skies.noise_survey(SIDE, TILE, HALO, 1, bands)
    return _prepared(folder / "survey.zarr", "segmentation")


class _Run:
    """`infer` in threads of this process, from objects to a finished run: the engine around the stages too."""

    def __init__(self) -> None:
        self.store = scratch() / "quick-ellipticity.zarr"
        self.out = scratch() / "quick-run"

    def __call__(self) -> Mapping[str, float]:
        shutil.rmtree(self.out, ignore_errors=True)
        ready = prepare(str(self.store), bundle="ellipticity", out=str(self.out), device="cpu")
        with connect("local") as client:
            return {"": skies.timed_run(ready, client)[1] * 1e3 / STAMPS}


def _images() -> list[str]:
    """FITS files of noise with WCS; made once."""
    folder = scratch() / f"quick-ingest-{IMAGES}-{PIXELS}"
    if not folder.exists():
        made = ingesting.make_files(folder.with_suffix(".making"), ("image",), IMAGES, PIXELS)
        made.rename(folder)
    return sorted(str(file) for file in folder.glob("*.fits"))


def _ingested(files: list[str]) -> Mapping[str, float]:
    out = scratch() / "quick-ingest-out"
    shutil.rmtree(out, ignore_errors=True)
    with connect("local", threads=1) as client:
        started = time.process_time()
        ingest(files, out=str(out), tile_size=PIXELS, halo=0, client=client)
        seconds = time.process_time() - started
    return {"": seconds / (len(files) * PIXELS**2 / 1e6)}


def _catalog() -> str:
    """A catalog of small parts; made once."""
    folder = scratch() / f"quick-query-{PARTS}"
    if not (folder / "finished").exists():
        querying.make(folder, PARTS)
    return str(folder)


def _cones(catalog: str) -> Mapping[str, float]:
    middle = np.sqrt(PARTS) * querying.STEP / 2
    started = time.process_time()
    for number in range(CONES):
        query(catalog, cone=(middle + 0.1 * number, middle - 30, 0.3)).to_arrow()
    return {"": (time.process_time() - started) / CONES}


def _command(*words: str) -> Mapping[str, float]:
    return {"": cpu_of([sys.executable, *words])}
