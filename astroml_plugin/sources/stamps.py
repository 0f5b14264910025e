"""Stamps: postage stamps in blocks as one Zarr v3 group, with one Parquet object table per block.

A block exists once its object table is there, after its shards; the table's file name carries rows and checksum, so one
listing tells what a store holds. Stamps are numbered 0 ... count - 1 over the blocks that exist, in block order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import ArrayLike

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import with_changes
from astroml_plugin.sources import arrays
from astroml_plugin.sources.arrays import CODECS, ArrayLayout
from astroml_plugin.sources.each_stamp import EachStamp
from astroml_plugin.sources.store import VIEW, Store
from astroml_plugin.sources.survey import Survey

BLOCK_BYTES = 32_000_000
"""Decoded bytes of one block's images, about."""

BLOCK_LARGEST = 8192
"""Most stamps in one block."""

_INNER_BYTES = 1_000_000
_OBJECTS = re.compile(r"block_(\d+)-(\d+)-([0-9a-f]+)\.parquet$")
_POSITION = ("object_id", "ra", "dec")
_DIMENSIONS = {"psf": ("object", "band", "psf_y", "psf_x"), "truth": ("object", "layer", "y", "x")}

Pixels = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
"""image (n, band, y, x) as stored, variance (same shape, float32) or None, psf (n, band, y, x) float32 or None."""


@dataclass(frozen=True)
class StampBlock:
    """One unit of stamps."""

    index: int
    """Block number on disk."""
    name: str
    """`block_000012`: the unit's name."""
    start: int
    """Number of the first stamp, counted over existing blocks."""
    stop: int
    """One past the number of the last stamp."""
    checksum: str
    """First 32 hex digits of the SHA-256 of pixels and ids."""

    def __len__(self) -> int:
        return self.stop - self.start


def block_name(index: int) -> str:
    """Name of a block and of its unit."""
    return f"block_{index:06d}"


