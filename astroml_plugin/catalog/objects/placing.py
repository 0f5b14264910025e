"""Where objects lie: on which parent images, at which pixels, in which tile, and on which of them they are primary."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.core.astropy_later import healpix
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.sky.wcs import HEALPIX_ORDER, Wcs, edge_distance, healpix29, separation, unit_vectors
from astroml_plugin.sources.tile_table import ParentImage

NO_POSITION = "no finite position"
OUTSIDE = "outside every tile"
NO_IMAGE = "its image is not in the survey"

PLACED_SCHEMA = pa.schema(
    [
        ("tile", pa.int64()),
        ("row", pa.int64()),
        ("object_id", pa.int64()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("primary", pa.bool_()),
    ]
)
"""One row per object and parent image that shows it: tile index, input row, position."""

_WIDEST = 10.0
"""Degrees of radius from which an image is a candidate for every object."""

_PAIRS = 2_000_000
"""(object, image) pairs examined at once."""


class Placer:
    """Places objects on parent images, by name."""

    def __init__(self, images: Mapping[str, ParentImage]) -> None:
        self.images: list[ParentImage] = [images[name] for name in sorted(images)]
        self._number = {image.name: number for number, image in enumerate(self.images)}
        self._wcs: dict[int, Wcs] = {}
        self._index = _SkyIndex([self._disc(number) for number in range(len(self.images))])

    def _wcs_of(self, number: int) -> Wcs | None:
        if number not in self._wcs:
            wcs = self.images[number].wcs()
            if wcs is None:
                return None
            if len(self._wcs) >= 4096:
                self._wcs.pop(next(iter(self._wcs)))
            self._wcs[number] = wcs
        return self._wcs[number]

    def _disc(self, number: int) -> tuple[float, float, float] | None:
        """(ra, dec, radius) in degrees of a circle around an image, radius inf when it cannot be told; None: no WCS."""
        wcs = self._wcs_of(number)
        if wcs is None:
            return None
        height, width = self.images[number].shape
        x, y = _outline(height, width)
        ra, dec = wcs.to_sky(x, y)
        radius = separation(ra, dec, ra[0], dec[0]).max()
        return (ra[0], dec[0], float(1.02 * radius) + 1e-4) if np.isfinite(radius) else (0.0, 0.0, np.inf)

    def overlapping(self) -> Iterator[tuple[ParentImage, list[ParentImage]]]:
        """Every image that may overlap others on the sky, with those, by name."""
        pairs: set[tuple[int, int]] = set()
        for number, image in enumerate(self.images):
            wcs = self._wcs_of(number)
            if wcs is None:
                continue
            ra, dec = wcs.to_sky(*_outline(*image.shape))
            usable = np.flatnonzero(np.isfinite(ra))
            for other, _ in self._index.candidates(usable, ra, dec):
                if other != number:
                    pairs |= {(number, other), (other, number)}
        for number, group in itertools.groupby(sorted(pairs), key=operator.itemgetter(0)):
            yield self.images[number], [self.images[other] for _, other in group]

    def place(self, objects: pa.Table, start: int) -> tuple[pa.Table, pa.Table]:
        """(placed, unplaced) rows of a chunk of objects (OBJECT_SCHEMA) whose first input row is `start`.

        Placed rows have PLACED_SCHEMA plus what the object lacks (sky of pixels, pixels of sky); exactly one per object
        is primary: where it is farthest from the image edge, ties by image name.
        """
        columns = {name: _numbers(objects[name]) for name in ("x", "y", "ra", "dec")}
        by_pixel = bool(np.isfinite(columns["x"]).any())
        found = list(self._by_pixel(objects, columns) if by_pixel else self._by_sky(columns["ra"], columns["dec"]))
        which, number, tile, x, y, ra, dec = _joined(found)
        placed = np.zeros(objects.num_rows, bool)
        placed[which] = True
        ids = np.asarray(objects["object_id"].to_numpy())
        rows = {
            "tile": tile,
            "row": which + start,
            "object_id": ids[which],
            "x": x,
            "y": y,
            "ra": pa.array(ra, mask=~np.isfinite(ra)),
            "dec": pa.array(dec, mask=~np.isfinite(dec)),
            "primary": self._primary(which, number, x, y),
        }
        return pa.table(rows, schema=PLACED_SCHEMA), self._unplaced(objects, columns, placed, by_pixel)

    def _by_sky(self, ra: F64, dec: F64) -> Iterator[tuple[Any, ...]]:
        usable = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90) & (np.abs(ra) <= 720))
        for number, which in self._index.candidates(usable, ra, dec):
            wcs = self._wcs_of(number)
            assert wcs is not None
            x, y = wcs.to_pixel(ra[which], dec[which])
            yield self._owned(number, which, x, y, ra[which], dec[which])

    def _by_pixel(self, objects: pa.Table, columns: dict[str, F64]) -> Iterator[tuple[Any, ...]]:
        usable = np.isfinite(columns["x"]) & np.isfinite(columns["y"])
        for number, mine in self._images_named(objects["image"]):
            which = np.flatnonzero(usable & mine)
            x, y = columns["x"][which], columns["y"][which]
            wcs = self._wcs_of(number)
            nothing = np.full(len(which), np.nan)
            ra, dec = (nothing, nothing) if wcs is None or not len(which) else wcs.to_sky(x, y)
            yield self._owned(number, which, x, y, ra, dec)

    def _images_named(self, names: pa.ChunkedArray) -> Iterator[tuple[int, Bool]]:
        """(image number, mask of the objects on it)."""
        if names.null_count == len(names):
            if len(self.images) != 1:
                raise InputError(
                    f"objects have pixel positions and the survey has {len(self.images)} images: give a column `image`"
                )
            yield 0, np.ones(len(names), bool)
            return
        for name in pc.unique(names).to_pylist():
            if name in self._number:
                yield self._number[name], np.asarray(pc.fill_null(pc.equal(names, name), False).to_numpy())

    def _owned(self, number: int, which: I64, x: F64, y: F64, ra: F64, dec: F64) -> tuple[Any, ...]:
        """Objects among these that lie in a stored tile of an image."""
        tile = self.images[number].tile_of(x, y)
        mine = tile >= 0
        return which[mine], np.full(mine.sum(), number), tile[mine], x[mine], y[mine], ra[mine], dec[mine]

    def _primary(self, which: I64, number: I64, x: F64, y: F64) -> Bool:
        """True on the row of each object that is farthest from its image's edge."""
        shapes = np.array([image.shape for image in self.images], float).reshape(-1, 2)[number]
        edge = edge_distance(shapes[:, 0], shapes[:, 1], x, y)
        order = np.lexsort([number, -edge, which])
        first = np.ones(len(order), bool)
        first[1:] = which[order][1:] != which[order][:-1]
        primary = np.zeros(len(order), bool)
        primary[order[first]] = True
        return primary

    def _unplaced(self, objects: pa.Table, columns: dict[str, F64], placed: Bool, by_pixel: bool) -> pa.Table:
        left = objects.filter(pa.array(~placed))
        first, second = (columns[name][~placed] for name in (("x", "y") if by_pixel else ("ra", "dec")))
        finite = np.isfinite(first) & np.isfinite(second)
        if not by_pixel:
            finite &= (np.abs(second) <= 90) & (np.abs(first) <= 720)
        reason = np.where(finite, OUTSIDE, NO_POSITION).astype(object)
        if by_pixel and left["image"].null_count < len(left):
            known = pc.is_in(left["image"], value_set=pa.array(self._number, pa.string()))
            reason[~np.asarray(known.to_numpy()) & finite] = NO_IMAGE
        return left.append_column("reason", pa.array(reason, pa.string()))


