"""A unit's pixels and objects, read once, and the stamps that the models see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin import cutouts as cut
from astroml_plugin.catalog.objects import ObjectBuckets
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.inference.job import Job, Unit
from astroml_plugin.pixels import SparseTile, Tile
from astroml_plugin.sky.wcs import Wcs
from astroml_plugin.sources.cut_columns import CutColumns
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, on_sky

Place = Callable[[Cutouts, cut.Recut | None, Tensor | None], Cutouts]
"""Brings the light of stamps to their centres; where there are pixels around them, it is told how to cut anew, and
which stamps (n,) lie beside another object of the table."""


@dataclass(frozen=True)
class Scale:
    """How the stamps of one bundle are resampled."""

    stamps: Callable[[Cutouts], Cutouts]
    """Brings stored stamps to the bundle's pixels."""
    steps: np.ndarray | None = None
    """(n,) sides of the pixels of a tile's objects in pixels of the tile; None: all as they are."""


@lru_cache(maxsize=16)
def opened(kind: Any, url: str, run: str) -> Any:
    """A store opened once per run and process: its metadata are not read again for every unit."""
    return kind.open(url)


@dataclass(frozen=True)
class Rows:
    """The objects of a unit: arrays of length n in catalog order."""

    table: dict[str, Any]
    """Common columns but flags."""
    duplicate: np.ndarray
    """(n,) bool."""


@dataclass(frozen=True)
class TileWork:
    """A tile's pixels and objects."""

    tile: Tile | SparseTile | None
    info: TileInfo
    bands: tuple[str, ...]
    rows: Rows
    jacobian: np.ndarray
    pixel_scale: float | None
    detected: bool = False
    """Whether the objects are owned by their peaks: their stamps may leave the tile."""

    def __len__(self) -> int:
        return len(self.jacobian)

    @property
    def nbytes(self) -> int:
        """Decoded bytes of its pixels."""
        return 0 if self.tile is None else self.tile.nbytes

    @cached_property
    def crowded(self) -> np.ndarray:
        """(n,) bool: another object of the table lies beside it; the same for all bundles."""
        return self._crowded(1.0)

    def _crowded(self, step: float) -> np.ndarray:
        """`crowded` in pixels of `step` pixels of the tile."""
        return cut.crowded(self.rows.table["x"] / step, self.rows.table["y"] / step)

    def to_device(self, device: str, move: cut.Move | None = None) -> cut.DeviceTile | None:
        """The tile on the device, taken there by `move`, once for all bundles; None without objects."""
        if self.tile is None:
            return None
        zero_points = [self.info.zero_points.get(band) for band in self.bands]
        return cut.to_device(self.tile, self.bands, device, self.pixel_scale, zero_points, move)

    def cutouts(
        self,
        pixels: cut.DeviceTile | None,
        size: int,
        batch: int,
        device: str,
        move: cut.Move | None = None,
        place: Place | None = None,
        scale: Scale | None = None,
    ) -> Iterator[Cutouts]:
        """Batches of stamps of side `size`, gathered on the device; `place` centres them but for detected objects.

        `scale.steps` are the sides (n,) of their pixels in pixels of the tile.
        """
        if pixels is None:
            return
        steps = None if scale is None else scale.steps
        beside = None
        if place is not None and not self.detected:
            beside = torch.from_numpy(self.crowded if steps is None else self._crowded(float(steps.min())))
        for start in range(0, len(self), batch):
            part = np.arange(start, min(start + batch, len(self)))
            found = self._cut(pixels, part, np.zeros((1, 2)), size, steps, padded=self.detected)

            def recut(index: Tensor, shift: Tensor, part: np.ndarray = part) -> Cutouts:
                return self._cut(pixels, part[index.cpu().numpy()], shift.cpu().numpy(), size, steps, padded=True)

            if place is None or beside is None:
                yield found
            else:
                yield place(found, recut, beside[part].to(found.image.device))

    def _cut(
        self,
        pixels: cut.DeviceTile,
        rows: np.ndarray,
        shift: np.ndarray,
        size: int,
        steps: np.ndarray | None,
        *,
        padded: bool,
    ) -> Cutouts:
        """Stamps of some rows, moved by (n or 1, 2) of their own pixels x, y."""
        corner = (self.info.outer.x0, self.info.outer.y0)
        x, y = (np.asarray(self.rows.table[axis])[rows] for axis in "xy")
        if steps is None:
            there = (x + shift[:, 0], y + shift[:, 1])
            return cut.around(pixels, *there, size, origin=corner, jacobian=self.jacobian[rows], padded=padded)
        own = steps[rows]
        x, y = x + shift[:, 0] * own, y + shift[:, 1] * own
        groups = [np.flatnonzero(own == step) for step in np.unique(own)]
        parts = [
            cut.around_resampled(
                pixels,
                x[group],
                y[group],
                size,
                float(own[group[0]]),
                origin=corner,
                jacobian=self.jacobian[rows[group]],
                padded=padded,
            )
            for group in groups
        ]
        return cut.merged(parts, groups)


