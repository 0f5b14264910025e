"""One unit of inference: read its pixels, run every model over its objects, write one part."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.flags import ObjectFlag
from astroml_plugin.inference.forward import Placing, apply
from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.reading import BlockWork, Rows, TileWork, model_of, opened, read_unit
from astroml_plugin.inference.resident import choose_device, give_back_memory, on_forward_thread


def run_unit(unit: Unit) -> UnitResult:
    """Do one unit, here and now: the work of a Dask task, of a pipeline's own node, of a test.

    Raises:
        OutputError: the part cannot be written.
        AstromlError, OSError: the unit's pixels or objects cannot be read.
    """
    meter = Meter()
    table = measured(unit, meter)
    catalog: Catalog = opened(Catalog, unit.job.catalog, unit.job.run)
    with meter.stage("encode"):
        part, data = catalog.encode_part(table, unit.name, unit.digest)
    meter.add("encode", count=table.nbytes)
    with meter.stage("write"):
        try:
            catalog.put_part(part, data)
        except OSError as error:
            raise OutputError(
                f"the catalog cannot be written ({error.strerror or error}): free space or choose another --out, "
                f"then run the same command again; finished units are kept"
            ) from error
    meter.add("write", count=len(data))
    del table, data
    give_back_memory()
    return UnitResult(part, meter.seconds, meter.bytes)


def measured(unit: Unit, meter: Meter) -> pa.Table:
    """The unit's rows; its pixels are let go on return."""
    job = unit.job
    device = job.device or choose_device()
    with meter.stage("read"):
        work = read_unit(unit)
    meter.add("read", count=work.nbytes)
    with Placing(work, device, meter) as placing:
        started = time.perf_counter()
        columns, spent = on_forward_thread(
            device, lambda: _measure(job, work, placing, device, meter), single=job.compiling == "always"
        )
        meter.add("wait", time.perf_counter() - started - spent)
    return _table(work.rows, columns)


def _measure(
    job: Job, work: TileWork | BlockWork, placing: Placing, device: str, meter: Meter
) -> tuple[dict[str, pa.Array], float]:
    """All task columns and flags of a unit, and the seconds it took."""
    started = time.perf_counter()
    columns: dict[str, pa.Array] = {}
    common = np.zeros(len(work), np.int32)
    single = len(job.bundles) == 1
    placed = placing.here()
    for ref in job.bundles:
        found, cut_flags, task_flags = apply(job, model_of(job, ref), work, placed, device, meter)
        common |= cut_flags
        prefix = "" if single else f"{ref.name}_"
        columns |= {f"{prefix}{name}": values for name, values in found.items()}
        if not single:
            columns[f"{prefix}flags"] = pa.array(cut_flags | task_flags, pa.int32())
        else:
            common |= task_flags
    placing.drop()  # here, so that the next unit has room
    common |= np.where(work.rows.duplicate, int(ObjectFlag.DUPLICATE_ID), 0).astype(np.int32)
    return {"flags": pa.array(common, pa.int32()), **columns}, time.perf_counter() - started


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
