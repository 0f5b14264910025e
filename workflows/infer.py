"""Infer: run models over every object of a Source and write the catalog."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import pyarrow as pa
from distributed import Client

from astroml_plugin import __version__, inference
from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings
from astroml_plugin.catalog.objects.detected import Overlaps
from astroml_plugin.compute.cluster import IO_LANES, UNIT_TIMEOUT, check_counts, connect, cores
from astroml_plugin.compute.device import COMPILING, PRECISIONS
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.core.version import code_digest
from astroml_plugin.inference import BundleRef, Job, Progress, Unit, UnitResult, run_unit
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.sources.survey import Survey
from astroml_plugin.tasks.run_options import assign_options
from astroml_plugin.training.bundle import ModelBundle

ObjectsProgress = Callable[[str, int, int | None], None]

__all__ = ["InferPlan", "InferResult", "dry_run", "infer", "plan", "run_unit", "run_units"]


@dataclass(frozen=True)
class InferResult:
    """What a run did."""

    catalog: str
    """URL of the catalog."""
    units_done: int
    """Units finished by this run."""
    units_skipped: int
    """Units that were done before."""
    units_failed: int
    """Units in the failures table."""
    rows: int
    """Rows written by this run."""
    unplaced: int
    """Objects outside every tile, or without a usable position."""
    seconds: float
    """Wall seconds, start-up included."""


@dataclass(frozen=True)
class InferPlan:
    """What a run would do."""

    units: int
    """Tiles or blocks of the source."""
    bytes: int
    """Decoded bytes that would be read, at most."""
    memory: int
    """Estimated peak bytes per worker: units in flight times the bytes of the largest."""
    rows: int | None
    """Stamps to measure; None for a Survey, whose objects are not counted, or not yet found, before the run."""
    detecting: str = ""
    """The bundle that will find the objects; empty where they are given."""


@dataclass(frozen=True)
class Prepared:
    """A run ready to be carried out: checked, its objects at their units, its catalog open."""

    source: Survey | Stamps
    """What is read."""
    catalog: Catalog
    """What is written."""
    job: Job
    """What its units share."""
    identity: str
    """Digest of source, bundles and settings."""
    unplaced: int
    """Objects that no unit owns."""
    labels: LabelMaps | None = None
    """Where label maps go; None where there are none."""

    def units(self, shard: tuple[int, int] | None = None) -> Iterator[Unit]:
        """Its units, lazily."""
        return inference.select_shard(inference.units_of(self.job, self.source, self.identity), shard)


def infer(
    source: str,
    *,
    bundle: str | Sequence[str],
    out: str,
    objects: Any = None,
    objects_settings: ObjectSettings | None = None,
    client: Client | None = None,
    scheduler: str = "local",
    workers: int | None = None,
    threads: int | None = None,
    band: str | None = None,
    batch: int | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiling: str = "auto",
    shard: tuple[int, int] | None = None,
    pixel_scale_tolerance: float | None = None,
    assume_psf_fwhm: float = 0.0,
    options: Mapping[str, Any] | None = None,
    labels: bool = True,
    memory: int | None = None,
    unit_timeout: float = UNIT_TIMEOUT,
    progress: Progress | None = None,
    objects_progress: ObjectsProgress | None = None,
    connected: Callable[[Client], None] | None = None,
) -> InferResult:
    """Measure every object of a source and write the catalog; run again to resume or to extend it.

    Args:
        source: path or URL of a Survey or Stamps.
        bundle: one or several bundles (path, URL or shipped name). One of them may find the objects of a Survey; the
            others then measure what it finds.
        out: folder of the catalog, a path or URL.
        objects: what to measure in a Survey: path or URL of a table, or an astropy, pandas or Arrow table. Not with a
            bundle that finds objects.
        objects_settings: format, columns and frame of the table.
        client: Dask client to use; its workers are not restarted, models are dropped at the end.
        scheduler: without a client: "local", "processes", "cuda", "slurm" or an address.
        workers: worker processes of a cluster that is started here.
        threads: threads per worker.
        band: band for bundles that take any single one.
        batch: stamps per forward; default 128 on a CPU, on CUDA what a look at the network says that its memory holds.
            Where it does not after all, the batch is halved.
        device: torch device; default CUDA where there is one.
        precision: "float32", or "auto": half precision on CUDA (bfloat16, float16 on GPUs before 2020). Changes rows:
            part of the run's identity.
        compiling: "auto" compiles networks on CUDA once they have seen some hundred batches, "always" at once and on
            CPUs too, "never" not at all.
        shard: (I, N) does every N-th unit.
        pixel_scale_tolerance: accept this relative difference of pixel scales.
        assume_psf_fwhm: arcsec; objects without a PSF are measured as if it were a round Gaussian of this FWHM (flag
            NO_PSF). 0: a bundle that needs a PSF refuses a source without.
        options: run options of the bundles' tasks, NAME (for every bundle that takes it) or BUNDLE.NAME -> value; of
            classes `prior` (class -> fraction of the survey's objects) and `symmetries`. They change rows: part of the
            run's identity.
        labels: write the label maps of a bundle that finds objects (`read_labels` reads them).
        memory: bytes of pixels that a worker process holds at once (a unit that is larger runs alone); default half of
            what its host has free at the first unit, shared among the workers there.
        unit_timeout: seconds from its submission after which a unit is taken to hang; 0 never. A worker process of a
            cluster that is started here is then replaced and the unit tried once more; elsewhere the unit has failed.
        progress: called with a `Tally` after every unit.
        objects_progress: called with (stage, rows done, rows in all or None) while objects are brought to their units.
        connected: called with the Dask client before the first unit.

    Raises:
        InputError: wrong input or settings; nothing already written is lost.
    """
    started = time.perf_counter()
    check_counts(workers, threads)
    if not 0 <= unit_timeout < math.inf:
        raise InputError(f"a unit cannot be given {unit_timeout} s: give seconds above 0, or 0 to wait for ever")
    ready = prepare(
        source,
        bundle=bundle,
        out=out,
        objects=objects,
        objects_settings=objects_settings,
        band=band,
        batch=batch,
        device=device,
        precision=precision,
        compiling=compiling,
        pixel_scale_tolerance=pixel_scale_tolerance,
        assume_psf_fwhm=assume_psf_fwhm,
        options=options,
        labels=labels,
        memory=memory,
        objects_progress=objects_progress,
    )
    with contextlib.ExitStack() as stack:
        if client is None:
            client = stack.enter_context(connect(scheduler, workers=workers, threads=threads))
        if connected is not None:
            connected(client)
        tally = inference.execute(
            client,
            ready.units(shard),
            ready.catalog,
            run_id=ready.job.run,
            total=_count(ready.source, shard),
            labels=ready.labels,
            progress=progress,
            unit_timeout=unit_timeout or None,
        )
    seconds = time.perf_counter() - started
    result = InferResult(
        ready.catalog.url, tally.done, tally.skipped, tally.failed, tally.rows, ready.unplaced, round(seconds, 3)
    )
    ready.catalog.finish_run(
        ready.job.run,
        {
            "result": {key: value for key, value in vars(result).items() if key != "catalog"},
            "stages": {name: round(value, 3) for name, value in tally.stages.items()},
            "bytes": dict(tally.bytes),
            "shard": list(shard) if shard else None,
        },
    )
    return result


def prepare(
    source: str,
    *,
    bundle: str | Sequence[str],
    out: str,
    objects: Any = None,
    objects_settings: ObjectSettings | None = None,
    band: str | None = None,
    batch: int | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiling: str = "auto",
    pixel_scale_tolerance: float | None = None,
    assume_psf_fwhm: float = 0.0,
    options: Mapping[str, Any] | None = None,
    labels: bool = True,
    memory: int | None = None,
    objects_progress: ObjectsProgress | None = None,
) -> Prepared:
    """Check everything that can be checked, bring the objects to their units and open the catalog.

    Raises:
        InputError: wrong input or settings.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch}: give 1 or more stamps per forward")
    if memory is not None and memory < 1:
        raise InputError(f"{memory} bytes of memory hold no pixel: give more, or leave it out")
    if device is not None:
        inference.check_device(device)
    opened = open_source(source)
    if not 0 <= assume_psf_fwhm < math.inf:
        raise InputError(f"a PSF of FWHM {assume_psf_fwhm} arcsec cannot be assumed: give a number above 0")
    bundles, given = with_options(load_bundles(bundle), band, assume_psf_fwhm, options)
    refs = tuple(ref for ref, _ in bundles)
    out = storage.absolute(out)
    settings = {"precision": precision, "compiling": compiling, "memory": memory, "batch": batch, "device": device}
    settings |= inference.detecting_bundle(bundles, opened)
    job = Job(storage.absolute(source), out, refs, options=given, **settings)  # type: ignore[arg-type]
    refuse_choices(job, {"precision": PRECISIONS, "compiling": COMPILING}, "infer's")
    _check_objects(opened, job, objects)
    inference.check_bundles(bundles, opened, job, pixel_scale_tolerance)
    identity = inference.identity(job, opened)
    catalog = _create(out, inference.declared_schema(bundles, job), identity)
    place, unplaced = _bring_objects(opened, catalog, job, objects, objects_settings, objects_progress)
    maps = LabelMaps.create(out, opened) if job.detecting and labels and isinstance(opened, Survey) else None
    run_id = catalog.start_run(_record(job, identity, objects))
    job = replace(job, run=run_id, objects=place, labels=maps is not None)
    return Prepared(opened, catalog, job, storage.digest(identity), unplaced, maps)


