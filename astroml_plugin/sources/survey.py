"""Survey: tiles of one or many parent images as one Zarr v3 group with a Parquet tile table.

A tile exists once its row is committed, after its shards. Only the driver resizes; tile indices are never reused.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.flags import MASK_BITS
from astroml_plugin.cutouts import SparseTile, Tile, stamp_origin
from astroml_plugin.sky.wcs import Box, tile_step
from astroml_plugin.sources import arrays
from astroml_plugin.sources import partial_reads as sparse
from astroml_plugin.sources.tile_table import TileInfo, TileTable


class Survey(TileTable):
    """Tiles of one or many parent images on disk."""

    kind = "survey"

    def __init__(self, url: str, metadata: dict[str, Any]) -> None:
        self.url = url
        self.id: str = metadata["id"]
        self.bands: tuple[str, ...] = tuple(metadata["bands"])
        self.tile_size: int = metadata["tile_size"]
        self.halo: int = metadata["halo"]
        self.psf_shape: tuple[int, ...] | None = tuple(metadata["psf_shape"]) if metadata.get("psf_shape") else None
        self.mask_bits: dict[str, int] = dict(metadata["mask_bits"])
        self.array_names: tuple[str, ...] = tuple(metadata["arrays"])
        self._opened: dict[tuple[str, bool], zarr.Array] = {}

    @classmethod
    def create(
        cls,
        url: str,
        *,
        bands: Sequence[str],
        tile_size: int,
        halo: int,
        psf_shape: tuple[int, int, int, int] | None = None,
        variance: bool = True,
        mask: bool = True,
    ) -> Survey:
        """An empty survey, `psf_shape` = (cells_y, cells_x, y, x); InputError when `url` is taken or unwritable."""
        tile_step(tile_size, halo)
        if len(set(bands)) != len(bands) or not bands:
            raise InputError(f"bands {list(bands)} must be different names, at least one")
        names = ["image", *["variance"] * variance, *["mask"] * mask, *["psf"] * (psf_shape is not None)]
        metadata = {
            **{"kind": cls.kind, "id": uuid.uuid4().hex, "bands": list(bands), "tile_size": tile_size, "halo": halo},
            **{"psf_shape": list(psf_shape) if psf_shape else None, "mask_bits": MASK_BITS, "arrays": names},
        }
        url = storage.absolute(url)
        if storage.exists(storage.join(url, "zarr.json")):
            raise InputError(f"{storage.redact(url)} exists already: open it, or choose another output")
        try:
            for name in names:
                _create_array(url, name, len(bands), tile_size, psf_shape)
        except OSError as error:
            raise InputError(f"{storage.redact(url)} cannot be written: {storage.redact(str(error))}") from error
        arrays.create_group(url, metadata, folders=["tiles"])
        return cls.open(url)

    @classmethod
    def open(cls, url: str) -> Survey:
        """An existing survey; InputError when there is none or its format is newer."""
        url = storage.absolute(url)
        metadata = arrays.read_metadata(url)
        if metadata.get("kind") != cls.kind:
            raise InputError(f"{storage.redact(url)} holds {metadata.get('kind')}, not a survey")
        return cls(url, metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        return Survey.open, (self.url,)

    # --- pixels ---------------------------------------------------------------------------------------------------

    def array(self, name: str, *, writable: bool = False) -> zarr.Array:
        """The zarr array `name`, opened once per Survey object."""
        key = (name, writable)
        if key not in self._opened:
            self._opened[key] = arrays.open_array(self.url, name, read_only=not writable)
        return self._opened[key]

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

    def read_around(
        self,
        info: TileInfo,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        size: int,
        bands: Sequence[str] | None = None,
    ) -> Tile | SparseTile:
        """What stamps of side `size` around objects of a tile need: only the chunks they touch where that is cheaper.

        Args:
            info: the tile.
            x, y: (n,) positions in the parent image's pixels.
            size: side of the largest stamp.
            bands: chosen by name.

        Raises:
            InputError, CorruptError: as `read_tile`.
        """
        side, chunk = self.array("image").shape[-2:], self.array("image").chunks[-1]
        left, top = stamp_origin(x, size) - info.outer.x0, stamp_origin(y, size) - info.outer.y0
        boxes = sparse.touched(left, top, size, chunk, side)
        names = [name for name in ("image", "variance", "mask") if name == "image" or getattr(info, f"has_{name}")]
        store = sparse.LOCAL if storage.is_local(self.url) else sparse.REMOTE
        if not sparse.pays(boxes, side, 4 * len(self.bands) * len(names), len(names), store):
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
        return arrays.read_unit(self.url, name, array, index, index, index + 1, region)[0]

    def reserve(self, count: int) -> int:
        """Make room for `count` tiles and give the first one's index (driver only; indices are never used twice)."""
        self._opened.clear()
        opened = [self.array(name, writable=True) for name in self.array_names]
        first = max(array.shape[0] for array in opened)
        for array in opened:
            array.resize((first + count, *array.shape[1:]))
        self._opened.clear()
        return first

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

    def to_dask(self, name: str = "image") -> Any:
        """The array `name` as a lazy dask array with one chunk per tile; its graph holds the URL only."""
        import dask.array as da

        array = self.array(name)
        chunks = ((1,) * array.shape[0], *((side,) for side in array.shape[1:]))
        return da.map_blocks(
            _read_block, self.url, name, chunks=chunks, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype)
        )


def _read_block(url: str, name: str, block_info: Any = None) -> np.ndarray:
    index = block_info[None]["chunk-location"][0]
    return arrays.read_unit(url, name, arrays.open_array(url, name), index, index, index + 1)


def _create_array(url: str, name: str, bands: int, tile_size: int, psf_shape: tuple[int, ...] | None) -> None:
    if name == "psf":
        shape: tuple[int, ...] = (bands, *(psf_shape or ()))
        chunk: tuple[int, ...] = shape
        dimensions: tuple[str, ...] = ("tile", "band", "cell_y", "cell_x", "psf_y", "psf_x")
    else:
        shape, step = (bands, tile_size, tile_size), arrays.spatial_chunk(bands, tile_size)
        chunk, dimensions = (bands, step, step), ("tile", "band", "y", "x")
    arrays.create_array(
        *(url, name),
        shape=(0, *shape),
        unit=(1, *shape),
        chunk=(1, *chunk),
        dtype="uint32" if name == "mask" else "float32",
        fill=0xFFFFFFFF if name == "mask" else float("nan"),
        dimensions=dimensions,
    )


def _typed(name: str, values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else np.ascontiguousarray(values, np.uint32 if name == "mask" else np.float32)


def _checksum(
    image: np.ndarray | None, variance: np.ndarray | None, mask: np.ndarray | None, psf: np.ndarray | None
) -> str:
    return arrays.checksum({"image": image, "variance": variance, "mask": mask, "psf": psf})
