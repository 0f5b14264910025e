"""The one place where a model runs over the stamps or windows of a unit, batch by batch."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.catalog.schema import arrow_type, vectors
from astroml_plugin.compute.device import PLAIN_BATCH, pipelined
from astroml_plugin.compute.forward import Forward
from astroml_plugin.compute.memory import is_out_of_memory, stamps_per_forward
from astroml_plugin.compute.precision import COMPILED, TORCH, half_form
from astroml_plugin.compute.runtimes import cached_graph
from astroml_plugin.core.version import code_digest
from astroml_plugin.cutouts import Cutouts, Move, Recut, cut, offset_counts, recentred, steps_taken, to_device
from astroml_plugin.inference.backends import ForwardChoice
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import RunModel
from astroml_plugin.inference.reading import BlockWork, Scale, TileWork
from astroml_plugin.inference.resident import process_cache
from astroml_plugin.inference.scaling import picture_side, steps_of
from astroml_plugin.inference.upload import mover, overlaps
from astroml_plugin.networks.typicality import split
from astroml_plugin.pixels import Tile
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.pictures import as_pictures, seen_bands, shows
from astroml_plugin.tasks.scale import resamples, to_scale
from astroml_plugin.training.typicality import COLUMN as TYPICALITY

Done = TypeVar("Done")

Columns = tuple[dict[str, pa.Array], np.ndarray, np.ndarray]
"""Columns, flags of the cut and flags of the task, each of length n."""

STAMP_SIDE = 48
"""Side of a usual stamp: as many windows go through a network at once as have the pixels of a batch of these."""


_PICTURED = 2**22
"""Pixels per band of the stamps that are made pictures at once."""

WINDOWS_AT_ONCE = 8
"""Windows per forward on a GPU, at most: a tile of 4096 pixels has 25."""


@dataclass
class Runner:
    """A model's network in this process, and the batch it has memory for."""

    forward: ForwardChoice
    batch: int
    """Stamps or windows per forward; halved for good when the device's memory does not hold them."""
    what: str = "stamps"
    """Name of the items of a batch, for messages."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def halve(self, tried: int) -> None:
        """Give `tried` up, unless another thread has already done so."""
        with self._lock:
            if self.batch != tried:
                return
            self.batch = max(1, tried // 2)
        warnings.warn(
            f"the device has no memory for {tried} {self.what} at once: {self.batch} from now on",
            RuntimeWarning,
            stacklevel=2,
        )


def runner_of(model: RunModel) -> Runner:
    """The process's runner of a model, made at its first use."""
    ref, batch = model.ref, model.batch
    same = (ref.sha256, ref.options, str(model.device))
    key = (*same, model.form, model.compiling, model.backend, batch)

    def make() -> Runner:
        forward = choice_of(model)
        if isinstance(model.task, DetectingTask):
            return Runner(forward, _windows_per_forward(model), "windows")
        return Runner(forward, batch or stamps_per_forward(model.network, model.task.input_shapes(), model.device))

    runner: Runner = process_cache(key, make)
    return runner


def choice_of(model: RunModel) -> ForwardChoice:
    """The model's network with the choice of its runtime; none is left where its rows are in half precision."""
    ref, example, form = model.ref, model.task.example_inputs, half_form(model.form)
    if form is None:
        plain = Forward(model.network, model.device, compiling=model.compiling)
    else:
        compiling = "always" if form.runtime == COMPILED else "never"
        dtype = form.dtype if form.runtime in (TORCH, COMPILED) else None
        plain = Forward(model.network, model.device, compiling=compiling, dtype=dtype)

    def graph() -> bytes:
        stride = model.task.stride if isinstance(model.task, DetectingTask) else 0
        return cached_graph(model.network, example(), [ref.sha256, ref.options, code_digest()], stride)

    return ForwardChoice(plain, model.backend, graph, example, ref.name, form)


