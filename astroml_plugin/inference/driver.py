"""Bulk inference: which units there are, which are done, and the run over a Dask client."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from distributed import Client

from astroml_plugin import __version__, storage
from astroml_plugin.bundle import ModelBundle
from astroml_plugin.catalog import Catalog, Column, PartInfo
from astroml_plugin.catalog import schema as catalog_schema
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.store import FAILURES_SCHEMA
from astroml_plugin.cluster import run_window
from astroml_plugin.errors import InputError
from astroml_plugin.inference.detecting import LABEL
from astroml_plugin.inference.job import Job, OutputError, Unit, UnitResult
from astroml_plugin.inference.meter import bottleneck
from astroml_plugin.inference.reading import RepeatedIds, task_for
from astroml_plugin.inference.resident import BundleRef, ResidentModels
from astroml_plugin.inference.unit import run_unit
from astroml_plugin.objects import ObjectBuckets
from astroml_plugin.objects.detected import Overlaps
from astroml_plugin.stamps import Stamps
from astroml_plugin.survey import Survey
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.classify import ClassifyTask
from astroml_plugin.tasks.detecting import DetectingTask

SCHEMA_VERSION = 1
"""Part of every unit's digest: raised when the meaning of a row changes."""

FLUSH_SECONDS = 5.0
"""How often finished parts are written to the manifest while a run goes on."""

RECENT_UNITS = 32
"""Units that the present bottleneck is judged by."""


@dataclass(frozen=True)
class Tally:
    """Where a run stands."""

    units: int
    """Units of this run, done ones included; grows while the plan is being made."""
    done: int = 0
    """Units finished by this run."""
    skipped: int = 0
    """Units that were done before."""
    failed: int = 0
    """Units whose reason is in the failures table."""
    rows: int = 0
    """Rows written by this run."""
    seconds: float = 0.0
    """Wall seconds since the first unit was submitted."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by stage, summed over the units."""
    bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes by stage, summed over the units."""
    bottleneck: str | None = None
    """The stage that the last units spent most time in."""


Progress = Callable[[Tally], None]


def check_bundles(
    bundles: Sequence[tuple[BundleRef, ModelBundle]],
    source: Survey | Stamps,
    job: Job,
    pixel_scale_tolerance: float | None = None,
) -> None:
    """Whether every bundle can read the source, before anything is started.

    Args:
        bundles: the models and how they are called.
        source: what they are to read.
        job: the run's settings.
        pixel_scale_tolerance: accept this relative difference of pixel scale, whatever the bundle says.

    Raises:
        InputError: wrong bands, pixel scale, halo or stamp size; a band chosen for bundles that take none.
    """
    if job.band is not None and not any(takes_any_band(bundle.task()) for _, bundle in bundles):
        ref, bundle = bundles[0]
        raise InputError(
            f"bundle {ref.name} reads {', '.join(bundle.task().bands)}, no band can be chosen: leave --band away"
        )
    check_class_options([bundle.task() for _, bundle in bundles], job)
    names = Counter(ref.name for ref, _ in bundles)
    if max(names.values()) > 1:
        raise InputError(f"two bundles are named {names.most_common(1)[0][0]}: rename the folder of one")
    for ref, bundle in bundles:
        task = task_for(job, bundle.task())
        if isinstance(task, DetectingTask):
            _check_detecting(ref, task, source)
        elif isinstance(source, Survey) and task.stamp_size > 2 * source.halo:
            raise InputError(
                f"bundle {ref.name} needs a halo of {(task.stamp_size + 1) // 2} px for its "
                f"{task.stamp_size} px stamps, the survey has {source.halo}: ingest again with a larger --halo"
            )
        _check_source(task, source, job.band, pixel_scale_tolerance)


def _check_detecting(ref: BundleRef, task: DetectingTask, source: Survey | Stamps) -> None:
    if isinstance(source, Stamps):
        raise InputError(
            f"bundle {ref.name} finds objects in the tiles of a survey, and these are stamps of objects that are "
            f"known: give a survey, or other bundles"
        )
    if source.halo < task.reach:
        raise InputError(
            f"bundle {ref.name} needs a halo of {task.reach} px, so that objects at the border of a tile are found "
            f"whole, and the survey has {source.halo}: ingest again with --halo {task.reach} or more"
        )


def detecting_bundle(
    bundles: Sequence[tuple[BundleRef, ModelBundle]], source: Survey | Stamps, band: str | None
) -> dict[str, Any]:
    """What a job keeps of the bundle that finds the objects; nothing where they are given.

    Raises:
        InputError: two bundles find objects, or the bands do not fit.
    """
    found = [(ref, task) for ref, bundle in bundles if isinstance(task := bundle.task(), DetectingTask)]
    if not found:
        return {}
    if len(found) > 1:
        names = " and ".join(ref.name for ref, _ in found)
        raise InputError(f"bundles {names} both find objects: give one of them, the others measure what it finds")
    ref, task = found[0]
    return {
        "detecting": ref.name,
        "field_bands": task.choose_bands(source.bands, band if takes_any_band(task) else None),
    }


def map_bytes(bundles: Sequence[tuple[BundleRef, ModelBundle]], source: Survey | Stamps) -> int:
    """Bytes that detection adds to a unit: the network's maps, labels as found and as written."""
    tasks = [bundle.task() for _, bundle in bundles]
    channels = max((task.channels + 2 for task in tasks if isinstance(task, DetectingTask)), default=0)
    return 4 * channels * source.tile_size**2 if isinstance(source, Survey) else 0


