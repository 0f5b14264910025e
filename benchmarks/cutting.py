"""Grouped cutouts (one read of the tile, stamps gathered in memory) against one read per object."""

from __future__ import annotations

import time

import numpy as np

from astroml_plugin import cutouts as cut
from astroml_plugin.pixels import stamp_origin
from astroml_plugin.sources.survey import Survey
from benchmarks import skies
from benchmarks.harness import Section, interleave, median_iqr
from tests.pages import table

TILE, HALO, STAMP = 4096, 128, 64
DENSITIES = (50, 500, 5000)
SAMPLE = 100
"""Per-object reads that are timed; their mean stands for all."""


def run() -> Section:
    """Stamps of 64 px from one 4096² single-band tile with image, variance and mask."""
    folder = skies.noise_survey(1, TILE, HALO, max(DENSITIES), ("r",))
    survey = Survey.open(str(folder / "survey.zarr"))
    info = survey.tile(0)
    rng = np.random.default_rng(2)
    side = info.inner.width
    x, y = rng.uniform(0, side - 1, (2, max(DENSITIES)))
    arrays = [survey.array(name) for name in survey.array_names]

    def grouped(count: int) -> float:
        started = time.perf_counter()
        placed = cut.to_device(survey.read_tile(info), ("r",))
        cut.around(
            placed,
            x[:count],
            y[:count],
            STAMP,
            origin=(info.outer.x0, info.outer.y0),
            jacobian=np.full((count, 2, 2), np.nan),
        )
        return time.perf_counter() - started

    def each() -> float:
        left, top = (
            stamp_origin(x[:SAMPLE], STAMP) - info.outer.x0,
            stamp_origin(y[:SAMPLE], STAMP) - info.outer.y0,
        )
        started = time.perf_counter()
        for x0, y0 in zip(left, top):
            for array in arrays:
                array[0, :, y0 : y0 + STAMP, x0 : x0 + STAMP]
        return (time.perf_counter() - started) / SAMPLE

    timings = interleave({"per object": each, **{str(n): (lambda n=n: grouped(n)) for n in DENSITIES}})
    single = timings["per object"]
    rows, data = [], {}
    for count in DENSITIES:
        ratio = [count * one / all_ for one, all_ in zip(single, timings[str(count)])]
        data[str(count)] = float(np.median(ratio))
        rows.append(
            [count, median_iqr(timings[str(count)]), f"{count * float(np.median(single)):.2f}", median_iqr(ratio, 1)]
        )
    text = f"{run.__doc__} Per-object seconds are the mean of {SAMPLE} reads times the number of objects.\n\n" + table(
        ["objects per tile", "grouped, s", "per object, s", "ratio"], rows
    )
    return Section("Grouped cutouts", text, {"ratio": data})
