"""One unit of an explanation, start to end: stamps of some rows, tile by tile, attributions, summaries, written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from astroml_plugin import cutouts as cut
from astroml_plugin.compute.device import choose_device, place_network
from astroml_plugin.core.errors import AstromlError, CorruptError, InputError
from astroml_plugin.core.typing import F32, F64, I64, Bool
from astroml_plugin.cutouts import Cutouts, steps_taken
from astroml_plugin.explanation.attribution import Attribution
from astroml_plugin.explanation.choosing import window_side
from astroml_plugin.explanation.label_outlines import TileLabels, read_tile_labels
from astroml_plugin.explanation.methods import attributed
from astroml_plugin.explanation.options import MethodOptions
from astroml_plugin.explanation.store import ExplanationStore
from astroml_plugin.explanation.summaries import Layout, summarised
from astroml_plugin.explanation.target import Seen, Target, explainable, seen_by, values
from astroml_plugin.inference.budget import budget
from astroml_plugin.inference.forward import prepared_bands, stamps_of
from astroml_plugin.inference.job import Job, Unit
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import RunModel, task_for
from astroml_plugin.inference.reading import BlockWork, TileWork, read_block, read_tile
from astroml_plugin.inference.resident import on_forward_thread, process_cache, trim_malloc
from astroml_plugin.pixels import stamp_origin
from astroml_plugin.sources.tile_table import TileInfo
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.training.bundle import ModelBundle

T = TypeVar("T")

_AT_ONCE = 256
"""Stamps that are made at once."""


@dataclass(frozen=True)
class Question:
    """Values that all units of an explanation share, small enough to travel with each."""

    job: Job
    """The run that measured the rows."""
    number: str
    """Number that is explained."""
    compared: str
    """Number that the rows hold as `score`; empty: none."""
    found: bool
    """Whether a bundle found the objects: they are not centred."""
    how: MethodOptions
    """The method."""
    maps: str
    """Numbers of the maps, or "none"."""
    layout: Layout
    """Sizes of the summaries' vectors."""
    url: str
    """Folder of the explanation."""


@dataclass(frozen=True)
class ExplainUnit:
    """Some rows to be explained by one worker: they fill one block."""

    question: Question
    """Shared by all units."""
    block: int
    """Number of the block."""
    start: int
    """Row of the first map."""
    rows: pa.Table
    """object_id, tile, x, y, ra, dec, score, label_id, rank; rows of one tile follow each other."""
    tiles: tuple[TileInfo | tuple[str, int], ...]
    """The tiles, or name and number of the blocks of stamps, in order of the rows."""
    labelled: frozenset[int] = frozenset()
    """Indices of these tiles that have a label map."""


@dataclass(frozen=True)
class ExplainedUnit:
    """Report of a finished unit."""

    rows: int
    """Objects explained."""
    differs: float
    """Largest difference between the rows' score and what the network says now; NaN where none compares."""


def explain_unit(unit: ExplainUnit) -> ExplainedUnit:
    """Explain the rows of a unit and write them.

    Raises:
        AstromlError: pixels cannot be read.
        OSError: nothing can be written.
    """
    asked = unit.question
    found = over_tiles(unit, partial(_explained, asked))
    parts: list[tuple[pa.Table, F32 | None]] = [part for done, _ in found for part in done]
    differs = [gap for _, gap in found]
    table = pa.concat_tables([part for part, _ in parts])
    table = table.set_column(3, "map_row", pa.array(np.arange(unit.start, unit.start + len(table))))
    maps = None if asked.maps == "none" else np.concatenate([part for _, part in parts if part is not None])
    store = ExplanationStore(asked.url)
    store.write(unit.block, unit.start, table.cast(asked.layout.schema(asked.number)), maps)
    trim_malloc()
    return ExplainedUnit(len(table), float(np.nanmax(differs)) if np.isfinite(differs).any() else float("nan"))