def check_class_options(tasks: Sequence[Task], job: Job) -> None:
    """A prior and a number of symmetries must mean something to a bundle.

    Raises:
        InputError: no bundle has classes, or those of the prior, or averages.
    """
    if job.symmetries and not any(hasattr(task.settings, "symmetries") for task in tasks):
        raise InputError("no bundle here averages over symmetries: leave --symmetries away")
    classes = [task.settings.classes for task in tasks if isinstance(task, ClassifyTask)]
    if job.prior and not classes:
        raise InputError("no bundle here gives classes: leave --prior away")
    if job.prior and len(tasks) > 1 and not any({name for name, _ in job.prior} <= set(names) for names in classes):
        told = "; ".join(", ".join(names) for names in classes)
        raise InputError(f"no bundle has all classes of the prior ({', '.join(name for name, _ in job.prior)}): {told}")


def takes_any_band(task: Task) -> bool:
    """Whether a band can be chosen for it."""
    return bool(task.settings.any_band and len(task.bands) == 1)


def _check_source(task: Task, source: Survey | Stamps, band: str | None, tolerance: float | None) -> None:
    scale, trained = source.pixel_scale, task.pixel_scale
    if tolerance is not None and scale and trained and abs(scale / trained - 1) <= tolerance:
        scale = None
    task.check_source(
        bands=source.bands,
        pixel_scale=scale,
        size=source.size if isinstance(source, Stamps) else None,
        dtype=str(source.dtype) if isinstance(source, Stamps) else "float32",
        has_psf="psf" in source.array_names,
        band=band if takes_any_band(task) else None,
    )


def declared_schema(bundles: Sequence[tuple[BundleRef, ModelBundle]], job: Job) -> pa.Schema:
    """The catalog's schema: task columns bare for one bundle, prefixed `<bundle>_` for several."""
    columns: list[Column] = [LABEL] if job.detecting else []
    if len(bundles) == 1:
        return catalog_schema([*columns, *task_for(job, bundles[0][1].task()).columns()])
    for ref, bundle in bundles:
        own = task_for(job, bundle.task()).columns()
        columns += [replace(column, name=f"{ref.name}_{column.name}") for column in own]
        columns.append(
            Column(f"{ref.name}_flags", "int32", "", "meta.code.qual", f"Bits of {ref.name}, see the flags map")
        )
    return catalog_schema(columns)


def identity(job: Job, source: Survey | Stamps) -> dict[str, Any]:
    """What makes a catalog this one and no other: source, models and the settings that change rows."""
    changed: dict[str, Any] = {"assumed_psf_fwhm": job.assumed_psf_fwhm} if job.assumed_psf_fwhm else {}
    changed |= {"prior": dict(job.prior)} if job.prior else {}
    changed |= {"symmetries": job.symmetries} if job.symmetries else {}
    return {
        "source": source.id,
        "bundles": {ref.name: ref.sha256 for ref in job.bundles},
        "settings": {"band": job.band, "precision": job.precision, **changed},
        "schema": SCHEMA_VERSION,
    }


