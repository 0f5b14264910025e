"""Objects of a run: tables from files and from Python, sorted to their units, added to those of the catalog."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings, given
from astroml_plugin.catalog.objects.given import GivenTable, TableRecord
from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.options import ObjectTable
from astroml_plugin.sources.survey import Survey

ObjectsProgress = Callable[[str, int, int | None], None]
"""Called with (stage, rows done, rows in all or None) while objects are brought to their units."""


@dataclass(frozen=True)
class BroughtObjects:
    """Objects at their units."""

    url: str | None
    """Where units find them, or what they need to detect them; None where there is nothing to say."""
    unplaced: int = 0
    """Objects that no unit owns."""
    changed_tables: tuple[str, ...] = ()
    """Sentences about tables that have changed."""


def bring_objects(
    objects: ObjectTable, survey: Survey, catalog: Catalog, progress: ObjectsProgress | None
) -> BroughtObjects:
    """Sort the objects of a run, with those of the catalog's other tables, to the units that own them.

    Raises:
        InputError: the table cannot be read, or is another one than the catalog's and is not to extend it.
    """
    folder = storage.join(catalog.url, "objects")
    known = given.read_record(folder)
    mine = GivenTable(file_of(objects.table, folder), _settings(objects))
    if not known:
        _refuse_other(mine, catalog)
    tables = given.chosen_tables(mine, known, extend=objects.extend, catalog=catalog.url)
    buckets = ObjectBuckets.build(tables, survey, folder, progress=progress)
    now = [TableRecord.of(table, *told) for table, told in zip(tables, buckets.contents(), strict=True)]
    given.write_record(folder, now)
    unplaced = buckets.unplaced()
    catalog.write_unplaced(unplaced)
    return BroughtObjects(buckets.url, unplaced.num_rows, tuple(given.changes(known, now)))


def _settings(objects: ObjectTable) -> ObjectSettings:
    return ObjectSettings(**{one.name: getattr(objects, one.name) for one in fields(ObjectSettings)})


def _refuse_other(mine: GivenTable, catalog: Catalog) -> None:
    """Refuse a catalog with rows that does not say which tables they are of, where its last run had another one."""
    if not catalog.listed():
        return
    names = [record["objects"] for record in catalog.runs() if isinstance(record.get("objects"), str)]
    last = names[-1] if names else ""
    if "." in last and last.rpartition("/")[2] != mine.name.rpartition("/")[2]:
        raise InputError(
            f"the catalog {storage.redact(catalog.url)} was made from the objects table {last} by a version that could "
            f"not add to it; this run has {mine.name}: choose another --out"
        )


def file_of(table: Any, folder: str) -> str:
    """Path or URL of a table; one in memory is written to a file named after its content."""
    if isinstance(table, str | os.PathLike):
        return os.fspath(table)
    data = storage.encode_table(arrow_of(table))
    url = storage.join(folder, f"given-{storage.digest(data.hex())[:16]}.parquet")
    storage.write_atomic(url, data)
    return url


def arrow_of(objects: Any) -> pa.Table:
    """A table from Python as Arrow, with units; columns that Arrow cannot hold are left out.

    Args:
        objects: an astropy table (a SkyCoord in it gives `ra` and `dec`), a pandas frame (with a named index), Arrow's
            or any table that offers Arrow's C stream (polars, DuckDB), a structured array or a mapping of columns.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(objects, pa.Table):
        return objects
    if isinstance(objects, np.ndarray) and objects.dtype.names:
        objects = Table(objects)
    with foreign.refusing("the objects table in memory", "give each column one name and one value a row"):
        if hasattr(objects, "colnames"):
            return _of_astropy(objects)
        if hasattr(objects, "iloc") and hasattr(objects, "columns"):
            return _of_pandas(objects)
        if isinstance(objects, Mapping) or hasattr(objects, "__arrow_c_stream__"):
            return pa.table(objects)
    raise InputError(
        f"objects cannot be a {type(objects).__name__}: give a path or URL, or a table of astropy, pandas or Arrow"
    )


def _of_pandas(frame: Any) -> pa.Table:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if frame.columns.duplicated().any():
        raise ValueError("two columns have one name")
    columns = {}
    for name in frame.columns:
        with contextlib.suppress(pa.ArrowException, TypeError, ValueError):  # what is needed is asked for later
            columns[str(name)] = pa.array(frame[name], from_pandas=True)
    return pa.table(columns)


def _of_astropy(table: Any) -> pa.Table:
    flat = table[[name for name in table.colnames if table[name].ndim == 1 and hasattr(table[name], "dtype")]]
    flat.convert_bytestring_to_unicode()
    arrow = _of_pandas(flat.to_pandas())
    units = {name: str(unit) for name in flat.colnames if (unit := getattr(flat[name], "unit", None)) is not None}
    fields_of = [one.with_metadata({"unit": units[one.name]}) if one.name in units else one for one in arrow.schema]
    arrow = arrow.cast(pa.schema(fields_of))
    places = [table[name] for name in table.colnames if isinstance(table[name], SkyCoord) and table[name].ndim == 1]
    if len(places) == 1 and not {"ra", "dec"} & set(arrow.column_names):
        sky = places[0].icrs
        for name, values in (("ra", sky.ra.deg), ("dec", sky.dec.deg)):
            arrow = arrow.append_column(
                pa.field(name, pa.float64(), metadata={"unit": "deg"}), pa.array(np.asarray(values))
            )
    return arrow