UNITS_ORDER = ("tile", "object_id", "x", "y", "row")
"""Order in which the objects of units are measured: batches are then the same wherever they come from."""


def in_units_order(objects: pa.Table, placer: Placer) -> tuple[pa.Table, pa.Table]:
    """(placed, unplaced) rows of a whole table of objects, as `ObjectBuckets` brings them to units.

    Args:
        objects: OBJECT_SCHEMA.
        placer: of the images.

    Returns:
        Placed rows have PLACED_SCHEMA and `duplicate`, whether the id stands more than once in the table, in the order
        of `ObjectBuckets.read`, tile after tile.
    """
    placed, unplaced = placer.place(objects, 0)
    values, counts = np.unique(np.asarray(objects["object_id"]), return_counts=True)
    repeated = np.isin(np.asarray(placed["object_id"]), values[counts > 1])
    placed = placed.append_column("duplicate", pa.array(repeated, pa.bool_()))
    return placed.take(pc.sort_indices(placed, sort_keys=[(name, "ascending") for name in UNITS_ORDER])), unplaced


def _outline(height: int, width: int) -> tuple[F64, F64]:
    """Centre of an image, then points along its border."""
    t = np.linspace(0, 1, 17)
    x, y = t * width - 0.5, t * height - 0.5
    left, bottom = np.full(17, -0.5), np.full(17, -0.5)
    columns = np.concatenate([[(width - 1) / 2], x, x, left, left + width])
    rows = np.concatenate([[(height - 1) / 2], bottom, bottom + height, y, y])
    return columns, rows


