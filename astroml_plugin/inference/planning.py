"""Decisions before a run starts: bundles that fit their source, columns, identity, units."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Column
from astroml_plugin.catalog import schema as catalog_schema
from astroml_plugin.catalog.objects import ObjectBuckets
from astroml_plugin.compute.precision import FLOAT32
from astroml_plugin.core import storage
from astroml_plugin.core.description import and_more
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.cutouts import source_side
from astroml_plugin.inference import scaling
from astroml_plugin.inference.detecting import LABEL
from astroml_plugin.inference.facts import Source, TileFacts
from astroml_plugin.inference.job import Job, Unit
from astroml_plugin.inference.models import task_for
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions
from astroml_plugin.inference.reading import RepeatedIds
from astroml_plugin.inference.resident import BundleRef
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.run_options import assign_options
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.typicality import COLUMN as TYPICALITY

Bundles = Sequence[tuple[BundleRef, ModelBundle]]
"""The models of a run, and how they are called."""

Bundle = ModelBundle | Place
"""A bundle in memory, or its path, URL or shipped name."""

SCHEMA_VERSION = 2
"""Part of every unit's digest: raised when the meaning of a row changes."""

SEVERAL_VERSION = 3
"""Version of runs of several bundles, whose `flags` hold OUT_OF_DOMAIN of each since 3."""


def load_bundles(bundles: Bundle | Sequence[Bundle]) -> Bundles:
    """Bundles, each with the name that its columns are prefixed with.

    Raises:
        InputError: none is given, or one is no bundle.
    """
    several: Any = () if bundles is None else bundles
    if isinstance(several, ModelBundle | str | PathLike) or not isinstance(several, Iterable):
        several = (several,)  # what is no bundle is refused below
    loaded = []
    for given in several:
        model = given if isinstance(given, ModelBundle) else ModelBundle.load(given)
        loaded.append((BundleRef(model.name, storage.absolute(model.url), model.sha256), model))
    if not loaded:
        raise InputError("no bundle given: name at least one with --bundle")
    return loaded


def assigned(
    loaded: Bundles, source: Source, measure: MeasureOptions, execution: ExecutionOptions
) -> tuple[Bundles, Job]:
    """Bundles with the run options that each takes, and the values that the run's units will share.

    Raises:
        InputError: options that no bundle takes, or two bundles that find objects.
    """
    given = assign_options({ref.name: model.task() for ref, model in loaded}, measure.run_options())
    options = {name: json.dumps(values, sort_keys=True) for name, values in given.by_bundle.items()}
    bundles = [(replace(ref, options=options[ref.name]), model) for ref, model in loaded]
    refs, measure = tuple(ref for ref, _ in bundles), measure.with_run_options(given.given)
    return bundles, Job("", "", refs, measure, execution, **detecting_bundle(bundles, source))


def check_bundles(bundles: Bundles, source: Source, job: Job) -> None:
    """Check that every bundle can read the source, before anything is started.

    Args:
        bundles: the models and how they are called.
        source: what they are to read.
        job: the run's settings.

    Raises:
        InputError: wrong bands, halo or stamp size, run options that a bundle refuses.
    """
    names = Counter(ref.name for ref, _ in bundles)
    if max(names.values()) > 1:
        raise InputError(f"two bundles are named {names.most_common(1)[0][0]}: rename the folder of one")
    for ref, bundle in bundles:
        task = task_for(job, ref, bundle.task())
        if isinstance(task, DetectingTask):
            _check_detecting(ref, task, source)
        elif not isinstance(source, Stamps):
            _check_halo(ref, task, source)
        _check_source(task, source, ref.band, job)


def _check_halo(ref: BundleRef, task: Task, survey: Survey | TileFacts) -> None:
    step = scaling.widest(task, survey)
    side = source_side(task.stamp_size, step)
    if side <= 2 * survey.halo:
        return
    scaled = f" of {task.pixel_scale:.4g} arcsec, {side} px of the survey" if step != 1 else ""
    raise InputError(
        f"bundle {ref.name} needs a halo of {(side + 1) // 2} px for its {task.stamp_size} px stamps{scaled}, "
        f"{_halo_of(survey)}"
    )


def _halo_of(source: Survey | TileFacts) -> str:
    """The halo that there is, and how to have a larger one."""
    if isinstance(source, TileFacts):
        return f"the tile has {source.halo}: give one with more pixels around those that it owns (TilePlace)"
    return f"the survey has {source.halo}: ingest again with a larger --halo"


def notes(bundles: Bundles, source: Source, job: Job) -> tuple[str, ...]:
    """Sentences of what the run does with pixels of another scale, without a PSF, and where there are no pixels."""
    kind = "stamps" if isinstance(source, Stamps) else "tiles"
    if not len(source):
        return (f"{storage.redact(source.url)} holds no {kind} yet: bring some in with `ingest` first",)
    tasks = [(ref.name, task_for(job, ref, bundle.task())) for ref, bundle in bundles]
    found = (told(name, task, source) for told in (scaling.told, _without_psf) for name, task in tasks)
    return tuple(sentence for sentence in (*found, _psf_in_some([task for _, task in tasks], source)) if sentence)


def _psf_in_some(tasks: Sequence[Task], source: Source) -> str:
    """A sentence with counts where some tiles of a survey have a PSF, others have none, and a bundle uses it."""
    uses = any(task.settings.psf != "none" or isinstance(task, DetectingTask) for task in tasks)
    if not uses or not isinstance(source, Survey) or "psf" not in source.array_names:
        return ""
    without = source.tiles_without_psf()
    if not without:
        return ""
    return (
        f"{len(without)} of {len(source)} tiles have no PSF ({and_more(without)}): their objects are flagged NO_PSF "
        "where a bundle needs it; give those images a PSF (ingest --psf-from-stars or --psf)"
    )


