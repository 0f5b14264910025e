"""One unit of inference: read its pixels, find its objects or take those given, run every model, write one part."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.compute.device import choose_device
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.inference.budget import budget
from astroml_plugin.inference.detecting import COMMON, LABEL, Found, detected
from astroml_plugin.inference.forward import Placing, apply
from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.reading import BlockWork, Rows, TileWork, model_of, opened, read_unit
from astroml_plugin.inference.resident import give_back_memory, on_forward_thread

T = TypeVar("T")


def run_unit(unit: Unit) -> UnitResult:
    """Do one unit, here and now: the work of a Dask task, of a pipeline's own node, of a test.

    Raises:
        OutputError: the part or the label map cannot be written.
        AstromlError, OSError: the unit's pixels or objects cannot be read.
    """
    meter = Meter()
    with budget(unit.job.execution.memory).holding(unit.nbytes):
        table, labels = measured(unit, meter)
    catalog: Catalog = opened(Catalog, unit.job.catalog, unit.job.run)
    with meter.stage("encode"):
        part, data = catalog.encode_part(table, unit.name, unit.digest)
    meter.add("encode", count=table.nbytes)
    with meter.stage("write"):
        try:
            if unit.job.execution.label_maps and labels is not None:  # first: a unit whose part is there is done
                label_maps: LabelMaps = opened(LabelMaps, unit.job.catalog, unit.job.run)
                label_maps.write(unit.index, labels)
            catalog.put_part(part, data)
        except OSError as error:
            raise OutputError(
                f"the catalog cannot be written ({error.strerror or error}): free space or choose another --out, "
                f"then run the same command again; finished units are kept"
            ) from error
    meter.add("write", count=len(data))
    del table, data, labels
    give_back_memory()
    return UnitResult(part, meter.seconds, meter.bytes)


def measured(unit: Unit, meter: Meter) -> tuple[pa.Table, np.ndarray | None]:
    """The unit's rows, and its label map where it detects them; its pixels are let go on return."""
    job = unit.job
    device = job.execution.device or choose_device()
    with meter.stage("read"):
        work = read_unit(unit)
    meter.add("read", count=work.nbytes)

    def turn(do: Callable[[], T]) -> T:
        """Do something on the forward thread; what it stands there before its turn is waiting."""
        began: list[float] = []

        def act() -> T:
            began.append(time.perf_counter())
            return do()

        asked = time.perf_counter()
        done = on_forward_thread(device, act, single=job.execution.compiling == "always")
        meter.add("wait", began[-1] - asked)
        return done

    found: Found | None = None
    with Placing(work, device, meter) as placing:
        if job.detecting and isinstance(work, TileWork):
            work, found = detected(job, work, placing.here, turn, meter)
        columns = turn(lambda: _measure(job, work, found, placing, device, meter))
    return _table(work.rows, columns), None if found is None else found.labels


def _measure(
    job: Job, work: TileWork | BlockWork, found: Found | None, placing: Placing, device: str, meter: Meter
) -> dict[str, pa.Array]:
    """All task columns and flags of a unit."""
    columns: dict[str, pa.Array] = {} if found is None else {LABEL.name: found.label_ids}
    common = np.zeros(len(work), np.int32)
    single = len(job.bundles) == 1
    placed = placing.here()
    for ref in job.bundles:
        if found is not None and ref.name == job.detecting:
            values, cut_flags, task_flags = found.columns, found.flags & int(COMMON), found.flags
        else:
            values, cut_flags, task_flags = apply(job, model_of(job, ref), work, placed, device, meter)
        common |= cut_flags
        prefix = "" if single else f"{ref.name}_"
        columns |= {f"{prefix}{name}": array for name, array in values.items()}
        if not single:
            columns[f"{prefix}flags"] = pa.array(cut_flags | task_flags, pa.int32())
        else:
            common |= task_flags
    placing.drop()  # here, so that the next unit has room
    common |= np.where(work.rows.duplicate, int(ObjectFlag.DUPLICATE_ID), 0).astype(np.int32)
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