def _numbers(column: pa.ChunkedArray) -> F64:
    return np.array(pc.fill_null(column, float("nan")).to_numpy(), np.float64)


def _joined(found: list[tuple[Any, ...]]) -> list[Any]:
    kinds = (np.int64, np.int64, np.int64, float, float, float, float)
    if not found:
        return [np.zeros(0, kind) for kind in kinds]
    return [np.concatenate(parts).astype(kind, copy=False) for parts, kind in zip(zip(*found, strict=True), kinds)]


class _SkyIndex:
    """Discs on the sky, found by the HEALPix cell of a position.

    A disc is entered in the cell of its centre and the cells around it, at an order with cells wider than the disc.
    """

    def __init__(self, discs: list[tuple[float, float, float] | None]) -> None:
        known = [(number, *disc) for number, disc in enumerate(discs) if disc is not None]
        table = np.array(known, float).reshape(-1, 4)
        self.everywhere = [int(row[0]) for row in table if row[3] > _WIDEST]
        table = table[table[:, 3] <= _WIDEST]
        self._discs = {int(row[0]): row[1:] for row in table}
        self._centres = np.zeros((len(discs), 3))
        self._cosines = np.ones(len(discs))
        numbers = table[:, 0].astype(np.int64)
        self._centres[numbers] = unit_vectors(table[:, 1], table[:, 2])
        self._cosines[numbers] = np.cos(np.radians(table[:, 3])) - 1e-12
        self._levels = [self._level(order, table) for order in np.unique(_orders(table[:, 3]))]

    def _level(self, order: int, table: F64) -> tuple[int, I64, I64]:
        """(order, sorted cells, image number of each)."""
        mine = table[_orders(table[:, 3]) == order]
        cells = healpix29(mine[:, 1], mine[:, 2]) >> (2 * (HEALPIX_ORDER - int(order)))
        with np.errstate(invalid="ignore"):  # a cell with seven neighbours is said with a warning
            around = np.vstack([cells[None], healpix.neighbours(cells, 1 << int(order), order="nested")])
        numbers = np.broadcast_to(mine[:, 0].astype(np.int64), around.shape)
        real = around >= 0
        sort = np.argsort(around[real], kind="stable")
        return int(order), around[real][sort], numbers[real][sort]

    def candidates(self, usable: I64, ra: F64, dec: F64) -> Iterator[tuple[int, I64]]:
        """(image number, objects within its disc) for the objects `usable` (indices of ra, dec)."""
        for wide in self.everywhere:
            yield wide, usable
        if not self._levels or not len(usable):
            return
        hits = [hit for level in self._levels for hit in self._pairs(level, usable, ra, dec)]
        which = np.concatenate([hit[0] for hit in hits]) if hits else np.zeros(0, np.int64)
        number = np.concatenate([hit[1] for hit in hits]) if hits else np.zeros(0, np.int64)
        order = np.lexsort([which, number])
        which, number = which[order], number[order]
        starts = np.flatnonzero(np.diff(number, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(number)]):
            yield int(number[start]), which[start:stop]

    def _pairs(self, level: tuple[int, I64, I64], usable: I64, ra: F64, dec: F64) -> Iterator[tuple[I64, I64]]:
        order, cells, numbers = level
        own = healpix29(ra[usable], dec[usable]) >> (2 * (HEALPIX_ORDER - order))
        left, right = np.searchsorted(cells, own, "left"), np.searchsorted(cells, own, "right")
        counts = right - left
        ends = np.cumsum(counts)
        start = 0
        while start < len(usable):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS, "right")))
            part = slice(start, stop)
            repeated = np.repeat(np.arange(start, stop), counts[part])
            within = np.arange(len(repeated)) - np.repeat(ends[part] - counts[part] - before, counts[part])
            number = numbers[left[repeated] + within]
            towards = unit_vectors(ra[usable[part]], dec[usable[part]])[repeated - start]
            near = np.einsum("ij,ij->i", towards, self._centres[number]) >= self._cosines[number]
            yield usable[repeated[near]], number[near]
            start = stop


def _orders(radius: F64) -> I64:
    """The finest HEALPix order whose cells are at least 2.5 radii wide."""
    width = 58.6 / np.maximum(2.5 * radius, 1e-6)
    return np.clip(np.floor(np.log2(width)), 0, 20).astype(np.int64)
