"""Rows of any table of the sky, measured on a survey: the function that LSDB and Dask map over partitions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.objects.placing import Placer
from astroml_plugin.catalog.schema import COMMON_COLUMNS, HEALPIX
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64
from astroml_plugin.inference.in_memory import declared_schema, measure
from astroml_plugin.inference.options import MeasureOptions
from astroml_plugin.inference.planning import Bundle, load_bundles
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile import Tile
from astroml_plugin.training.bundle import ModelBundle

if TYPE_CHECKING:
    import pandas as pd

_NO_COLUMNS = {column.name for column in COMMON_COLUMNS if column.name != "flags"} | {HEALPIX}
"""Columns of a catalog that say where a row is: the partition has its own."""


def measure_partition(
    frame: pd.DataFrame,
    survey: str | Survey,
    bundles: Bundle | Sequence[Bundle],
    *,
    ra: str = "ra",
    dec: str = "dec",
    object_id: str = "object_id",
    prefix: str = "",
    **options: Any,
) -> pd.DataFrame:
    """The rows of a data frame with new columns: what bundles measure at their positions in a survey.

    For `lsdb.Catalog.map_partitions` and `dask.dataframe.map_partitions`. Survey and models stay in the process. A row
    that several images show is measured where it is farthest from the image's edge, as the `primary` one of `infer`.

    Args:
        frame: n rows with positions; other columns and the index stay as they are. None is fine.
        survey: path or URL of a survey, or the survey.
        bundles: as for `measure`; none that finds objects.
        ra: column of right ascensions in degrees, ICRS.
        dec: column of declinations in degrees.
        object_id: column of ids, whole numbers; where there is none, rows are numbered.
        prefix: put before the name of each new column.
        options: further options of `measure`, for example `band="r"` or `device="cpu"`.

    Returns:
        A copy of the frame with the columns of `declared_schema`, `flags` among them, as Arrow types. All new columns
        are null on rows that no tile shows.

    Raises:
        InputError: a column that is not there, or one that would stand twice; a bundle that does not fit the survey.
    """
    import pandas as pd

    opened = survey if isinstance(survey, Survey) else Survey.open(survey)
    loaded = [model for _, model in load_bundles(bundles)]
    for name in (ra, dec):
        if name not in frame.columns:
            raise InputError(f"the table has no column {name!r}: name its positions with ra=… and dec=…")
    declared = declared_schema(loaded, bands=opened.bands, **_of_rows(options))
    new = pa.schema([field for field in declared if field.name not in _NO_COLUMNS])
    twice = [prefix + name for name in new.names if prefix + name in frame.columns]
    if twice:
        raise InputError(f"the table has a column {twice[0]!r} already: give a prefix for the new ones")
    order, measured = _measured(_objects(frame, ra, dec, object_id), opened, loaded, options)
    place = np.full(len(frame), -1, np.int64)
    place[order] = np.arange(len(order))
    rows = pa.array(place, mask=place < 0)
    found = frame.copy()
    table = pa.concat_tables([new.empty_table(), *(part.select(new.names) for part in measured)])
    for field in new:
        values = table[field.name].combine_chunks().take(rows)
        found[prefix + field.name] = pd.Series(pd.arrays.ArrowExtensionArray(values), index=frame.index)
    return found


def _objects(frame: pd.DataFrame, ra: str, dec: str, object_id: str) -> pa.Table:
    """Ids and positions of the rows, as `Placer` takes them."""
    count = len(frame)
    numbers = object_id in frame.columns and frame[object_id].dtype.kind in "iu" and not frame[object_id].hasnans
    ids = frame[object_id].to_numpy(dtype=np.int64) if numbers else np.arange(count)
    sky = {name: frame[column].to_numpy(dtype=float, na_value=np.nan) for name, column in (("ra", ra), ("dec", dec))}
    nothing = {"x": np.full(count, np.nan), "y": np.full(count, np.nan), "image": pa.nulls(count, pa.string())}
    return pa.table({"object_id": ids, **sky, **nothing})


def _measured(
    objects: pa.Table, survey: Survey, bundles: list[ModelBundle], options: dict[str, Any]
) -> tuple[I64, list[pa.Table]]:
    """Numbers of the rows that were measured, and tables of their columns in the same order."""
    order: list[I64] = [np.zeros(0, np.int64)]
    tables: list[pa.Table] = []
    if objects.num_rows:
        placed = _placer(survey).place(objects, 0)[0]
        placed = placed.filter(placed["primary"])
        tiles = np.asarray(placed["tile"])
        for tile in np.unique(tiles).tolist():
            mine = placed.filter(pa.array(tiles == tile))
            given = {name: np.asarray(mine[name]) for name in ("object_id", "x", "y")}
            tables.append(measure(Tile.from_survey(survey, tile), given, bundles, **options).table)
            order.append(np.asarray(mine["row"]))
    return np.concatenate(order), tables


def _of_rows(options: dict[str, Any]) -> dict[str, Any]:
    """The options that change rows: the others say where they are computed."""
    return {name: value for name, value in options.items() if name in MeasureOptions.__dataclass_fields__}


def _placer(survey: Survey) -> Placer:
    """Where objects lie in a survey, kept as long as its tiles stay the same."""
    return _placer_of(survey.url, storage.digest(survey.index_table().select(["name", "checksum"]).to_pydict()))


@lru_cache(maxsize=4)
def _placer_of(url: str, tiles: str) -> Placer:
    return Placer(Survey.open(url).images())
