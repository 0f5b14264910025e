"""Pieces of the sky that are looked at one after the other: HEALPix cells in which units of several images lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.core.astropy_later import healpix, u
from astroml_plugin.core.typing import F64, I64, Array, Bool
from astroml_plugin.sky.wcs import HEALPIX_ORDER, separation

MOST_ROWS = 1_000_000
"""Rows in a cell and its margin, about, beyond which it is divided: they are in memory together."""

MOST_PAIRS = 20_000_000
"""Rows times images beyond which a cell is divided: so many pairs of rows may be near each other."""

_REACH = 50.6
"""Degrees from the centre of a cell of order 0 to its farthest corner, and 5 % more; half of it in each next order."""

_TILE = re.compile(r"_r\d+_c\d+$")


@dataclass(frozen=True)
class Cell:
    """A HEALPix cell, nested."""

    order: int
    """Order, 0 to 29."""
    number: int
    """Number among those of the order."""

    @property
    def reach(self) -> float:
        """Degrees from its centre within which all of it lies."""
        return float(_REACH / (1 << self.order))

    @property
    def centre(self) -> tuple[float, float]:
        """Right ascension and declination in degrees."""
        ra, dec = healpix.healpix_to_lonlat(self.number, 1 << self.order, order="nested")
        return float(ra.to_value(u.deg)), float(dec.to_value(u.deg))

    def holds(self, index: Array) -> Bool:
        """(n,) whether positions lie in it, by their nested index of order 29."""
        inside: Bool = np.asarray(index) >> (2 * (HEALPIX_ORDER - self.order)) == self.number
        return inside

    def divided(self) -> list[Cell]:
        """The four cells of the next order."""
        return [Cell(self.order + 1, 4 * self.number + part) for part in range(4)]


class Placed:
    """The units of a catalog that have rows on the sky."""

    def __init__(self, current: pa.Table) -> None:
        """Take rows of MANIFEST_SCHEMA, one per unit."""
        self.table = current.filter(pc.and_(pc.greater(current["rows"], 0), pc.is_valid(current["healpix_min"])))
        self._ra, self._dec, self._radius = (np.asarray(self.table[name]) for name in ("ra", "dec", "radius"))
        self._rows: I64 = np.asarray(self.table["rows"])
        names = [_TILE.sub("", unit) for unit in self.table["unit"].to_pylist()]
        self._image: I64 = np.unique(names, return_inverse=True)[1] if names else np.zeros(0, np.int64)

    def near(self, cell: Cell, margin: float, among: I64 | None = None) -> I64:
        """Numbers of the units (of those `among`) that may have rows within `margin` degrees of a cell."""
        some = np.arange(len(self._ra)) if among is None else among
        away: F64 = separation(self._ra[some], self._dec[some], *cell.centre)
        return some[away <= cell.reach + margin + self._radius[some]]

    def rows(self, cell: Cell, margin: float, some: I64) -> float:
        """Rows of units within `margin` degrees of a cell, about, as if each had them evenly in its circle."""
        share = ((cell.reach + margin) / np.maximum(self._radius[some], 1e-9)) ** 2
        return float((self._rows[some] * np.minimum(share, 1)).sum())

    def images(self, some: I64) -> int:
        """Number of images that units are of."""
        return len(np.unique(self._image[some]))

    def crowded(self, margin: float) -> Iterator[Cell]:
        """Cells in which units of several images lie, no more rows in each than memory should hold.

        They are not divided below the size of the margin, which would be read again for each.
        """
        everything = np.arange(len(self._ra))
        for number in range(12):
            yield from self._crowded(Cell(0, number), margin, everything)

    def _crowded(self, cell: Cell, margin: float, among: I64) -> Iterator[Cell]:
        there = self.near(cell, margin, among)
        images, rows = self.images(there), self.rows(cell, margin, there)
        if images < 2:
            return
        if cell.reach > 2 * margin and (rows > MOST_ROWS or rows * images > MOST_PAIRS):
            for part in cell.divided():
                yield from self._crowded(part, margin, there)
        else:
            yield cell