@dataclass(frozen=True)
class StampLayout:
    """Arrays of a store of stamps."""

    bands: tuple[str, ...]
    """Names of the bands."""
    size: tuple[int, int]
    """(height, width) of a stamp in pixels."""
    dtype: str = "float32"
    """Kind of number of the images."""
    block: int | None = None
    """Stamps per unit; default about 32 MB."""
    pixel_scale: float | None = None
    """Arcsec per pixel."""
    zero_points: tuple[float | None, ...] = ()
    """AB magnitude of one unit of the pixels, one per band, None where unknown; empty: all unknown."""
    psf_size: tuple[int, int] | None = None
    """(height, width) of PSF images; None: no PSF is stored."""
    variance: bool = False
    """Whether variance images are stored."""
    mask: bool = False
    """Whether masks are stored, uint32 of `MaskBit`."""
    layers: tuple[str, ...] = ()
    """Layers of the truth of every pixel, (layer, y, x) float16, NaN where it is unknown."""
    codec: str = CODECS[0]
    """How chunks are compressed: zstd (small), lz4 (quickly) or none."""

    @property
    def _stamp_bytes(self) -> int:
        return len(self.bands) * self.size[0] * self.size[1] * np.dtype(self.dtype).itemsize

    @property
    def rows(self) -> int:
        """Stamps per block; by default a power of two near `BLOCK_BYTES`."""
        fitting = max(1, BLOCK_BYTES // max(1, self._stamp_bytes))
        return self.block or int(min(BLOCK_LARGEST, 2 ** int(np.log2(fitting))))

    def arrays(self) -> dict[str, ArrayLayout]:
        """Name -> layout of each array."""
        shapes: dict[str, tuple[int, ...]] = {"image": (len(self.bands), *self.size)}
        shapes |= {"variance": shapes["image"]} if self.variance else {}
        shapes |= {"mask": shapes["image"]} if self.mask else {}
        shapes |= {"psf": (len(self.bands), *self.psf_size)} if self.psf_size else {}
        shapes |= {"truth": (len(self.layers), *self.size)} if self.layers else {}
        fitting = max(1, min(self.rows, _INNER_BYTES // max(1, self._stamp_bytes)))
        chunk = int(np.gcd(self.rows, 2 ** int(np.log2(fitting))))
        types = {"image": self.dtype, "truth": "float16", "mask": "uint32"}
        return {
            name: ArrayLayout(
                _DIMENSIONS.get(name, ("object", "band", "y", "x")),
                *(shape, self.rows, (chunk, *shape), types.get(name, "float32")),
            )
            for name, shape in shapes.items()
        }


class Stamps(Store, EachStamp):
    """Postage stamps on disk, with their objects and labels."""

    kind = "stamps"
    tables = "objects"

    def __init__(self, url: str, metadata: dict[str, Any]) -> None:
        super().__init__(url, metadata)
        self.size: tuple[int, int] = (metadata["size"][0], metadata["size"][1])
        self.dtype = np.dtype(metadata["dtype"])
        self.block: int = metadata["block"]
        self.unit_rows = self.block
        self.pixel_scale: float | None = metadata["pixel_scale"]
        self.zero_points: tuple[float | None, ...] = tuple(metadata.get("zero_points") or [None] * len(self.bands))
        """AB magnitude of one unit of the pixels, one per band, None where unknown."""
        self.pixel_scales = None if self.pixel_scale is None else (self.pixel_scale, self.pixel_scale)
        """Smallest and largest arcsec per pixel, as of a Survey: they are one; None where unknown."""
        self.has_variance = "variance" in self.array_names
        self.has_mask = "mask" in self.array_names
        self.has_psf = "psf" in self.array_names
        self.has_truth = "truth" in self.array_names
        self._pixel_names = [name for name in self.array_names if name not in ("truth", "mask")]
        self.layers: tuple[str, ...] = tuple(metadata.get("layers", ()))
        """Names of the layers of the truth of every pixel, for tasks that learn maps; empty where there is none."""

    @classmethod
    def create(cls, url: Place, layout: StampLayout | None = None, **changes: Any) -> Stamps:
        """An empty store.

        Args:
            url: path or fsspec URL.
            layout: its stamps.
            changes: fields of the layout by name.

        Raises:
            InputError: an unknown field, bands that are not different names, another number of zero points, a place
                that is taken or unwritable.
        """
        layout = with_changes(StampLayout, layout, changes, "the layout of stamps")
        if layout.zero_points and len(layout.zero_points) != len(layout.bands):
            raise InputError(f"{len(layout.zero_points)} zero points for {len(layout.bands)} bands: give one per band")
        metadata = {
            **{"bands": list(layout.bands), "size": list(layout.size), "dtype": np.dtype(layout.dtype).name},
            **{"block": layout.rows, "pixel_scale": layout.pixel_scale},
            **({"zero_points": list(layout.zero_points)} if layout.zero_points else {}),
            **({"layers": list(layout.layers)} if layout.layers else {}),
        }
        return cls._create(url, layout.arrays(), metadata, layout.codec)

    def _facts(self) -> dict[str, str]:
        scale = f"{self.pixel_scale:.4g} arcsec" if self.pixel_scale else "unknown"
        size = f"{self.count:,} of {self.size[1]} x {self.size[0]} pixels ({self.dtype})"
        return {"stamps": size, **super()._facts(), "pixel scale": scale}

    # --- blocks and objects ---------------------------------------------------------------------------------------

    @cached_property
    def _files(self) -> dict[int, tuple[StampBlock, str]]:
        """Block number -> (block, object table's file), by one listing; kept until this object writes."""
        folder, found, start = storage.join(self.url, "objects"), {}, 0
        for name in storage.list_files(folder, ".parquet"):
            match = _OBJECTS.match(name)
            if match is None or int(match[1]) in found:  # two writers of one block wrote the same
                continue
            index, rows = int(match[1]), int(match[2])
            block = StampBlock(index, block_name(index), start, start + rows, match[3])
            found[index] = (block, storage.join(folder, name))
            start += rows
        return found

    def units(self) -> list[StampBlock]:
        """All blocks that exist, in order."""
        return [block for block, _ in self._files.values()]

    def __len__(self) -> int:
        return sum(len(block) for block in self.units())

    @property
    def count(self) -> int:
        """Number of stamps."""
        return len(self)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the label columns (all but object_id, ra, dec)."""
        if not self._files:
            return ()
        return tuple(name for name in self.read_objects(min(self._files)).column_names if name not in _POSITION)

    def read_objects(self, index: int) -> pa.Table:
        """Objects of block `index`: object_id int64, ra, dec (deg, null where unknown), then the label columns."""
        block, url = self._file(index)
        return _of_block(storage.read_table(url), block, url)

    def labels(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The object tables of all blocks in stamp order, or some of their columns."""
        names = None if columns is None else list(columns)
        missing = [] if names is None else [name for name in names if name not in (*_POSITION, *self.columns)]
        if missing:
            raise InputError(f"{storage.redact(self.url)} has label columns {list(self.columns)}, not {missing}")
        tables = [_of_block(storage.read_table(url, columns=names), block, url) for block, url in self._files.values()]
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})

    def _file(self, index: int) -> tuple[StampBlock, str]:
        if index not in self._files:
            raise InputError(f"{storage.redact(self.url)} has no block {index}")
        return self._files[index]

    # --- pixels ---------------------------------------------------------------------------------------------------

    def read_block(self, index: int) -> Pixels:
        """One block's pixels, each array with one whole-shard read; CorruptError for a missing or altered shard."""
        values = {name: self._read_array(index, name) for name in self._pixel_names}
        return values["image"], values.get("variance"), values.get("psf")

    def differs(self, layout: StampLayout) -> tuple[str, Any, Any] | None:
        """(what, in these stamps, in a layout) of the first thing in which stamps of a layout are of another kind."""
        found = (
            ("bands", self.bands, tuple(layout.bands)),
            ("size", self.size, tuple(layout.size)),
            ("variance", self.has_variance, layout.variance),
            ("psf", self.has_psf, layout.psf_size is not None),
            ("mask", self.has_mask, layout.mask),
            ("zero points", self.zero_points, tuple(layout.zero_points or (None,) * len(layout.bands))),
        )
        return next((one for one in found if one[1] != one[2]), None)

    def read_mask(self, index: int) -> np.ndarray | None:
        """One block's masks, (n, band, y, x) uint32 of `MaskBit`, as `read_block`; None where none are stored."""
        return self._read_array(index, "mask") if self.has_mask else None

    def read_truth(self, index: int) -> np.ndarray:
        """One block's truth of pixels, (n, layer, y, x) float16, as `read_block`.

        Raises:
            InputError: these stamps have none.
        """
        if not self.has_truth:
            raise InputError(
                f"{storage.redact(self.url)} has no truth of its pixels: simulate fields (--preset fields) or give "
                f"label maps (ingest with labels)"
            )
        return self._read_array(index, "truth")

    @property
    def facts(self) -> dict[str, Any]:
        """Bands, pixel scale, size, kind of number, zero points, is there a PSF: keywords of `Task.check_source`."""
        return {
            "zero_points": self.zero_points,
            **{"bands": self.bands, "pixel_scale": self.pixel_scale, "size": self.size},
            **{"dtype": self.dtype.name, "has_psf": self.has_psf},
        }

    def read_images(self, index: int) -> np.ndarray:
        """One block's images alone, (n, band, y, x), as `read_block`."""
        return self._read_array(index, "image")

    def _read_array(self, index: int, name: str) -> np.ndarray:
        rows, first = len(self._file(index)[0]), index * self.block
        return arrays.read_unit(self.url, name, self.array(name), index, first, first + rows)

    def read_rows(self, numbers: ArrayLike) -> Pixels:
        """Stamps by number, in the order given; reads only the inner chunks that hold them."""
        found = self._read_numbers(numbers, self._pixel_names)
        return found["image"], found.get("variance"), found.get("psf")

    def read_masks(self, numbers: ArrayLike) -> np.ndarray | None:
        """Masks by number, as `read_rows`; None where none are stored."""
        return self._read_numbers(numbers, ["mask"])["mask"] if self.has_mask else None

    def _read_numbers(self, numbers: ArrayLike, names: Sequence[str]) -> dict[str, np.ndarray]:
        wanted = np.asarray(numbers, np.int64).ravel()
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.count):
            raise InputError(f"stamp numbers must be 0 to {self.count - 1}")
        blocks = self.units()
        owner = np.searchsorted([block.stop for block in blocks], wanted, side="right")
        kinds = {name: self.each(name) for name in names}
        out = {name: np.empty((wanted.size, *shape), dtype) for name, (shape, dtype) in kinds.items()}
        for number in np.unique(owner):
            block, chosen = blocks[number], np.flatnonzero(owner == number)
            rows = wanted[chosen] - block.start + block.index * self.block
            unique, back = np.unique(rows, return_inverse=True)
            for name, values in out.items():
                values[chosen] = self._rows(name, block, unique)[back]
        return out

    def each(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and kind of number of an array's part for one stamp."""
        array = self.array(name)
        return array.shape[1:], array.dtype

    def _rows(self, name: str, block: StampBlock, rows: np.ndarray) -> np.ndarray:
        array = self.array(name)
        try:
            values = np.asarray(array.oindex[rows])
        except Exception as error:  # a codec raises whatever it likes on altered bytes
            raise CorruptError(f"{storage.redact(self.url)}: {name} of {block.name} is damaged: {error}") from error
        if not values.any() and not arrays.shard_exists(self.url, name, array, block.index):
            raise CorruptError(f"{storage.redact(self.url)}: {name} of {block.name} is missing its shard")
        return values

    def write_block(
        self,
        index: int,
        image: np.ndarray,
        variance: np.ndarray | None = None,
        psf: np.ndarray | None = None,
        truth: np.ndarray | None = None,
        mask: np.ndarray | None = None,
    ) -> str:
        """Write one reserved block's pixels and return their checksum; it exists once `commit_objects` lists it."""
        given = {"image": image, "variance": variance, "psf": psf}
        given |= {"truth": truth} if truth is not None or self.has_truth else {}
        given |= {"mask": mask} if mask is not None or self.has_mask else {}
        for name, values in given.items():
            if (values is not None) != (name in self.array_names):
                raise InputError(f"these stamps were created {'with' if values is None else 'without'} {name}")
            if values is None:
                continue
            array = self.array(name, writable=True)
            if values.shape[1:] != array.shape[1:] or not 0 < len(values) <= self.block or len(values) != len(image):
                raise InputError(
                    f"{name} has shape {values.shape}, a block takes up to {self.block} of {array.shape[1:]}"
                )
            arrays.write_unit(array, index * self.block, self._whole(values, array))
        return arrays.checksum(given)

    def _whole(self, values: np.ndarray, array: zarr.Array[Any]) -> np.ndarray:
        """`values` filled up to a whole shard: zarr would read a shard first to write a part of it."""
        if len(values) == self.block:
            return np.ascontiguousarray(values, array.dtype)
        whole = np.zeros((self.block, *array.shape[1:]), array.dtype)
        whole[: len(values)] = values
        return whole

    def commit_objects(self, index: int, objects: pa.Table, checksum: str) -> None:
        """Write the object table of a written block: object_id (int64), ra, dec (nullable), then label columns."""
        objects = _checked(objects)
        token = storage.digest(checksum, objects["object_id"].to_pylist())[:32]
        name = f"{block_name(index)}-{len(objects)}-{token}.parquet"
        storage.write_table(storage.join(self.url, "objects", name), objects)
        for cached in ("_files", "columns"):
            self.__dict__.pop(cached, None)


def _of_block(table: pa.Table, block: StampBlock, url: str) -> pa.Table:
    """The objects of a block; CorruptError where they are not as many as its name says, or their ids are none."""
    ids = table.schema.field("object_id").type if "object_id" in table.column_names else pa.int64()
    if len(table) != len(block) or ids != pa.int64():
        raise CorruptError(f"{storage.redact(url)} is damaged ({len(table)} rows, ids of type {ids}): ingest it again")
    return table


def _checked(objects: pa.Table) -> pa.Table:
    """`objects` with object_id int64 first, then ra, dec float64 (null when absent), then the labels."""
    if "object_id" not in objects.column_names:
        raise InputError("an object table of stamps needs the column object_id (int64)")
    empty = pa.nulls(len(objects), pa.float64())
    columns: dict[str, Any] = {}
    for name, kind in (("object_id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())):
        with foreign.refusing(f"column {name} of the stamps", "it must hold numbers, ra and dec in degrees"):
            columns[name] = objects[name].cast(kind) if name in objects.column_names else empty
    columns |= {name: objects[name] for name in objects.column_names if name not in columns}
    return pa.table(columns)


def open_source(url: Place) -> Survey | Stamps:
    """The Survey or Stamps at `url`; InputError when it is neither, or of a newer format."""
    kind = arrays.read_metadata(storage.absolute(url)).get("kind")
    if kind in (Survey.kind, Stamps.kind):
        return Survey.open(url) if kind == Survey.kind else Stamps.open(url)
    if kind == VIEW:
        raise InputError(
            f"{storage.redact(url)} is a view of labelled objects, for training alone: give its survey here"
        )
    raise InputError(f"{storage.redact(url)} is a store of unknown kind {kind!r}: upgrade astroml-plugin")