@dataclass(frozen=True)
class BlockWork:
    """A block of stamps."""

    image: np.ndarray
    variance: np.ndarray | None
    psf: np.ndarray | None
    bands: tuple[str, ...]
    rows: Rows
    pixel_scale: float | None
    zero_points: tuple[float | None, ...] = ()
    """AB magnitude of one unit, one per band, None where unknown; empty: all unknown."""
    mask: np.ndarray | None = None
    """(n, band, y, x) uint32 of `MaskBit`; None where none is stored."""
    jacobian: np.ndarray | None = None
    """See `Cutouts.jacobian`; None where the stamps do not say it."""
    crowded: np.ndarray | None = None
    """(n,) bool: stamps beside another object of the table that they were cut at; None where nobody said."""

    def __len__(self) -> int:
        return len(self.image)

    @property
    def nbytes(self) -> int:
        """Decoded bytes of its pixels."""
        held = (self.image, self.variance, self.psf, self.mask)
        return sum(array.nbytes for array in held if array is not None)

    def to_device(self, device: str, move: cut.Move | None = None) -> None:
        """Send nothing: stamps go to the device batch by batch."""

    def cutouts(
        self,
        placed: None,
        size: int,
        batch: int,
        device: str,
        move: cut.Move | None = None,
        place: Place | None = None,
        scale: Scale | None = None,
    ) -> Iterator[Cutouts]:
        """Batches of stamps as stored, taken to the device by `move`, resampled by `scale` and centred by `place`; the
        task fits them to its own size."""
        for start in range(0, len(self), batch):
            part = slice(start, start + batch)
            found = cut.from_stamps(
                self.image[part],
                None if self.variance is None else self.variance[part],
                None if self.psf is None else self.psf[part],
                bands=self.bands,
                pixel_scale=self.pixel_scale,
                zero_points=self.zero_points,
                device=device,
                move=move,
            ).masked(None if self.mask is None else self.mask[part], move)
            if self.jacobian is not None:
                found = replace(found, jacobian=torch.from_numpy(self.jacobian[part]))
            found = found if scale is None else scale.stamps(found)
            beside = None if self.crowded is None else torch.from_numpy(self.crowded[part]).to(found.image.device)
            yield found if place is None else place(found, None, beside)


