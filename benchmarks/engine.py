"""R2: the share of the machine that forward, decode and encode get; and the model in the graph beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from astroml_plugin import cutouts as cut
from astroml_plugin.catalog import Catalog
from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.compute.memory import stamps_per_forward
from astroml_plugin.inference import Prepared, prepare
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import models_of
from astroml_plugin.inference.reading import read_unit
from astroml_plugin.inference.unit import read_and_measure
from astroml_plugin.pixels import Tile
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.bundle import ModelBundle
from benchmarks import skies
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from tests.pages import table
from workflows.query import query

TILE, HALO, STAMP = 1024, 128, 48
PADDED = 1600
"""Rows of one block of `map_blocks`, whose results must all have one shape."""
NETWORKS: dict[str, dict[str, Any]] = {
    "Strided CNN of the shipped recipe, 400 objects a tile": {
        "name": "small",
        "side": 8,
        "per_tile": 400,
        "graph": True,
    },
    "ResNet-18, 60 objects a tile": {
        "name": "resnet18",
        "side": 8,
        "per_tile": 60,
        "network": "residual_cnn",
        "widths": [64, 128, 256, 512],
        "blocks": 2,
    },
    "ResNet-18, 480 objects a tile": {
        "name": "resnet18",
        "side": 4,
        "per_tile": 480,
        "network": "residual_cnn",
        "widths": [64, 128, 256, 512],
        "blocks": 2,
    },
}
"""LSST's 31,000 to 58,000 objects per patch of 4000² pixels are 2,000 to 3,600 on such a tile."""


def run() -> Section:
    """Tiles of 1024² in three bands, 48 px stamps; image, variance and mask are read."""
    texts, data = [], {}
    for label, settings in NETWORKS.items():
        text, figures = _one_network(label, settings)
        texts.append(text)
        data[f"{settings['name']}_{settings['per_tile']}"] = figures
    head = (
        f"{run.__doc__} Start-up apart, arms interleaved, {REPEATS} repeats, median (quartiles). A stage alone is "
        "that stage with all cores at it and nothing beside it: the process's CPU seconds. "
        "R1 = objects/s of the whole run / objects/s of the network alone on batches in memory. "
        "R2 = (forward + decode + encode) / cores / wall; cutting and normalisation are counted as overhead there, "
        "and as work in the line below it. The shares of CPU do not see idle cores, nor other programs that have them. "
        "`map_blocks` is `dask.array.map_blocks` with network and objects in the "
        "graph, on the same client; all arms are checked to give the same numbers."
    )
    return Section("The engine: R1 and R2", "\n\n".join([head, *texts]), data)


