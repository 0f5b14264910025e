"""Rows of any table of the sky, measured on a survey: the function that LSDB and Dask map over partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import primary
from astroml_plugin.catalog.objects.placing import Placer
from astroml_plugin.catalog.schema import COMMON_COLUMNS, HEALPIX
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.places import Place
from astroml_plugin.core.typing import F64, I64, Array, Bool
from astroml_plugin.inference.in_memory import declared_schema, measure
from astroml_plugin.inference.options import MeasureOptions
from astroml_plugin.inference.planning import Bundle, load_bundles
from astroml_plugin.sky.wcs import edge_distance
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile import Tile
from astroml_plugin.training.bundle import ModelBundle

if TYPE_CHECKING:
    import pandas as pd

_NO_COLUMNS = {column.name for column in COMMON_COLUMNS if column.name != "flags"} | {HEALPIX}
"""Columns of a catalog that say where a row is: the partition has its own."""


def measure_partition(
    frame: pd.DataFrame,
    survey: Place | Survey,
    bundles: Bundle | Sequence[Bundle],
    *,
    ra: str = "ra",
    dec: str = "dec",
    object_id: str = "object_id",
    prefix: str = "",
    **options: Any,
) -> pd.DataFrame:
    """The rows of a data frame with new columns: what bundles measure at their positions in a survey.

    For `lsdb.Catalog.map_partitions` and `dask.dataframe.map_partitions`. Survey and models stay in the process. Of a
    row that several images show, the measurement is that of the `primary` row of `infer`: where it is farthest from the
    image's edge, or of another image where that one lacks pixels of the object.

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
    new = pa.schema([item for item in declared if item.name not in _NO_COLUMNS])
    twice = [prefix + name for name in new.names if prefix + name in frame.columns]
    if twice:
        raise InputError(f"the table has a column {twice[0]!r} already: give a prefix for the new ones")
    objects = _objects(frame, ra, dec, object_id)
    measured = _measured(objects, opened, loaded, options)
    place = np.full(len(frame), -1, np.int64)
    place[measured.row] = np.arange(len(measured.row))
    rows = pa.array(place, mask=place < 0)
    found = frame.copy()
    table = _with_repeated(pa.concat_tables([new.empty_table(), *measured.tables(new.names)]), objects, measured.row)
    for item in new:
        values = table[item.name].combine_chunks().take(rows)
        found[prefix + item.name] = pd.Series(pd.arrays.ArrowExtensionArray(values), index=frame.index)
    return found


@dataclass(frozen=True)
class _Measured:
    """n measured rows of a partition, in any order."""

    row: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) number of the row in the partition."""
    by_place: Bool = field(default_factory=lambda: np.zeros(0, bool))
    """(n,) whether the image is the one of which it is farthest from the edge."""
    image: Array = field(default_factory=lambda: np.zeros(0, object))
    """(n,) name of the image."""
    lacking: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) how much of the object the image lacks."""
    edge: F64 = field(default_factory=lambda: np.zeros(0))
    """(n,) pixels to the image's edge."""
    table: pa.Table | None = None
    """Columns that were measured (n); None: no row was."""

    def joined(self, other: _Measured) -> _Measured:
        """These rows, then others."""
        whole = [table for table in (self.table, other.table) if table is not None]
        return _Measured(
            np.concatenate([self.row, other.row]),
            np.concatenate([self.by_place, other.by_place]),
            np.concatenate([self.image, other.image]),
            np.concatenate([self.lacking, other.lacking]),
            np.concatenate([self.edge, other.edge]),
            pa.concat_tables(whole) if whole else None,
        )

    def of(self, some: Bool) -> _Measured:
        """Some of the rows."""
        table = None if self.table is None else self.table.filter(pa.array(some))
        return _Measured(
            self.row[some], self.by_place[some], self.image[some], self.lacking[some], self.edge[some], table
        )

    def tables(self, names: Sequence[str]) -> list[pa.Table]:
        """These columns, if there are rows."""
        return [] if self.table is None else [self.table.select(list(names))]


