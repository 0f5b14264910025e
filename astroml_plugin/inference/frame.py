"""Rows of a survey as a lazy dask dataframe: one partition per tile, part of whatever graph a pipeline builds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.objects import ObjectSettings, read_chunks
from astroml_plugin.catalog.objects.in_memory import objects_of
from astroml_plugin.catalog.objects.placing import Placer, in_units_order
from astroml_plugin.catalog.parts import with_healpix
from astroml_plugin.catalog.schema import verify
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.inference.budget import budget
from astroml_plugin.inference.deciding import forms_here, with_forms
from astroml_plugin.inference.in_memory import OUTSIDE
from astroml_plugin.inference.job import Job, Unit
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import models_of
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable, run_choices
from astroml_plugin.inference.planning import Bundle, identity, load_bundles, schema_of
from astroml_plugin.inference.preparing import check_run
from astroml_plugin.inference.telling import tell
from astroml_plugin.inference.unit import read_and_measure
from astroml_plugin.sources.survey import Survey

Item = tuple[Unit, pa.Table | None]
"""A tile, and its objects where they are given."""


def measure_frame(
    survey: Survey | Place,
    bundles: Bundle | Sequence[Bundle],
    *,
    objects: Any = None,
    options: MeasureOptions | None = None,
    execution: ExecutionOptions | None = None,
    outside: str = "refuse",
    **changes: Any,
) -> Any:
    """Rows of a survey as a lazy `dask.dataframe`, one partition per tile with objects; nothing is written.

    The workers read the tiles, load the bundles once each, and compute the rows of `infer` on the same units. Its
    columns have Arrow types. Where images overlap, `primary` is by place for objects that are given: on the image of
    whose edge they are farthest, also where that one lacks their pixels. It is true on all rows of objects found.

    Args:
        survey: the survey, or its path or URL, which all workers must see.
        bundles: one or several, which all workers must see: path, URL or shipped name, or a bundle loaded from one.
        objects: as for `infer`; they travel with the graph. None where a bundle finds them.
        options: options that change rows.
        execution: device, batch, compiling, memory.
        outside: "refuse" objects outside every tile, or "leave" them out with a warning that counts them.
        changes: single fields of the two option objects by name.

    Raises:
        InputError: survey, bundles, objects or options that do not fit one another.
    """
    import dask.dataframe as dd

    if outside not in OUTSIDE:
        raise InputError(f"outside is {outside!r}: choose one of {', '.join(OUTSIDE)}")
    url = survey.url if isinstance(survey, Survey) else text_of(survey)
    checked = check_run(url, _urls(bundles), objects, *run_choices(options, execution, changes))
    if not isinstance(checked.source, Survey):
        raise InputError(f"{storage.redact(url)} holds stamps: a frame is made of a survey's tiles, use `infer`")
    job = with_forms(checked.job, forms_here)
    job = replace(job, run=storage.digest(identity(job, checked.source))[:24])
    items = list(_items(job, checked.source, checked.objects, outside))
    schema = schema_of(checked.bundles, job)
    meta = frame_of(schema.empty_table())
    if not items:
        return dd.from_pandas(meta, npartitions=1)
    return dd.from_map(partial(rows_of_unit, schema=schema), items, meta=meta, enforce_metadata=True, label="measure")


def rows_of_unit(item: Item, schema: pa.Schema) -> pd.DataFrame:
    """Measure a tile: the partition of a frame, with the columns of the schema in the order of `object_id`."""
    unit, objects = item
    meter = Meter()
    with budget(unit.job.execution.memory).holding(unit.nbytes):
        measured = read_and_measure(unit, models_of(unit.job), meter, objects)
    tell(unit.name, measured.table.num_rows, meter.seconds)
    return frame_of(verify(with_healpix(measured.table), schema))


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A pandas frame of Arrow's types: ids, nulls and vectors stay as they are."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame


def _urls(bundles: Bundle | Sequence[Bundle]) -> list[str]:
    loaded = load_bundles(bundles)
    if held := [model.name for _, model in loaded if model.url.startswith("memory:") and "://" not in model.url]:
        raise InputError(f"bundle {held[0]} is in this process only: give its path or URL, which the workers can read")
    return [model.url for _, model in loaded]


def _items(job: Job, survey: Survey, objects: ObjectTable, outside: str) -> Iterator[Item]:
    """The units of a survey, each with its objects."""
    if job.detecting:
        yield from (
            (Unit(job, info.name, info.index, "", None, info.bytes, info), None) for info in survey.iter_tiles()
        )
        return
    if objects.table is None:
        raise InputError("a survey needs objects to measure: give objects=TABLE, or a bundle that finds them")
    placed, unplaced = in_units_order(_table(objects), Placer(survey.images()))
    if unplaced.num_rows:
        told = f"{unplaced.num_rows} objects lie outside every tile (the first is {unplaced['object_id'][0]})"
        if outside == "refuse":
            raise InputError(f"{told}: leave them out, or say outside='leave'")
        warnings.warn(f"{told} and are left out", stacklevel=4)
    for info in survey.iter_tiles():
        mine = placed.filter(pc.equal(placed["tile"], info.index)).combine_chunks()
        if mine.num_rows:
            yield Unit(job, info.name, info.index, "", mine.num_rows, info.bytes, info), mine


def _table(objects: ObjectTable) -> pa.Table:
    settings = ObjectSettings(**{name: getattr(objects, name) for name in ObjectSettings.__dataclass_fields__})
    if isinstance(objects.table, str):
        return pa.concat_tables(read_chunks(objects.table, settings))
    return objects_of(objects.table, settings)
