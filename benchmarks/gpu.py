"""What a GPU gives: `python benchmarks/gpu.py [--out FILE.json] [--minutes M] [--quick]`; torch and NumPy are enough.

Each figure is written to the file as it comes; what does not fit into `--minutes` is left out and named.

The resident parts need nothing else; what needs the whole package is left out with its reason where it is not there.
Without CUDA the same table is made on the CPU and says that it is no figure of a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin import __version__, pixels
from astroml_plugin import cutouts as cut
from astroml_plugin.compute.device import Copier, on, pipelined, streams
from astroml_plugin.compute.forward import Forward
from astroml_plugin.compute.memory import activation_bytes
from astroml_plugin.compute.precision import half_type
from astroml_plugin.networks.equivariant_cnn import EquivariantCNN
from astroml_plugin.networks.folding import fuse
from astroml_plugin.networks.multipole_mlp import MultipoleMLP
from astroml_plugin.networks.polar_cnn import PolarCNN
from astroml_plugin.networks.residual_cnn import ResidualCNN
from astroml_plugin.networks.strided_cnn import StridedCNN
from astroml_plugin.networks.unet import UNet
from astroml_plugin.tasks.normalisation import Normalisation

BANDS = ("g", "r", "i")
OUTPUTS = 3
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "strided_cnn": lambda size: StridedCNN(len(BANDS), OUTPUTS),
    "resnet18": lambda size: ResidualCNN(len(BANDS), OUTPUTS, widths=(64, 128, 256, 512), blocks=2, stem_pooling="max"),
    "equivariant_cnn": lambda size: EquivariantCNN(len(BANDS), OUTPUTS),
    "polar_cnn": lambda size: PolarCNN(len(BANDS), OUTPUTS),
    "multipole_mlp": lambda size: MultipoleMLP(len(BANDS), OUTPUTS, size=size),
}
"""`strided_cnn`, `polar_cnn` and `multipole_mlp` with the arguments of the recipes; by size of the stamps."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    sizes: tuple[int, ...]
    """Sides of stamps, pixels."""
    batch: int
    """Objects per forward, at most."""
    objects: tuple[int, ...]
    """Of one tile, few to many: with few, batches are small and the pipeline starts anew for each tile."""
    tile: int
    """Its side, pixels."""
    repeats: int
    seconds: float
    """Least time of one measurement of the network."""
    transfer: int
    """Bytes of one measurement of the bus."""
    memory: int
    """Bytes of stamps that are kept on the CPU, at most."""


FULL = Plan((64, 48, 128), 1024, (60, 500, 2000, 30_000), 4096, 5, 1.0, 2**30, 4 * 2**30)
QUICK = Plan((16, 24), 16, (6, 64), 128, 2, 0.0, 2**16, 2**22)
LONG = 3.0
"""Seconds that a measurement from end to end may take, about."""

MOST_TILES = 24
"""Tiles of one measurement, at most."""

QUICK_NETWORKS = ("strided_cnn", "multipole_mlp")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu.py", description=__doc__)
    parser.add_argument("--out", metavar="FILE.json", help="all figures")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it works, not how fast")
    parser.add_argument("--device", help="torch device (default: CUDA where there is one)")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NAME", help="these only")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="PX", help="these stamp sizes only")
    parser.add_argument("--no-infer", action="store_true", help="leave the whole command out")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="begin nothing new after these")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes {options.minutes:g}: give a number above 0")
    plan = QUICK if options.quick else FULL
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    names = options.networks or (QUICK_NETWORKS if options.quick else tuple(NETWORKS))
    sizes = tuple(options.sizes or plan.sizes)
    report = Report(options.out, Deadline(options.minutes), {"machine": machine(device), "plan": vars(plan)})
    print(headline(device, quick=options.quick), flush=True)
    report.add("bus", lambda: bus(device, plan), bus_lines)
    print(row(HEAD), flush=True)
    for size in sizes:
        for name in names:
            one = partial(one_network, name, size, device, plan, report.deadline)
            report.add("networks", one, network_lines, many=f"{name} {size}")
    report.add("fields", lambda: fields(device, plan), field_lines)
    report.add("detection", lambda: detection(device, plan), detection_lines)
    if options.no_infer:
        report.add("infer", lambda: {"left_out": "asked for"}, infer_lines)
    else:
        report.add("infer", lambda: whole(device, plan, report, quick=options.quick), infer_lines)
    return 0


