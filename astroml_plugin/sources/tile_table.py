"""Tiles of parent images: where each lies, and the Parquet tables that list those that exist."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.typing import I64
from astroml_plugin.sky.coverage import Outline
from astroml_plugin.sky.wcs import Box, Wcs, tile_step
from astroml_plugin.sources import quality
from astroml_plugin.sources.quality import BandQuality

_FORBIDDEN = re.compile(r"[/\\\x00-\x1f:*?\"<>|]|^\.|^$")
_PART = re.compile(r"tiles-(\d+)-(\d+)-[0-9a-f]+\.parquet$")
_LIGHT = (
    *("index", "name", "image", "image_height", "image_width", "row", "column"),
    *("inner_x0", "inner_y0", "inner_x1", "inner_y1", "checksum", "bytes", "pixel_scale"),
    *("source_id", "source_tiles"),
)
_PLAIN = (
    *("index", "name", "image", "row", "column", "header", "has_variance", "has_mask", "has_psf"),
    *("source", "source_id", "source_tiles", "checksum", "bytes"),
)

_BOXES = [f"{kind}_{side}" for kind in ("outer", "inner") for side in ("x0", "y0", "x1", "y1")]
_NEEDED = ("index", "name", "image", "image_height", "image_width", "row", "column", *_BOXES)
_LATER = {"calibrations", *quality.NAMES}
"""Columns that older tables lack: nobody said."""

_AGAIN = "ingest the survey again"


def check_name(name: str) -> str:
    """`name`, when it can name an image or tile; InputError for path separators and the like."""
    if _FORBIDDEN.search(name) or len(name) > 180:
        raise InputError(
            f"{name!r} cannot name an image: use no path separators, at most 180 characters (option `name`)"
        )
    return name


@dataclass(frozen=True)
class TileInfo:
    """One row of the tile table."""

    index: int
    """Index along the arrays' first axis."""
    name: str
    """`<image>_r<row>_c<column>`: the unit's name."""
    image: str
    """Parent image (pixel grid)."""
    image_shape: tuple[int, int]
    """(height, width) of the parent image."""
    row: int
    """Row on the parent's tile grid."""
    column: int
    """Column on the parent's tile grid."""
    outer: Box
    """Pixels of the tile's array in the parent image."""
    inner: Box
    """Pixels the tile owns."""
    header: str | None = None
    """WCS cards of the tile's array (CRPIX shifted); None without a WCS."""
    units: dict[str, str] = field(default_factory=dict)
    """Unit of each band's pixels, "" where unknown."""
    zero_points: dict[str, float | None] = field(default_factory=dict)
    """AB magnitude of one unit of flux of each band; None where it is not known."""
    calibrations: dict[str, str] = field(default_factory=dict)
    """How the zero point of each band is known, and its system; "" where nobody said."""
    has_band: dict[str, bool] = field(default_factory=dict)
    """Whether each band has data in this tile's image."""
    quality: dict[str, BandQuality] = field(default_factory=dict)
    """Measurements of each band; bands without any are not there."""
    has_variance: bool = False
    has_mask: bool = False
    has_psf: bool = False
    source: str = ""
    """Input files as JSON [[url, size, modified], ...]."""
    source_id: str = ""
    """Digest of the input files and the settings that change pixels."""
    source_tiles: int = 0
    """Tiles that this source gives altogether: with as many rows it is done."""
    checksum: str = ""
    """Hex SHA-256 of the arrays' bytes."""
    bytes: int = 0
    """Decoded bytes of the tile's arrays."""

    def wcs(self) -> Wcs | None:
        """WCS of the tile's array."""
        return None if self.header is None else Wcs(self.header)


