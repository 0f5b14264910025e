"""Objects of a catalog within a view, their outlines, and both as a region file of DS9."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, sql
from astroml_plugin.catalog.overlay import read_labels
from astroml_plugin.catalog.query import query
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.typing import Bool
from astroml_plugin.showing.view import View

MOST = 4000
"""Objects that are marked at most, the first by their ids."""

_LARGEST = 6000
"""Pixels of a side of a view within which outlines are read."""

_COLUMNS = ("object_id", "x", "y", "ra", "dec", "flags", "primary")


@dataclass(frozen=True)
class Objects:
    """Rows of a catalog in a view."""

    rows: pa.Table
    """object_id, x, y, ra, dec, flags, primary, label (null where the catalog has none); `MOST` at most."""
    total: int
    """Rows that there are."""
    outlines: Bool | None = None
    """(y, x) pixels of the view on the rims of objects; None where no outlines are stored."""


def objects_in(catalog: Catalog, view: View, where: str | None = None) -> Objects:
    """Rows whose positions lie in a view.

    Args:
        catalog: the catalog.
        view: the view.
        where: SQL condition on the rows.

    Raises:
        InputError: SQL that fails.
    """
    labels = [name for name in catalog.schema.names if name == "label" or name.endswith("_label")]
    label = sql.name(labels[0]) if labels else "NULL::VARCHAR"
    box = view.box
    near = (
        f"image = {sql.quote(view.image)} AND x >= {box.x0 - 0.5} AND x < {box.x1 - 0.5} AND y >= {box.y0 - 0.5} "
        f"AND y < {box.y1 - 0.5}" + (f" AND (\n{where}\n)" if where else "")
    )
    units = {info.name for info in view.tiles}
    count = query(catalog.url, f"SELECT count(*) AS n FROM catalog WHERE {near}", units=units)  # noqa: S608
    text = (
        f"SELECT {sql.names(_COLUMNS)}, {label} AS label FROM catalog WHERE {near} "  # noqa: S608
        f"ORDER BY object_id, x, y LIMIT {MOST}"
    )
    rows = query(catalog.url, text, units=units).to_arrow()
    return Objects(rows, int(count.to_arrow()["n"][0].as_py()), _outlines(catalog, view))


def _outlines(catalog: Catalog, view: View) -> Bool | None:
    box = view.box
    if max(box.width, box.height) > _LARGEST:
        return None
    try:
        labels = read_labels(catalog.url, image=view.image, box=(box.x0, box.y0, box.x1, box.y1)).labels
    except AstromlError:  # no label maps: the objects were given, or maps were not wanted
        return None
    return rims(labels)


def rims(labels: np.ndarray) -> Bool:
    """(y, x) pixels of objects that have a neighbour of another object, or of none."""
    padded = np.pad(labels, 1, mode="edge")
    same = np.ones(labels.shape, bool)
    for shift in ((0, 1), (2, 1), (1, 0), (1, 2)):
        same &= padded[shift[0] : shift[0] + labels.shape[0], shift[1] : shift[1] + labels.shape[1]] == labels
    return np.asarray((labels > 0) & ~same)


def region_lines(objects: Objects, view: View) -> Iterator[str]:
    """A region file of DS9, line by line: a point for each object, on the sky or else in pixels."""
    on_sky = view.wcs is not None
    yield "# Region file format: DS9 version 4.1\n"
    yield "icrs\n" if on_sky else "image\n"
    for row in objects.rows.to_pylist():
        pair = (row["ra"], row["dec"]) if on_sky else (row["x"] + 1, row["y"] + 1)  # DS9 counts pixels from 1
        if all(value is not None and np.isfinite(value) for value in pair):
            colour = "green" if not row["flags"] else "yellow"
            yield f"point({pair[0]:.8f},{pair[1]:.8f}) # point=circle color={colour} text={{{row['object_id']}}}\n"
