"""Objects tables from Python: of astropy, pandas, Arrow and others, as files that are read like any other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.objects.columns import objects_in
from astroml_plugin.catalog.objects.given import given_name
from astroml_plugin.catalog.objects.parquets import described
from astroml_plugin.catalog.objects.settings import ObjectSettings
from astroml_plugin.core import foreign, storage
from astroml_plugin.core.astropy_later import astropy_table, coordinates
from astroml_plugin.core.errors import InputError


def file_of(table: Any, folder: str) -> str:
    """Path or URL of a table; one in memory is written to a file named after its content (`given_name`).

    Words about the table or its columns, such as the date in results of `query`, are no content, nor is the library
    that it is of.

    Raises:
        InputError: it is no table, or has no rows.
    """
    if isinstance(table, str | os.PathLike):
        return os.fspath(table)
    rows = arrow_of(table)
    if not len(rows):
        raise InputError("the objects table in memory has no rows: is it the result of the right query?")
    data = storage.encode_table(_plain(rows))
    url = storage.join(folder, given_name(storage.digest(data.hex())[:16]))
    if not storage.exists(url):
        storage.write_atomic(url, data)
    return url


def _plain(table: pa.Table) -> pa.Table:
    """Rows with one type for text, and of the words about a column its unit alone."""
    fields = []
    for one in table.schema:
        unit = (one.metadata or {}).get(b"unit")
        kind = _SHORT.get(one.type, one.type)
        fields.append(pa.field(one.name, kind, metadata={b"unit": unit} if unit else None))
    return table.cast(pa.schema(fields))


_SHORT = {
    **dict.fromkeys((pa.large_string(), pa.string_view()), pa.string()),
    **dict.fromkeys((pa.large_binary(), pa.binary_view()), pa.binary()),
}
"""Type of Arrow -> the usual one for the same values."""


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
        objects = astropy_table.Table(objects)
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


def objects_of(objects: Any, settings: ObjectSettings) -> pa.Table:
    """Objects of a table from Python (OBJECT_SCHEMA), read as those of a file; nothing is written.

    Args:
        objects: as for `arrow_of`; may have no rows.
        settings: which columns are meant.

    Raises:
        InputError: no table, no positions, no ids, or ids that int64 cannot hold exactly.
    """
    table = arrow_of(objects)
    raw = described(table.schema, lambda names, _: iter([table.select(list(names))]))
    return objects_in(raw, settings, "the objects table in memory")


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
    places = [
        table[name]
        for name in table.colnames
        if isinstance(table[name], coordinates.SkyCoord) and table[name].ndim == 1
    ]
    if len(places) == 1 and not {"ra", "dec"} & set(arrow.column_names):
        sky = places[0].icrs
        for name, values in (("ra", sky.ra.deg), ("dec", sky.dec.deg)):
            arrow = arrow.append_column(
                pa.field(name, pa.float64(), metadata={"unit": "deg"}), pa.array(np.asarray(values))
            )
    return arrow