@dataclass(frozen=True)
class ParentImage:
    """One parent pixel grid and its tiles."""

    name: str
    shape: tuple[int, int]
    """(height, width)."""
    header: str | None
    """WCS cards of the whole image."""
    step: int
    """Distance between tiles."""
    tiles: dict[tuple[int, int], int] = field(default_factory=dict)
    """(row, column) -> tile index."""

    def wcs(self) -> Wcs | None:
        """WCS of the whole image."""
        return None if self.header is None else Wcs(self.header)

    def tile_of(self, x: ArrayLike, y: ArrayLike) -> I64:
        """Index of the tile that owns each position; -1 outside the image and where no tile is stored."""
        column, row = np.floor(np.asarray(x, float) + 0.5), np.floor(np.asarray(y, float) + 0.5)
        inside = (column >= 0) & (column < self.shape[1]) & (row >= 0) & (row < self.shape[0])
        grid = np.full((-(-self.shape[0] // self.step), -(-self.shape[1] // self.step)), -1, np.int64)
        for (tile_row, tile_column), index in self.tiles.items():
            grid[tile_row, tile_column] = index
        owner = np.full(inside.shape, -1, np.int64)
        owner[inside] = grid[(row[inside] // self.step).astype(int), (column[inside] // self.step).astype(int)]
        return owner


class TileTable:
    """The committed tiles of a store: small Parquet files in its folder `tiles`."""

    url: str
    """Folder of the store."""
    bands: tuple[str, ...]
    """Bands of every tile."""
    tile_size: int
    """Outer side of a tile, pixels."""
    halo: int
    """Pixels that a tile holds around those it owns."""

    def _parts(self) -> list[tuple[int, int, str]]:
        """(first index, last index, file) of each table part, in order of the first index."""
        folder = storage.join(self.url, "tiles")
        found = ((_PART.search(name), name) for name in storage.list_files(folder, ".parquet"))
        return sorted((int(match[1]), int(match[2]), storage.join(folder, name)) for match, name in found if match)

    def iter_tiles(self) -> Iterator[TileInfo]:
        """All committed tiles by index; holds only table parts whose index ranges overlap."""
        parts = self._parts()
        waiting: list[tuple[int, int, dict[str, Any]]] = []
        last = -1
        for number, (_, _, url) in enumerate(parts):
            for row in self._read_rows(url):
                heapq.heappush(waiting, (row["index"], number, row))
            bound = parts[number + 1][0] if number + 1 < len(parts) else None
            while waiting and (bound is None or waiting[0][0] < bound):
                index, _, row = heapq.heappop(waiting)
                if index != last:
                    yield _from_row(row, self.bands)
                last = index

    def _read_table(self, url: str, **options: Any) -> pa.Table:
        """Rows of a table part, with the types that they were written with; CorruptError where they are others."""
        table = storage.read_table(url, **options)
        declared = _schema(self.bands)
        with foreign.refusing(f"the tile table {storage.redact(url)}", _AGAIN, CorruptError):
            names = options.get("columns") or declared.names
            for name in _LATER & {*names} - {*table.column_names}:
                table = table.append_column(declared.field(name), pa.nulls(len(table), declared.field(name).type))
            table = table.select(names).cast(pa.schema([declared.field(name) for name in names]))
            if empty := [name for name in _NEEDED if name in names and table[name].null_count]:
                raise ValueError(f"{empty[0]} has no value")
        return table

    def _read_rows(self, url: str, **options: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._read_table(url, **options).to_pylist()
        for name in ("units", "zero_points"):
            if any(len(row[name] or ()) != len(self.bands) for row in rows):
                raise CorruptError(f"the tile table {storage.redact(url)} is damaged ({name} of other bands): {_AGAIN}")
        return rows

    def tile(self, index: int) -> TileInfo:
        """One committed tile; InputError when it is not there."""
        for first, last, url in self._parts():
            if first <= index <= last:
                rows = self._read_rows(url, filters=[("index", "=", index)])
                if rows:
                    return _from_row(rows[0], self.bands)
        raise InputError(f"{storage.redact(self.url)} has no tile {index}")

    def index_table(self) -> pa.Table:
        """All tiles by index: names, image shapes, inner boxes, checksum, bytes, pixel_scale, source_id; no headers."""
        return self.columns(_LIGHT)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of the tile table, `index` among them, by index."""
        tables = [self._read_table(url, columns=list(names)) for _, _, url in self._parts()]
        if not tables:
            return _table([], self.bands).select(list(names))
        table = pa.concat_tables(tables).combine_chunks().sort_by("index")
        _, first = np.unique(table["index"].to_numpy(), return_index=True)
        return table if len(first) == len(table) else table.take(pa.array(first))

    def outlines(self) -> Iterator[Outline]:
        """Pixels that each tile owns, as a polygon on the sky; tiles without a WCS are left out."""
        for info in self.iter_tiles():
            wcs = info.wcs()
            if wcs is not None:
                ra, dec = wcs.to_sky(*map(np.asarray, _corners(info)))
                if np.isfinite(ra).all() and np.isfinite(dec).all():
                    yield Outline(info.name, ra, dec)

    def images(self) -> dict[str, ParentImage]:
        """Every parent image by name."""
        step = tile_step(self.tile_size, self.halo)
        found: dict[str, ParentImage] = {}
        for info in self.iter_tiles():
            if info.image not in found:
                found[info.image] = ParentImage(info.image, info.image_shape, _parent_header(info), step)
            found[info.image].tiles[(info.row, info.column)] = info.index
        return found

    @cached_property
    def pixel_scale(self) -> float | None:
        """Median arcsec per pixel; None when no tile has a WCS."""
        return float(np.median(self._pixel_scales)) if len(self._pixel_scales) else None

    @property
    def pixel_scales(self) -> tuple[float, float] | None:
        """Smallest and largest arcsec per pixel of its tiles; None when no tile has a WCS."""
        return (float(self._pixel_scales.min()), float(self._pixel_scales.max())) if len(self._pixel_scales) else None

    @cached_property
    def _pixel_scales(self) -> np.ndarray:
        return np.asarray(self.index_table()["pixel_scale"].drop_null().to_numpy())

    @cached_property
    def zero_points(self) -> tuple[float | None, ...]:
        """AB magnitude of one unit in the first tile that has one, for each band; None where no tile has one."""
        found: list[float | None] = [None] * len(self.bands)
        for _, _, url in self._parts():
            values = self._read_table(url, columns=["zero_points"])["zero_points"].combine_chunks().flatten()
            table = values.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, len(self.bands))
            for place in [place for place, zero in enumerate(found) if zero is None]:
                known = table[np.isfinite(table[:, place]), place]
                found[place] = float(known[0]) if len(known) else None
            if None not in found:
                break
        return tuple(found)

    def tiles_off_zero(self, bands: Sequence[str]) -> list[str]:
        """Names of the tiles whose level in one of the bands is no sky at 0, of those of which it is known."""
        places = [number for number, band in enumerate(self.bands) if band in bands]
        found: list[str] = []
        for _, _, url in self._parts():
            table = self._read_table(url, columns=["name", "sky_left"])
            for name, levels in zip(table["name"].to_pylist(), table["sky_left"].to_pylist(), strict=True):
                known = [levels[place] for place in places if levels and levels[place] is not None]
                if any(BandQuality(sky_left=level).clear_of_zero for level in known):
                    found.append(name)
        return found

    def tiles_without_psf(self) -> list[str]:
        """Names of the tiles that have no PSF."""
        tables = [self._read_table(url, columns=["name", "has_psf"]) for _, _, url in self._parts()]
        return [
            name
            for table in tables
            for name, there in zip(table["name"].to_pylist(), table["has_psf"].to_pylist(), strict=True)
            if not there
        ]

    def __len__(self) -> int:
        return len(self.index_table())

    def commit(self, tiles: Sequence[TileInfo]) -> None:
        """List written tiles in the tile table: one atomic Parquet part."""
        if not tiles:
            return
        rows = sorted(tiles, key=lambda info: info.index)
        for info in rows:
            check_name(info.name)
        token = storage.digest([[info.index, info.name, info.checksum] for info in rows])[:12]
        name = f"tiles-{rows[0].index:09d}-{rows[-1].index:09d}-{token}.parquet"
        storage.write_table(storage.join(self.url, "tiles", name), _table(rows, self.bands))
        self.__dict__.pop("pixel_scale", None)
        self.__dict__.pop("_pixel_scales", None)
        self.__dict__.pop("zero_points", None)


def on_sky(info: TileInfo, wcs: Wcs | None, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right ascension, declination (n,) in degrees and `Cutouts.jacobian` of parent pixels; NaN without a WCS."""
    if wcs is None or not len(x):
        return np.full(len(x), np.nan), np.full(len(x), np.nan), np.full((len(x), 2, 2), np.nan)
    local_x, local_y = x - info.outer.x0, y - info.outer.y0
    return *wcs.to_sky(local_x, local_y), wcs.jacobian(local_x, local_y)


def tile_name(image: str, row: int, column: int) -> str:
    """Name of a tile and of its unit."""
    return f"{image}_r{row}_c{column}"


def _parent_header(info: TileInfo) -> str | None:
    wcs = info.wcs()
    return None if wcs is None else parent_wcs(info, wcs).header


def parent_wcs(info: TileInfo, wcs: Wcs) -> Wcs:
    """World coordinates of the whole parent image of a tile, from those of the tile's array."""
    return wcs.shifted(-info.outer.x0, -info.outer.y0, info.image_shape)


def _schema(bands: Sequence[str]) -> pa.Schema:
    integers = ("image_height", "image_width", "row", "column")
    corners = [f"{axis}_corner{number}" for number in range(4) for axis in ("ra", "dec")]
    return pa.schema(
        [
            *[("index", pa.int64()), ("name", pa.string()), ("image", pa.string())],
            *[(name, pa.int32()) for name in (*integers, *_BOXES)],
            *[("header", pa.string()), ("pixel_scale", pa.float64())],
            *[(name, pa.float64()) for name in corners],
            *[("units", pa.list_(pa.string())), ("zero_points", pa.list_(pa.float64()))],
            ("calibrations", pa.list_(pa.string())),
            *[(name, pa.list_(pa.float64())) for name in quality.NAMES],
            *[(name, pa.bool_()) for name in ("has_variance", "has_mask", "has_psf")],
            *[("source", pa.string()), ("source_id", pa.string()), ("source_tiles", pa.int32())],
            *[("checksum", pa.string()), ("bytes", pa.int64())],
            *[(f"has_{band}", pa.bool_()) for band in bands],
        ]
    )


def _table(tiles: Sequence[TileInfo], bands: Sequence[str]) -> pa.Table:
    return pa.Table.from_pylist([_to_row(info, bands) for info in tiles], schema=_schema(bands))


def _to_row(info: TileInfo, bands: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(info, name) for name in _PLAIN}
    row["image_height"], row["image_width"] = info.image_shape
    for kind, box in (("outer", info.outer), ("inner", info.inner)):
        row |= {f"{kind}_x0": box.x0, f"{kind}_y0": box.y0, f"{kind}_x1": box.x1, f"{kind}_y1": box.y1}
    row["units"] = [info.units.get(band, "") for band in bands]
    row["calibrations"] = [info.calibrations.get(band, "") for band in bands]
    row["zero_points"] = [info.zero_points.get(band) for band in bands]
    for name in quality.NAMES:
        values = [getattr(info.quality.get(band, BandQuality()), name) for band in bands]
        row[name] = [value if np.isfinite(value) else None for value in values]
    row |= {f"has_{band}": info.has_band.get(band, True) for band in bands}
    wcs = info.wcs()
    if wcs is not None:
        ra, dec = wcs.to_sky(*_corners(info))
        row |= {f"ra_corner{n}": float(ra[n]) if np.isfinite(ra[n]) else None for n in range(4)}
        row |= {f"dec_corner{n}": float(dec[n]) if np.isfinite(dec[n]) else None for n in range(4)}
        row["pixel_scale"] = wcs.pixel_scale if np.isfinite(wcs.pixel_scale) else None
    return row


def _corners(info: TileInfo) -> tuple[list[float], list[float]]:
    """Outer corners of the inner box in the tile's pixels, counter-clockwise from (x0, y0)."""
    x0, x1 = info.inner.x0 - info.outer.x0 - 0.5, info.inner.x1 - info.outer.x0 - 0.5
    y0, y1 = info.inner.y0 - info.outer.y0 - 0.5, info.inner.y1 - info.outer.y0 - 0.5
    return [x0, x1, x1, x0], [y0, y0, y1, y1]


def _quality(row: dict[str, Any], bands: Sequence[str]) -> dict[str, BandQuality]:
    """Measurements of each band; older tables have none."""
    found = {}
    for number, band in enumerate(bands):
        values = {name: row[name][number] for name in quality.NAMES if row.get(name)}
        known = {name: float(value) for name, value in values.items() if value is not None}
        if known:
            found[band] = BandQuality(**known)
    return found


def _from_row(row: dict[str, Any], bands: Sequence[str]) -> TileInfo:
    box = {kind: Box(*(row[f"{kind}_{side}"] for side in ("x0", "y0", "x1", "y1"))) for kind in ("outer", "inner")}
    return TileInfo(
        image_shape=(row["image_height"], row["image_width"]),
        outer=box["outer"],
        inner=box["inner"],
        units=dict(zip(bands, row["units"], strict=True)),
        zero_points=dict(zip(bands, row["zero_points"], strict=True)),
        calibrations=dict(zip(bands, row.get("calibrations") or [""] * len(bands), strict=True)),
        quality=_quality(row, bands),
        has_band={band: row[f"has_{band}"] for band in bands},
        **{name: row[name] for name in _PLAIN},
    )