def _degrees(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) float64, NaN where null."""
    return np.array(column.cast(pa.float64()).to_numpy(), np.float64)


def read_tile(unit: Unit, objects: pa.Table | None = None) -> TileWork:
    """A tile and the objects that it owns; their positions on the sky where the table gives none.

    Args:
        unit: the tile.
        objects: as of `ObjectBuckets.read`; None: they are read from where the run has them.
    """
    if unit.tile is None or (objects is None and unit.job.objects is None):
        raise AstromlError(f"unit {unit.name} has no tile or no objects")
    wcs = unit.tile.wcs()
    if objects is None:
        buckets: ObjectBuckets = opened(ObjectBuckets, unit.job.objects or "", unit.job.run)
        objects = buckets.read(unit.name)
    rows, jacobian = rows_of(objects, unit.tile, wcs)
    return _work(unit, wcs, rows, jacobian, pixels=len(rows.duplicate) > 0)


def rows_of(objects: pa.Table, info: TileInfo, wcs: Wcs | None) -> tuple[Rows, np.ndarray]:
    """Objects that a tile owns as rows of a catalog, and `Cutouts.jacobian` at each.

    Args:
        objects: as of `ObjectBuckets.read`.
        info: the tile.
        wcs: of its arrays; None without one.
    """
    x, y = (np.asarray(objects[name], np.float64) for name in ("x", "y"))
    ra, dec = _degrees(objects["ra"]), _degrees(objects["dec"])
    sky_ra, sky_dec, jacobian = on_sky(info, wcs, x, y)
    ra, dec = np.where(np.isfinite(ra), ra, sky_ra), np.where(np.isfinite(ra), dec, sky_dec)
    common = {"object_id": objects["object_id"], "image": info.image, "tile": info.name}
    common |= {"x": x, "y": y, "ra": ra, "dec": dec, "primary": objects["primary"]}
    return Rows(common, np.asarray(objects["duplicate"])), jacobian


NO_ROWS = Rows({}, np.zeros(0, bool)), np.zeros((0, 2, 2))
"""Rows and jacobians of a tile whose objects are yet to be found."""


def read_field(unit: Unit) -> TileWork:
    """A tile whose objects are yet to be found."""
    if unit.tile is None:
        raise AstromlError(f"unit {unit.name} has no tile")
    return _work(unit, unit.tile.wcs(), *NO_ROWS, pixels=True)


def _work(unit: Unit, wcs: Wcs | None, rows: Rows, jacobian: np.ndarray, *, pixels: bool) -> TileWork:
    assert unit.tile is not None
    survey: Survey = opened(Survey, unit.job.source, unit.job.run)
    bands = unit.job.bands
    scale = survey.pixel_scale if wcs is None or not pixels else wcs.pixel_scale
    tile: Tile | SparseTile | None = None
    if pixels and rows.table:
        size = unit.job.stamp_size + 2 * cut.REACH
        tile = survey.read_around(unit.tile, rows.table["x"], rows.table["y"], size, bands)
    elif pixels:
        tile = survey.read_tile(unit.tile, bands)
    return TileWork(tile, calibrated(unit.tile, unit.job, survey.bands), bands, rows, jacobian, scale)


def calibrated(info: TileInfo, job: Job, bands: Sequence[str]) -> TileInfo:
    """A tile with the zero points of its bands, those that the run states included.

    Raises:
        InputError: stated ones that cannot be.
    """
    known = [info.zero_points.get(band) for band in bands]
    return replace(info, zero_points=dict(zip(bands, job.measure.zero_points(bands, known))))


def read_block(unit: Unit) -> BlockWork:
    """Pixels and objects of one block of stamps, in memory."""
    stamps: Stamps = opened(Stamps, unit.job.source, unit.job.run)
    image, variance, psf = stamps.read_block(unit.index)
    objects = stamps.read_objects(unit.index)
    count = len(image)
    nothing = np.full(count, np.nan)
    given = {name: _degrees(objects[name]) if name in objects.column_names else nothing for name in ("ra", "dec")}
    name = unit.job.source.rstrip("/").rpartition("/")[2].removesuffix(".zarr")
    common = {"object_id": objects["object_id"], "image": name, "tile": unit.name}
    common |= {"x": nothing, "y": nothing, **given, "primary": np.ones(count, bool)}
    repeated = opened(RepeatedIds, unit.job.objects, unit.job.run).ids
    duplicate = np.isin(np.asarray(objects["object_id"]), repeated)
    zero_points = unit.job.measure.zero_points(stamps.bands, stamps.zero_points)
    rows = Rows(common, duplicate)
    told = CutColumns.of(objects)
    pixels, beside = (image, variance, psf), (stamps.read_mask(unit.index), told.jacobian, told.crowded)
    return BlockWork(*pixels, stamps.bands, rows, stamps.pixel_scale, zero_points, *beside)


@dataclass(frozen=True)
class RepeatedIds:
    """Object ids that occur more than once in a Stamps source, found once by the driver."""

    ids: np.ndarray
    """(n,) int64, sorted."""

    @classmethod
    def open(cls, url: str | None) -> RepeatedIds:
        """Read the file that the driver wrote; no id without one."""
        return cls(np.zeros(0, np.int64) if url is None else np.asarray(storage.read_table(url)["object_id"]))


def read_unit(unit: Unit, objects: pa.Table | None = None) -> TileWork | BlockWork:
    """Pixels and objects of a unit.

    Args:
        unit: tile or block.
        objects: of the tile, where they came with the unit; see `read_tile`.

    Raises:
        AstromlError, OSError: they cannot be read.
    """
    if unit.tile is None:
        return read_block(unit)
    return read_field(unit) if unit.job.detecting else read_tile(unit, objects)
