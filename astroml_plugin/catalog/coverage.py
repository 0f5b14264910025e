"""The sky of a catalog as MOC or region file: the cells or the places of its rows, or the tiles that are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from astroml_plugin.catalog.merge import publishing
from astroml_plugin.catalog.streamed import CatalogRows, rows_by_cell
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.sky import coverage
from astroml_plugin.sky.coverage import Outline
from astroml_plugin.sky.wcs import HEALPIX_ORDER

ROWS_ORDER, OUTLINES_ORDER = 12, 14
"""Orders of a MOC of rows (cells of 52 arcsec) and of outlines (13 arcsec) where none is asked for."""


NO_ROWS = "there is no row to write: the catalog is empty, or no row meets --where"
"""Words about an area of nothing."""


def check_order(order: int | None) -> None:
    """InputError where no MOC has the order."""
    if order is not None and not 0 <= order <= HEALPIX_ORDER:
        raise InputError(f"order {order}: a MOC has orders 0 to {HEALPIX_ORDER}")


def write_rows_moc(rows: CatalogRows, to: str, order: int | None = None) -> tuple[int, int]:
    """Write the MOC of the cells that hold rows; gives the rows with and without a position.

    Args:
        rows: of a catalog.
        to: a .fits, .moc (FITS), .json or .txt file.
        order: HEALPix order of the cells.

    Raises:
        InputError: no row has a position, an order that no MOC has, the extra `hats` is not installed.
    """
    check_order(order)
    chosen = ROWS_ORDER if order is None else order
    cells, counts, none = rows_by_cell(rows, 2 * (HEALPIX_ORDER - chosen))
    placed = int(counts.sum())
    _refuse_nowhere(placed, none)
    _write_moc(coverage.moc_of_cells(cells, chosen), to)
    return placed, none


def write_outlines_moc(outlines: Iterable[Outline], to: str, order: int | None = None) -> int:
    """Write the MOC that holds all outlines (of tiles, say); gives their number. Arguments as in `write_rows_moc`."""
    check_order(order)
    found = list(outlines)
    if not found:
        raise InputError("there is no outline on the sky: images without a WCS have no place in a MOC")
    _write_moc(coverage.moc_of_outlines(found, OUTLINES_ORDER if order is None else order), to)
    return len(found)


def write_rows_region(rows: CatalogRows, to: str) -> tuple[int, int]:
    """Write a region file of DS9 with a point for each row; gives the rows with and without a position."""
    _, counts, none = rows_by_cell(rows, 2 * HEALPIX_ORDER)
    placed = int(counts.sum())
    _refuse_nowhere(placed, none)
    _write_lines(coverage.point_lines(_places(rows)), to)
    return placed, none


def write_outlines_region(outlines: Iterable[Outline], to: str) -> int:
    """Write a region file of DS9 with a polygon for each outline; gives their number."""
    found = list(outlines)
    if not found:
        raise InputError("there is no outline on the sky: images without a WCS have no place in a region file")
    _write_lines(coverage.region_lines(found), to)
    return len(found)


def _refuse_nowhere(placed: int, none: int) -> None:
    if not placed and not none:
        raise InputError(NO_ROWS)
    if not placed:
        raise InputError(f"none of the {none} rows has a position on the sky: use --to fits, votable or parquet")


def _places(rows: CatalogRows) -> Iterator[tuple[F64, F64, I64]]:
    for batch in rows.having(["ra", "dec", "object_id"]).batches():
        ra, dec = (np.asarray(batch.column(k).to_numpy(zero_copy_only=False), float) for k in (0, 1))
        placed = np.isfinite(ra) & np.isfinite(dec)
        yield ra[placed], dec[placed], batch.column(2).to_numpy()[placed]


def _write_moc(moc: object, to: str) -> None:
    storage.write_atomic(storage.absolute(to), coverage.moc_bytes(moc, coverage.suffix_of(to)))


def _write_lines(lines: Iterable[str], to: str) -> None:
    with publishing(storage.absolute(to)) as path, Path(path).open("w", encoding="utf-8") as sink:
        sink.writelines(lines)