def _one_network(label: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    own = ("name", "per_tile", "side", "graph")
    folder = skies.noise_survey(settings["side"], TILE, HALO, settings["per_tile"])
    units = settings["side"] ** 2
    bundle = skies.bundle(settings["name"], STAMP, **{k: v for k, v in settings.items() if k not in own})
    outs = {name: scratch() / f"engine-{settings['name']}-{name}" for name in ("whole", "reference")}
    with connect("local") as client:
        whole = partial(_whole, folder, bundle, outs["whole"], client)
        _whole(folder, bundle, outs["reference"], client)  # warms caches, and is what all others must equal
        alone = _Alone(_prepared(folder, bundle, scratch() / f"engine-{settings['name']}-parts"))
        arms = {
            "whole": whole,
            "decode": alone.decode,
            "forward": alone.forward,
            "cut": alone.cut,
            "encode": alone.encode,
        }
        if settings.get("graph"):
            arms["map_blocks"] = partial(_map_blocks, folder, bundle, outs["reference"], client)
        timings = interleave(arms)
    spent = [cpu for _, cpu in timings["whole"]]
    timings["whole"] = [wall for wall, _ in timings["whole"]]
    _same(outs["whole"], outs["reference"])
    work = [sum(parts) for parts in zip(timings["forward"], timings["decode"], timings["encode"])]
    strict = [w / cores() / wall for w, wall in zip(work, timings["whole"])]
    pure = [forward / cores() / wall for forward, wall in zip(timings["forward"], timings["whole"])]
    wide = [(w + c) / cores() / wall for w, c, wall in zip(work, timings["cut"], timings["whole"])]
    rows = [
        ["whole run, wall s", median_iqr(timings["whole"])],
        ["objects/s", f"{units * settings['per_tile'] / float(np.median(timings['whole'])):,.0f}"],
        ["decode alone, core-s", median_iqr(timings["decode"])],
        ["network forward alone, core-s", median_iqr(timings["forward"])],
        ["Parquet encode alone, core-s", median_iqr(timings["encode"])],
        ["cutting and normalisation alone, core-s", median_iqr(timings["cut"])],
        ["CPU of the whole run, core-s", median_iqr(spent)],
        ["forward ÷ CPU of the whole run", median_iqr([f / cpu for f, cpu in zip(timings["forward"], spent)])],
        ["(forward + decode + encode) ÷ CPU of the whole run", median_iqr([w / cpu for w, cpu in zip(work, spent)])],
        ["**R1**", median_iqr(pure)],
        ["**R2**", median_iqr(strict)],
        ["R2 with cutting and normalisation as work", median_iqr(wide)],
        ["canary, s", median_iqr(timings["canary"])],
    ]
    figures = {
        "R1": float(np.median(pure)),
        "R1_cpu": float(np.median([f / cpu for f, cpu in zip(timings["forward"], spent)])),
        "R2_cpu": float(np.median([w / cpu for w, cpu in zip(work, spent)])),
        "R2": float(np.median(strict)),
        "R2_wide": float(np.median(wide)),
        "timings": timings,
    }
    if "map_blocks" in timings:
        ratio = [graph / wall for graph, wall in zip(timings["map_blocks"], timings["whole"])]
        figures["map_blocks_ratio"] = float(np.median(ratio))
        rows.insert(-1, ["`map_blocks`, wall s", median_iqr(timings["map_blocks"])])
        rows.insert(-1, ["`map_blocks` ÷ ours", median_iqr(ratio, 2)])
    return f"### {label}\n\n" + table(["figure", "value"], rows), figures


def _whole(folder: Path, bundle: str, out: Path, client: Any) -> tuple[float, float]:
    """Wall and CPU seconds of a run over all units into an empty catalog; the model is loaded before."""
    return skies.timed_run(_prepared(folder, bundle, out), client)


def _prepared(folder: Path, bundle: str, out: Path) -> Prepared:
    shutil.rmtree(out, ignore_errors=True)
    return prepare(
        str(folder / "survey.zarr"), bundle=bundle, out=str(out), objects=str(folder / "objects.parquet"), device="cpu"
    )


class _Alone:
    """Every stage of the same units by itself on all cores, one torch thread each: CPU seconds for all units."""

    def __init__(self, ready: Prepared) -> None:
        self.ready = ready
        self.units = list(ready.units())
        self.survey = Survey.open(ready.job.source)
        bundle = ModelBundle.load(ready.job.bundles[0].url)
        self.task = bundle.task()
        self.network = bundle.network(fused=True).to(memory_format=torch.channels_last)
        self.pool = ThreadPoolExecutor(cores(), initializer=partial(torch.set_num_threads, 1))
        few = self.units[: 4 * cores()]
        self.works = [read_unit(unit) for unit in few]
        self.inputs = list(self.pool.map(self._prepare, self.works))
        self.tables = list(self.pool.map(lambda unit: read_and_measure(unit, models_of(unit.job), Meter()).table, few))

    def _core_seconds(self, function: Callable[[Any], Any], items: Sequence[Any]) -> float:
        def alone(item: Any) -> None:
            function(item)  # what it returns is let go at once, as in a run: fresh memory costs page faults

        started = time.process_time()
        list(self.pool.map(alone, items))
        return (time.process_time() - started) * len(self.units) / len(items)

    def _prepare(self, work: Any) -> list[tuple[torch.Tensor, ...]]:
        placed, found = work.to_device("cpu"), []
        count = stamps_per_forward(self.network, self.task.input_shapes(), "cpu")
        for batch in work.cutouts(placed, self.task.stamp_size, count, "cpu"):
            with torch.inference_mode():
                found.append(self.task.prepare(batch)[0])
        return found

    def _forward(self, batches: list[tuple[torch.Tensor, ...]]) -> None:
        with torch.inference_mode():
            for batch in batches:
                self.network(*batch)

    def decode(self) -> float:
        """Whole shards to arrays."""
        return self._core_seconds(lambda unit: self.survey.read_tile(unit.tile), self.units[:32])

    def cut(self) -> float:
        """Cutting and normalisation."""
        return self._core_seconds(self._prepare, self.works)

    def forward(self) -> float:
        """The network on prepared batches in memory."""
        return self._core_seconds(self._forward, self.inputs)

    def encode(self) -> float:
        """Rows to Parquet bytes."""
        catalog: Catalog = self.ready.catalog
        pairs = list(zip(self.units, self.tables))
        return self._core_seconds(lambda pair: catalog.encode_part(pair[1], pair[0].name, pair[0].digest), pairs)


def _map_blocks(folder: Path, bundle: str, reference: Path, client: Any) -> float:
    """The usual way: dask.array.map_blocks with the model as an argument of the graph; wall seconds."""
    loaded = ModelBundle.load(bundle)
    survey = Survey.open(str(folder / "survey.zarr"))
    objects = pq.read_table(folder / "objects.parquet").to_pandas()
    infos = list(survey.iter_tiles())
    owned = {i.index: objects[i.inner.contains(objects["x"].to_numpy(), objects["y"].to_numpy())] for i in infos}
    corners = {info.index: (info.outer.x0, info.outer.y0) for info in infos}
    started = time.perf_counter()
    lazy = survey.to_dask("image").map_blocks(
        _block,
        survey.to_dask("variance"),
        survey.to_dask("mask"),
        loaded.network(fused=True),
        loaded.task(),
        owned,
        corners,
        dtype=np.float64,
        chunks=((1,) * len(infos), (2,), (PADDED,), (1,)),
    )
    found = client.compute(lazy).result()
    seconds = time.perf_counter() - started
    pairs = found.transpose(0, 2, 1, 3).reshape(-1, 2)
    pairs = pairs[~np.isnan(pairs[:, 0])]
    pairs = pairs[np.argsort(pairs[:, 0])]
    wanted = query(str(reference), "SELECT p_star FROM catalog ORDER BY object_id").to_arrow()["p_star"].to_numpy()
    if not np.allclose(pairs[:, 1], wanted, rtol=2e-5, atol=2e-6):
        raise RuntimeError("map_blocks gives other numbers")
    return seconds


def _block(
    image: np.ndarray,
    variance: np.ndarray,
    mask: np.ndarray,
    network: Any,
    task: Any,
    owned: Any,
    corners: Any,
    block_info: Any = None,
) -> np.ndarray:
    """(1, 2, n, 1): ids and first probability of a tile's objects, padded with NaN."""
    index = block_info[0]["chunk-location"][0]
    mine = owned[index]
    placed = cut.to_device(Tile(image[0], variance[0], mask[0]), skies.BANDS)
    x, y = mine["x"].to_numpy(), mine["y"].to_numpy()
    with torch.inference_mode():
        stamps = cut.around(placed, x, y, STAMP, origin=corners[index], jacobian=np.full((len(x), 2, 2), np.nan))
        inputs, flags = task.prepare(stamps)
        values, _ = task.to_columns(network(*inputs), stamps, flags)
    found = np.full((1, 2, PADDED, 1), np.nan)
    found[0, 0, : len(x), 0] = mine["object_id"]
    found[0, 1, : len(x), 0] = values["p_star"]
    return found


def _same(one: Path, two: Path) -> None:
    order = "SELECT * EXCLUDE (tile) FROM catalog ORDER BY object_id, image"
    left, right = (query(str(out), order).to_arrow() for out in (one, two))
    for name in left.column_names:
        a, b = left[name].to_numpy(), right[name].to_numpy()
        close = np.allclose(a, b, rtol=2e-5, atol=2e-6, equal_nan=True) if a.dtype.kind == "f" else (a == b).all()
        if not close and left[name].null_count < len(left):
            raise RuntimeError(f"two runs differ in {name}")
