"""R2: how much of the machine's time is forward, decode and encode; and the model in the graph beside it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from workflows.query import query

from astroml_plugin import cutouts as cut
from astroml_plugin import inference
from astroml_plugin.bundle import ModelBundle
from astroml_plugin.catalog import Catalog
from astroml_plugin.cluster import connect, cores
from astroml_plugin.inference.reading import read_unit
from astroml_plugin.inference.unit import _measured
from astroml_plugin.survey import Survey
from benchmarks import skies
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch, table
from workflows.infer import Prepared, prepare

TILES_SIDE, TILE, HALO, PER_TILE, STAMP = 8, 1024, 128, 400, 48


def run() -> Section:
    """64 tiles of 1024² in three bands, 25,600 objects, a small strided network on 48 px stamps."""
    folder = skies.noise_survey(TILES_SIDE, TILE, HALO, PER_TILE)
    bundle = skies.bundle("kind", STAMP)
    out = scratch() / "engine-catalog"
    with connect("local") as client:

        def whole() -> float:
            shutil.rmtree(out, ignore_errors=True)
            ready = _prepared(folder, bundle, out)
            tally = inference.execute(client, ready.units(), ready.catalog, run_id=ready.job.run, total=TILES_SIDE**2)
            ready.catalog.finish_run(ready.job.run)
            if tally.failed or tally.rows != TILES_SIDE**2 * PER_TILE:
                raise RuntimeError(f"the run is wrong: {tally}")
            return tally.seconds

        def in_graph() -> float:
            return _map_blocks(folder, bundle, client)

        whole()  # warm: page cache, first forward
        ready = _prepared(folder, bundle, scratch() / "engine-parts")
        parts = _Alone(ready)
        timings = interleave(
            {
                "whole": whole,
                "decode": parts.decode,
                "forward": parts.forward,
                "prepare": parts.prepare,
                "encode": parts.encode,
                "map_blocks": in_graph,
            }
        )
    walls = timings["whole"]
    strict = [
        (d + f + e) / cores() / w for d, f, e, w in zip(timings["decode"], timings["forward"], timings["encode"], walls)
    ]
    wide = [r + p / cores() / w for r, p, w in zip(strict, timings["prepare"], walls)]
    ratio = [m / w for m, w in zip(timings["map_blocks"], walls)]
    rows = [
        ["whole run, wall s", median_iqr(walls)],
        ["objects/s", f"{TILES_SIDE**2 * PER_TILE / float(np.median(walls)):,.0f}"],
        ["decode alone, core-s", median_iqr(timings["decode"])],
        ["network forward alone, core-s", median_iqr(timings["forward"])],
        ["cutting and normalisation alone, core-s", median_iqr(timings["prepare"])],
        ["Parquet encode alone, core-s", median_iqr(timings["encode"])],
        ["**R2** = (forward + decode + encode) / cores / wall", median_iqr(strict)],
        ["the same with cutting and normalisation counted as work", median_iqr(wide)],
        ["`map_blocks`, model and objects in the graph, wall s", median_iqr(timings["map_blocks"])],
        ["`map_blocks` ÷ ours", median_iqr(ratio, 2)],
        ["canary, s", median_iqr(timings["canary"])],
    ]
    text = f"{run.__doc__} {REPEATS} repeats, arms interleaved, median (quartiles); start-up apart.\n\n" + table(
        ["figure", "value"], rows
    )
    return Section(
        "The engine: R2",
        text,
        {
            "R2": float(np.median(strict)),
            "R2_with_prepare": float(np.median(wide)),
            "map_blocks_ratio": float(np.median(ratio)),
            "timings": timings,
        },
    )


def _prepared(folder: Path, bundle: str, out: Path) -> Prepared:
    return prepare(
        str(folder / "survey.zarr"), bundle=bundle, out=str(out), objects=str(folder / "objects.parquet"), device="cpu"
    )


class _Alone:
    """Every stage of the same units by itself: core-seconds by the process's own clock, one torch thread."""

    def __init__(self, ready: Prepared) -> None:
        self.units = list(ready.units())
        self.ready = ready
        self.survey = Survey.open(ready.job.source)
        bundle = ModelBundle.load(ready.job.bundles[0].url)
        self.task, self.network = bundle.task(), bundle.network(fused=True).to(memory_format=torch.channels_last)
        torch.set_num_threads(1)
        self.works = [read_unit(unit) for unit in self.units[:8]]
        self.scale = len(self.units) / len(self.works)
        self.tables = [_measured(unit, {}) for unit in self.units[:8]]

    def decode(self) -> float:
        """Whole shards to arrays."""
        started = time.process_time()
        for unit in self.units[:16]:
            assert unit.tile is not None
            self.survey.read_tile(unit.tile)
        return (time.process_time() - started) * len(self.units) / 16

    def _inputs(self) -> list[Any]:
        found = []
        for work in self.works:
            placed = work.place("cpu")
            for batch in work.cutouts(placed, self.task.stamp_size, self.ready.job.batch, "cpu"):
                with torch.inference_mode():
                    found.append((self.task.prepare(batch), batch))
        return found

    def prepare(self) -> float:
        """Cutting and normalisation."""
        started = time.process_time()
        self._inputs()
        return (time.process_time() - started) * self.scale

    def forward(self) -> float:
        """The network on prepared batches in memory."""
        inputs = self._inputs()
        started = time.process_time()
        with torch.inference_mode():
            for (tensors, _), _batch in inputs:
                self.network(*tensors)
        return (time.process_time() - started) * self.scale

    def encode(self) -> float:
        """Rows to Parquet bytes."""
        catalog: Catalog = self.ready.catalog
        started = time.process_time()
        for unit, rows in zip(self.units, self.tables):
            catalog.encode_part(rows, unit.name, unit.digest)
        return (time.process_time() - started) * self.scale


