"""Stamps around the objects of a table or the rows of a catalog, cut from a survey: the verb `cutouts`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import HEALPIX, Catalog
from astroml_plugin.catalog.objects import ObjectSettings
from astroml_plugin.catalog.query import query
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import with_changes
from astroml_plugin.cutting import CutoutOptions, CutoutsResult, ObjectsToCut, Progress, cut
from astroml_plugin.inference.options import ObjectTable
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.writer import only_writer
from workflows.notebook import shows_progress

__all__ = ["CutoutOptions", "CutoutsResult", "cutouts"]

_ROWS = 'SELECT * FROM catalog WHERE "primary"'
_NEEDED = ("object_id", "image", "x", "y")
_TOLD_ANEW = ("ra", "dec", "tile", "primary", HEALPIX)
"""Columns of a catalog that stamps have by themselves."""


@shows_progress()
def cutouts(
    survey: Place,
    *,
    out: Place,
    objects: ObjectTable | Any = None,
    catalog: Place | None = None,
    sql: str | None = None,
    options: CutoutOptions | None = None,
    client: Any = None,
    progress: Progress | None = None,
    **changes: Any,
) -> CutoutsResult:
    """Cut stamps with PSF, variance, mask, ids and labels from a survey; run again to go on after an interruption.

    Args:
        survey: path or URL of a Survey.
        out: Stamps (a name that ends in .zarr), one archive (.npz), a view that `train` and `evaluate` cut from when
            they read (.view), or a folder without a suffix for FITS files.
        objects: where to cut: path or URL of a table, an astropy, pandas or Arrow table, or an `ObjectTable` that says
            how to read it. Its other columns become labels.
        catalog: instead: path or URL of a catalog of this survey; its rows are cut where they were measured.
        sql: one SELECT over the view `catalog` with object_id, image, x and y; further columns become labels. Default:
            all columns of the rows that are primary.
        options: which stamps.
        client: Dask client, or what `cluster.connect` takes; default threads of this process.
        progress: called with (what, units done, units known of).
        changes: single fields of the options by name, for example `size=96` or `bands=("g", "r")`.

    Raises:
        InputError: a source, table, catalog, option or output that cannot be used.
    """
    chosen = with_changes(CutoutOptions, options, changes, "the options of cutouts")
    table = objects if isinstance(objects, ObjectTable) else ObjectTable(table=objects)
    if (table.table is None) == (catalog is None):
        raise InputError("give the objects to cut, with --objects TABLE or with --catalog CATALOG")
    if catalog is None and sql is not None:
        raise InputError("SQL asks a catalog: name it with --catalog")
    where = _objects(table) if catalog is None else _rows(catalog, sql, survey)
    with only_writer(text_of(out)):
        return cut(text_of(survey), where, text_of(out), chosen, client, progress)


def _objects(table: ObjectTable) -> ObjectsToCut:
    told = {one.name: getattr(table, one.name) for one in fields(ObjectSettings)}
    return ObjectsToCut(table.table, ObjectSettings(**told))


def _rows(catalog: Place, sql: str | None, survey: Place) -> ObjectsToCut:
    """Rows of a catalog as objects at their pixels, in one order whatever files they lie in."""
    made_from = Catalog.open(catalog).identity.get("source")
    if made_from != Survey.open(survey).id:
        raise InputError(
            f"{storage.redact(catalog)} was not made from {storage.redact(survey)}: its positions are of other images"
        )
    found: pa.Table = query(catalog, sql or _ROWS).to_arrow()
    if missing := [name for name in _NEEDED if name not in found.column_names]:
        raise InputError(f"the rows have no column {', '.join(missing)}: let the SQL select {', '.join(_NEEDED)}")
    kept = found.drop_columns([name for name in _TOLD_ANEW if name in found.column_names])
    return ObjectsToCut(kept.sort_by([(name, "ascending") for name in _NEEDED]), ObjectSettings(frame="pixel"))