def _check_objects(source: Survey | Stamps, job: Job, objects: Any) -> None:
    """Objects come from a table, from stamps or from a bundle, and from one of them only."""
    if isinstance(source, Stamps) and objects is not None:
        raise InputError("Stamps carry their own objects: leave --objects away, or give a Survey")
    if job.detecting and objects is not None:
        raise InputError(f"bundle {job.detecting} finds the objects itself: leave --objects away, or that bundle")
    if isinstance(source, Survey) and objects is None and not job.detecting:
        raise InputError(
            "a Survey needs objects to measure: give a table with --objects TABLE, or a bundle that finds them"
        )


def with_options(
    bundles: Sequence[tuple[BundleRef, ModelBundle]],
    band: str | None,
    assumed_psf_fwhm: float,
    options: Mapping[str, Any] | None,
) -> tuple[list[tuple[BundleRef, ModelBundle]], dict[str, Any]]:
    """The bundles with the run options that each takes, and all options as they were given.

    Raises:
        InputError: an option that no bundle takes.
    """
    given = {"band": band, "assumed_psf_fwhm": assumed_psf_fwhm or None, **(options or {})}
    assigned = assign_options({ref.name: found.task() for ref, found in bundles}, given)
    told = {name: json.dumps(values, sort_keys=True) for name, values in assigned.by_bundle.items()}
    return [(replace(ref, options=told[ref.name]), found) for ref, found in bundles], assigned.given


