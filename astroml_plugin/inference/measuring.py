"""From pixels in memory to a table: objects detected or given, measured with each bundle. No store, catalog or Dask."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.exposures import Exposure
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.inference.detecting import COMMON, LABEL, OwnedDetections, detect
from astroml_plugin.inference.exposure import of_tile
from astroml_plugin.inference.forward import apply
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import RunModel
from astroml_plugin.inference.reading import BlockWork, Rows, TileWork
from astroml_plugin.inference.resident import on_forward_thread
from astroml_plugin.inference.upload import DeviceUpload

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Table and label map from the pixels of a unit."""

    table: pa.Table
    """One row per object: the catalog's columns but those that the catalog adds itself."""
    labels: np.ndarray | None = None
    """(y, x) uint32 label map over the tile's outer box; None where objects were given."""
    exposure: Exposure | None = None
    """The image that the unit is a tile of; None of stamps."""
    unplaced: pa.Table | None = None
    """Objects that were given and not measured, with the reason, in the order given; None where none were given."""
    notes: tuple[str, ...] = ()
    """Sentences of what was done with pixels of another scale than the bundles', or without a PSF."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by stage: `meter.STAGES`, and wait."""


def measure_work(work: TileWork | BlockWork, models: Sequence[RunModel], meter: Meter | None = None) -> Measured:
    """Measure the objects of a tile or of a block of stamps.

    Args:
        work: pixels and objects; no objects where one of the models finds them.
        models: one or several, all on one device, in column order.
        meter: takes times and bytes.

    Raises:
        torch.OutOfMemoryError: not even one stamp fits the device.
    """
    meter = meter or Meter()
    device = str(models[0].device)
    on_device_thread = DeviceThread(device, any(model.compiling == "always" for model in models), meter)
    finder = next((model for model in models if model.finds_objects), None)
    detections: OwnedDetections | None = None
    with DeviceUpload(work, device, meter) as upload:
        if finder is not None and isinstance(work, TileWork):
            work, detections = detect(work, finder, upload, on_device_thread, meter)
        if detections is not None and len(models) == 1:
            columns = _columns(work, models, detections, upload, meter)
        else:
            upload.enter()
            columns = on_device_thread(lambda: _columns(work, models, detections, upload, meter))
    table = _table(work.rows, columns)
    if detections is not None:
        return Measured(table, detections.labels, detections.exposure)
    return Measured(table, exposure=of_tile(work.info) if isinstance(work, TileWork) else None)


@dataclass(frozen=True)
class DeviceThread:
    """Runs functions on the process's thread for a device; queueing time is booked as `wait`."""

    device: str
    """Torch device."""
    single: bool
    """One thread on a CPU too: of compiled networks."""
    meter: Meter
    """Takes the times."""

    def __call__(self, do: Callable[[], T]) -> T:
        began: list[float] = []

        def act() -> T:
            began.append(time.perf_counter())
            return do()

        queued = time.perf_counter()
        done = on_forward_thread(self.device, act, single=self.single)
        self.meter.add("wait", began[-1] - queued)
        return done


def _columns(
    work: TileWork | BlockWork,
    models: Sequence[RunModel],
    detections: OwnedDetections | None,
    upload: DeviceUpload,
    meter: Meter,
) -> dict[str, pa.Array]:
    """All task columns and flags of a unit: bare names with one model, `<bundle>_` before them with several.

    `<bundle>_flags` are what `flags` would be with that bundle alone; `flags` of several hold what the pixels say that
    any of them reads, OUT_OF_DOMAIN where it is so for one of them, and repeated ids.
    """
    columns: dict[str, pa.Array] = {} if detections is None else {LABEL.name: detections.label_ids}
    repeated = np.where(work.rows.duplicate, int(ObjectFlag.DUPLICATE_ID), 0).astype(np.int32)
    common = repeated
    single = len(models) == 1
    for model in models:
        if detections is not None and model.finds_objects:
            values, task_flags = detections.columns, detections.flags
            cut_flags = detections.flags & int(COMMON)
        else:
            values, cut_flags, task_flags = apply(model, work, upload.pixels(), meter)
        common = common | cut_flags
        prefix = "" if single else f"{model.ref.name}_"
        columns |= {f"{prefix}{name}": array for name, array in values.items()}
        if not single:
            columns[f"{prefix}flags"] = pa.array(repeated | cut_flags | task_flags, pa.int32())
            common = common | (task_flags & int(ObjectFlag.OUT_OF_DOMAIN))
        else:
            common = common | task_flags
    upload.drop()  # here, so that the next unit has room
    return {"flags": pa.array(common, pa.int32()), **columns}


def _table(rows: Rows, columns: dict[str, pa.Array]) -> pa.Table:
    """The unit's rows in the order of the schema; a position that is not known is null."""
    count = len(rows.duplicate)
    arrays: dict[str, Any] = {}
    for name, value in rows.table.items():
        if isinstance(value, str):
            arrays[name] = pa.array([value] * count, pa.large_string())
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            arrays[name] = pa.array(value, pa.float64(), mask=~np.isfinite(value))
        else:
            arrays[name] = pa.array(value) if isinstance(value, np.ndarray) else value
    return pa.table({**arrays, **columns})
