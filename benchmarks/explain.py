"""Explanations of the shipped bundles and a plug-in: do they add up, matter, follow the weights; speed and memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.compute.cluster import cores
from astroml_plugin.compute.device import place_network
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.explanation import MethodOptions, Seen, Target, attributed, explainable, faithfulness, seen_by
from astroml_plugin.explanation.baselines import baselines_of
from astroml_plugin.explanation.checks import last_and_all, rank_correlations
from astroml_plugin.explanation.choosing import window_side
from astroml_plugin.explanation.methods import shares
from astroml_plugin.explanation.target import values
from astroml_plugin.explanation.trust import bootstrapped
from astroml_plugin.networks.strided_cnn import StridedCNN
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.segmentation.layer_maps import CENTRE
from astroml_plugin.training.bundle import ModelBundle
from benchmarks.harness import Section, scratch, shared_data
from bundles.training_sets import TrainingSet
from tests import planted
from tests.pages import table
from workflows.infer import infer

COUNT = 64
"""Objects of each bundle."""
FIELDS = 8
"""Peaks of `segmentation` that are explained: each sees a window of 272 pixels."""
MANY_ODD = 512
"""Simulated galaxies among which the oddest are explained."""
CHANGED = 24
"""Objects whose maps are compared after weights were drawn anew."""
SLOW = 8
"""Objects of occlusion, in squares of 8 pixels side by side."""
SPEED_COUNT = 512
MANY = (10_000, 30_000, 100_000)
"""Objects whose memory is measured."""
METHODS = ("integrated-gradients", "gradient", "guided", "deconvnet", "occlusion")
SETS = {
    "lens": ("lenses", {"changes": {"stamps": {"variance": False}}}),
    "ellipticity": ("field-varying", {"snr": (10.0, 200.0)}),
    "anomaly": ("anomalies", {}),
    "segmentation": ("fields", {}),
}


@dataclass(frozen=True)
class Case:
    """A bundle and objects to explain."""

    name: str
    target: Target
    seen: Seen
    baseline: str


def run() -> Section:
    """Whether attributions add up, matter, and follow the weights; maps per minute and memory."""
    torch.set_num_threads(cores())
    rows, data = [], {}
    for case in _cases():
        for method in METHODS:
            row, data[f"{case.name} {case.target.number} {method}"] = _judged(case, method)
            rows.append([case.name, case.target.number, method, *row])
            print(rows[-1], flush=True)
    speed = _speed()
    memory = _memory()
    text = (
        f"{run.__doc__} {COUNT} objects each, {FIELDS} of `segmentation` (simulations of seeds above 900; the last "
        f"Galaxy Zoo images for `morphology`; the oddest of {MANY_ODD} for `anomaly`; stamps of the tests for the "
        "plug-in). Error: of the sum, median and 90 %. Deletion, insertion: area between the curves of a random order "
        "and of the attributions, over the mean difference from the start; above 0 is better than chance (95 % by "
        "bootstrap over objects). Gradients, guided and deconvnet maps are slopes: their pixels are ordered by slope "
        "times change from the baseline. Changed: Spearman's correlation of maps with those after the last layer, and "
        "after all layers, were drawn anew.\n\n"
        + table(
            [
                *("bundle", "number", "method", "error, median", "90 %", "complete", "looks"),
                *("deletion", "insertion", "changed: last", "all"),
            ],
            rows,
        )
        + f"\n\n{speed['text']}\n\n{memory['text']}"
    )
    return Section("Explanations", text, {**data, "speed": speed, "memory": memory})


def _cases() -> Iterator[Case]:
    for name in ("morphology", *SETS):
        bundle = ModelBundle.load(name)
        task = bundle.task()
        network = explainable(task.inference_network(place_network(bundle.network(fused=True), "cpu")))
        target = Target(task, network)
        stamps = _stamps(name, task)
        if isinstance(task, DetectingTask):
            stamps, at = _peaks(task, network, stamps)
            yield Case(name, target, seen_by(target, stamps, at), "blank")
        else:
            seen = seen_by(target, stamps)
            if name == "anomaly":  # of what is found: ordinary galaxies are less odd than a stamp without any
                odd = values(target, seen.image, *seen.given()).argsort(descending=True, stable=True)
                seen = seen.take(odd[:COUNT])
            yield Case(name, target, seen, "noise" if name == "anomaly" else "blank")
            if name == "anomaly":  # the sign whose gradient sees no jumps
                yield Case(name, Target(task, network, "anomaly_foreign"), seen, "noise")
    yield _plug_in()


def _stamps(name: str, task: Task) -> Cutouts:
    """Stamps of objects for a bundle."""
    if name == "morphology":
        archive = shared_data("gz1_sdss_rgb64_dev.npz")
        if archive is None:
            raise FileNotFoundError("the Galaxy Zoo images are not here: set ASTROML_TEST_DATA")
        with np.load(archive) as whole:
            images = whole["x"][-COUNT:].transpose(0, 3, 1, 2)
        return from_stamps(np.ascontiguousarray(images), None, None, bands=task.bands, zero_points=(None,) * 3)
    preset, options = SETS[name]
    count = {"segmentation": FIELDS, "anomaly": MANY_ODD}.get(name, COUNT)
    source = TrainingSet(f"explain-{name}-{count}", preset, count, 911, options).made(str(scratch()), least=count)
    stamps = Stamps.open(source)
    image, variance, psf = stamps.read_block(stamps.units()[0].index)
    made = from_stamps(
        image[:count],
        None if variance is None else variance[:count],
        None if psf is None else psf[:count],
        bands=stamps.bands,
        pixel_scale=stamps.pixel_scale,
        zero_points=stamps.zero_points,
    )
    return made.select(task.choose_bands(stamps.bands))


def _peaks(task: DetectingTask, network: nn.Module, fields: Cutouts) -> tuple[Cutouts, Tensor]:
    """Windows of fields about the place near their middle where a centre is most probable."""
    (image,), _ = task.prepare(fields)
    with torch.no_grad():
        maps = torch.cat([network(part) for part in image.split(4)])[:, CENTRE]
    side, size = window_side(task), image.shape[-1]
    first = (size - side) // 2 // task.stride * task.stride
    middle = maps[:, size // 2 - 24 : size // 2 + 24, size // 2 - 24 : size // 2 + 24].flatten(1).argmax(1)
    at = torch.stack([middle % 48, middle // 48], 1) + size // 2 - 24 - first
    part = (..., slice(first, first + side), slice(first, first + side))
    variance = None if fields.variance is None else fields.variance[part].numpy()
    windows = from_stamps(
        fields.image[part].numpy(), variance, None, bands=fields.bands, pixel_scale=fields.pixel_scale, zero_points=()
    )
    return windows, at


def _plug_in() -> Case:
    """A network of the tests that has learned a mark in one corner, under a task that knows nothing of explanations."""
    bundle = ModelBundle.load(planted.bundle(str(scratch() / "explain-marks"), "corner"))
    network = explainable(bundle.network(fused=True))
    image, kind = planted.stamps("corner", 4 * COUNT, seed=911)
    marked = np.flatnonzero(kind == 1)[:COUNT]
    stamps = from_stamps(image[marked], None, None, bands=planted.BANDS, pixel_scale=0.2, zero_points=(None,) * 3)

    class Plain(ClassifyTask):
        explained, explained_place, explained_value = Task.explained, Task.explained_place, Task.explained_value

    target = Target(Plain(bundle.task().settings), network, "output_1")
    return Case("plug-in (mark in a corner)", target, seen_by(target, stamps), "blank")


def _judged(case: Case, method: str) -> tuple[list[Any], dict[str, Any]]:
    slow = method == "occlusion"
    how = MethodOptions(method=method, baseline=case.baseline, draws=1, window=8, stride=8)
    case = replace(case, seen=case.seen.take(slice(0, SLOW if slow else None)))
    ids = np.arange(len(case.seen))
    found = attributed(case.target, case.seen, how, ids)
    (begin,) = baselines_of(case.target, case.seen, how, ids)
    score = faithfulness(case.target, case.seen, begin, shares(found, method, case.seen.image - begin))
    few = SLOW if slow else CHANGED if len(case.seen) > FIELDS else len(case.seen) // 2
    last, every = _changed(replace(case, seen=case.seen.take(slice(0, few))), how)
    error = found.error.numpy()
    sums = np.isfinite(error).any()
    complete = float((error <= how.tolerance).mean()) if sums else float("nan")
    cells = [f"{np.median(error):.1e}", f"{np.quantile(error, 0.9):.1e}", f"{complete:.0%}"] if sums else ["–"] * 3
    looks = float(found.forwards.double().mean())
    figures = {
        "error": [float(value) for value in error] if sums else [],
        "looks": looks,
        "deletion": vars(score.deletion),
        "insertion": vars(score.insertion),
        "changed": [vars(last), vars(every)],
    }
    shown = [f"{one.value:.2f} ({one.low:.2f}–{one.high:.2f})" for one in (score.deletion, score.insertion)]
    return [*cells, f"{looks:.0f}", *shown, f"{last.value:.2f}", f"{every.value:.2f}"], figures


def _changed(case: Case, how: MethodOptions) -> tuple[Any, Any]:
    """Correlation of maps after the last layer alone, and after all layers, were drawn anew."""
    some = case.seen
    make: Callable[[Target], Tensor] = lambda target: attributed(target, some, how).maps  # noqa: E731
    first = make(case.target)
    last, every = (bootstrapped(rank_correlations(first, make(target))) for target in last_and_all(case.target))
    return last, every


def _speed() -> dict[str, Any]:
    """Integrated gradients of a strided network at 64 pixels, on all cores."""
    torch.manual_seed(0)
    image = torch.randn(SPEED_COUNT, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    y, x = torch.meshgrid(*2 * (torch.arange(64) - 32.0,), indexing="ij")
    image += 8 * torch.exp(-(x**2 + y**2) / 50)
    rates = {}
    for activation in ("relu", "silu"):
        network = place_network(explainable(StridedCNN(3, 2, activation=activation)), "cpu")
        task = ClassifyTask.from_settings({"classes": ["a", "b"], "bands": ["g", "r", "i"]})
        target = Target(task, network, "logit_b")
        at = torch.full((SPEED_COUNT, 2), 32)
        seen = Seen(image, (), torch.ones_like(image, dtype=torch.bool), at, torch.ones(SPEED_COUNT, dtype=torch.int64))
        how = MethodOptions(forwards=50)
        found, walls, spent = None, [], []
        for _ in range(3):
            began, used = time.perf_counter(), time.process_time()
            found = attributed(target, seen, how)
            walls.append(time.perf_counter() - began)
            spent.append(time.process_time() - used)
        assert found is not None
        rates[activation] = {
            "maps_per_minute": 60 * SPEED_COUNT / min(walls),
            "maps_per_minute_of_cpu_time": 60 * SPEED_COUNT * cores() / min(spent),
            "looks": float(found.forwards.double().mean()),
            "complete": float((found.error <= how.tolerance).float().mean()),
        }
    lines = [
        f"{name}: {one['maps_per_minute']:,.0f} in wall time, {one['maps_per_minute_of_cpu_time']:,.0f} by CPU time, "
        f"{one['looks']:.0f} looks each (50 at most), {one['complete']:.0%} add up within 1e-3"
        for name, one in rates.items()
    ]
    text = f"Integrated gradients per minute of `strided_cnn`, 3 bands of 64 pixels, {cores()} cores. " + "; ".join(
        lines
    )
    return {"text": text + ".", "rates": rates}


def _memory() -> dict[str, Any]:
    """Peak memory of processes that explain all of some stored stamps, one process for each number of stamps."""
    peaks, walls = {}, {}
    folder = scratch() / "explain-memory"
    bundle = planted.bundle(str(folder / "marks"), "corner")
    for count in MANY:
        source, out = str(folder / f"{count}.zarr"), str(folder / f"catalog-{count}")
        if not Path(source).exists():
            planted.store(source, "corner", count, block=1000)
        if not Path(out).exists():
            infer(source, bundle=bundle, out=out)
        shutil.rmtree(Path(out) / "explanations", ignore_errors=True)  # of an earlier measurement
        shutil.rmtree(Path(out) / "annotations", ignore_errors=True)
        began = time.perf_counter()
        peaks[count] = float(subprocess.check_output([sys.executable, "-c", _EXPLAIN, out], text=True).split()[-1])
        walls[count] = time.perf_counter() - began
    told = "; ".join(f"{count:,} objects {peaks[count]:,.0f} MB in {walls[count]:,.0f} s" for count in MANY)
    text = f"Peak memory of the process, maps written, stamps of 24 pixels in three bands, 17 looks each: {told}."
    return {"text": text, "peaks": {str(key): value for key, value in peaks.items()}}


_EXPLAIN = """
import re, sys
from workflows.explain import explain
done = explain(sys.argv[1], top=0, by="p_marked", name="why", forwards=17)
assert done.rows == done.objects
print(int(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10)  # of this process alone
"""