def _objects(frame: pd.DataFrame, ra: str, dec: str, object_id: str) -> pa.Table:
    """Ids and positions of the rows, as `Placer` takes them."""
    count = len(frame)
    numbers = object_id in frame.columns and frame[object_id].dtype.kind in "iu" and not frame[object_id].hasnans
    ids = frame[object_id].to_numpy(dtype=np.int64) if numbers else np.arange(count)
    sky = {name: frame[column].to_numpy(dtype=float, na_value=np.nan) for name, column in (("ra", ra), ("dec", dec))}
    nothing = {"x": np.full(count, np.nan), "y": np.full(count, np.nan), "image": pa.nulls(count, pa.string())}
    return pa.table({"object_id": ids, **sky, **nothing})


def _measured(objects: pa.Table, survey: Survey, bundles: list[ModelBundle], options: dict[str, Any]) -> _Measured:
    """The rows that tiles show, each measured on the image that shows it best."""
    if not objects.num_rows:
        return _Measured()
    placed = _placer(survey).place(objects, 0)[0]
    first = _on_tiles(placed.filter(placed["primary"]), survey, bundles, options)
    lacks = first.row[first.lacking > 0]
    elsewhere = pc.and_(pc.invert(placed["primary"]), pc.is_in(placed["row"], value_set=pa.array(lacks)))
    others = placed.filter(elsewhere)
    if not others.num_rows:
        return first
    both = first.joined(_on_tiles(others, survey, bundles, options))
    names = {name: number for number, name in enumerate(sorted({*both.image}))}
    given = primary.Given(
        both.row, np.array([names[name] for name in both.image], np.int64), both.by_place, both.lacking, both.edge
    )
    return both.of(primary.shown(given)[0])


def _on_tiles(placed: pa.Table, survey: Survey, bundles: list[ModelBundle], options: dict[str, Any]) -> _Measured:
    """Placed objects, each measured on its tile."""
    found = _Measured()
    tiles = np.asarray(placed["tile"])
    for tile in np.unique(tiles).tolist():
        mine = placed.filter(pa.array(tiles == tile))
        given = {name: np.asarray(mine[name]) for name in ("object_id", "x", "y")}
        pixels = Tile.from_survey(survey, tile)
        table = measure(pixels, given, bundles, **options).table
        edge = edge_distance(*pixels.info.image_shape, given["x"], given["y"])
        one = _Measured(
            np.asarray(mine["row"]),
            np.asarray(mine["primary"]),
            np.full(len(table), pixels.info.image, object),
            primary.lacking(primary.is_blank(table), np.asarray(table["flags"])),
            edge,
            table,
        )
        found = found.joined(one)
    return found


def _with_repeated(table: pa.Table, objects: pa.Table, row: I64) -> pa.Table:
    """The flag of ids that stand more than once in the partition, also on different tiles."""
    ids = np.asarray(objects["object_id"])
    values, counts = np.unique(ids, return_counts=True)
    twice = np.where(np.isin(ids[row], values[counts > 1]), int(ObjectFlag.DUPLICATE_ID), 0).astype(np.int32)
    for number, item in enumerate(table.schema):
        if twice.any() and item.name.endswith("flags") and item.type == pa.int32():
            table = table.set_column(number, item, pc.bit_wise_or(table[item.name], pa.array(twice)))
    return table


def _of_rows(options: dict[str, Any]) -> dict[str, Any]:
    """The options that change rows: the others say where they are computed."""
    return {name: value for name, value in options.items() if name in MeasureOptions.__dataclass_fields__}


def _placer(survey: Survey) -> Placer:
    """Where objects lie in a survey, kept as long as its tiles stay the same."""
    return _placer_of(survey.url, storage.digest(survey.index_table().select(["name", "checksum"]).to_pydict()))


@lru_cache(maxsize=4)
def _placer_of(url: str, tiles: str) -> Placer:
    return Placer(Survey.open(url).images())
