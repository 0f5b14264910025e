"""Making a view: the labelled objects of a table brought to the tiles of a survey, once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings
from astroml_plugin.catalog.objects.given import GivenTable
from astroml_plugin.catalog.objects.in_memory import file_of
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutting.options import CutoutOptions
from astroml_plugin.cutting.plan import CutPlan, plan_cut
from astroml_plugin.cutting.view import TABLE, TILES, SurveyStamps, table_digest
from astroml_plugin.cutting.work import object_columns, placed_rows
from astroml_plugin.sources import arrays
from astroml_plugin.sources.stamps import open_source
from astroml_plugin.sources.survey import Survey

_DIFFER = 5
"""Ids that a sentence names at most."""


@dataclass(frozen=True)
class Viewed:
    """A view that was made, and what became of the objects that were given."""

    stamps: SurveyStamps
    """The view."""
    unplaced: pa.Table
    """Objects on no tile: object_id, image, x, y, ra, dec, reason."""
    left_out: str
    """Sentence about objects without a stamp; empty where there are none."""
    notes: tuple[str, ...]
    """Sentences about ids that stand twice, and arrays or units of the tiles."""


def make_view(
    survey: Survey, objects: Any, settings: ObjectSettings, options: CutoutOptions, out: str, called: str = ""
) -> Viewed:
    """Bring a table of labelled objects to the tiles of a survey; a view that is there already is opened.

    Args:
        survey: whose pixels will be cut.
        objects: path or URL of a table, or one of astropy, pandas or Arrow.
        settings: how to read it.
        options: which stamps.
        out: folder of the view.
        called: how sentences name the table; default its path.

    Raises:
        InputError: a table or option that cannot be used, or `out` holds something else.
    """
    url = storage.absolute(out)
    with tempfile.TemporaryDirectory(prefix="astroml-view-") as folder:
        table = GivenTable(file_of(objects, folder), settings, options.labels)
        buckets = ObjectBuckets.build([table], survey, folder)
        plan = plan_cut(survey, buckets, options, url, "view")
        placed = pa.concat_tables(list(_objects(plan, buckets)), promote_options="permissive").combine_chunks()
        unplaced = buckets.unplaced()
    called = called or ("the table" if table.url.startswith(folder) else table.name)
    told_of = unplaced, _left_out(buckets.rows, unplaced, called), (*plan.warnings, *_twice(placed))
    tiles = [info for task in plan.tasks for info in task.tiles]
    told = _metadata(survey, plan, placed)
    if storage.exists(storage.join(url, "zarr.json")):
        if arrays.read_metadata(url).get("id") != told["id"]:
            raise InputError(f"{storage.redact(url)} holds something else: choose another output")
        return Viewed(SurveyStamps.open(url), *told_of)
    checksums = pa.table({"name": [info.name for info in tiles], "checksum": [info.checksum for info in tiles]})
    for name, content in ((TABLE, placed), (TILES, checksums), ("unplaced.parquet", unplaced)):
        storage.write_table(storage.join(url, SurveyStamps.tables, name), content)
    arrays.create_group(url, told, folders=[SurveyStamps.tables])
    return Viewed(SurveyStamps.open(url), *told_of)


def open_stamps(url: str) -> SurveyStamps | Any:
    """The Stamps at `url`, a view too, or whatever else `open_source` gives."""
    if arrays.read_metadata(storage.absolute(url)).get("kind") == SurveyStamps.kind:
        return SurveyStamps.open(url)
    return open_source(url)


def _objects(plan: CutPlan, buckets: ObjectBuckets) -> Iterator[pa.Table]:
    for task in plan.tasks:
        for info in task.tiles:
            rows, beside = placed_rows(plan.settings, buckets, info)
            yield object_columns(info, rows, beside, None)


def _metadata(survey: Survey, plan: CutPlan, placed: pa.Table) -> dict[str, Any]:
    settings, layout = plan.settings, plan.settings.layout
    content = [[info.name, info.checksum] for task in plan.tasks for info in task.tiles]
    told = {
        "bands": list(layout.bands),
        "arrays": list(replace(layout, mask=True).arrays()),
        "size": list(layout.size),
        "dtype": "float32",
        "block": layout.rows,
        "pixel_scale": layout.pixel_scale,
        "zero_points": list(layout.zero_points),
        "psf_size": None if layout.psf_size is None else list(layout.psf_size),
        "every_image": settings.every_image,
        "brought_to": settings.zero_point,
        "blocks": list(_bounds(plan)),
    }
    identity = storage.digest(survey.id, content, table_digest(placed), told)[:32]
    return {"kind": SurveyStamps.kind, "id": identity, "survey": survey.url, **told}


def _bounds(plan: CutPlan) -> Iterator[list[int]]:
    """First row of each block, and the row behind its last: tasks begin a new block."""
    first = 0
    for task in plan.tasks:
        for start in range(0, task.rows, plan.settings.layout.rows):
            yield [first + start, first + min(task.rows, start + plan.settings.layout.rows)]
        first += task.rows


def _left_out(rows: int, unplaced: pa.Table, called: str) -> str:
    if not unplaced.num_rows:
        return ""
    reasons, counts = np.unique(np.array(unplaced["reason"].to_pylist(), str), return_counts=True)
    told = ", ".join(f"{reason} {count}" for reason, count in zip(reasons, counts, strict=True))
    return f"{unplaced.num_rows} of the {rows} objects of {called} have no stamp: {told}"


def _twice(placed: pa.Table) -> Iterator[str]:
    """A sentence about ids that stand more than once, and how many of them with other labels."""
    ids = np.asarray(placed["object_id"])
    values, first, counts = np.unique(ids, return_index=True, return_counts=True)
    repeated = values[counts > 1]
    if not len(repeated):
        return
    own = {"object_id", "ra", "dec", "image", "tile", "x", "y", "jacobian", "crowded"}
    labels = [name for name in placed.column_names if name not in own]
    rows = np.flatnonzero(np.isin(ids, repeated))
    before = first[np.searchsorted(values, ids[rows])]
    mine, theirs = (placed.select(labels).take(pa.array(chosen)).to_pylist() for chosen in (rows, before))
    other = sorted({int(ids[row]) for row, one, two in zip(rows, mine, theirs, strict=True) if repr(one) != repr(two)})
    told = f"{len(repeated)} ids stand more than once in the table"
    if other:
        some = ", ".join(map(str, other[:_DIFFER])) + (", …" if len(other) > _DIFFER else "")
        told += f", {len(other)} of them with other labels ({some}): decide which are right"
    yield told
