"""Objects of a run: tables from files and from Python, sorted to their units, added to those of the catalog."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings, given
from astroml_plugin.catalog.objects.given import GivenTable, TableRecord
from astroml_plugin.core import storage
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
    """A table from Python as Arrow: units kept, columns of arrays left out where they cannot be kept.

    Args:
        objects: an astropy table, a pandas frame (with a named index), Arrow's or any table that offers Arrow's C
            stream (polars, DuckDB), or a mapping of columns.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(objects, pa.Table):
        return objects
    try:
        if hasattr(objects, "colnames"):
            return _of_astropy(objects)
        if hasattr(objects, "iloc"):
            return pa.Table.from_pandas(_flat(objects), preserve_index=objects.index.name is not None)
        if isinstance(objects, Mapping) or hasattr(objects, "__arrow_c_stream__"):
            return pa.table(objects)
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(
            f"the objects table in memory cannot be read ({told}): give each column one name and one value a row"
        ) from error
    raise InputError(
        f"objects cannot be a {type(objects).__name__}: give a path or URL, or a table of astropy, pandas or Arrow"
    )


def _flat(frame: Any) -> Any:
    """A pandas frame without columns of arrays, lists and other things than numbers and text."""
    if frame.columns.duplicated().any():
        raise ValueError("two columns have one name")
    objects = [name for name in frame.columns if getattr(frame.dtypes[name], "hasobject", False)]
    strange = [name for name in objects if not frame[name].map(_is_plain).all()]
    return frame.drop(columns=strange) if strange else frame


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | bytes) or not hasattr(value, "__len__")


def _of_astropy(table: Any) -> pa.Table:
    flat = table[[name for name in table.colnames if table[name].ndim == 1]]
    flat.convert_bytestring_to_unicode()
    arrow = pa.Table.from_pandas(flat.to_pandas(), preserve_index=False)
    units = {name: str(unit) for name in flat.colnames if (unit := getattr(flat[name], "unit", None)) is not None}
    fields_of = [one.with_metadata({"unit": units[one.name]}) if one.name in units else one for one in arrow.schema]
    return arrow.cast(pa.schema(fields_of))