def over_tiles(
    unit: ExplainUnit, function: Callable[[TileWork | BlockWork, pa.Table, TileLabels | None, str], T]
) -> list[T]:
    """Results of a function of each tile: of its pixels, rows, labels (where it has some) and the device.

    It runs on the thread that may use the network there.
    """
    asked = unit.question
    device = asked.job.execution.device or choose_device()
    found = []
    for place in unit.tiles:
        name = place.name if isinstance(place, TileInfo) else place[0]
        mine = unit.rows.filter(pc.equal(unit.rows["tile"], name))
        labelled = isinstance(place, TileInfo) and place.index in unit.labelled
        with budget(asked.job.execution.memory).holding(_held(place, labelled)):
            work = _work(asked, place, mine)
            labels = read_tile_labels(asked.job.catalog, place) if labelled and isinstance(place, TileInfo) else None
            found.append(on_forward_thread(device, partial(function, work, mine, labels, device)))
    return found


def _held(place: TileInfo | tuple[str, int], labelled: bool) -> int:
    """Bytes of the pixels of a tile, and of its label map."""
    if not isinstance(place, TileInfo):
        return 0
    return place.bytes + (place.outer.width * place.outer.height * 4 if labelled else 0)


def _work(asked: Question, place: TileInfo | tuple[str, int], rows: pa.Table) -> TileWork | BlockWork:
    """Pixels of the rows of one tile or block."""
    if isinstance(place, TileInfo):
        count = rows.num_rows
        whole = {"primary": pa.array(np.ones(count, bool)), "duplicate": pa.array(np.zeros(count, bool))}
        objects = rows.select(["object_id", "x", "y", "ra", "dec"])
        for name, column in whole.items():
            objects = objects.append_column(name, column)
        unit = Unit(replace(asked.job, detecting="", field_bands=()), place.name, place.index, "", count, 0, place)
        return replace(read_tile(unit, objects), detected=asked.found)
    name, index = place
    block = read_block(Unit(asked.job, name, index, "", None, 0))
    ids = np.asarray(block.rows.table["object_id"])
    order = np.argsort(ids, kind="stable")
    wanted = np.asarray(rows["object_id"])
    at = order[np.searchsorted(ids[order], wanted).clip(0, len(ids) - 1)]
    if not np.array_equal(ids[at], wanted):
        raise CorruptError(f"{name} of the source lacks objects of the catalog: it was replaced since, run infer again")
    taken = {
        field: None if value is None else value[at]
        for field in ("image", "variance", "psf", "mask", "jacobian", "crowded")
        for value in (getattr(block, field),)
    }
    return replace(block, **taken)  # type: ignore[arg-type]


def model_of(job: Job, device: str) -> RunModel:
    """The bundle of a job as explanations use it: in float32, with gradients of its input. Kept by the process.

    Raises:
        InputError: the bundle is not what the explanation was planned with.
    """
    ref = job.bundles[0]

    def make() -> RunModel:
        bundle = ModelBundle.load(ref.url)
        if bundle.sha256 != ref.sha256:
            raise InputError(f"bundle {ref.name} changed since the explanation was begun: use another --name")
        task = task_for(job, ref, bundle.task())
        network = explainable(task.inference_network(place_network(bundle.network(fused=True), device)))
        return RunModel(ref, task, network, torch.device(device))

    model: RunModel = process_cache(("explained", ref.sha256, ref.options, job.field_bands, device), make)
    return model


def _explained(
    asked: Question, work: TileWork | BlockWork, rows: pa.Table, labels: TileLabels | None, device: str
) -> tuple[list[tuple[pa.Table, F32 | None]], float]:
    """Summaries and maps of the rows of one tile, some stamps at a time; largest difference from the rows' score."""
    parts, gaps = [], [float("nan")]
    for target, seen, part, stamps in seen_parts(asked, work, rows, device):
        found = attributed(target, seen, asked.how, np.asarray(part["object_id"]))
        gaps.append(_gap(asked, target, stamps, seen, part))
        outlined = None
        if labels is not None and seen.image.shape[-1] == stamps.image.shape[-1]:  # no task has changed the pixels
            outlined = labels.outlines(part, seen.at, steps_taken(stamps).cpu().numpy(), seen.image.shape[-1])
        parts.append((_table(found, seen, asked, part, outlined), _narrow(found, asked.maps)))
    return parts, float(np.nanmax(gaps)) if np.isfinite(gaps).any() else float("nan")


