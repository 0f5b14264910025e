"""Survey: tiles of one or many parent images as one Zarr v3 group with a Parquet tile table.

A tile exists once its row is committed, after its shards. Only the driver resizes; tile indices are never reused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.flags import MASK_BITS
from astroml_plugin.core.places import Place
from astroml_plugin.core.typing import F64
from astroml_plugin.pixels import SparseTile, Tile, stamp_origin
from astroml_plugin.sky.wcs import Box, Wcs, tile_step
from astroml_plugin.sources import arrays, partial_reads
from astroml_plugin.sources.arrays import ArrayLayout
from astroml_plugin.sources.spectral import SpectralAxis
from astroml_plugin.sources.star_psf import report
from astroml_plugin.sources.store import Store
from astroml_plugin.sources.tile_table import TileInfo, TileTable

_DIMENSIONS = ("tile", "band", "y", "x")
_PSF_DIMENSIONS = ("tile", "band", "cell_y", "cell_x", "psf_y", "psf_x")


@dataclass(frozen=True)
class SurveyLayout:
    """Arrays of a survey."""

    bands: Sequence[str]
    """Names of the bands."""
    tile_size: int
    """Outer side of a tile in pixels."""
    halo: int
    """Pixels that a tile shares with its neighbours on every side."""
    psf_shape: tuple[int, int, int, int] | None = None
    """(cells_y, cells_x, y, x) of the PSF images of a tile; None: no PSF is stored."""
    variance: bool = True
    """Whether variances are stored."""
    mask: bool = True
    """Whether masks are stored, uint32 of `MaskBit`."""
    spectral: SpectralAxis | None = None
    """Wavelengths of the bands, which become a coordinate beside the arrays."""
    codec: str = arrays.CODECS[0]
    """How chunks are compressed: zstd (small), lz4 (quickly) or none."""

    def arrays(self) -> dict[str, ArrayLayout]:
        """Name -> layout of each array."""
        count, step = len(self.bands), arrays.spatial_chunk(len(self.bands), self.tile_size)
        chunk = (1, count, step, step)
        plane = ArrayLayout(_DIMENSIONS, (count, self.tile_size, self.tile_size), 1, chunk, fill=math.nan)
        layouts = {"image": plane}
        layouts |= {"variance": plane} if self.variance else {}
        layouts |= {"mask": replace(plane, dtype="uint32", fill=0xFFFFFFFF)} if self.mask else {}
        if self.psf_shape is not None:
            shape = (count, *self.psf_shape)
            layouts["psf"] = ArrayLayout(_PSF_DIMENSIONS, shape, 1, (1, *shape), fill=math.nan)
        if self.spectral is None:
            return layouts
        return {name: replace(layout, coordinates=self.spectral.kind) for name, layout in layouts.items()}


class Survey(Store, TileTable):
    """Tiles of one or many parent images on disk."""

    kind = "survey"
    tables = "tiles"
    unit_rows = 1

    def __init__(self, url: str, metadata: dict[str, Any]) -> None:
        super().__init__(url, metadata)
        self.tile_size: int = metadata["tile_size"]
        self.halo: int = metadata["halo"]
        self.psf_shape: tuple[int, ...] | None = tuple(metadata["psf_shape"]) if metadata.get("psf_shape") else None
        self.spectral: SpectralAxis | None = SpectralAxis.from_metadata(metadata.get("spectral"))
        self.mask_bits: dict[str, int] = dict(metadata["mask_bits"])

    @classmethod
    def create(cls, url: Place, layout: SurveyLayout | None = None, **changes: Any) -> Survey:
        """An empty survey.

        Args:
            url: path or fsspec URL.
            layout: its arrays.
            changes: fields of the layout by name.

        Raises:
            InputError: `url` is taken or cannot be written, or a field has a value that cannot be.
        """
        layout = SurveyLayout(**changes) if layout is None else replace(layout, **changes)
        tile_step(layout.tile_size, layout.halo)
        metadata: dict[str, Any] = {
            **{"bands": list(layout.bands), "tile_size": layout.tile_size, "halo": layout.halo},
            **{"psf_shape": list(layout.psf_shape) if layout.psf_shape else None, "mask_bits": MASK_BITS},
        }
        axis = layout.spectral
        if axis is None:
            return cls._create(url, layout.arrays(), metadata, layout.codec)
        url = storage.absolute(url)
        survey = cls._create(url, layout.arrays(), {**metadata, "spectral": axis.to_metadata()}, layout.codec)
        facts = {"units": axis.unit, "medium": axis.medium, "specsys": axis.frame, "rest": axis.rest}
        arrays.write_coordinate(url, axis.kind, axis.values, "band", facts)
        return survey

    def _facts(self) -> dict[str, str]:
        scale = f"{self.pixel_scale:.4g} arcsec" if self.pixel_scale else "unknown"
        size = f"{len(self):,} of {self.tile_size} pixels with a halo of {self.halo}"
        return {"tiles": size, **super()._facts(), "pixel scale": scale}

    def __iter__(self) -> Iterator[TileInfo]:
        """All tiles; `read_tile` reads their pixels."""
        return self.iter_tiles()

    def to_skycoord(self) -> Any:
        """Centres of the tiles as a SkyCoord, ICRS; NaN where a tile has no world coordinates."""
        from astropy import units as u
        from astropy.coordinates import SkyCoord

        nowhere = (math.nan, math.nan)
        centres = [nowhere if (wcs := info.wcs()) is None else _centre(info, wcs) for info in self.iter_tiles()]
        ra, dec = np.array(centres, float).reshape(-1, 2).T
        return SkyCoord(ra * u.deg, dec * u.deg, frame="icrs")

    # --- pixels ---------------------------------------------------------------------------------------------------

    def read_tile(self, info: TileInfo, bands: Sequence[str] | None = None, *, verify: bool = False) -> Tile:
        """One tile's arrays (bands chosen by name), each with one whole-shard read; safe in threads.

        Raises:
            InputError: a band the survey does not have.
            CorruptError: a shard is missing or altered; with `verify`, also when the bytes are not those first written.
        """
        chosen = self._band_index(bands)
        image = self._read("image", info.index)
        variance = self._read("variance", info.index) if info.has_variance else None
        mask = self._read("mask", info.index) if info.has_mask else None
        psf = self._read("psf", info.index) if info.has_psf else None
        if verify and _checksum(image, variance, mask, psf) != info.checksum:
            raise CorruptError(f"{storage.redact(self.url)}: tile {info.name} differs from what was ingested")
        if chosen is None:
            return Tile(image, variance, mask, psf)
        picked = [None if values is None else values[chosen] for values in (variance, mask, psf)]
        return Tile(image[chosen], *picked)

    def read_psf(self, info: TileInfo) -> np.ndarray:
        """PSF cells (band, cell_y, cell_x, psf_y, psf_x) of a tile that has them."""
        return self._read("psf", info.index)

    def read_around(
        self,
        info: TileInfo,
        x: F64,
        y: F64,
        size: int,
        bands: Sequence[str] | None = None,
    ) -> Tile | SparseTile:
        """Read pixels for stamps of side `size` around objects of a tile: only their chunks where that is cheaper.

        Args:
            info: the tile.
            x, y: (n,) positions in the parent image's pixels.
            size: side of the largest stamp.
            bands: chosen by name.

        Raises:
            InputError, CorruptError: as `read_tile`.
        """
        side, chunk = (self.tile_size, self.tile_size), self.array("image").chunks[-1]
        left, top = stamp_origin(x, size) - info.outer.x0, stamp_origin(y, size) - info.outer.y0
        boxes = partial_reads.chunk_boxes(left, top, size, chunk, side)
        names = [name for name in ("image", "variance", "mask") if name == "image" or getattr(info, f"has_{name}")]
        store = partial_reads.LOCAL if storage.is_local(self.url) else partial_reads.REMOTE
        if not partial_reads.is_cheaper(boxes, side, 4 * len(self.bands) * len(names), len(names), store):
            return self.read_tile(info, bands)
        chosen = self._band_index(bands)
        parts = [(box, self._read_part(names, info.index, box, chosen)) for box in boxes]
        psf = self._read("psf", info.index) if info.has_psf else None
        count = len(self.bands if chosen is None else chosen)
        return SparseTile((count, *side), tuple(parts), psf if psf is None or chosen is None else psf[chosen])

    def _read_part(self, names: Sequence[str], index: int, box: Box, chosen: list[int] | None) -> Tile:
        region = (slice(None), slice(box.y0, box.y1), slice(box.x0, box.x1))
        found = {name: self._read(name, index, region) for name in names}
        return Tile(**(found if chosen is None else {name: values[chosen] for name, values in found.items()}))

    def _band_index(self, bands: Sequence[str] | None) -> list[int] | None:
        if bands is None or tuple(bands) == self.bands:
            return None
        missing = [band for band in bands if band not in self.bands]
        if missing:
            raise InputError(f"{storage.redact(self.url)} has bands {','.join(self.bands)}, not {','.join(missing)}")
        return [self.bands.index(band) for band in bands]

    def _read(self, name: str, index: int, region: arrays.Region = ()) -> np.ndarray:
        array = self.array(name)
        if index >= array.shape[0]:  # opened before the driver made room
            del self._opened[(name, False)]
            array = self.array(name)
        values: np.ndarray = arrays.read_unit(self.url, name, array, index, index, index + 1, region)[0]
        return values

    def write_tile(self, index: int, tile: Tile) -> str:
        """Write one reserved tile's arrays and return their checksum; the tile exists once `commit` lists it."""
        given = {"image": tile.image, "variance": tile.variance, "mask": tile.mask, "psf": tile.psf}
        for name, values in given.items():
            if values is None:
                continue
            if name not in self.array_names:
                raise InputError(f"{storage.redact(self.url)} was created without {name}: ingest into a new survey")
            array = self.array(name, writable=True)
            if values.shape != array.shape[1:]:
                raise InputError(f"a tile's {name} has shape {values.shape}, the survey {array.shape[1:]}")
            arrays.write_unit(array, index, np.ascontiguousarray(values, array.dtype)[None])
        return _checksum(*(_typed(name, values) for name, values in given.items()))

    def star_psf(self) -> pa.Table:
        """How good the PSFs from stars are, one row per image, band and zone: see `star_psf.report.read`."""
        return report.read(self.url)

    def to_dask(self, name: str = "image") -> Any:
        """The array `name` as a lazy dask array with one chunk per tile; its graph holds the URL only."""
        import dask.array as da

        array = self.array(name)
        chunks = ((1,) * array.shape[0], *((side,) for side in array.shape[1:]))
        return da.map_blocks(
            _read_block, self.url, name, chunks=chunks, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype)
        )

    def map_tiles(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> list[Any]:
        """`function(survey, info, …)` of every tile as a `dask.delayed` value, for a graph of your own.

        The function gets the open survey and the tile's row, and reads what it needs (`Tile.from_survey`). The graph
        holds URL and rows, no pixels.

        Args:
            function: can be pickled; runs on the workers.
            arguments, named: further arguments; delayed ones are computed before.
        """
        import dask

        lazy = dask.delayed(_on_tile, pure=False)
        return [lazy(function, self.url, info, *arguments, **named) for info in self.iter_tiles()]


def _on_tile(function: Callable[..., Any], url: str, info: TileInfo, *arguments: Any, **named: Any) -> Any:
    return function(Survey.open(url), info, *arguments, **named)


def _read_block(url: str, name: str, block_info: Any = None) -> np.ndarray:
    index = block_info[None]["chunk-location"][0]
    return arrays.read_unit(url, name, arrays.open_array(url, name), index, index, index + 1)


def _typed(name: str, values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else np.ascontiguousarray(values, np.uint32 if name == "mask" else np.float32)


def _checksum(
    image: np.ndarray | None, variance: np.ndarray | None, mask: np.ndarray | None, psf: np.ndarray | None
) -> str:
    return arrays.checksum({"image": image, "variance": variance, "mask": mask, "psf": psf})


def _centre(info: TileInfo, wcs: Wcs) -> tuple[float, float]:
    """Degrees of the middle of the pixels that a tile owns."""
    outer, inner = info.outer, info.inner
    ra, dec = wcs.to_sky((inner.x0 + inner.x1 - 1) / 2 - outer.x0, (inner.y0 + inner.y1 - 1) / 2 - outer.y0)
    return float(ra[0]), float(dec[0])
