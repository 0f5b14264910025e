"""Networks of the shipped bundles on a CPU in ONNX Runtime and OpenVINO, beside PyTorch; whole runs with each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from distributed import Client
from torch import Tensor

from astroml_plugin.compute import onnx_graph
from astroml_plugin.compute.choices import RUNTIMES
from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.compute.device import place_network
from astroml_plugin.compute.forward import Forward, difference
from astroml_plugin.compute.precision import FLOAT32, cpu_bfloat16
from astroml_plugin.compute.runtimes import RuntimeForward, runtime_problem
from astroml_plugin.inference import prepare
from astroml_plugin.inference.deciding import recorded_forms
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.example_stamps import example_stamps
from astroml_plugin.training.bundle import ModelBundle, shipped
from benchmarks import skies
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from tests.pages import table
from workflows.query import query

BATCH = 128
WINDOWS = 4
"""Windows of a bundle that finds objects."""
COUNT = 4096
"""Stamps of a whole run."""


def run() -> Section:
    """Time of a batch as a part of PyTorch's, and whole runs from stored stamps into an empty catalog."""
    ready = [name for name in RUNTIMES if not runtime_problem(name, "cpu")]
    alone, data, arms = [], {}, [*ready, *_halves(ready)]
    for name in shipped():
        for threads in sorted({1, cores()}):
            with ThreadPoolExecutor(1, initializer=partial(torch.set_num_threads, threads)) as pool:
                row, data[f"{name} {threads}"] = pool.submit(_network, name, ready, threads).result()
            alone.append(row)
    whole, data["runs"], data["decided"] = _runs(ready)
    text = (
        f"{run.__doc__} Arms in turns, {REPEATS} rounds, median (quartiles). Networks: batches of {BATCH} drawn stamps "
        f"({WINDOWS} windows), after normalisation; one thread in its CPU time, more in wall time. Differences are the "
        "largest of an output as a part of the output's largest size.\n\n"
        + table(["bundle", "threads", *(f"{one} ÷ torch" for one in arms), *(f"{one} differs" for one in arms)], alone)
        + f"\n\n{COUNT:,} stamps from blocks on disk to rows, objects per core-second (all threads of the process):\n\n"
        + table(
            ["bundle", *_arms(ready), *(f"{one}: largest difference of a column" for one in _arms(ready)[1:])], whole
        )
        + "".join(f"\n\n`{AUTO}` decided for `{name}`: {form}." for name, form in data["decided"].items())
    )
    return Section("Backends of the network on a CPU", text, data)


AUTO = "--precision auto"
"""Arm of whole runs whose number format is decided."""


def _halves(ready: Sequence[str]) -> list[str]:
    """Arms in bfloat16 that this CPU has."""
    return [f"{one} bfloat16" for one in ("torch", *ready) if one != "onnx"] if cpu_bfloat16() else []


def _arms(ready: Sequence[str]) -> list[str]:
    """Arms of whole runs."""
    return ["torch", *ready, *([AUTO] if cpu_bfloat16() else [])]


def _network(name: str, ready: Sequence[str], threads: int) -> tuple[list[Any], dict[str, Any]]:
    """Row and figures of one bundle's network with so many threads."""
    bundle = ModelBundle.load(name)
    task = bundle.task()
    network = task.inference_network(place_network(bundle.network(fused=True), "cpu"))
    inputs = task.example_inputs(WINDOWS if name == "segmentation" else BATCH)
    graph = onnx_graph.graph_of(network, inputs, getattr(task, "stride", 0))
    forms: dict[str, Any] = {"torch": Forward(network, "cpu")} | {one: RuntimeForward(one, graph) for one in ready}
    for arm in _halves(ready):
        runtime = arm.split()[0]
        half = Forward(network, "cpu", compiling="never", dtype=torch.bfloat16)
        forms[arm] = half if runtime == "torch" else RuntimeForward(runtime, graph, half=True)
    wanted, others = forms["torch"](inputs, BATCH), [one for one in forms if one != "torch"]
    gaps = [difference(wanted, forms[one](inputs, BATCH).float()) for one in others]
    clock = time.thread_time if threads == 1 else time.perf_counter
    found = interleave({one: partial(_seconds, form, inputs, clock) for one, form in forms.items()})
    ratios = {one: [a / b for a, b in zip(found[one], found["torch"])] for one in others}
    row = [name, threads, *(median_iqr(ratios[one], 2) for one in others), *(f"{gap:.1e}" for gap in gaps)]
    return row, {"ratios": ratios, "gaps": dict(zip(others, gaps)), "canary": found["canary"]}


