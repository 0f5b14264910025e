"""A run before its first unit: everything checked, the objects at their units, the catalog open."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from astroml_plugin import __version__
from astroml_plugin.catalog import Catalog, primary
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.objects import read_chunks
from astroml_plugin.catalog.objects.in_memory import arrow_of, objects_of
from astroml_plugin.catalog.objects.placing import Placer
from astroml_plugin.compute.cluster import IO_LANES, cores
from astroml_plugin.compute.precision import FLOAT32
from astroml_plugin.core import storage
from astroml_plugin.core.description import and_more
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import changed, option_of, to_mapping
from astroml_plugin.core.version import code_digest
from astroml_plugin.inference.backend_record import by_bundle
from astroml_plugin.inference.centres import median_offsets, warning
from astroml_plugin.inference.deciding import Decide, forms_here, with_forms
from astroml_plugin.inference.job import Job, Unit
from astroml_plugin.inference.objects import BroughtObjects, ObjectsProgress, bring_objects
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable, run_choices
from astroml_plugin.inference.planning import (
    Bundle,
    Bundles,
    assigned,
    check_bundles,
    find_repeated_ids,
    identity,
    load_bundles,
    map_bytes,
    notes,
    pixels_needed,
    schema_of,
    select_shard,
    units_of,
)
from astroml_plugin.inference.reports import InferPlan, InferResult, RunProgress
from astroml_plugin.inference.unlike import sentences
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.sources.survey import Survey

_FLAGS = {"format": "--objects-format"}
"""Fields of an objects table that the command line calls otherwise."""

_LOOKED_AT = 1000
"""Rows of an objects table that a check reads."""


@dataclass(frozen=True)
class CheckedRun:
    """Source, bundles and options that fit one another; nothing is written yet."""

    source: Survey | Stamps
    """The source, open."""
    bundles: Bundles
    """The models, with the run options that each takes."""
    job: Job
    """Values that the run's units will share."""
    objects: ObjectTable
    """The objects table; its `table` is None where stamps or a bundle give the objects."""

    def estimate(self) -> InferPlan:
        """Units, bytes and memory of the run."""
        if isinstance(self.source, Survey):
            sizes, rows = [int(size) for size in self.source.index_table()["bytes"].to_pylist()], None
        else:
            units = list(units_of(self.job, self.source, ""))
            sizes, rows = [unit.nbytes for unit in units], sum(unit.rows or 0 for unit in units)
        lanes = (self.job.execution.threads or cores()) + IO_LANES
        largest = max(sizes, default=0) + map_bytes(self.bundles, self.source)
        said = notes(self.bundles, self.source, self.job)
        return InferPlan(len(sizes), sum(sizes), lanes * largest, rows, self.job.detecting, said)


@dataclass(frozen=True)
class Prepared:
    """A run ready to be carried out: checked, its objects at their units, its catalog open."""

    source: Survey | Stamps
    """The source, open."""
    catalog: Catalog
    """The catalog, open for writing."""
    job: Job
    """Values that its units share."""
    identity: str
    """Digest of source, bundles and settings."""
    unplaced: int
    """Objects that no unit owns."""
    label_maps: LabelMaps | None = None
    """Store of the label maps; None where there are none."""
    changed_tables: tuple[str, ...] = ()
    """Sentences about objects tables that have changed."""
    notes: tuple[str, ...] = ()
    """Sentences of what is done with pixels of another scale than the bundles', or without a PSF."""

    def units(self) -> Iterator[Unit]:
        """Units of the run (of its shard), lazily."""
        return select_shard(units_of(self.job, self.source, self.identity), self.job.execution.shard)

    def __len__(self) -> int:
        """Number of its units."""
        total = len(self.source) if isinstance(self.source, Survey) else len(self.source.units())
        shard = self.job.execution.shard
        return total if shard is None else len(range(shard[0] % shard[1], total, shard[1]))

    def _sky_warning(self) -> str:
        """A sentence where objects were looked for in tiles whose level is no sky at 0."""
        if not self.job.detecting or not isinstance(self.source, Survey):
            return ""
        tiles = self.source.tiles_off_zero(self.job.field_bands)
        if not tiles:
            return ""
        return (
            f"the level of {and_more(tiles)} is not at 0: sky is left there, or light fills it; the objects are "
            "flagged OUT_OF_DOMAIN (if it is sky, ingest again with --background auto, or mesh where auto left it)"
        )

    def finish(self, done: RunProgress, seconds: float) -> InferResult:
        """Complete the run's record after its last unit.

        Args:
            done: of `execute`.
            seconds: wall time of the run, start-up included.
        """
        seconds = round(seconds, 3)
        offsets = median_offsets(done.centres)
        told = warning(offsets, stamps=isinstance(self.source, Stamps)) or self._sky_warning()
        counts = done.done, done.skipped, done.failed, done.rows, self.unplaced
        said = (*self.notes, *done.refused, *sentences(done.unlike))
        result = InferResult(self.catalog.url, *counts, seconds, done.damaged, told, self.changed_tables, said)
        shard = self.job.execution.shard
        record = {
            "result": {name: value for name, value in vars(result).items() if name != "catalog"},
            "stages": {name: round(value, 3) for name, value in done.stages.items()},
            "bytes": dict(done.bytes),
            "centres": offsets,
            "backends": by_bundle(done.forms),
            "devices": dict(done.devices),
            "prepared_by": dict(done.ways),
            "shard": list(shard) if shard else None,
            primary.FOLDER: primary.decide(self.catalog),
        }
        self.catalog.finish_run(self.job.run, record)
        return result