def _create(out: str, schema: pa.Schema, identity: dict[str, Any]) -> Catalog:
    try:
        return Catalog.create(out, schema, identity)
    except OSError as error:
        raise InputError(
            f"the catalog cannot be written at {storage.redact(out)} ({error.strerror or type(error).__name__}): "
            f"choose another --out"
        ) from error


def load_bundles(bundle: str | Sequence[str]) -> list[tuple[BundleRef, ModelBundle]]:
    """The bundles by path, URL or shipped name, each with the name its columns are prefixed with."""
    loaded = []
    for source in [bundle] if isinstance(bundle, str) else bundle:
        found = ModelBundle.load(source)
        loaded.append((BundleRef(found.name, storage.absolute(found.url), found.sha256), found))
    if not loaded:
        raise InputError("no bundle given: name at least one with --bundle")
    return loaded


def _bring_objects(
    source: Survey | Stamps,
    catalog: Catalog,
    job: Job,
    objects: Any,
    settings: ObjectSettings | None,
    progress: ObjectsProgress | None,
) -> tuple[str | None, int]:
    """Where the units find their objects (or what they need to find them), and how many objects no unit owns."""
    folder = storage.join(catalog.url, "objects")
    if isinstance(source, Stamps):
        return inference.find_repeated_ids(source, folder), 0
    if job.detecting:
        return Overlaps.build(source, folder).url, 0
    table = objects if isinstance(objects, str) else _stored(objects, folder)
    buckets = ObjectBuckets.build(table, source, folder, settings=settings or ObjectSettings(), progress=progress)
    unplaced = buckets.unplaced()
    catalog.write_unplaced(unplaced)
    return buckets.url, unplaced.num_rows


def _stored(objects: Any, folder: str) -> str:
    """A table in memory, written where the units' objects are kept."""
    table = objects if isinstance(objects, pa.Table) else _arrow(objects)
    data = storage.encode_table(table)
    url = storage.join(folder, f"given-{storage.digest(data.hex())[:16]}.parquet")
    storage.write_atomic(url, data)
    return url


