"""`measure` on a tile in memory beside the engine's middle and a unit of `infer`, the model loaded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import astroml_plugin as ap
from astroml_plugin.inference import in_memory, prepare, run_unit
from astroml_plugin.inference.measuring import measure_work
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import models_of
from astroml_plugin.inference.reading import read_unit
from astroml_plugin.sky.wcs import Wcs
from benchmarks import skies
from benchmarks.harness import Section, interleave, median_iqr, scratch, timed
from tests import universe
from tests.pages import table

SIDE, TILE, HALO = 1536, 1024, 128
PER_TILE = (2000, 200)
REPEATS = 12


def run() -> Section:
    """CPU seconds of one tile, of 1024² pixels in three bands with variance, mask, PSF and WCS; 48 px stamps."""
    texts, data = [], {}
    for count in PER_TILE:
        text, data[str(count)] = _one(count)
        texts.append(f"### {count:,} objects a tile\n\n{text}")
    head = (
        f"{run.__doc__} The network is the smallest of a recipe (strided CNN), so that all else shows. One core, "
        f"{REPEATS} rounds in turn over four tiles, median (quartiles). The middle is what `measure` and `infer` "
        "share: pixels to the device, stamps, normalisation, network, columns. A unit reads the tile and its objects, "
        "and encodes and writes its part beside it. Ratios are of arms of one round, each on another tile, so that no "
        "arm finds its pixels in a cache. `measure` without the middle is checks, placing of objects and the schema."
    )
    return Section("Measuring pixels in memory", "\n\n".join([head, *texts]), data)


def _one(count: int) -> tuple[str, dict[str, Any]]:
    folder = scratch() / f"measure-{count}"
    source = _sky(folder, count)
    bundle = skies.bundle("measure", widths=[16, 32, 64])
    shutil.rmtree(folder / "catalog", ignore_errors=True)
    objects = pq.read_table(folder / "objects.parquet")
    ready = prepare(source, bundle=bundle, out=str(folder / "catalog"), objects=objects, device="cpu")
    units = list(ready.units())
    survey, loaded = ap.Survey.open(source), ap.ModelBundle.load(bundle)
    tiles = [ap.Tile.from_survey(survey, unit.tile) for unit in units]
    works = [replace(read_unit(unit), tile=tile) for unit, tile in zip(units, tiles)]  # whole, whatever was cheaper
    owned = [_owned(objects, unit.tile) for unit in units]
    models = models_of(units[0].job)

    def measured(number: int) -> None:
        fresh = ap.Tile(**{name: getattr(tiles[number], name) for name in _FIELDS})  # nothing cached of a call before
        ap.measure(fresh, owned[number], loaded, device="cpu")

    done = [measure_work(work, models, Meter()) for work in works]

    def around(number: int) -> None:
        with mock.patch.object(in_memory, "measure_work", return_value=done[number]):
            measured(number)

    calls: dict[str, Callable[[int], Any]] = {
        "middle": lambda number: measure_work(replace(works[number]), models, Meter()),  # nothing cached
        "measure": measured,
        "unit": lambda number: run_unit(units[number]),
        "around": around,
    }
    arms: dict[str, Callable[[], float]] = {"rest": timed(lambda: time.sleep(0.3))}  # the canary's threads spin on
    arms |= {name: _turns(call, len(units), first) for first, (name, call) in enumerate(calls.items())}
    for arm in arms.values():
        arm()
    found = interleave(arms, REPEATS)
    over = [one / other - 1 for one, other in zip(found["measure"], found["middle"])]
    unit = [one / other - 1 for one, other in zip(found["measure"], found["unit"])]
    more = [one / other for one, other in zip(found["around"], found["middle"])]
    rows = [
        ["the middle alone, s", median_iqr(found["middle"])],
        ["`measure`, s", median_iqr(found["measure"])],
        ["a unit of `infer`, s", median_iqr(found["unit"])],
        ["`measure` without the middle, s", median_iqr(found["around"])],
        ["`measure` over the middle", _percent(over)],
        ["`measure` without the middle ÷ the middle", _percent(more)],
        ["`measure` over a unit", _percent(unit)],
    ]
    ratios = {"over_middle": over, "over_unit": unit, "without_middle": more}
    figures = {**{name: float(np.median(values)) for name, values in ratios.items()}, "seconds": found}
    return table(["figure", "value"], rows), figures


_FIELDS = ("image", "variance", "mask", "psf", "bands", "info")


def _percent(values: list[float]) -> str:
    low, middle, high = 100 * np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def _turns(function: Callable[[int], Any], count: int, first: int) -> Callable[[], float]:
    """CPU seconds of the function on the next tile, on one core; arms of one round have tiles of their own."""
    numbers = cycle((first + number) % count for number in range(count))

    def call() -> float:
        torch.set_num_threads(1)
        number = next(numbers)
        started = time.process_time()
        function(number)
        return time.process_time() - started

    return call


def _sky(folder: Path, per_tile: int) -> str:
    """URL of a survey of four tiles, and a table of objects beside it, made once."""
    url = folder / "survey.zarr"
    if not (folder / "objects.parquet").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shape = (SIDE, SIDE)
        universe.make_survey(str(url), shape=shape, tile_size=TILE, halo=HALO, bands=skies.BANDS)
        x, y = np.random.default_rng(1).uniform(0, SIDE - 1, (2, 4 * per_tile))
        ra, dec = Wcs.from_header(universe.header(*shape)).to_sky(x, y)
        pq.write_table(pa.table({"object_id": np.arange(len(x)), "ra": ra, "dec": dec}), folder / "objects.parquet")
    return str(url)


def _owned(objects: pa.Table, info: Any) -> pa.Table:
    """Objects of a tile, as its framework would hand them over."""
    wcs = info.wcs()
    x, y = wcs.to_pixel(objects["ra"].to_numpy(), objects["dec"].to_numpy())
    return objects.filter(pa.array(info.inner.contains(x + info.outer.x0, y + info.outer.y0)))
