"""Data of the benchmarks, made once and kept outside the repository."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from astropy.io import fits
from distributed import Client

from astroml_plugin import inference
from astroml_plugin.core.registry import TASKS, load
from astroml_plugin.inference import Prepared
from astroml_plugin.inference.forward import runner_of
from astroml_plugin.inference.job import Job
from astroml_plugin.inference.models import models_of
from astroml_plugin.pixels import Tile
from astroml_plugin.sky.wcs import cut_tiles, tile_step
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name
from astroml_plugin.training.bundle import Card, ModelBundle
from benchmarks.harness import scratch

BANDS = ("g", "r", "i")
SCALE = 0.2


def tan_header(ra: float, side: int, scale: float) -> fits.Header:
    """Header of a square image in r, nJy, whose middle is at (`ra`, 2) degrees: `side` pixels of `scale` degrees."""
    cards = {
        **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": 2.0, "CUNIT1": "deg", "CUNIT2": "deg"},
        **{"CRPIX1": side / 2, "CRPIX2": side / 2, "CD1_1": -scale, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale},
    }
    return fits.Header({**cards, "MAGZERO": 31.4, "FILTER": "r"})


def noise_survey(tiles_side: int, tile_size: int, halo: int, per_tile: int, bands: tuple[str, ...] = BANDS) -> Path:
    """A folder with survey.zarr (tiles_side² tiles of Gaussian noise, no WCS) and objects.parquet (pixel positions).

    Noise costs the codec what real pixels cost: float32 noise hardly compresses.
    """
    name = f"noise-{tiles_side}-{tile_size}-{halo}-{per_tile}-{len(bands)}"
    folder = scratch() / name
    if (folder / "objects.parquet").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    side = tiles_side * tile_step(tile_size, halo)
    survey = Survey.create(str(folder / "survey.zarr"), bands=bands, tile_size=tile_size, halo=halo)
    cuts = cut_tiles(side, side, tile_size, halo)
    first = survey.reserve(len(cuts))
    rng = np.random.default_rng(1)
    shape = (len(bands), tile_size, tile_size)
    rows = []
    for index, geometry in enumerate(cuts, first):
        image = rng.normal(0, 2.5, shape).astype(np.float32)
        tile = Tile(image, np.full(shape, 6.25, np.float32), np.zeros(shape, np.uint32))
        checksum = survey.write_tile(index, tile)
        info = TileInfo(
            index,
            tile_name("noise", geometry.row, geometry.column),
            "noise",
            (side, side),
            geometry.row,
            geometry.column,
            geometry.outer,
            geometry.inner,
            has_band=dict.fromkeys(bands, True),
            has_variance=True,
            has_mask=True,
            source="noise",
            source_id=name,
            source_tiles=len(cuts),
            checksum=checksum,
            bytes=tile.nbytes,
        )
        rows.append(info)
    survey.commit(rows)
    count = per_tile * len(cuts)
    x, y = rng.uniform(0, side - 1, (2, count))
    pq.write_table(pa.table({"object_id": np.arange(count), "x": x, "y": y}), folder / "objects.parquet")
    return folder


def bundle(name: str, size: int = 48, network: str = "strided_cnn", **arguments: object) -> str:
    """An untrained classifier of three bands: what its weights are does not change its speed."""
    torch.manual_seed(0)
    task = load(TASKS, "classify").from_settings(
        {
            "bands": list(BANDS),
            "stamp_size": size,
            "classes": ["star", "disk", "spheroid"],
            "normalisation": {"unit": "noise", "stretch": "asinh"},
            "resize": "fit",
        }
    )
    url = str(scratch() / f"bundle-{name}-{size}")
    ModelBundle.save(
        url,
        task.build_network(network, arguments),
        Card(name, "classify", task.to_settings(), network, dict(arguments)),
    )
    return url


def load_models(job: Job) -> None:
    """What a worker does at its first unit. It is this process, and drops its models at the end of a run."""
    for model in models_of(job):
        runner_of(model)


def timed_run(ready: Prepared, client: Client) -> tuple[float, float]:
    """Wall and CPU seconds of a run over all units into an empty catalog; the models are loaded before."""
    load_models(ready.job)
    started = time.process_time()
    tally = inference.execute(client, ready.units(), ready.catalog, run_id=ready.job.run, total=0)
    ready.catalog.finish_run(ready.job.run)
    if tally.failed or not tally.done:
        raise RuntimeError(f"the run is wrong: {tally}")
    return tally.seconds, time.process_time() - started
