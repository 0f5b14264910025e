"""One unit of inference: read its pixels, run every model over its objects, write one part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.flags import ObjectFlag
from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
from astroml_plugin.inference.reading import BlockWork, Rows, TileWork, bundle_bands, model_of, opened, read_unit
from astroml_plugin.inference.resident import ResidentModel, choose_device, give_back_memory, on_forward_thread


def run_unit(unit: Unit) -> UnitResult:
    """Do one unit, here and now: the work of a Dask task, of a pipeline's own node, of a test.

    Raises:
        OutputError: the part cannot be written.
        AstromlError, OSError: the unit's pixels or objects cannot be read.
    """
    seconds: dict[str, float] = {}
    table = _measured(unit, seconds)
    catalog: Catalog = opened(Catalog, unit.job.catalog, unit.job.run)
    with _stage(seconds, "encode"):
        part, data = catalog.encode_part(table, unit.name, unit.digest)
    with _stage(seconds, "write"):
        try:
            catalog.put_part(part, data)
        except OSError as error:
            raise OutputError(
                f"the catalog cannot be written ({error.strerror or error}): free space or choose another --out, "
                f"then run the same command again; finished units are kept"
            ) from error
    del table, data
    give_back_memory()
    return UnitResult(part, seconds)


def _measured(unit: Unit, seconds: dict[str, float]) -> pa.Table:
    """The unit's rows; its pixels are let go on return."""
    device = unit.job.device or choose_device()
    with _stage(seconds, "read"):
        work = read_unit(unit)
    started = time.perf_counter()
    columns, spent = on_forward_thread(device, lambda: _measure(unit.job, work, device))
    seconds["forward"] = spent
    seconds["wait"] = time.perf_counter() - started - spent
    return _table(work.rows, columns)


@contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started


def _measure(job: Job, work: TileWork | BlockWork, device: str) -> tuple[dict[str, pa.Array], float]:
    """All task columns and flags of a unit, and the seconds it took."""
    started = time.perf_counter()
    columns: dict[str, pa.Array] = {}
    common = np.zeros(len(work), np.int32)
    single = len(job.bundles) == 1
    placed = work.place(device)
    for ref in job.bundles:
        model = model_of(job, ref)
        found, cut_flags, task_flags = _apply(job, model, work, placed, device)
        common |= cut_flags
        prefix = "" if single else f"{ref.name}_"
        columns |= {f"{prefix}{name}": values for name, values in found.items()}
        if not single:
            columns[f"{prefix}flags"] = pa.array(cut_flags | task_flags, pa.int32())
        else:
            common |= task_flags
    common |= np.where(work.rows.duplicate, int(ObjectFlag.DUPLICATE_ID), 0).astype(np.int32)
    return {"flags": pa.array(common, pa.int32()), **columns}, time.perf_counter() - started


def _apply(
    job: Job, model: ResidentModel, work: Any, placed: Any, device: str
) -> tuple[dict[str, pa.Array], np.ndarray, np.ndarray]:
    """(columns, flags of the cut, flags of the task) of one model over a unit's objects."""
    bands = bundle_bands(model.task, work.bands, job.band)
    found: list[dict[str, pa.Array]] = []
    flags: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in work.cutouts(placed, model.task.stamp_size, job.batch, device):
        stamps = batch.select(bands)
        with torch.inference_mode():
            inputs, prepared = model.task.prepare(stamps)
            outputs = model.network(*inputs)
            values, task_flags = model.task.predict(outputs, stamps, prepared)
        found.append({name: _arrow(array) for name, array in values.items()})
        flags.append((stamps.flags.cpu().numpy(), np.asarray(task_flags, np.int32)))
    if not found:
        empty = {c.name: pa.array([], _arrow_type(c.type)) for c in model.task.columns()}
        return empty, np.zeros(0, np.int32), np.zeros(0, np.int32)
    columns = {name: pa.concat_arrays([part[name] for part in found]) for name in found[0]}
    return columns, np.concatenate([f[0] for f in flags]), np.concatenate([f[1] for f in flags])


def _arrow(values: np.ndarray) -> pa.Array:
    if values.dtype.kind in "OU":
        return pa.array(values.tolist(), pa.large_string())
    return pa.array(values)


def _arrow_type(name: str) -> pa.DataType:
    return pa.large_string() if name == "string" else pa.type_for_alias(name)


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
