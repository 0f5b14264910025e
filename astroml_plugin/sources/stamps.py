"""Stamps: postage stamps in blocks as one Zarr v3 group, with one Parquet object table per block.

A block exists once its object table is there, after its shards; the table's file name carries rows and checksum, so one
listing tells what a store holds. Stamps are numbered 0 ... count - 1 over the blocks that exist, in block order.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import ArrayLike

from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sources import arrays
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


def _block_size(stamp_bytes: int) -> int:
    """Stamps per block: a power of two near `BLOCK_BYTES`."""
    return int(min(BLOCK_LARGEST, 2 ** max(0, int(np.log2(max(1, BLOCK_BYTES // stamp_bytes))))))


class Stamps:
    """Postage stamps on disk, with their objects and labels."""

    kind = "stamps"

    def __init__(self, url: str, metadata: dict[str, Any]) -> None:
        self.url = url
        self.id: str = metadata["id"]
        self.bands: tuple[str, ...] = tuple(metadata["bands"])
        self.size: tuple[int, int] = (metadata["size"][0], metadata["size"][1])
        self.dtype = np.dtype(metadata["dtype"])
        self.block: int = metadata["block"]
        self.pixel_scale: float | None = metadata["pixel_scale"]
        self.has_variance = "variance" in metadata["arrays"]
        self.has_psf = "psf" in metadata["arrays"]
        self.has_truth = "truth" in metadata["arrays"]
        self.layers: tuple[str, ...] = tuple(metadata.get("layers", ()))
        """Names of the layers of the truth of every pixel, for tasks that learn maps; empty where there is none."""
        self.array_names: tuple[str, ...] = tuple(metadata["arrays"])
        self._opened: dict[tuple[str, bool], zarr.Array] = {}

    @classmethod
    def create(
        cls,
        url: str,
        *,
        bands: Sequence[str],
        size: tuple[int, int],
        dtype: str = "float32",
        block: int | None = None,
        pixel_scale: float | None = None,
        psf_size: tuple[int, int] | None = None,
        variance: bool = False,
        layers: Sequence[str] = (),
    ) -> Stamps:
        """An empty store of stamps of `size` (height, width); `block` stamps a unit (default: about 32 MB).

        With `layers`, every stamp has the truth of its pixels, (layer, y, x) float16, NaN where it is unknown.
        """
        if len(set(bands)) != len(bands) or not bands:
            raise InputError(f"bands {list(bands)} must be different names, at least one")
        url = storage.absolute(url)
        if storage.exists(storage.join(url, "zarr.json")):
            raise InputError(f"{storage.redact(url)} exists already: open it, or choose another output")
        stamp_bytes = len(bands) * size[0] * size[1] * np.dtype(dtype).itemsize
        block = block or _block_size(stamp_bytes)
        chunk = int(np.gcd(block, 2 ** int(np.log2(max(1, min(block, _INNER_BYTES // stamp_bytes))))))
        shapes = {"image": (len(bands), *size)}
        shapes |= {"variance": (len(bands), *size)} if variance else {}
        shapes |= {"psf": (len(bands), *psf_size)} if psf_size else {}
        shapes |= {"truth": (len(layers), *size)} if layers else {}
        types = {"image": dtype, "truth": "float16"}
        try:
            for name, shape in shapes.items():
                _create_array(url, name, shape, block, chunk, types.get(name, "float32"))
        except OSError as error:
            raise InputError(f"{storage.redact(url)} cannot be written: {storage.redact(str(error))}") from error
        metadata = {
            **{"kind": cls.kind, "id": uuid.uuid4().hex, "bands": list(bands), "size": list(size)},
            **{"dtype": np.dtype(dtype).name, "block": block, "pixel_scale": pixel_scale, "arrays": list(shapes)},
        }
        metadata |= {"layers": list(layers)} if layers else {}
        arrays.create_group(url, metadata, folders=["objects"])
        return cls.open(url)

    @classmethod
    def open(cls, url: str) -> Stamps:
        """Existing stamps; InputError when there are none or their format is newer."""
        url = storage.absolute(url)
        metadata = arrays.read_metadata(url)
        if metadata.get("kind") != cls.kind:
            raise InputError(f"{storage.redact(url)} holds a {metadata.get('kind')}, not stamps")
        return cls(url, metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        return Stamps.open, (self.url,)

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

    @property
    def count(self) -> int:
        """Number of stamps."""
        return sum(len(block) for block in self.units())

    def __len__(self) -> int:
        return self.count

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the label columns (all but object_id, ra, dec)."""
        if not self._files:
            return ()
        names = self.read_objects(min(self._files)).column_names
        return tuple(name for name in names if name not in _POSITION)

    def read_objects(self, index: int) -> pa.Table:
        """Objects of block `index`: object_id int64, ra, dec (deg, null where unknown), then the label columns."""
        return storage.read_table(self._file(index)[1])

    def labels(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The object tables of all blocks in stamp order, or some of their columns."""
        names = None if columns is None else list(columns)
        missing = [] if names is None else [name for name in names if name not in (*_POSITION, *self.columns)]
        if missing:
            raise InputError(f"{storage.redact(self.url)} has label columns {list(self.columns)}, not {missing}")
        tables = [storage.read_table(url, columns=names) for _, url in self._files.values()]
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})

    def _file(self, index: int) -> tuple[StampBlock, str]:
        if index not in self._files:
            raise InputError(f"{storage.redact(self.url)} has no block {index}")
        return self._files[index]

    # --- pixels ---------------------------------------------------------------------------------------------------

    def array(self, name: str, *, writable: bool = False) -> zarr.Array:
        """The zarr array `name`, opened once per Stamps object."""
        key = (name, writable)
        if key not in self._opened:
            self._opened[key] = arrays.open_array(self.url, name, read_only=not writable)
        return self._opened[key]

    def read_block(self, index: int) -> Pixels:
        """One block's pixels, each array with one whole-shard read; CorruptError for a missing or altered shard."""
        values = {name: self._read_array(index, name) for name in self._pixel_names}
        return values["image"], values.get("variance"), values.get("psf")

    @property
    def _pixel_names(self) -> list[str]:
        return [name for name in self.array_names if name != "truth"]

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

    def read_images(self, index: int) -> np.ndarray:
        """One block's images alone, (n, band, y, x), as `read_block`."""
        return self._read_array(index, "image")

    def _read_array(self, index: int, name: str) -> np.ndarray:
        rows, first = len(self._file(index)[0]), index * self.block
        return arrays.read_unit(self.url, name, self.array(name), index, first, first + rows)

    def read_rows(self, numbers: ArrayLike) -> Pixels:
        """Stamps by number, in the order given; reads only the inner chunks that hold them."""
        wanted = np.asarray(numbers, np.int64).ravel()
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.count):
            raise InputError(f"stamp numbers must be 0 to {self.count - 1}")
        blocks = self.units()
        owner = np.searchsorted([block.stop for block in blocks], wanted, side="right")
        out = {
            name: np.empty((wanted.size, *self.array(name).shape[1:]), self.array(name).dtype)
            for name in self._pixel_names
        }
        for number in np.unique(owner):
            block, chosen = blocks[number], np.flatnonzero(owner == number)
            rows = wanted[chosen] - block.start + block.index * self.block
            unique, back = np.unique(rows, return_inverse=True)
            for name, values in out.items():
                values[chosen] = self._rows(name, block, unique)[back]
        return out["image"], out.get("variance"), out.get("psf")

    def _rows(self, name: str, block: StampBlock, rows: np.ndarray) -> np.ndarray:
        array = self.array(name)
        try:
            values = np.asarray(array.oindex[rows])
        except Exception as error:  # a codec raises whatever it likes on altered bytes
            raise CorruptError(f"{storage.redact(self.url)}: {name} of {block.name} is damaged: {error}") from error
        if not values.any() and not arrays.shard_exists(self.url, name, array, block.index):
            raise CorruptError(f"{storage.redact(self.url)}: {name} of {block.name} is missing its shard")
        return values

    def reserve(self, blocks: int) -> int:
        """Make room for `blocks` blocks and give the first one's index (driver only; never reused)."""
        self._opened.clear()
        opened = [self.array(name, writable=True) for name in self.array_names]
        first = max(array.shape[0] for array in opened) // self.block
        for array in opened:
            array.resize(((first + blocks) * self.block, *array.shape[1:]))
        self._opened.clear()
        return first

    def write_block(
        self,
        index: int,
        image: np.ndarray,
        variance: np.ndarray | None = None,
        psf: np.ndarray | None = None,
        truth: np.ndarray | None = None,
    ) -> str:
        """Write one reserved block's pixels and return their checksum; it exists once `commit_objects` lists it."""
        given = {"image": image, "variance": variance, "psf": psf}
        if truth is not None or self.has_truth:
            given["truth"] = truth
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

    def _whole(self, values: np.ndarray, array: zarr.Array) -> np.ndarray:
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


