"""The engine beside other ways to the same numbers: torch's DataLoader, Ray Data, Dask with the model in the graph."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import torch
import zarr
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from astroml_plugin import cutouts as cut
from astroml_plugin import inference
from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.compute.precision import cpu_bfloat16
from astroml_plugin.compute.runtimes import runtime_problem
from astroml_plugin.inference import prepare
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from benchmarks import skies
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch
from benchmarks.peer_arms import Arm, peer_arms
from tests.pages import table
from workflows.query import query

SIZE, BLOCK, BATCH = 64, 256, 128
ZARR, ARRAY = "Zarr, zstd", "memory-mapped array, not compressed"
CASES: dict[str, dict[str, Any]] = {
    "ResNet-18: the forward bounds all": {
        "name": "resnet18-64",
        "count": 2048,
        "network": "residual_cnn",
        "widths": [64, 128, 256, 512],
        "blocks": 2,
        "stem_pooling": "max",
    },
    "A light CNN (widths 4, 8): reading counts": {"name": "light-64", "count": 16384, "widths": [4, 8]},
}
NAMES = {
    "ours": ("`infer`", ZARR, "as `infer`", "the catalog"),
    "ours, openvino": ("`infer --backend openvino`", ZARR, "as `infer`", "the catalog"),
    "ours, auto": ("`infer --precision auto`: bfloat16 where it pays", ZARR, "as `infer`", "the catalog"),
    "dataloader": ("torch `DataLoader`, IterableDataset of whole batches, 2 workers", ZARR, "as `infer`", "–"),
    "ray": ("Ray Data `map_batches`, pool of 2 actors", ZARR, "as `infer`", "–"),
    "map_blocks": ("`dask.array.map_blocks`, model in the graph, threads", ZARR, "as `infer`", "–"),
    "map_blocks_processes": ("the same, 2 worker processes", ZARR, "as `infer`", "–"),
    "delayed": ("`dask.delayed(model)` as an argument, 2 worker processes", ZARR, "as `infer`", "–"),
    "hyrax": ("hyrax `infer`, 2 workers", ARRAY, "the same in NumPy, a stamp at a time", "its Lance table"),
    "hyrax, raw": ("hyrax `infer`, 2 workers", ARRAY, "none: other numbers", "its Lance table"),
    "zoobot": (
        "zoobot's loop: Lightning `Trainer.predict`, 2 workers",
        ARRAY,
        "the same in NumPy, a stamp at a time",
        "a CSV file",
    ),
}
"""Arm -> what it is, what it reads, how it normalises, what it writes."""
UNLIKE = ("hyrax, raw",)
"""Arms whose numbers are others by design."""
NEAR = {"ours, openvino": 1e-4, "ours, auto": 0.05}
"""Arms in another runtime or number format, and how far their probabilities may lie from the others'."""


def run() -> Section:
    """Stamps of 64 px in three bands, stored in blocks of 256, to class probabilities; batches of 128, float32."""
    parts = [_case(label, dict(settings)) for label, settings in CASES.items()]
    text = (
        f"{run.__doc__} All arms use one network and one normalisation, are checked to give the same numbers, run "
        f"in turn, {REPEATS} times, on {cores()} cores, with processes, actors and models started before the clock "
        "(a first, untimed pass). Peers read through zarr as it is by default; each arm is given the cores once. hyrax "
        "and zoobot run in environments of their own with the same torch; they get the network as a traced module, "
        "folded, in channels last. No weights of zoobot are used: the network is the one of all arms.\n\n"
        + "\n\n".join(text for text, _ in parts)
    )
    return Section("Peers", text, {name: data for _, figures in parts for name, data in figures.items()})