class Deadline:
    """The time that there is."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    @property
    def passed(self) -> bool:
        """Whether nothing new may begin."""
        return time.monotonic() > self.end


class Report:
    """All figures so far, in a file that is whole after each of them."""

    def __init__(self, out: str | None, deadline: Deadline, begun: dict[str, Any]) -> None:
        self.out, self.deadline = out, deadline
        self.figures: dict[str, Any] = {**begun, "date": time.strftime("%Y-%m-%d"), "networks": [], "left_out": {}}
        self.save()

    def add(self, name: str, measure: Callable[[], dict[str, Any]], told: Callable[[Any], str], many: str = "") -> None:
        """Measure, keep and print, unless the time is over; a failure is a figure too, and the next begins.

        Args:
            name: key of the figure; of a list, where `many` says which of its items this is.
            measure: gives the figure.
            told: it as text.
            many: name of the item.
        """
        if self.deadline.passed:
            self.figures["left_out"][many or name] = "no time left"
        else:
            try:
                found = measure()
            except Exception as error:
                self.figures["left_out"][many or name] = f"{type(error).__name__}: {error}"[:300]
            else:
                if many:
                    self.figures[name].append(found)
                else:
                    self.figures[name] = found
                print(told(found), flush=True)
        if (many or name) in self.figures["left_out"]:
            print(f"{many or name}: left out: {self.figures['left_out'][many or name]}", flush=True)
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.out:
            half = Path(f"{self.out}.half")
            half.write_text(json.dumps(self.figures, indent=1) + "\n")
            half.replace(self.out)


# ---- what is measured --------------------------------------------------------------------------------------------


def bus(device: torch.device, plan: Plan) -> dict[str, Any]:
    """GB/s from arrays to the device: pageable, pinned, and from pageable arrays through the engine's two buffers."""
    if device.type != "cuda":
        return {"left_out": "there is no CUDA device: nothing travels"}
    array = np.random.default_rng(0).integers(0, 255, plan.transfer, np.uint8)
    plain, pinned = torch.from_numpy(array), torch.from_numpy(array).pin_memory()
    target, copier = torch.empty(plan.transfer, dtype=torch.uint8, device=device), Copier(device)
    arms: dict[str, Callable[[], Any]] = {
        "pageable": lambda: target.copy_(plain),
        "pinned": lambda: target.copy_(pinned, non_blocking=True),
        "buffered": lambda: copier(array),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(plan.repeats + 1):
        for name, arm in arms.items():
            seconds = timed(arm, device)
            if turn:  # the first round warms up
                rates[name].append(plan.transfer / seconds / 1e9)
    return {name: spread(values) for name, values in rates.items()}


def one_network(name: str, size: int, device: torch.device, plan: Plan, deadline: Deadline) -> dict[str, Any]:
    """All figures of one network at one stamp size; arms interleaved, medians and quartiles of the repeats, which are
    fewer where the time is over."""
    torch.manual_seed(0)
    network = fuse(NETWORKS[name](size).eval()).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda":
        torch.compiler.reset()
    batch = plan.batch
    half = half_type(device)
    eager = Forward(network, device, dtype=half, compiling="never")
    compiled = Forward(network, device, dtype=half, compiling="always")
    with torch.inference_mode():
        ready = torch.randn(batch, len(BANDS), size, size, device=device)
    left_out = warm(compiled, ready, batch) if device.type == "cuda" else "compiled forward: there is no CUDA device"
    best = eager if left_out else compiled
    rate = resident(best, ready, plan)["rate"]
    room = plan.memory // (len(BANDS) * size * size * 4)
    stamps = Stream(size, min(plan.objects[-1], max(batch, min(room, int(rate * LONG)))), batch)
    tiles = {
        count: Tile(plan.tile, size, count, batch, max(2, min(MOST_TILES, int(rate * LONG / count))))
        for count in plan.objects
    }
    arms: dict[str, Callable[[], dict[str, float]]] = {
        "eager": partial(resident, eager, ready, plan),
        "resident": partial(resident, best, ready, plan),
        "stamps": partial(end_to_end, best, stamps, device, batch),
        **{f"tiles_{count}": partial(end_to_end, best, tile, device, batch) for count, tile in tiles.items()},
    }
    for arm in arms.values():
        arm()
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for turn in range(plan.repeats):
        if turn and deadline.passed:
            break
        for arm, measure in arms.items():
            found[arm].append(measure())
    figures = {f"{arm}_per_s": spread([one["rate"] for one in many]) for arm, many in found.items()}
    for arm in ("stamps", *(f"tiles_{count}" for count in tiles)):
        ratios = [one["rate"] / best_one["rate"] for one, best_one in zip(found[arm], found["resident"])]
        figures[f"{arm}_ratio"] = spread(ratios)
        figures[f"{arm}_busy"] = spread([one["busy"] for one in found[arm]])
        figures[f"{arm}_slowest"] = max(("feed", "network", "finish"), key=lambda part: found[arm][-1][part])  # type: ignore[assignment]
    return {
        "network": name,
        "size": size,
        "batch": batch,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "activation_bytes": activation_bytes(network, [(len(BANDS), size, size)]),
        "precision": str(eager.dtype or torch.float32).removeprefix("torch."),
        "compiled": not left_out,
        "left_out": {"compiled": left_out} if left_out else {},
        **figures,
    }


def fields(device: torch.device, plan: Plan) -> dict[str, Any]:
    """Mpix/s of the network of `segmentation` on windows: on the device; and copied there, maps copied back."""
    torch.manual_seed(0)
    network = fuse(UNet(2, 7).eval()).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = Forward(network, device, dtype=half_type(device), compiling="never")
    side, count = min(1024, plan.tile), 4
    there = torch.randn(count, 2, side, side)
    with torch.inference_mode():
        ready = there.to(device)
    arms: dict[str, Callable[[], Any]] = {
        "resident": lambda: forward([ready], count),
        "copied": lambda: forward([there.to(device)], count).float().cpu(),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(plan.repeats + 1):
        for name, arm in arms.items():
            rounds = max(1, int(plan.seconds / max(timed(arm, device), 1e-6)))
            seconds = timed(lambda arm=arm, rounds=rounds: [arm() for _ in range(rounds)], device)  # type: ignore[misc]
            if turn:
                rates[name].append(rounds * count * side**2 / seconds / 1e6)
    return {"window": side, **{f"{name}_mpix_per_s": spread(found) for name, found in rates.items()}}


def detection(device: torch.device, plan: Plan) -> dict[str, Any]:
    """Mpix/s of the bundle `segmentation` from tiles in memory to rows, as many at once as there are cores; where the
    whole package is there."""
    try:
        inference = importlib.import_module("astroml_plugin.inference")
        made = importlib.import_module("astroml_plugin.sources.tile").Tile.from_arrays
        bundle = importlib.import_module("astroml_plugin.training.bundle").ModelBundle.load("segmentation")
    except ImportError as error:
        return {"left_out": f"the whole package cannot be imported here ({error})"}
    side = max(512, plan.tile)
    image = starry(side)
    tile = made(image, ("r",), variance=np.full_like(image, 6.25))
    lanes = max(2, len(os.sched_getaffinity(0)))
    rates, stages = [], {}
    for turn in range(plan.repeats + 1):
        started = time.perf_counter()
        with ThreadPoolExecutor(lanes) as units:
            going = [
                units.submit(inference.measure, tile, None, bundle, device=str(device), backend="torch")
                for _ in range(lanes if device.type == "cuda" else 1)
            ]
            found = [one.result() for one in going]
        if turn:
            rates.append(len(found) * side**2 / (time.perf_counter() - started) / 1e6)
            stages = {name: sum(one.seconds.get(name, 0.0) for one in found) for name in found[0].seconds}
    objects = found[0].table.num_rows
    return {
        "tile": side,
        "tiles_at_once": len(going),
        "objects": objects,
        "stages": stages,
        "mpix_per_s": spread(rates),
    }


def starry(side: int) -> np.ndarray:
    """(1, side, side) float32: noise, and a Gaussian source for every 2,500 pixels."""
    rng = np.random.default_rng(6)
    image = rng.normal(0, 2.5, (side, side)).astype(np.float32)
    axis = np.arange(-15, 16)
    distance = axis[:, None] ** 2 + axis**2
    for _ in range(side * side // 2500):
        x, y = rng.integers(16, side - 16, 2)
        light = np.exp(-0.5 * distance / rng.uniform(1.5, 3.0) ** 2)
        image[y - 15 : y + 16, x - 15 : x + 16] += rng.uniform(20, 400) * light
    return image[None]


def warm(compiled: Forward, ready: Tensor, batch: int) -> str:
    """Compile; why it cannot be done, empty where it can."""
    import warnings

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        compiled([ready], batch)
    refused = [str(one.message) for one in told if "runs eager" in str(one.message)]
    return f"compiled forward: {refused[0]}" if refused else ""


def resident(forward: Forward, ready: Tensor, plan: Plan) -> dict[str, float]:
    """Objects per second of the network on a batch that lies on the device."""
    batch, device = len(ready), forward.device

    def once() -> None:
        forward([ready], batch)

    rounds = max(2, int(plan.seconds / max(timed(once, device), 1e-6)))
    seconds = timed(lambda: [once() for _ in range(rounds)], device)
    return {"rate": rounds * batch / seconds}


class Stream:
    """Stamps in memory, as read from a store: image and variance, sent batch by batch."""

    def __init__(self, size: int, count: int, batch: int) -> None:
        rng = np.random.default_rng(1)
        few = rng.normal(0, 2.5, (min(count, batch), len(BANDS), size, size)).astype(np.float32)
        self.image = np.concatenate([few] * -(-count // len(few)))[:count]
        self.variance = np.full_like(self.image, 6.25)
        self.batch, self.count = batch, count

    def units(
        self, device: torch.device, move: Copier | None, beside: ThreadPoolExecutor
    ) -> Iterator[Iterator[cut.Cutouts]]:
        """One unit: all batches on the device."""
        yield self._batches(device, move)

    def _batches(self, device: torch.device, move: Copier | None) -> Iterator[cut.Cutouts]:
        for start in range(0, self.count, self.batch):
            part = slice(start, start + self.batch)
            yield cut.from_stamps(self.image[part], self.variance[part], None, bands=BANDS, device=device, move=move)


class Tile:
    """A tile in memory and positions on it: sent once, stamps gathered on the device; several, one after the other.

    As in the engine, the next tile is sent while the network works on one, and each tile is a pipeline of its own,
    which begins and ends with an empty GPU. One more is sent than worked on: as many are sent in the measured time as
    are measured, but for the first, which is there before the clock starts.
    """

    def __init__(self, side: int, size: int, count: int, batch: int, rounds: int) -> None:
        rng = np.random.default_rng(2)
        self.rounds = rounds
        image = rng.normal(0, 2.5, (len(BANDS), side, side)).astype(np.float32)
        self.tile = pixels.Tile(image, np.full_like(image, 6.25), np.zeros(image.shape, np.uint32))
        self.x, self.y = rng.uniform(size, side - size, (2, count))
        self.size, self.batch, self.count = size, batch, count * self.rounds

    def place(self, device: torch.device, move: Copier | None) -> cut.DeviceTile:
        """The tile on the device, in a stream of its own."""
        stream = streams(str(device)).copying
        with on(stream):
            placed = cut.to_device(self.tile, BANDS, device, move=move)
            if stream is not None:
                stream.synchronize()
            return placed

    def units(
        self, device: torch.device, move: Copier | None, beside: ThreadPoolExecutor
    ) -> Iterator[Iterator[cut.Cutouts]]:
        """The batches of each tile; returns when the first tile is there."""
        return self._units(self.place(device, move), lambda: beside.submit(self.place, device, move))

    def _units(
        self, placed: cut.DeviceTile, send: Callable[[], Future[cut.DeviceTile]]
    ) -> Iterator[Iterator[cut.Cutouts]]:
        for _ in range(self.rounds):
            coming = send()
            yield self._batches(placed)
            placed = coming.result()

    def _batches(self, placed: cut.DeviceTile) -> Iterator[cut.Cutouts]:
        for start in range(0, len(self.x), self.batch):
            part = slice(start, start + self.batch)
            jacobian = np.full((len(self.x[part]), 2, 2), np.nan)
            yield cut.around(placed, self.x[part], self.y[part], self.size, origin=(0, 0), jacobian=jacobian)


def end_to_end(forward: Forward, source: Stream | Tile, device: torch.device, batch: int) -> dict[str, float]:
    """Arrays in memory to answers in memory through the engine's own pipeline.

    Returns:
        rate: objects per second. busy: the network's share of the wall clock, by CUDA events (by the clock on a CPU).
        feed, network, finish: seconds that each part was at work.
    """
    normalise = Normalisation(unit="noise", stretch="asinh")
    move = Copier(device) if device.type == "cuda" else None
    spent = {"feed": 0.0, "network": 0.0, "finish": 0.0}
    events: list[tuple[Any, Any]] = []

    def fed(unit: Iterator[cut.Cutouts]) -> Iterator[Tensor]:
        for stamps in unit:
            with torch.inference_mode():
                image = normalise.apply(stamps.image, stamps.variance, stamps.valid)[0]
            yield image

    def fed_timed(unit: Iterator[cut.Cutouts]) -> Iterator[Tensor]:
        items = fed(unit)
        while True:
            started = time.perf_counter()
            image = next(items, None)
            spent["feed"] += time.perf_counter() - started
            if image is None:
                return
            yield image

    def run(image: Tensor) -> Tensor:
        started, begin = time.perf_counter(), timer(device)
        output = forward([image], batch)
        events.append((begin, timer(device)))
        spent["network"] += time.perf_counter() - started
        return output

    def finish(_: Tensor, output: Tensor) -> int:
        started = time.perf_counter()
        answer = output.float().cpu()
        spent["finish"] += time.perf_counter() - started
        return len(answer)

    with ThreadPoolExecutor(1) as beside:
        units = source.units(device, move, beside)
        settle(device)
        started = time.perf_counter()
        count = sum(sum(pipelined(fed_timed(unit), run, finish, device=device)) for unit in units)
        settle(device)
        wall = time.perf_counter() - started
    if count != source.count:
        raise RuntimeError(f"{count} answers to {source.count} objects")
    if device.type == "cuda":
        spent["network"] = sum(begin.elapsed_time(end) for begin, end in events) / 1e3
        spent["finish"] = 0.0  # it waits for the network
    return {"rate": count / wall, "busy": spent["network"] / wall, **spent}


def whole(device: torch.device, plan: Plan, report: Report, *, quick: bool) -> dict[str, Any]:
    """`infer` from a survey on disk to a catalog, where the whole package is there; each run is kept as it comes."""
    try:
        skies, workflow = importlib.import_module("benchmarks.skies"), importlib.import_module("workflows.infer")
    except ImportError as error:
        return {"left_out": f"the whole package cannot be imported here ({error})"}
    import shutil

    from benchmarks.harness import scratch

    size = 16 if quick else 64
    tiles_side = 1 if quick else 4
    name = "strided_cnn" if quick else "residual_cnn"
    arguments = {} if quick else {"widths": [64, 128, 256, 512], "blocks": 2, "stem_pooling": "max"}
    per_tile = plan.objects[-1]
    folder = skies.noise_survey(tiles_side, plan.tile, 32 if quick else 128, per_tile)
    bundle = skies.bundle(f"gpu-{name}", size, name, **arguments)
    rates: dict[str, list[float]] = {"float32": [], "auto": []}
    stages: dict[str, Any] = {}
    for turn in range(2 if quick else 1 + plan.repeats):
        for precision, found in rates.items():
            if report.deadline.passed and found:
                continue
            out = scratch() / f"gpu-infer-{precision}"
            shutil.rmtree(out, ignore_errors=True)
            result = workflow.infer(
                str(folder / "survey.zarr"),
                bundle=bundle,
                out=str(out),
                objects=str(folder / "objects.parquet"),
                device=str(device),
                precision=precision,
                batch=plan.batch,
            )
            record = json.loads((out / "run.json").read_text())
            if result.rows != tiles_side**2 * per_tile or result.units_failed:
                raise RuntimeError(f"the run is wrong: {result}")
            stages[precision] = {"seconds": record["stages"], "bytes": record["bytes"]}
            if turn or report.deadline.passed:
                found.append(result.rows / result.seconds)
            report.figures["infer_runs"] = {name: list(values) for name, values in rates.items()}
            report.save()
    return {
        "network": name,
        "size": size,
        "tiles": tiles_side**2,
        "objects_per_tile": per_tile,
        "stages": stages,
        **{f"{precision}_per_s": spread(found) for precision, found in rates.items()},
    }


# ---- how ---------------------------------------------------------------------------------------------------------


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timer(device: torch.device) -> Any:
    """A moment in the current stream that can be subtracted from others; None on a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def timed(function: Callable[[], Any], device: torch.device) -> float:
    """Wall seconds until the device has done it."""
    settle(device)
    started = time.perf_counter()
    function()
    settle(device)
    return time.perf_counter() - started


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.percentile(np.asarray(values, float), [25, 50, 75])
    return {"median": float(middle), "q25": float(low), "q75": float(high), "repeats": len(values)}


def machine(device: torch.device) -> dict[str, Any]:
    """Where this was measured."""
    found: dict[str, Any] = {
        "device": str(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "astroml-plugin": __version__,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
    return found


# ---- said --------------------------------------------------------------------------------------------------------

HEAD = ["network", "px", "type", "eager/s", "compiled/s", "arm", "÷", "busy", "slowest"]
_WIDTHS = (16, 4, 9, 10, 11, 13, 6, 6, 9)


def headline(device: torch.device, *, quick: bool) -> str:
    """What the figures below are, and are not."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, no CUDA device: no GPU figure"
    size = "; --quick: sizes too small for any figure" if quick else ""
    return (
        f"{where}{size}\n"
        "eager, compiled: objects/s of the network on a batch that lies on the device; ÷: end to end (arrays in\n"
        "memory, copied, normalised, forwarded, answers back) ÷ compiled (eager without); busy: the network's share\n"
        "of the time; tiles_N: tiles of N objects, each a pipeline of its own as in the engine"
    )


def bus_lines(found: dict[str, Any]) -> str:
    """GB/s."""
    if "left_out" in found:
        return f"copies to the device: left out: {found['left_out']}"
    told = ", ".join(f"{name} {values['median']:.1f}" for name, values in found.items())
    return f"copies to the device, GB/s: {told}"


def network_lines(found: dict[str, Any]) -> str:
    """A line for stamps and for each number of objects of a tile."""
    compiled = f"{found['resident_per_s']['median']:,.0f}" if found["compiled"] else "-"
    eager = f"{found['eager_per_s']['median']:,.0f}"
    first = [found["network"], str(found["size"]), found["precision"], eager, compiled]
    arms = [key.removesuffix("_ratio") for key in found if key.endswith("_ratio")]
    lines = [
        row([*(first if not number else [""] * 5), arm, *_medians(found, arm), found[f"{arm}_slowest"]])
        for number, arm in enumerate(arms)
    ]
    return "\n".join([*lines, *(f"  left out: {reason}" for reason in found["left_out"].values())])


def _medians(found: dict[str, Any], arm: str) -> list[str]:
    return [f"{found[f'{arm}_{key}']['median']:.3f}" for key in ("ratio", "busy")]


def row(values: list[str]) -> str:
    """Columns of fixed width."""
    return "  ".join(
        value.rjust(width) if at else value.ljust(width) for at, (value, width) in enumerate(zip(values, _WIDTHS))
    )


def field_lines(found: dict[str, Any]) -> str:
    """Segmentation's maps."""
    told = (f"{found[f'{name}_mpix_per_s']['median']:,.1f} {text}" for name, text in _FIELD_ARMS.items())
    return f"unet, windows of {found['window']} pixels, Mpix/s: {', '.join(told)}"


_FIELD_ARMS = {"resident": "on the device", "copied": "copied there, seven maps back"}


def detection_lines(found: dict[str, Any]) -> str:
    """Objects found in tiles."""
    if "left_out" in found:
        return f"detection: left out: {found['left_out']}"
    stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found["stages"].items())
    return (
        f"segmentation, {found['tiles_at_once']} tiles of {found['tile']} pixels at once, {found['objects']:,} objects "
        f"each: {found['mpix_per_s']['median']:,.1f} Mpix/s ({stages})"
    )


def infer_lines(found: dict[str, Any]) -> str:
    """The whole command."""
    if "left_out" in found:
        return f"infer: left out: {found['left_out']}"
    told = ", ".join(f"{name} {found[f'{name}_per_s']['median']:,.0f} objects/s" for name in ("float32", "auto"))
    return (
        f"infer, {found['tiles']} tiles of {found['objects_per_tile']:,} objects, {found['network']} at "
        f"{found['size']} px, start-up included: {told}"
    )


if __name__ == "__main__":
    sys.exit(main())