def seen_parts(
    asked: Question, work: TileWork | BlockWork, rows: pa.Table, device: str
) -> Iterator[tuple[Target, Seen, pa.Table, Cutouts]]:
    """Rows of one tile some at a time, as the network sees them, and the stamps that this was made of.

    Raises:
        AstromlError: some rows have no stamp.
    """
    model, start = model_of(asked.job, device), 0
    target = Target(model.task, model.network, asked.number)
    for stamps, at in _stamps(model, work, device):
        yield target, seen_by(target, stamps, at), rows.slice(start, len(stamps)), stamps
        start += len(stamps)
    if start != rows.num_rows:
        raise AstromlError(f"{rows.num_rows - start} objects of {rows['tile'][0].as_py()} have no stamp")


def _table(found: Attribution, seen: Seen, asked: Question, rows: pa.Table, outlined: Bool | None) -> pa.Table:
    key = {"object_id": rows["object_id"], "tile": rows["tile"], "rank": rows["rank"], "map_row": rows["rank"]}
    return pa.table({**key, **summarised(found, seen, asked.how.tolerance, outlined)})


def _narrow(found: Attribution, dtype: str) -> F32 | None:
    if dtype == "none":
        return None
    maps: F32 = found.maps.float().cpu().numpy()
    if dtype == "float16":  # what lies beyond its range stays the largest number
        maps = np.clip(maps, -65504, 65504)
    return maps.astype(dtype)


def _gap(asked: Question, target: Target, stamps: Cutouts, own: Seen, rows: pa.Table) -> float:
    """Largest difference between the rows' score and the number of that name now."""
    if not asked.compared:
        return float("nan")
    other = Target(target.task, target.network, asked.compared)
    seen = seen_by(other, stamps, own.at)
    now: F64 = values(other, seen.image, *seen.given()).double().cpu().numpy()
    differences = np.abs(now - np.asarray(rows["score"]))
    return float(np.nanmax(differences)) if np.isfinite(differences).any() else float("nan")


def _stamps(model: RunModel, work: TileWork | BlockWork, device: str) -> Iterator[tuple[Cutouts, torch.Tensor | None]]:
    """Stamps of all objects in batches, and where in them the objects are; None: in the middle."""
    pixels = work.to_device(device)
    if isinstance(model.task, DetectingTask):
        assert isinstance(work, TileWork)
        yield from _windows(model.task, work, pixels)
        return
    bands = prepared_bands(model.task, work.bands, model.ref.band)
    for stamps in stamps_of(model, work, pixels, Meter())(_AT_ONCE):
        yield stamps.select(bands), None


def _windows(task: DetectingTask, work: TileWork, pixels: Any) -> Iterator[tuple[Cutouts, torch.Tensor]]:
    """Windows around objects that begin at multiples of the network's stride in the parent image."""
    if pixels is None:
        return
    side, tile = window_side(task), task.field_pixels(pixels)
    corner = (work.info.outer.x0, work.info.outer.y0)
    x, y = (np.asarray(work.rows.table[axis]) for axis in "xy")
    at_once = max(1, _AT_ONCE * 64**2 // side**2)
    for start in range(0, len(x), at_once):
        part = slice(start, start + at_once)
        begins: list[I64] = [stamp_origin(axis[part], side) // task.stride * task.stride for axis in (x, y)]
        middle_x, middle_y = (begin.astype(np.float64) + side // 2 for begin in begins)
        where: dict[str, Any] = {"origin": corner, "jacobian": work.jacobian[part]}
        stamps = cut.around(tile, middle_x, middle_y, side, padded=True, **where)
        places = [stamp_origin(axis[part], 0) - begin for axis, begin in zip((x, y), begins, strict=True)]
        yield stamps, torch.from_numpy(np.stack(places, 1).astype(np.int64))