def units_of(job: Job, source: Survey | Stamps, identity_digest: str) -> Iterator[Unit]:
    """All units of a source, lazily, in index order."""
    if isinstance(source, Survey):
        yield from _tiles(job, source, identity_digest)
        return
    repeated = RepeatedIds.open(job.objects).ids
    stamp_bytes = sum(source.array(name).nbytes // max(1, source.array(name).shape[0]) for name in source.array_names)
    for block in source.units():
        inside = _repeated_inside(source, block.index, repeated)
        digest = storage.digest(identity_digest, block.checksum, inside)[:24]
        yield Unit(job, block.name, block.index, digest, len(block), len(block) * stamp_bytes)


def _repeated_inside(stamps: Stamps, index: int, repeated: np.ndarray) -> list[int]:
    """The repeated ids that a block holds: they decide its flags."""
    if not len(repeated):
        return []
    ids = np.asarray(stamps.read_objects(index)["object_id"])
    return [int(value) for value in np.unique(ids[np.isin(ids, repeated)])]


def find_repeated_ids(stamps: Stamps, folder: str) -> str | None:
    """Write the object ids that occur more than once in a store; the table's URL, None when there are none."""
    ids = np.concatenate(
        [np.zeros(0, np.int64), *(np.asarray(stamps.read_objects(b.index)["object_id"]) for b in stamps.units())]
    )
    values, counts = np.unique(ids, return_counts=True)
    repeated = values[counts > 1]
    if not len(repeated):
        return None
    url = storage.join(folder, f"repeated-{storage.digest(repeated.tolist())[:16]}.parquet")
    storage.write_table(url, pa.table({"object_id": repeated}))
    return url


def _tiles(job: Job, survey: Survey, identity_digest: str) -> Iterator[Unit]:
    if job.detecting:
        yield from _fields(job, survey, identity_digest)
        return
    if job.objects is None:
        raise InputError("a Survey needs objects to measure: give --objects TABLE")
    counts = ObjectBuckets.open(job.objects).units()
    for info in survey.iter_tiles():
        rows, objects = counts.get(info.name, (0, ""))
        digest = storage.digest(identity_digest, info.checksum, objects)[:24]
        yield Unit(job, info.name, info.index, digest, rows, info.bytes if rows else 0, info)


def _fields(job: Job, survey: Survey, identity_digest: str) -> Iterator[Unit]:
    """Tiles whose objects are yet to be found; which of them are primary depends on the images that overlap."""
    overlaps = Overlaps.open(job.objects).digests
    for info in survey.iter_tiles():
        digest = storage.digest(identity_digest, info.checksum, overlaps.get(info.image, ""))[:24]
        yield Unit(job, info.name, info.index, digest, None, info.bytes, info)


def select_shard(units: Iterable[Unit], shard: tuple[int, int] | None) -> Iterator[Unit]:
    """Every N-th unit for shard (I, N); both I = 0 … N-1 and I = 1 … N cover all units once."""
    for position, unit in enumerate(units):
        if shard is None or position % shard[1] == shard[0] % shard[1]:
            yield unit


@dataclass
class _Run:
    """The moving parts of a run on the driver."""

    catalog: Catalog
    run_id: str
    progress: Progress | None
    tally: Tally
    started: float = field(default_factory=time.perf_counter)
    flushed: float = field(default_factory=time.perf_counter)
    parts: list[PartInfo] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    superseded: list[tuple[str, str]] = field(default_factory=list)
    mapped: set[int] | None = None
    """Units whose label map exists; None where none are wanted."""
    recent: deque[Mapping[str, float]] = field(default_factory=partial(deque, maxlen=RECENT_UNITS))

    def to_do(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Units that no part (or no label map) holds yet; the others are counted as skipped."""
        done = self.catalog.listed()
        for unit in units:
            there = done.get(unit.name, set())
            if there - {unit.digest}:
                self.superseded.append((unit.name, unit.digest))
            if unit.digest in there and (self.mapped is None or unit.index in self.mapped):
                self.update(skipped=self.tally.skipped + 1)
            else:
                yield unit

    def update(self, **changes: Any) -> None:
        self.tally = replace(self.tally, seconds=time.perf_counter() - self.started, **changes)
        if self.progress is not None:
            self.progress(self.tally)

    def finished(self, unit: Unit, result: UnitResult) -> None:
        self.parts.append(result.part)
        stages, moved = Counter(self.tally.stages), Counter(self.tally.bytes)
        stages.update(result.seconds)
        moved.update(result.bytes)
        self.recent.append(result.seconds)
        lately: Counter[str] = Counter()
        for seconds in self.recent:
            lately.update(seconds)
        done, rows = self.tally.done + 1, self.tally.rows + result.part.rows
        self.update(done=done, rows=rows, stages=stages, bytes=moved, bottleneck=bottleneck(lately))

    def failed(self, unit: Unit, error: BaseException, attempts: int) -> None:
        reason = storage.redact(f"{type(error).__name__}: {error}")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.failures.append({"unit": unit.name, "reason": reason, "attempts": attempts, "time": stamp})
        self.update(failed=self.tally.failed + 1)

    def failure_table(self) -> pa.Table:
        """The units that failed, as the catalog keeps them."""
        return pa.Table.from_pylist(self.failures, schema=FAILURES_SCHEMA)

    def flush(self, *, now: bool = False) -> None:
        """Write finished parts to the manifest, now or when some seconds have passed."""
        if self.parts and (now or time.perf_counter() - self.flushed > FLUSH_SECONDS):
            self.catalog.commit_manifest(self.run_id, self.parts)
            self.parts = []
            self.flushed = time.perf_counter()


def execute(
    client: Client,
    units: Iterable[Unit],
    catalog: Catalog,
    *,
    run_id: str,
    total: int,
    labels: LabelMaps | None = None,
    progress: Progress | None = None,
) -> Tally:
    """Run all units that are not done yet, through the bounded window, and keep the catalog's books.

    Args:
        client: Dask client; models are dropped from its workers at the end.
        units: of one run, lazily.
        catalog: where parts go.
        run_id: of `catalog.start_run`.
        total: number of units, for progress.
        labels: where label maps go; None where none are wanted.
        progress: called with a `Tally` after every unit.

    Raises:
        OutputError: the catalog cannot be written.
        InputError: the workers run another version of this package.
    """
    _prepare_workers(client)
    mapped = None if labels is None else labels.present()
    run = _Run(catalog, run_id, progress, Tally(total), mapped=mapped)
    try:
        for outcome in run_window(client, run_unit, run.to_do(units)):
            if isinstance(outcome.error, OutputError):
                raise outcome.error
            if outcome.error is not None:
                run.failed(outcome.item, outcome.error, outcome.attempts)
            else:
                run.finished(outcome.item, outcome.value)
            run.flush()
    finally:
        run.flush(now=True)
        catalog.write_failures(run.failure_table(), run_id)
        _release_workers(client)
    if run.superseded:
        catalog.drop_superseded(run_id, run.superseded)
    return replace(run.tally, seconds=time.perf_counter() - run.started)


def _prepare_workers(client: Client) -> None:
    """Check that every worker has this version, and put the plugin there."""
    try:
        versions = client.run(worker_version)
    except Exception as error:
        raise InputError(
            f"the workers cannot import astroml_plugin ({type(error).__name__}): install version {__version__} there"
        ) from error
    wrong = sorted({version for version in versions.values() if version != __version__})
    if wrong:
        raise InputError(
            f"workers run astroml_plugin {', '.join(wrong)}, this is {__version__}: install the same version there"
        )
    hosts = Counter(address.rpartition(":")[0] for address in versions)
    client.register_plugin(ResidentModels(max(hosts.values(), default=1)))


def worker_version() -> str:
    """The version of this package on a worker."""
    return __version__


def _release_workers(client: Client) -> None:
    if client.status == "running":
        client.unregister_worker_plugin(ResidentModels.name)
