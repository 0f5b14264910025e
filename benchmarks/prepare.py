"""Core-seconds of preparing stamps, stage by stage: torch against the compiled code, in turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from astroml_plugin import cutouts as cut
from astroml_plugin.compute.memory import stamps_per_forward
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.pixels import native
from astroml_plugin.tasks.example_stamps import example_stamps
from astroml_plugin.tasks.input_unit import zero_point_of
from astroml_plugin.training.bundle import ModelBundle
from benchmarks import skies
from benchmarks.harness import Section, interleave, median_iqr
from tests.pages import table

BUNDLES = ("morphology", "lens", "ellipticity", "anomaly")
STAMPS, REPEATS = 1024, 7
MASKED = 0.001
STAGES = ("validity", "centring", "prepare", "to_columns")
"""As of `inference`: pixels that can be used, the light brought to the centre, normalised; and what is looked up in the
pixels once the network has answered."""
WAYS = {native.TORCH: False, native.NATIVE: True}


def run() -> Section:
    """Stored stamps in memory to network input, in batches as of runs, one torch thread."""
    if native.way() != native.NATIVE:
        raise RuntimeError("the compiled code is not there: install the package where there is a C compiler")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        models = {name: ModelBundle.load(name) for name in BUNDLES}
        models["light network"] = ModelBundle.load(skies.bundle("small", 64))
        found = {name: _of(model) for name, model in models.items()}
        masked = {f"{name}, {MASKED:.1%} of the pixels masked": _of(models[name], MASKED) for name in BUNDLES[1:]}
    finally:
        torch.set_num_threads(before)
    data: dict[str, Any] = {}
    rows = [_row(name, timings, data) for name, timings in {**found, **masked}.items()]
    head = (
        f"{run.__doc__} {STAMPS:,} stamps, {REPEATS} rounds, the two ways in turns; CPU seconds of the process for "
        "16,384 stamps, median. Preparation is validity, centring and `prepare`; the ratio is compiled ÷ torch in the "
        "same round, median (quartiles)."
    )
    names = ["stamps", *(f"{stage}, torch → compiled" for stage in STAGES), "preparation, ratio"]
    return Section("Preparing stamps", f"{head}\n\n" + table(names, rows), data)


def _row(name: str, timings: dict[str, list[Any]], data: dict[str, Any]) -> list[str]:
    seconds = {way: {stage: [times[stage] for times in timings[way]] for stage in STAGES} for way in WAYS}
    whole = {way: [sum(times[stage] for stage in STAGES[:3]) for times in timings[way]] for way in WAYS}
    ratios = [after / old for after, old in zip(whole[native.NATIVE], whole[native.TORCH])]
    data[name] = {"ratio": float(np.median(ratios)), "seconds": seconds, "canary": timings["canary"]}
    cells = [
        f"{float(np.median(seconds[native.TORCH][stage])):.2f} → {float(np.median(seconds[native.NATIVE][stage])):.2f}"
        for stage in STAGES
    ]
    return [name, *cells, median_iqr(ratios, 2)]


def _of(model: ModelBundle, masked: float = 0.0) -> dict[str, list[Any]]:
    """Seconds by stage of both ways, interleaved."""
    task, mask = model.task(), None
    drawn, random = example_stamps(task.settings, task.stamp_size, STAMPS), np.random.default_rng(0)
    image, psf = drawn.image.numpy(), None if drawn.psf is None else drawn.psf.numpy().copy()
    unit = (zero_point_of(task.input_unit),) * len(task.bands)
    variance = None if image.dtype == np.uint8 else random.normal(1, 0.05, image.shape).astype(np.float32)
    if masked:
        mask = (random.random(image.shape) < masked).astype(np.uint32)
    batch = stamps_per_forward(model.network(), task.input_shapes(), "cpu")
    with torch.inference_mode():
        outputs = model.network(fused=True)(*task.prepare(drawn.take(slice(0, batch)))[0])

    def batches() -> Iterator[tuple[slice, np.ndarray | None]]:
        for start in range(0, STAMPS, batch):
            part = slice(start, start + batch)
            yield part, None if mask is None else mask[part]

    def once(on: bool) -> dict[str, float]:
        spent = dict.fromkeys(STAGES, 0.0)

        def step(stage: str, function: Callable[[], Any]) -> Any:
            started = time.process_time()
            made = function()
            spent[stage] += (time.process_time() - started) * 16384 / STAMPS
            return made

        with native.switched(on), torch.inference_mode():
            for part, marks in batches():
                given: Cutouts = step(
                    "validity",
                    lambda part=part, marks=marks: cut.from_stamps(
                        image[part],
                        None if variance is None else variance[part],
                        None if psf is None else psf[part],
                        bands=task.bands,
                        pixel_scale=task.pixel_scale,
                        zero_points=unit,
                    ).masked(marks),
                )
                centred = step("centring", lambda given=given: cut.recentred(given, task.settings.centring)[0])
                _, flags = step("prepare", lambda centred=centred: task.prepare(centred))
                step("to_columns", lambda centred=centred, flags=flags: task.to_columns(outputs, centred, flags))
        return spent

    once(True), once(False)
    return interleave({way: lambda on=on: once(on) for way, on in WAYS.items()}, REPEATS)