def _windows_per_forward(model: RunModel) -> int:
    """Windows with no more pixels than a batch of stamps, unless the run says how many; on CUDA what memory holds, but
    few, so that the next are cut and the last are stitched while the network works."""
    window = model.task.window
    if model.batch is None and model.device.type == "cuda":
        return min(WINDOWS_AT_ONCE, stamps_per_forward(model.network, _window_shapes(model.task), model.device))
    return int(max(1, (model.batch or PLAIN_BATCH) * STAMP_SIDE**2 // window**2))


def _window_shapes(task: DetectingTask) -> list[tuple[int, ...]]:
    """Shapes of the network's inputs of one window, as `prepare` makes them."""
    empty = Tile(np.zeros((len(task.bands), task.stride, task.stride), np.float32))
    corner = np.zeros(1, np.int64)
    inputs, _ = task.prepare(cut(to_device(empty, task.bands), corner, corner, (task.stride, task.stride)))
    return [(item.shape[1], task.window, task.window) for item in inputs]


@dataclass(frozen=True)
class Batch:
    """Stamps or windows ready for the network."""

    first: int
    """Number of the first one in the unit."""
    cutouts: Cutouts
    """The model's bands of them."""
    inputs: tuple[Tensor, ...]
    """Inputs of the network."""
    flags: Tensor
    """(n,) int32, added by `Task.prepare`."""


def map_batches(
    model: RunModel,
    bands: tuple[str, ...],
    batches: Callable[[int], Iterator[Cutouts]],
    finish: Callable[[Batch, Tensor], Done],
    meter: Meter,
) -> list[Done]:
    """Results of a model over all that `batches` gives, in order.

    Where the device's memory does not hold a batch, the batch is halved, for this process, and all is begun again.

    Args:
        model: resident on its device.
        bands: what the model reads.
        batches: gives all stamps or windows of the unit, in batches of at most so many.
        finish: makes of a batch and the network's answer (on the device) what is returned.
        meter: takes times.

    Raises:
        torch.OutOfMemoryError: not even one fits.
    """
    runner = runner_of(model)
    while True:
        batch = runner.batch
        try:
            return _once(runner, batch, model, bands, batches(batch), finish, meter)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        runner.halve(batch)  # only here has the failed attempt let go of its memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _once(
    runner: Runner,
    batch: int,
    model: RunModel,
    bands: tuple[str, ...],
    batches: Iterator[Cutouts],
    finish: Callable[[Batch, Tensor], Done],
    meter: Meter,
) -> list[Done]:
    def prepared() -> Iterator[Batch]:
        first = 0
        for whole in batches:
            chosen = whole.select(bands)
            with torch.inference_mode():
                made = Batch(first, chosen, *model.task.prepare(chosen))
            yield made
            first += len(chosen)

    def finished(item: Batch, outputs: Tensor) -> Done:
        with torch.inference_mode():
            return finish(item, outputs)

    def answered(item: Batch) -> Tensor:
        outputs, form = runner.forward(item.inputs, batch)
        meter.add_forms({f"{model.ref.name} {form}": len(outputs)}, runner.forward.refused)
        return outputs

    device = str(model.device)
    return pipelined(
        meter.each("prepare", prepared()),
        meter.timed("forward", answered),
        meter.timed("forward", finished),
        device=device,
        overlap=overlaps(device),
    )


def apply(model: RunModel, work: TileWork | BlockWork, pixels: Any, meter: Meter) -> Columns:
    """Columns of one model over all objects of a unit.

    Args:
        model: resident on its device.
        work: the unit's pixels and objects.
        pixels: its tile on the device; None of stamps.
        meter: takes times and bytes.

    Raises:
        torch.OutOfMemoryError: not even one stamp fits.
    """

    def finish(item: Batch, outputs: Tensor) -> Columns:
        known = model.typicality
        outputs, typical = (outputs, None) if known is None else split(outputs)
        values, task_flags = model.task.to_columns(outputs, item.cutouts, item.flags)
        if known is not None and typical is not None:
            resampled = (steps_taken(item.cutouts) != 1).cpu().numpy()
            values, task_flags = known.told(typical, values, task_flags, resampled)
        flags = model.task.cut_flags(item.cutouts)
        return {name: arrow(array) for name, array in values.items()}, flags, np.asarray(task_flags, np.int32)

    bands = prepared_bands(model.task, work.bands, model.ref.band)
    return _joined(model, map_batches(model, bands, stamps_of(model, work, pixels, meter), finish, meter))


def prepared_bands(task: Task, available: Sequence[str], band: str | None) -> tuple[str, ...]:
    """Bands of the stamps that `Task.prepare` gets of a source with such bands."""
    return seen_bands(task.settings, available, task.choose_bands(available, band))


def stamps_of(
    model: RunModel, work: TileWork | BlockWork, pixels: Any, meter: Meter
) -> Callable[[int], Iterator[Cutouts]]:
    """Stamps of all objects of a unit as the model measures them, centred and resampled, in batches of at most so many.

    Args:
        model: says size, bands, centring and scale.
        work: the unit's pixels and objects.
        pixels: its tile on the device; None of stamps.
        meter: takes bytes, and how the objects were centred.
    """
    size, device = model.task.stamp_size, str(model.device)
    bands, centring = model.task.choose_bands(work.bands, model.ref.band), model.task.settings.centring
    move = mover(device, meter)
    if shows(model.task.settings, work.bands):
        return lambda batch: _pictures(model, work, pixels, bands, batch, move)

    def place(stamps: Cutouts, recut: Recut | None, crowded: Tensor | None) -> Cutouts:
        with torch.inference_mode():
            placed, found = recentred(stamps.select(bands), centring, recut, crowded)
        if found is not None:
            meter.add_centres(model.ref.name, offset_counts(found))
        return placed

    centred = place if centring.tolerance > 0 else None
    scale = _scale(model, work, pixels, bands)
    return lambda batch: work.cutouts(pixels, size, batch, device, move, centred, scale)


def _pictures(
    model: RunModel, work: TileWork | BlockWork, pixels: Any, bands: tuple[str, ...], batch: int, move: Move | None
) -> Iterator[Cutouts]:
    """Pictures in batches, made of few stamps at a time: those are large."""
    side = model.task.stamp_size
    if isinstance(work, TileWork):
        side = picture_side(work.info.inner.x0 - work.info.outer.x0)
    at_once = max(1, min(batch, _PICTURED // side**2))
    kept: list[Cutouts] = []
    for stamps in work.cutouts(pixels, side, at_once, str(model.device), move):
        with torch.inference_mode():
            kept.append(as_pictures(model.task.settings, stamps.select(bands)))
        if sum(len(part) for part in kept) + at_once > batch:
            yield Cutouts.concatenate(kept)
            kept = []
    if kept:
        yield Cutouts.concatenate(kept)


def _scale(model: RunModel, work: TileWork | BlockWork, pixels: Any, bands: tuple[str, ...]) -> Scale | None:
    """How stamps are resampled for a model; None where they are not."""
    settings = model.task.settings
    if not resamples(settings, work.pixel_scale):
        return None
    steps = steps_of(model.task, work, pixels, bands) if isinstance(work, TileWork) else None
    return Scale(lambda stamps: to_scale(settings, stamps.select(bands)), steps)


def _joined(model: RunModel, parts: list[Columns]) -> Columns:
    """The batches one after the other."""
    if not parts:
        declared = [*model.task.columns(), *([] if model.typicality is None else [TYPICALITY])]
        empty = {c.name: pa.array([], arrow_type(c.type)) for c in declared}
        return empty, np.zeros(0, np.int32), np.zeros(0, np.int32)
    columns = {name: pa.concat_arrays([part[0][name] for part in parts]) for name in parts[0][0]}
    return columns, np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])


def arrow(values: np.ndarray) -> pa.Array:
    """A task's values as Arrow; text is a large string, and NaN null: in SQL, NaN would pass every lower limit."""
    if values.dtype.kind in "OU":
        return pa.array(values.tolist(), pa.large_string())
    return pa.array(values, from_pandas=True) if values.ndim == 1 else vectors(values)
