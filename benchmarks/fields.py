"""The engine's part of detection: windows cut, normalised, forwarded and stitched, against the network alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from astroml_plugin import cutouts as cut
from astroml_plugin.inference import BundleRef, ExecutionOptions, Job
from astroml_plugin.inference.detecting import network_maps
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import models_of
from astroml_plugin.sources.survey import Survey
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.training.bundle import Card, ModelBundle
from benchmarks import skies
from benchmarks.harness import Section, interleave, median_iqr, scratch, timed
from tests.pages import table

TILE, HALO = 2048, 128
WIDTHS = {"small": (8, 16, 32), "recipe": (16, 32, 64)}
"""Channels of the networks that are timed; weights are random, which takes as long as trained ones."""


def run() -> Section:
    """One 2048² single-band tile with image, variance and mask; one thread; networks with random weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, data = [], {}
        for name, widths in WIDTHS.items():
            row, data[name] = _timed(name, widths)
            rows.append(row)
    finally:
        torch.set_num_threads(threads)
    head = ["network", "windows", "pixels seen / field", "network alone, Mpix/s", "maps, Mpix/s", "ratio"]
    text = (
        f"{run.__doc__} Mpix of the field per second; the network alone is forwarded as many times as there are "
        f"windows, on one that is ready.\n\n{table(head, rows)}"
    )
    return Section("Detection: windows and stitching", text, data)


def _timed(name: str, widths: tuple[int, ...]) -> tuple[list[Any], dict[str, float]]:
    """A row of the table and its figures."""
    survey = Survey.open(str(skies.noise_survey(1, TILE, HALO, 0, ("r",)) / "survey.zarr"))
    info = survey.tile(0)
    bounds = info.outer.clipped(*info.image_shape)
    placed = cut.to_device(survey.read_tile(info), ("r",))
    job = _job(name, widths)
    (model,) = models_of(job)
    task = model.task
    corners = (bounds.x0, bounds.y0, bounds.x1, bounds.y1)
    windows = cut.grid(corners, size=task.window, overlap=task.overlap, stride=task.stride)
    inputs, _ = task.prepare(next(windows.cutouts(placed, (info.outer.x0, info.outer.y0), 1)))

    def network() -> None:
        with torch.inference_mode():
            for _ in range(len(windows)):
                model.network(*inputs)

    timings = interleave(
        {"network": timed(network), "maps": timed(lambda: network_maps(model, info, placed, bounds, Meter()))}
    )
    field = bounds.width * bounds.height / 1e6
    waste = len(windows) * windows.window[0] * windows.window[1] / 1e6 / field
    ratio = [alone / whole for alone, whole in zip(timings["network"], timings["maps"])]
    speeds = ([field / seconds for seconds in timings[arm]] for arm in ("network", "maps"))
    row = [name, len(windows), f"{waste:.2f}", *(median_iqr(values, 2) for values in speeds), median_iqr(ratio)]
    return row, {"ratio": float(np.median(ratio)), "waste": waste}


def _job(name: str, widths: tuple[int, ...]) -> Job:
    """A run with a network of random weights."""
    torch.manual_seed(0)
    task = SegmentTask.from_settings({"bands": ["r"]})
    arguments = {"widths": list(widths)}
    url = str(scratch() / f"field-{name}")
    card = Card(name, "segment", task.to_settings(), "unet", arguments)
    bundle = ModelBundle.save(url, task.build_network("unet", arguments), card)
    return Job(
        "",
        "",
        (BundleRef(name, url, bundle.sha256),),
        execution=ExecutionOptions(device="cpu"),
        detecting=name,
        field_bands=("r",),
    )