def _seconds(form: Any, inputs: Sequence[Tensor], clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(3):
        form(inputs, BATCH)
    return clock() - began


def _runs(ready: Sequence[str]) -> tuple[list[list[Any]], dict[str, Any], dict[str, str]]:
    """Rows and figures of whole runs of the bundles that measure stamps, and the forms that were decided."""
    rows, data, decided, arms = [], {}, {}, _arms(ready)
    names = [name for name in shipped() if name != "segmentation"]
    with connect("local") as client:
        for name in names:
            source = drawn_stamps(name, ModelBundle.load(name).task())
            found = interleave({one: partial(_rate, client, name, source, one) for one in arms})
            gaps = [_largest_gap(name, one) for one in arms[1:]]
            rows.append([name, *(median_iqr(found[one], 0) for one in arms), *gaps])
            data[name] = {"rates": found, "gaps": gaps}
            if AUTO in arms:
                decided[name] = (recorded_forms(_catalog(name, AUTO)) or {}).get(name, FLOAT32)
    return rows, data, decided


def drawn_stamps(name: str, task: Task, count: int = COUNT) -> str:
    """A store of drawn stamps as the bundle's own, made once."""
    folder = scratch() / f"backends-1-{name}-{count}.zarr"
    if folder.exists():
        return str(folder)
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    drawn = example_stamps(task.settings, task.example_side, count)
    image, psf = drawn.image.numpy(), None if drawn.psf is None else drawn.psf.numpy()
    variance = None if image.dtype == np.uint8 else np.ones_like(image)
    store = Stamps.create(
        str(making),
        bands=drawn.bands,
        size=image.shape[2:],
        dtype=str(image.dtype),
        pixel_scale=task.pixel_scale,
        zero_points=() if image.dtype == np.uint8 else (31.4,) * len(drawn.bands),
        psf_size=None if psf is None else psf.shape[2:],
        variance=variance is not None,
    )
    first = store.reserve(-(-count // store.block))
    for number, start in enumerate(range(0, count, store.block)):
        part = slice(start, min(count, start + store.block))
        parts = [None if item is None else np.ascontiguousarray(item[part]) for item in (image, variance, psf)]
        checksum = store.write_block(first + number, *parts)  # type: ignore[arg-type]
        store.commit_objects(first + number, pa.table({"object_id": np.arange(part.start, part.stop)}), checksum)
    making.rename(folder)
    return str(folder)


def _catalog(name: str, backend: str) -> str:
    return str(scratch() / f"backends-catalog-{name}-{backend.replace(' ', '')}")


def _rate(client: Client, name: str, source: str, backend: str) -> float:
    """Objects per core-second of one run into an empty catalog; the models are loaded before."""
    out = _catalog(name, backend)
    shutil.rmtree(out, ignore_errors=True)
    how = {"precision": "auto"} if backend == AUTO else {"backend": backend}
    _, spent = skies.timed_run(prepare(source, bundle=name, out=out, device="cpu", **how), client)
    return COUNT / spent


def _largest_gap(name: str, backend: str) -> str:
    """The largest difference of a column's numbers, as a part of its largest size; rows whose other values differ."""
    one, two = (
        query(_catalog(name, arm), "SELECT * FROM catalog").to_arrow().sort_by("object_id")
        for arm in ("torch", backend)
    )
    gap, other = 0.0, 0
    for column in one.schema.names:
        first, second = one[column], two[column]
        if pa.types.is_fixed_size_list(first.type) or pa.types.is_list(first.type):
            first, second = pc.list_flatten(first), pc.list_flatten(second)
        if pa.types.is_floating(first.type):
            pair = [torch.from_numpy(item.to_numpy(zero_copy_only=False).copy())[:, None] for item in (first, second)]
            gap = max(gap, difference(*pair))
        else:
            other += sum(a != b for a, b in zip(first.to_pylist(), second.to_pylist()))
    return f"{gap:.1e}" + (f", {other} other values" if other else "")
