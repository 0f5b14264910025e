"""A sample of a catalog's objects with what was measured of them, and with what their pixels look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.ranking.names import numeric_columns
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.cutouts import Cutouts, around, from_stamps, to_device
from astroml_plugin.evaluation.inputs import SIDE, Number, input_numbers
from astroml_plugin.labelling.pixels import PixelReader
from astroml_plugin.reporting.run.subject import PRIMARY, RunSubject
from astroml_plugin.sources.stamps import Stamps

TILES = 24
"""Tiles that are looked at, at most."""

_ROWS = 250
"""Objects of each."""

_LOOKED = 32
"""Objects of each whose pixels are read."""

_COLUMNS = 40


@dataclass(frozen=True)
class Sampled:
    """Some objects of a catalog."""

    tiles: tuple[str, ...]
    """Their tiles."""
    outputs: dict[str, F64]
    """Column of numbers -> (n,) values, NaN where there is none."""
    tile: I64
    """(n,) number of each object's tile."""
    inputs: dict[Number, F64]
    """Number about pixels -> (m,) values."""
    looked: I64
    """(m,) number of the tile of each object whose pixels were looked at."""
    why: str
    """Why there are no inputs, or fewer; empty where there are."""


def sampled(subject: RunSubject) -> Sampled:
    """Objects of evenly chosen tiles, looked at once for all sections."""
    if "sampled" not in subject.shared:
        subject.shared["sampled"] = _sampled(subject)
    found: Sampled = subject.shared["sampled"]
    return found


def _sampled(subject: RunSubject) -> Sampled:
    table = _rows(subject)
    names = tuple(dict.fromkeys(table["tile"].to_pylist()))
    number = {name: place for place, name in enumerate(names)}
    tile = np.array([number[name] for name in table["tile"].to_pylist()], np.int64)
    outputs = {name: _floats(table[name]) for name in table.column_names if name not in ("object_id", "tile", "x", "y")}
    inputs, looked, why = _inputs(subject, table.select(["object_id", "tile", "x", "y"]), number)
    return Sampled(names, outputs, tile, inputs, looked, why)


def _rows(subject: RunSubject) -> pa.Table:
    """At most 250 objects of each of at most 24 tiles, drawn by their hashed ids."""
    current = subject.session.current
    units = sorted(current.filter(pa.array(current["rows"].to_numpy() > 0))["unit"].to_pylist())
    places = np.unique(np.linspace(0, len(units) - 1, min(TILES, len(units))).round().astype(int))
    chosen = [units[place] for place in places.tolist()]
    columns = sql.names(["object_id", "tile", "x", "y", *numeric_columns(subject.schema)[:_COLUMNS]])
    text = (
        f"SELECT {columns} FROM (SELECT *, row_number() OVER (PARTITION BY tile ORDER BY hash(object_id)) AS place_ "  # noqa: S608
        f"FROM catalog WHERE {PRIMARY}) WHERE place_ <= {_ROWS} ORDER BY tile, place_"
    )
    return query(subject.catalog.url, text, units=chosen, memory=subject.options.memory).to_arrow()


def _floats(column: pa.ChunkedArray) -> F64:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _inputs(subject: RunSubject, rows: pa.Table, number: dict[str, int]) -> tuple[dict[Number, F64], I64, str]:
    """Numbers about pixels, the tile of each object, and why some are not there."""
    none: tuple[dict[Number, F64], I64, str] = ({}, np.zeros(0, np.int64), subject.no_source)
    if subject.source is None:
        return none
    try:
        reader = subject.pixels()
    except AstromlError as error:
        return *none[:2], storage.redact(str(error))
    parts, places, why = [], [], ""
    for name, some in groupby(rows.to_pylist(), key=lambda row: row["tile"]):
        mine = [row for row in some if _is_placed(reader, row)][:_LOOKED]
        if not mine:
            continue
        try:
            parts.append(input_numbers(cutouts_of(reader, mine)))
        except AstromlError as error:
            why = storage.redact(str(error))
            continue
        places.append(np.full(len(mine), number[name]))
    if not parts:
        return *none[:2], why or "no object has a place in pixels"
    return joined(parts), np.concatenate(places), why


def _is_placed(reader: PixelReader, row: Mapping[str, Any]) -> bool:
    """Whether a row says where its pixels are."""
    if isinstance(reader.source, Stamps):
        return True
    return all(row[axis] is not None and np.isfinite(row[axis]) for axis in "xy")


def cutouts_of(reader: PixelReader, rows: Sequence[Mapping[str, Any]]) -> Cutouts:
    """Stamps around rows of one tile or block, with all that is stored of them: variance, PSF, zero points.

    Args:
        reader: of their pixels.
        rows: object_id, tile, x and y, all of the same tile.
    """
    source = reader.source
    if isinstance(source, Stamps):
        numbers = reader.numbers(rows)
        facts: dict[str, Any] = {"bands": source.bands, "pixel_scale": source.pixel_scale}
        found = from_stamps(*source.read_rows(numbers), zero_points=source.zero_points, **facts)
        return found.masked(source.read_masks(numbers))
    info = reader.tile(rows[0]["tile"])
    x, y = (np.array([row[axis] for row in rows], np.float64) for axis in "xy")
    zero_points = [info.zero_points.get(band) for band in source.bands]
    tile = source.read_around(info, x, y, SIDE)
    pixels = to_device(tile, source.bands, "cpu", source.pixel_scale, zero_points)
    corner, unknown = (info.outer.x0, info.outer.y0), np.full((len(x), 2, 2), np.nan)
    return around(pixels, x, y, SIDE, origin=corner, jacobian=unknown, padded=True)


def joined(parts: Sequence[dict[Number, F64]]) -> dict[Number, F64]:
    """The numbers of all parts, one after the other; NaN where a part lacks one."""
    sizes = [len(next(iter(part.values()))) for part in parts]
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate([part.get(name, np.full(size, np.nan)) for part, size in zip(parts, sizes, strict=True)])
        for name in names
    }