def _map_blocks(folder: Path, bundle: str, client: Any) -> float:
    """The usual way: dask.array.map_blocks with the model as an argument of the graph."""
    loaded = ModelBundle.load(bundle)
    survey = Survey.open(str(folder / "survey.zarr"))
    objects = pq.read_table(folder / "objects.parquet").to_pandas()
    infos = list(survey.iter_tiles())
    by_tile = {
        info.index: objects[info.inner.contains(objects["x"].to_numpy(), objects["y"].to_numpy())] for info in infos
    }
    boxes = {info.index: (info.outer.x0, info.outer.y0) for info in infos}
    started = time.perf_counter()
    images, variances = survey.to_dask("image"), survey.to_dask("variance")
    lazy = images.map_blocks(
        _block,
        variances,
        loaded.network(fused=True),
        loaded.task(),
        by_tile,
        boxes,
        dtype=np.float32,
        chunks=((1,) * len(infos), (1,), (1,), (1,)),
    )
    counts = client.compute(lazy).result()
    seconds = time.perf_counter() - started
    if int(counts.sum()) != len(objects):
        raise RuntimeError("map_blocks lost objects")
    return seconds


def _block(
    image: np.ndarray, variance: np.ndarray, network: Any, task: Any, objects: Any, boxes: Any, block_info: Any = None
) -> np.ndarray:
    index = block_info[0]["chunk-location"][0] if block_info else 0
    mine = objects[index]
    placed = cut.to_device(cut.Tile(image[0], variance[0]), skies.BANDS)
    x, y = mine["x"].to_numpy(), mine["y"].to_numpy()
    with torch.inference_mode():
        stamps = cut.around(placed, x, y, STAMP, origin=boxes[index], jacobian=np.full((len(x), 2, 2), np.nan))
        inputs, flags = task.prepare(stamps)
        values, _ = task.predict(network(*inputs), stamps, flags)
    return np.full((1, 1, 1, 1), len(values["label"]), np.float32)


def same_rows(one: Path, two: Path) -> bool:
    """Whether two catalogs hold the same rows."""
    order = "SELECT * EXCLUDE (tile) FROM catalog ORDER BY object_id, image"
    return bool(query(str(one), order).to_arrow().equals(query(str(two), order).to_arrow()))