def _without_psf(name: str, task: Task, source: Source) -> str:
    """A sentence where a bundle that finds objects measures fluxes and no PSF is known; empty elsewhere."""
    measures = isinstance(task, DetectingTask) and any(one.ucd.startswith("phot.flux") for one in task.columns())
    if not measures or "psf" in source.array_names:
        return ""
    return (
        f"{name}: the survey has no PSF, so the wings of stars are assumed (flag NO_PSF): their total fluxes are right "
        f"within some per cent only, as their errors say. Give a PSF to `ingest`: --psf-from-stars, or --psf"
    )


def pixels_needed(bundles: Bundles, source: Source, job: Job) -> dict[str, Any]:
    """Fields of a job about its pixels: bands that some bundle looks at, side of the largest stamp."""
    tasks = [(task_for(job, ref, bundle.task()), ref.band) for ref, bundle in bundles]
    wanted = {name for task, band in tasks for name in task.choose_bands(source.bands, band)}
    return {
        "bands": tuple(name for name in source.bands if name in wanted),
        "stamp_size": max(scaling.side_read(task, source) for task, _ in tasks),
    }


def _check_detecting(ref: BundleRef, task: DetectingTask, source: Source) -> None:
    if isinstance(source, Stamps):
        raise InputError(
            f"bundle {ref.name} finds objects in the tiles of a survey, and these are stamps of objects that are "
            f"known: give a survey, or other bundles"
        )
    if source.halo < task.reach:
        raise InputError(
            f"bundle {ref.name} needs a halo of {task.reach} px, so that objects at the border of a tile are found "
            f"whole: {_halo_of(source)}"
        )


def detecting_bundle(bundles: Bundles, source: Source) -> dict[str, Any]:
    """Fields of a job about the bundle that finds the objects; empty where they are given.

    Raises:
        InputError: two bundles find objects, or the bands do not fit.
    """
    finders = [(ref, task) for ref, bundle in bundles if isinstance(task := bundle.task(), DetectingTask)]
    if not finders:
        return {}
    if len(finders) > 1:
        names = " and ".join(ref.name for ref, _ in finders)
        raise InputError(f"bundles {names} both find objects: give one of them, the others measure what it finds")
    ref, task = finders[0]
    return {
        "detecting": ref.name,
        "field_bands": task.choose_bands(source.bands, ref.band),
    }


def map_bytes(bundles: Bundles, source: Survey | Stamps) -> int:
    """Bytes that detection adds to a unit: the network's maps, labels as found and as written."""
    tasks = [bundle.task() for _, bundle in bundles]
    channels = max((task.channels + 3 for task in tasks if isinstance(task, DetectingTask)), default=0)
    return 4 * channels * source.tile_size**2 if isinstance(source, Survey) else 0


def _check_source(task: Task, source: Source, band: str | None, job: Job) -> None:
    task.check_source(
        bands=source.bands,
        pixel_scale=source.pixel_scale,
        size=source.size if isinstance(source, Stamps) else None,
        dtype=str(source.dtype) if isinstance(source, Stamps) else "float32",
        has_psf="psf" in source.array_names,
        zero_points=job.measure.zero_points(source.bands, source.zero_points),
        band=band,
    )


def schema_of(bundles: Bundles, job: Job) -> pa.Schema:
    """The catalog's schema: task columns bare for one bundle, prefixed `<bundle>_` for several."""
    columns: list[Column] = [LABEL] if job.detecting else []
    if len(bundles) == 1:
        ref, bundle = bundles[0]
        return catalog_schema([*columns, *columns_of(job, ref, bundle)])
    for ref, bundle in bundles:
        own = columns_of(job, ref, bundle)
        columns += [replace(column, name=f"{ref.name}_{column.name}") for column in own]
        columns.append(
            Column(f"{ref.name}_flags", "int32", "", "meta.code.qual", f"Bits of {ref.name}, see the flags map")
        )
    return catalog_schema(columns)


def columns_of(job: Job, ref: BundleRef, bundle: ModelBundle) -> list[Column]:
    """A bundle's columns in a run: those of its task, and `typicality` where it knows what is typical."""
    own = task_for(job, ref, bundle.task()).columns()
    return [*own, *([] if bundle.typicality() is None else [TYPICALITY])]


def identity(job: Job, source: Survey | Stamps) -> dict[str, Any]:
    """Identity of a catalog: source, models, the options that change rows, and how networks calculate."""
    forms = {ref.name: ref.form for ref in job.bundles}
    half = any(form != FLOAT32 for form in forms.values())
    return {
        "source": source.id,
        "bundles": {ref.name: ref.sha256 for ref in job.bundles},
        "settings": {**job.measure.identity(), "precision": forms if half else FLOAT32},
        "schema": SCHEMA_VERSION if len(job.bundles) == 1 else SEVERAL_VERSION,
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
    """Tiles whose objects are yet to be found; which of them are primary is decided when the run ends."""
    for info in survey.iter_tiles():
        digest = storage.digest(identity_digest, info.checksum, "")[:24]
        yield Unit(job, info.name, info.index, digest, None, info.bytes, info)


def select_shard(units: Iterable[Unit], shard: tuple[int, int] | None) -> Iterator[Unit]:
    """Every N-th unit for shard (I, N); both I = 0 … N-1 and I = 1 … N cover all units once."""
    for position, unit in enumerate(units):
        if shard is None or position % shard[1] == shard[0] % shard[1]:
            yield unit