def _arrow(objects: Any) -> pa.Table:
    """An astropy table (units kept, columns of arrays left out) or a pandas frame (with a named index) as Arrow."""
    if not hasattr(objects, "colnames"):
        return pa.Table.from_pandas(objects, preserve_index=objects.index.name is not None)
    flat = objects[[name for name in objects.colnames if objects[name].ndim == 1]]
    table = pa.Table.from_pandas(flat.to_pandas(), preserve_index=False)
    units = {name: str(unit) for name in flat.colnames if (unit := getattr(flat[name], "unit", None)) is not None}
    fields = [f.with_metadata({"unit": units[f.name]}) if f.name in units else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _record(job: Job, identity: dict[str, Any], objects: Any) -> dict[str, Any]:
    """What the run record says: everything one needs to know where the rows come from, no credentials."""
    return {
        "source": storage.redact(job.source),
        "bundles": [{"name": ref.name, "url": storage.redact(ref.url), "sha256": ref.sha256} for ref in job.bundles],
        "objects": storage.redact(objects) if isinstance(objects, str) else _told(job, objects),
        "identity": identity,
        "settings": {
            "band": None,
            "batch": job.batch,
            "device": job.device,
            "precision": job.precision,
            "compiling": job.compiling,
            "memory": job.memory,
            **job.options,
        },
        "versions": {"astroml-plugin": __version__, "code": code_digest(), "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "dask", "zarr", "numpy", "pyarrow", "astropy")},
        "host": platform.node(),
    }


def _told(job: Job, objects: Any) -> str:
    return f"found by {job.detecting}" if job.detecting else type(objects).__name__


def _count(source: Survey | Stamps, shard: tuple[int, int] | None) -> int:
    total = len(source) if isinstance(source, Survey) else len(source.units())
    return total if shard is None else len(range(shard[0] % shard[1], total, shard[1]))


def dry_run(source: str, *, bundle: str | Sequence[str], threads: int | None = None, **settings: Any) -> InferPlan:
    """What `infer` would do, without writing anything.

    Args:
        source: path or URL of a Survey or Stamps.
        bundle: one or several bundles.
        threads: compute threads per worker, for the memory estimate.
        settings: `objects` (may be left away), `band`, `pixel_scale_tolerance`, `assume_psf_fwhm` and `options`, as for
            `infer`.
    """
    opened = open_source(source)
    bundles, given = with_options(
        load_bundles(bundle), settings.get("band"), settings.get("assume_psf_fwhm", 0.0), settings.get("options")
    )
    refs = tuple(ref for ref, _ in bundles)
    job = Job(source, "", refs, options=given, **inference.detecting_bundle(bundles, opened))
    if settings.get("objects") is not None:
        _check_objects(opened, job, settings["objects"])
    inference.check_bundles(bundles, opened, job, settings.get("pixel_scale_tolerance"))
    if isinstance(opened, Survey):
        sizes, rows = [int(size) for size in opened.index_table()["bytes"].to_pylist()], None
    else:
        units = list(inference.units_of(job, opened, ""))
        sizes, rows = [unit.nbytes for unit in units], sum(unit.rows or 0 for unit in units)
    lanes = (threads or cores()) + IO_LANES
    largest = max(sizes, default=0) + inference.map_bytes(bundles, opened)
    return InferPlan(len(sizes), sum(sizes), lanes * largest, rows, job.detecting)


def plan(
    source: str, *, bundle: str | Sequence[str], out: str, npartitions: int | None = None, **settings: Any
) -> Iterator[Any]:
    """The units of a run, for a pipeline that schedules them itself.

    Args:
        source, bundle, out: as for `infer`.
        npartitions: yield that many `dask.delayed` groups instead of units.
        settings: `objects`, `objects_settings`, `band`, `batch`, `device`, `precision`, `compiling`,
            `pixel_scale_tolerance`, `options`, `labels` as for `infer`.

    Yields:
        Picklable units for `run_unit`, whose `rows` are None where the objects are yet to be found; or delayed groups,
        each computing a list of `UnitResult`. Run `infer` with the same arguments afterwards to write the manifest and
        see what is missing: it skips what is done.
    """
    ready = prepare(source, bundle=bundle, out=out, **settings)
    if npartitions is None:
        yield from ready.units()
        return
    import dask

    units = list(ready.units())
    for start in range(min(npartitions, len(units))):
        yield dask.delayed(run_units)(units[start::npartitions])


def run_units(units: Sequence[Unit]) -> list[UnitResult]:
    """Do several units one after the other."""
    return [run_unit(unit) for unit in units]
