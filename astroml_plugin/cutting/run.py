"""A whole cut: objects brought to their tiles, tasks carried out on any Dask client, what was lost told."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings
from astroml_plugin.catalog.objects.given import GivenTable
from astroml_plugin.catalog.objects.in_memory import file_of
from astroml_plugin.compute.cluster import client_of, run_window
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.cutting.fits_files import place_in_folder
from astroml_plugin.cutting.npz_files import pack
from astroml_plugin.cutting.options import CutoutOptions, CutoutsResult, Progress
from astroml_plugin.cutting.plan import CutPlan, CutTask, plan_cut
from astroml_plugin.cutting.stamps_store import place_in_store
from astroml_plugin.cutting.viewing import make_view
from astroml_plugin.cutting.work import cut_task, output_of
from astroml_plugin.sources.survey import Survey

_KINDS = {".zarr": "stamps", ".npz": "npz", ".view": "view", "": "fits"}
_PARTS = ".parts"
"""Ends the name of the store that an archive is packed from."""


@dataclass(frozen=True)
class ObjectsToCut:
    """A table of objects and how it is read."""

    table: Any
    """Path, URL, or a table of astropy, pandas or Arrow."""
    settings: ObjectSettings
    """How to read it."""


def cut(
    source: str,
    objects: ObjectsToCut,
    out: str,
    options: CutoutOptions,
    client: Any = None,
    progress: Progress | None = None,
) -> CutoutsResult:
    """Cut stamps around objects of a survey; run again after an interruption, it goes on where it was.

    Args:
        source: path or URL of the survey.
        objects: where to cut.
        out: Stamps (ends in .zarr), an archive (.npz), a view (.view), or a folder for FITS files (without a suffix).
        options: which stamps.
        client: Dask client, or what `cluster.connect` takes; default threads of this process.
        progress: hears how far it is.

    Raises:
        InputError: a source, table, option or output that cannot be used.
    """
    started = time.monotonic()
    say = progress or (lambda what, done, total: None)
    kind = kind_of(out)
    survey = Survey.open(source)
    target = storage.absolute(out)
    if kind == "view":
        return replace(_viewed(survey, objects, target, options), seconds=round(time.monotonic() - started, 3))
    folder = target + _PARTS if kind == "npz" else target
    beside = folder if kind == "fits" else storage.join(folder, "objects")  # readers of Zarr list the folder of a store
    given = storage.join(beside, "given")
    table = GivenTable(file_of(objects.table, given), objects.settings, options.labels)
    hear = partial(_hear, say)
    buckets = ObjectBuckets.build([table], survey, given, progress=hear)
    plan = plan_cut(survey, buckets, options, folder, "fits" if kind == "fits" else "stamps")
    plan = place_in_folder(plan, folder) if kind == "fits" else place_in_store(plan, folder, table.name, buckets)
    done = _Tally(plan, say)
    with client_of(client) as opened:
        done.carry_out(opened)
    table_at = f"{target.removesuffix('.npz')}.unplaced.parquet"
    unplaced_at = _tell_unplaced(buckets, table_at if kind == "npz" else storage.join(beside, "unplaced.parquet"))
    result = CutoutsResult(
        out=target,
        kind=kind,
        rows=done.rows,
        rows_skipped=plan.rows - done.rows - done.lost,
        size=plan.settings.size,
        tiles=plan.tiles,
        unplaced=buckets.unplaced_rows,
        unplaced_at=unplaced_at,
        bytes=done.bytes,
        seconds=0.0,
        failed=tuple(done.failed),
        warnings=plan.warnings,
    )
    if kind == "npz" and not done.failed:
        pack(folder, target, lambda number, total: say("pack", number, total))
        _remove(folder)
    return replace(result, seconds=round(time.monotonic() - started, 3))


def _viewed(survey: Survey, objects: ObjectsToCut, url: str, options: CutoutOptions) -> CutoutsResult:
    """A view: nothing is cut until somebody reads."""
    found = make_view(survey, objects.table, objects.settings, options, url)
    rows, unplaced = found.stamps.count, found.unplaced.num_rows
    return CutoutsResult(
        out=url,
        kind="view",
        rows=rows,
        rows_skipped=0,
        size=found.stamps.size[0],
        tiles=len(set(found.stamps.table["tile"].to_pylist())),
        unplaced=unplaced,
        unplaced_at=storage.join(url, "objects", "unplaced.parquet") if unplaced else None,
        bytes=0,
        seconds=0.0,
        warnings=found.notes,
    )


def kind_of(out: str) -> str:
    """ "stamps", "npz", "view" or "fits", by the suffix of an output.

    Raises:
        InputError: another suffix.
    """
    name = out.rstrip("/").rpartition("/")[2]
    suffix = name[name.rfind(".") :].lower() if "." in name[1:] else ""
    if suffix not in _KINDS:
        raise InputError(
            f"cannot write cutouts to {storage.redact(out)}: end it in .zarr (stamps), .npz or .view, or give a folder "
            "without a suffix for FITS files, one per object"
        )
    return _KINDS[suffix]


def _hear(say: Progress, stage: str, done: int, total: int | None) -> None:
    if total is not None:
        say(f"objects: {stage}", done, total)


@dataclass
class _Tally:
    """Counts of a cut in progress; lives in the driver."""

    plan: CutPlan
    say: Progress
    rows: int = 0
    bytes: int = 0
    lost: int = 0
    """Stamps of groups of tiles that failed."""

    def __post_init__(self) -> None:
        self.failed: list[tuple[str, str]] = []

    def carry_out(self, client: Any) -> None:
        """Run the tasks of which a block is missing."""
        there = output_of(self.plan.settings).present()
        tasks = [task for task in self.plan.tasks if not there.issuperset(task.blocks)]
        total, ended = len(self.plan.tasks), len(self.plan.tasks) - len(tasks)
        for outcome in run_window(client, cut_task, iter(tasks)):
            self._take(outcome.item, outcome.value, outcome.error)
            ended += 1
            self.say("cut", ended, total)

    def _take(self, task: CutTask, value: Any, error: BaseException | None) -> None:
        if error is None:
            self.rows += value.rows
            self.bytes += value.bytes
        elif isinstance(error, OSError):
            out = storage.redact(self.plan.settings.out)
            raise InputError(f"{out} cannot be written: {storage.redact(str(error))}") from error
        elif isinstance(error, AstromlError):
            self.lost += task.rows
            self.failed.append((f"{task.rows} objects of {task.name}", storage.redact(str(error))))
        else:
            raise error


def _tell_unplaced(buckets: ObjectBuckets, place: str) -> str | None:
    """Write the objects that no tile owns; the table's URL, None where there are none."""
    if not buckets.unplaced_rows:
        storage.remove(place)
        return None
    storage.write_table(place, buckets.unplaced())
    return place


def _remove(folder: str) -> None:
    if storage.is_local(folder):
        shutil.rmtree(storage.local_path(folder), ignore_errors=True)
        return
    filesystem, path = storage.filesystem(folder)
    remove: Callable[..., Any] = filesystem.rm
    storage.retrying(remove, path, recursive=True)