def _create_array(url: str, name: str, shape: Sequence[int], block: int, chunk: int, dtype: str) -> None:
    arrays.create_array(
        *(url, name),
        shape=(0, *shape),
        unit=(block, *shape),
        chunk=(chunk, *shape),
        dtype=dtype,
        fill=0,
        dimensions=_DIMENSIONS.get(name, ("object", "band", "y", "x")),
    )


def _checked(objects: pa.Table) -> pa.Table:
    """`objects` with object_id int64 first, then ra, dec float64 (null when absent), then the labels."""
    if "object_id" not in objects.column_names:
        raise InputError("an object table of stamps needs the column object_id (int64)")
    empty = pa.nulls(len(objects), pa.float64())
    columns: dict[str, Any] = {"object_id": objects["object_id"].cast(pa.int64())}
    for name in ("ra", "dec"):
        columns[name] = objects[name].cast(pa.float64()) if name in objects.column_names else empty
    columns |= {name: objects[name] for name in objects.column_names if name not in columns}
    return pa.table(columns)


def open_source(url: str) -> Survey | Stamps:
    """The Survey or Stamps at `url`; InputError when it is neither, or of a newer format."""
    kind = arrays.read_metadata(storage.absolute(url)).get("kind")
    if kind == Survey.kind:
        return Survey.open(url)
    if kind == Stamps.kind:
        return Stamps.open(url)
    raise InputError(f"{storage.redact(url)} is a store of unknown kind {kind!r}: upgrade astroml-plugin")