def _case(label: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name, count = settings.pop("name"), settings.pop("count")
    store, bundle = str(_stamps(count)), skies.bundle(name, SIZE, **settings)
    with ExitStack() as stack:
        arms = _arms(stack, store, bundle, scratch() / f"peers-{name}")
        others, ready, missing = peer_arms(stack, store, bundle, BATCH)
        arms |= others
        wanted = arms["ours"]()[1]
        for arm, call in arms.items():
            found = call()[1]
            if arm not in UNLIKE and not np.allclose(found, wanted, rtol=2e-5, atol=NEAR.get(arm, 2e-6)):
                raise RuntimeError(f"{arm} gives other numbers, by {np.abs(found - wanted).max()}")
        seconds = interleave({arm: (lambda call=call: call()[0]) for arm, call in arms.items()})
    rows, ratios = [], {}
    for arm in arms:
        ratio = [theirs / ours for theirs, ours in zip(seconds[arm], seconds["ours"])]
        ratios[arm] = float(np.median(ratio))
        rate = [count / value for value in seconds[arm]]
        rows.append([*NAMES[arm], median_iqr(rate, 0), median_iqr(ratio, 2)])
    rows.append(["canary, s", "", "", "", median_iqr(seconds["canary"]), ""])
    head = ["how", "reads", "normalises", "writes", "objects/s", "time ÷ ours"]
    starts = [
        f"{arm}: imports took {told['import']:.1f} s and loading {told['load']:.1f} s, not counted."
        for arm, told in ready.items()
    ]
    return f"### {label}\n\n" + table(head, rows) + "\n\n" + "\n".join(starts + missing), {name: ratios}


def _stamps(count: int) -> Path:
    """Stamps of noise, made once."""
    folder = scratch() / f"peers-{count}.zarr"
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    import pyarrow as pa

    rng = np.random.default_rng(5)
    store = Stamps.create(str(making), bands=skies.BANDS, size=(SIZE, SIZE), block=BLOCK, pixel_scale=skies.SCALE)
    first = store.reserve(count // BLOCK)
    for number in range(count // BLOCK):
        image = rng.normal(0, 3, (BLOCK, len(skies.BANDS), SIZE, SIZE)).astype(np.float32)
        checksum = store.write_block(first + number, image)
        ids = np.arange(number * BLOCK, (number + 1) * BLOCK)
        store.commit_objects(first + number, pa.table({"object_id": ids}), checksum)
    making.rename(folder)
    return folder


def _arms(stack: ExitStack, store: str, bundle: str, out: Path) -> dict[str, Arm]:
    threads = stack.enter_context(connect("local"))
    processes = stack.enter_context(connect("processes", workers=cores(), threads=1))
    processes.run(torch.set_num_threads, 1)
    arms: dict[str, Arm] = {
        "ours": partial(_ours, threads, store, bundle, out, backend="torch"),
        **_other_forms(threads, store, bundle, out),
        "dataloader": _dataloader(store, bundle),
        "ray": _ray(stack, store, bundle),
        "map_blocks": partial(_map_blocks, threads, store, bundle),
        "map_blocks_processes": partial(_map_blocks, processes, store, bundle),
        "delayed": partial(_delayed, processes, store, bundle),
    }
    return arms


def _other_forms(client: Any, store: str, bundle: str, out: Path) -> dict[str, Arm]:
    """`infer` in another runtime and in half precision, where this machine has them."""
    arms: dict[str, Arm] = {}
    if not runtime_problem("openvino", "cpu"):
        arms["ours, openvino"] = partial(_ours, client, store, bundle, out, backend="openvino")
    if cpu_bfloat16():
        arms["ours, auto"] = partial(_ours, client, store, bundle, out, precision="auto")
    return arms


@cache
def _loaded(bundle: str) -> tuple[Any, Any]:
    """Task and network of a process."""
    model = ModelBundle.load(bundle)
    return model.task(), model.network(fused=True).to(memory_format=torch.channels_last)


def _classified(image: np.ndarray, task: Any, network: Any) -> np.ndarray:
    """(n,) probabilities of the first class, batch by batch."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(image), BATCH):
            stamps = cut.from_stamps(
                image[start : start + BATCH], None, None, bands=skies.BANDS, pixel_scale=skies.SCALE
            )
            inputs, prepared = task.prepare(stamps)
            found.append(task.to_columns(network(*inputs), stamps, prepared)[0]["p_star"])
    return np.concatenate(found)


def _ours(client: Any, store: str, bundle: str, out: Path, **how: Any) -> tuple[float, np.ndarray]:
    shutil.rmtree(out, ignore_errors=True)
    ready = prepare(store, bundle=bundle, out=str(out), batch=BATCH, device="cpu", **how)
    tally = inference.execute(client, ready.units(), ready.catalog, run_id=ready.job.run, total=0)
    ready.catalog.finish_run(ready.job.run)
    if tally.failed:
        raise RuntimeError(f"the run is wrong: {tally}")
    table = query(str(out), "SELECT p_star FROM catalog ORDER BY object_id").to_arrow()
    return tally.seconds, table["p_star"].to_numpy()


class _Batches(IterableDataset[Any]):
    """Batches of stamps, each worker its share."""

    def __init__(self, store: str) -> None:
        self.store = store

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        array = zarr.open_array(f"{self.store}/image", mode="r")
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for start in range(first * BATCH, array.shape[0], step * BATCH):
            yield start, array[start : start + BATCH]


def _dataloader(store: str, bundle: str) -> Arm:
    loader = DataLoader(
        _Batches(store),
        batch_size=None,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="spawn",
        prefetch_factor=4,
    )

    def arm() -> tuple[float, np.ndarray]:
        torch.set_num_threads(cores())
        task, network = _loaded(bundle)
        found = {}
        started = time.perf_counter()
        for start, image in loader:
            found[int(start)] = _classified(np.asarray(image), task, network)
        seconds = time.perf_counter() - started
        return seconds, np.concatenate([found[start] for start in sorted(found)])

    return arm


class _Predictor:
    """What Ray's documentation calls the callable class of an actor pool."""

    def __init__(self, bundle: str) -> None:
        torch.set_num_threads(1)
        self.task, self.network = _loaded(bundle)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = _classified(np.stack(batch["image"]), self.task, self.network)
        ended = np.full(len(answers), time.time())
        return {"id": batch["id"], "p": answers, "begun": batch["begun"], "ended": ended}


def _read(batch: dict[str, np.ndarray], store: str) -> dict[str, np.ndarray]:
    begun = np.full(BLOCK, time.time())
    array = zarr.open_array(f"{store}/image", mode="r")
    (block,) = batch["id"]
    rows = slice(block * BLOCK, (block + 1) * BLOCK)
    return {"id": np.arange(rows.start, rows.stop), "image": array[rows], "begun": begun}


def _ray(stack: ExitStack, store: str, bundle: str) -> Arm:
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")  # its workers would give way to any other program
    # Logical cores: one for each actor, and some for the reading tasks beside them.
    ray.init(num_cpus=2 * cores(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    stack.callback(ray.shutdown)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray").setLevel(logging.ERROR)
    count = zarr.open_array(f"{store}/image", mode="r").shape[0] // BLOCK

    def arm() -> tuple[float, np.ndarray]:
        """From the first read to the last answer, by the actors' clocks: the pool's start is not counted."""
        blocks = ray.data.from_items([{"id": number} for number in range(count)], override_num_blocks=count)
        images = blocks.map_batches(_read, fn_kwargs={"store": store}, batch_size=1)
        answers = images.map_batches(
            _Predictor,
            fn_constructor_kwargs={"bundle": bundle},
            batch_size=BLOCK,
            compute=ray.data.ActorPoolStrategy(size=cores()),
        )
        found = list(answers.iter_batches(batch_size=None, batch_format="numpy"))
        whole = {name: np.concatenate([batch[name] for batch in found]) for name in ("id", "p", "begun", "ended")}
        return whole["ended"].max() - whole["begun"].min(), whole["p"][np.argsort(whole["id"])]

    return arm


def _lazy(store: str) -> da.Array:
    array = zarr.open_array(f"{store}/image", mode="r")
    return da.from_zarr(f"{store}/image", chunks=(BLOCK, *array.shape[1:]))


def _map_blocks(client: Any, store: str, bundle: str) -> tuple[float, np.ndarray]:
    task, network = ModelBundle.load(bundle).task(), ModelBundle.load(bundle).network(fused=True)
    started = time.perf_counter()
    lazy = _lazy(store)
    answer = lazy.map_blocks(
        _classified, task, network, dtype=np.float32, drop_axis=(1, 2, 3), chunks=(lazy.chunks[0],)
    )
    found = client.compute(answer).result()
    return time.perf_counter() - started, found


def _delayed(client: Any, store: str, bundle: str) -> tuple[float, np.ndarray]:
    task, network = ModelBundle.load(bundle).task(), ModelBundle.load(bundle).network(fused=True)
    started = time.perf_counter()
    model, science = dask.delayed(network), dask.delayed(task)
    blocks = [dask.delayed(_classified)(block, science, model) for block in _lazy(store).to_delayed().ravel()]
    found = client.gather(client.compute(blocks))
    return time.perf_counter() - started, np.concatenate(found)
