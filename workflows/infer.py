"""Infer: run models over every object of a Source and write the catalog."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distributed import Client

from astroml_plugin import inference
from astroml_plugin.compute.cluster import check_client, check_place
from astroml_plugin.core.places import Place
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable, run_choices
from astroml_plugin.inference.reports import InferPlan, InferResult, Progress, RunObserver, observer_of
from workflows.notebook import shows_progress

if TYPE_CHECKING:
    from astroml_plugin.inference import Unit, UnitResult

__all__ = [
    "ExecutionOptions",
    "InferPlan",
    "InferResult",
    "MeasureOptions",
    "ObjectTable",
    "dry_run",
    "infer",
    "plan",
    "run_unit",
    "run_units",
]


@shows_progress()
def infer(
    source: Place,
    *,
    bundle: Place | Sequence[Place],
    out: Place,
    objects: ObjectTable | Any = None,
    client: Client | str | None = None,
    measure: MeasureOptions | None = None,
    execution: ExecutionOptions | None = None,
    progress: Progress | RunObserver | None = None,
    **changes: Any,
) -> InferResult:
    """Measure every object of a source and write the catalog; run again to resume or to extend it.

    Args:
        source: path or URL of a Survey or Stamps.
        bundle: one or several bundles (path, URL or shipped name). One of them may find the objects of a Survey; the
            others then measure what it finds.
        out: folder of the catalog, a path or URL.
        objects: what to measure in a Survey: path or URL of a table, an astropy, pandas or Arrow table, or an
            `ObjectTable` that says how to read it. Not with a bundle that finds objects.
        client: Dask client to use, or the address of a scheduler; workers are not restarted, models are dropped at
            the end.
        measure: options that change rows; they belong to the catalog's identity.
        execution: options that change no row.
        progress: called with a `RunProgress` after every unit; or a `RunObserver`, which hears of more.
        changes: single fields of the two option objects by name, for example `band="r"` or `workers=4`.

    Raises:
        InputError: wrong input or settings; nothing already written is lost.
    """
    started = time.perf_counter()
    if not (client is None or isinstance(client, str)):
        check_client(client)
    if client is None:
        check_place(run_choices(measure, execution, changes)[1])
    observer = observer_of(progress)
    with contextlib.ExitStack() as stack:
        workers = inference.RunWorkers(stack, client, observer)
        ready = inference.prepare(
            source,
            bundle=bundle,
            out=out,
            objects=objects,
            measure=measure,
            execution=execution,
            objects_progress=observer.objects,
            decide=workers.decide,
            **changes,
        )
        how = ready.job.execution
        opened = workers.connected(how)
        inference.check_workers(opened, ready.job)
        done = inference.execute(
            opened,
            ready.units(),
            ready.catalog,
            run_id=ready.job.run,
            total=len(ready),
            label_maps=ready.label_maps,
            progress=observer.units,
            unit_timeout=how.unit_timeout or None,
        )
    return ready.finish(done, time.perf_counter() - started)


def dry_run(
    source: Place,
    *,
    bundle: Place | Sequence[Place],
    objects: Any = None,
    measure: MeasureOptions | None = None,
    execution: ExecutionOptions | None = None,
    **changes: Any,
) -> InferPlan:
    """Make all checks of `infer` and estimate the run; nothing is written. The objects of a Survey may be left away."""
    return inference.check_run(source, bundle, objects, *run_choices(measure, execution, changes)).estimate()


def plan(
    source: Place, *, bundle: Place | Sequence[Place], out: Place, npartitions: int | None = None, **settings: Any
) -> Iterator[Any]:
    """The units of a run, for a pipeline that schedules them itself.

    Args:
        source, bundle, out: as for `infer`.
        npartitions: yield that many `dask.delayed` groups instead of units.
        settings: `objects`, `measure`, `execution` and single options by name, as for `infer`.

    Yields:
        Picklable units for `run_unit`, whose `rows` are None where the objects are yet to be found; or delayed groups,
        each computing a list of `UnitResult`. Run `infer` with the same arguments afterwards to write the manifest and
        see what is missing: it skips what is done.
    """
    ready = inference.prepare(source, bundle=bundle, out=out, **settings)
    return ready.units() if npartitions is None else _groups(list(ready.units()), npartitions)


def _groups(units: list[Unit], npartitions: int) -> Iterator[Any]:
    import dask

    for start in range(min(npartitions, len(units))):
        yield dask.delayed(run_units)(units[start::npartitions])


def run_unit(unit: Unit) -> UnitResult:
    """Do one unit, here and now; see `astroml_plugin.inference.unit.run_unit`."""
    return inference.run_unit(unit)


def run_units(units: Sequence[Unit]) -> list[UnitResult]:
    """Do several units one after the other."""
    return [inference.run_unit(unit) for unit in units]