def check_run(
    source: Place,
    bundle: Bundle | Sequence[Bundle],
    objects: Any = None,
    measure: MeasureOptions | None = None,
    execution: ExecutionOptions | None = None,
) -> CheckedRun:
    """Check everything that can be checked without writing; a Survey may come without objects here.

    Args:
        source: path or URL of a Survey or Stamps.
        bundle: one or several bundles (path, URL or shipped name).
        objects: objects table: path, URL, table in memory or `ObjectTable`.
        measure: options that change rows.
        execution: options that change none.

    Raises:
        InputError: wrong input or settings.
    """
    measure, execution = measure or MeasureOptions(), execution or ExecutionOptions()
    opened, loaded = open_source(source), load_bundles(bundle)
    bundles, job = assigned(loaded, opened, measure, execution)
    job = replace(job, source=storage.absolute(source))
    table = objects if isinstance(objects, ObjectTable) else ObjectTable(table=objects)
    _check_objects(opened, job, table)
    if not execution.label_maps and not job.detecting:
        raise InputError("--no-labels would do nothing, as no bundle here finds objects: leave it away")
    check_bundles(bundles, opened, job)
    return CheckedRun(opened, bundles, replace(job, **pixels_needed(bundles, opened, job)), table)


def _check_objects(source: Survey | Stamps, job: Job, objects: ObjectTable) -> None:
    """Objects come from a table that can be read, from stamps or from a bundle, and from one of them only."""
    if objects.table is None:
        _refuse_useless(source, job, objects)
        return
    if isinstance(source, Stamps):
        raise InputError("Stamps carry their own objects: leave --objects away, or give a Survey")
    if job.detecting:
        raise InputError(f"bundle {job.detecting} finds the objects itself: leave --objects away, or that bundle")
    if isinstance(objects.table, str | os.PathLike):
        next(read_chunks(text_of(objects.table), objects, _LOOKED_AT))
    elif not objects_of(arrow_of(objects.table).slice(0, _LOOKED_AT), objects).num_rows:
        raise InputError("the objects table in memory has no rows")


def _refuse_useless(source: Survey | Stamps, job: Job, objects: ObjectTable) -> None:
    """Options of an objects table do nothing without one, nor does a choice about label maps that nobody makes."""
    given = [_FLAGS.get(name) or option_of(name) for name in changed(objects)]
    if given:
        why = "stamps carry their own objects"
        if not isinstance(source, Stamps):
            why = f"bundle {job.detecting} finds the objects" if job.detecting else "there is no table"
        raise InputError(f"{', '.join(given)} would do nothing, as {why}: leave it away")


def prepare(
    source: Place,
    *,
    bundle: Bundle | Sequence[Bundle],
    out: Place,
    objects: Any = None,
    measure: MeasureOptions | None = None,
    execution: ExecutionOptions | None = None,
    objects_progress: ObjectsProgress | None = None,
    decide: Decide | None = None,
    **changes: Any,
) -> Prepared:
    """Check a run, bring the objects to their units and open the catalog.

    Args:
        source, bundle, objects, measure, execution: as for `check_run`.
        out: folder of the catalog, a path or URL.
        objects_progress: hears how far the objects are.
        decide: says how networks calculate where `precision` is "auto" and the catalog is new; default: this process
            looks at its own device.
        changes: single fields of the two option objects, by name.

    Raises:
        InputError: wrong input or settings.
    """
    measure, execution = run_choices(measure, execution, changes)
    checked = check_run(source, bundle, objects, measure, execution)
    job = replace(checked.job, catalog=storage.absolute(out))
    if isinstance(checked.source, Survey) and checked.objects.table is None and not job.detecting:
        raise InputError(
            "a Survey needs objects to measure: give a table with --objects TABLE, or a bundle that finds them"
        )
    job, own, catalog = _begun(checked, job, decide or forms_here)
    brought = _bring_objects(checked, catalog, objects_progress)
    if brought.overlaps:
        flags = f"{job.detecting}_flags" if job.detecting and len(job.bundles) > 1 else "flags"
        primary.begin(catalog.url, primary.MATCHED if job.detecting else primary.GIVEN, flags)
    maps = None
    if job.detecting and job.execution.label_maps and isinstance(checked.source, Survey):
        maps = LabelMaps.create(job.catalog, checked.source)
    run_id = catalog.start_run(_record(job, own, checked.objects.table))
    job = replace(job, run=run_id, objects=brought.url)
    said = notes(checked.bundles, checked.source, job)
    digest, unplaced = storage.digest(own), brought.unplaced
    return Prepared(checked.source, catalog, job, digest, unplaced, maps, brought.changed_tables, said)


def _begun(checked: CheckedRun, job: Job, decide: Decide) -> tuple[Job, dict[str, Any], Catalog]:
    """The job with the forms of its rows, the catalog's identity, and the catalog, new or as it is there.

    Where another run begins the same catalog in the same moment, what that one decided holds.
    """
    schema = schema_of(checked.bundles, job)
    for last in (False, True):
        formed = with_forms(job, decide)
        own = identity(formed, checked.source)
        try:
            return formed, own, _create(job.catalog, schema, own)
        except InputError:
            if last or job.measure.precision == FLOAT32:
                raise
    raise AssertionError("unreachable")


def _create(out: Place, schema: pa.Schema, identity: dict[str, Any]) -> Catalog:
    try:
        return Catalog.create(out, schema, identity)
    except OSError as error:
        raise InputError(
            f"the catalog cannot be written at {storage.redact(out)} ({error.strerror or type(error).__name__}): "
            f"choose another --out"
        ) from error


def _bring_objects(run: CheckedRun, catalog: Catalog, progress: ObjectsProgress | None) -> BroughtObjects:
    folder, source = storage.join(catalog.url, "objects"), run.source
    if isinstance(source, Stamps):
        return BroughtObjects(find_repeated_ids(source, folder))
    if run.job.detecting:
        return BroughtObjects(None, overlaps=any(True for _ in Placer(source.images()).overlapping()))
    return bring_objects(run.objects, source, catalog, progress)


def _record(job: Job, identity: dict[str, Any], objects: Any) -> dict[str, Any]:
    """Everything one needs to know where the rows come from, as plain JSON without credentials."""
    told = f"found by {job.detecting}" if job.detecting else type(objects).__name__
    named = isinstance(objects, str | os.PathLike)
    execution = to_mapping(job.execution) | {"scheduler": storage.redact(job.execution.scheduler)}
    return {
        "source": storage.redact(job.source),
        "bundles": [{"name": ref.name, "url": storage.redact(ref.url), "sha256": ref.sha256} for ref in job.bundles],
        "objects": storage.redact(objects) if named else told,
        "identity": identity,
        "settings": to_mapping(job.measure) | execution,
        "versions": {"astroml-plugin": __version__, "code": code_digest(), "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "dask", "zarr", "numpy", "pyarrow", "astropy")},
        "host": platform.node(),
    }
