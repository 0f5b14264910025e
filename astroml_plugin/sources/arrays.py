"""Checked Zarr v3 arrays: one shard per unit, checksums in every chunk, no silent fill values.

Survey and Stamps differ in what a unit means; how a unit's bytes are laid out, written and trusted is said once, here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from astroml_plugin.core import formats, storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.quiet import FILTERS
from astroml_plugin.sources.plain_shards import PlainShards

FORMAT = 1
"""Version of the layout on disk; a reader refuses newer ones."""

CHUNK_BYTES = 16_000_000
"""Upper size of one inner chunk, decoded."""

ZSTD_LEVEL = 1
"""Float noise hardly compresses: higher levels cost time and gain nothing."""

CODECS = ("zstd", "lz4", "none")
"""How chunks are compressed: small, quickly, or not at all. All have checksums."""

_config_lock = threading.Lock()
_HAS_ZARRS = importlib.util.find_spec("zarrs") is not None
_pipeline = "auto"
_compared: dict[tuple[str, str], bool] = {}
"""(store, array) -> whether zarrs gave what zarr-python gives, in this process."""


def use_pipeline(name: str) -> None:
    """Choose what decodes the arrays opened from now on in this process.

    Args:
        name: "auto" (zarrs, when it is installed, for reading local stores and HTTP, else zarr-python), "zarr" or
            "zarrs". zarrs decodes several times faster and verifies the same checksums: the tests compare both, on
            damage too, and so does every process with the first chunk that it reads of an array.

    Raises:
        InputError: zarrs is asked for and not installed.
    """
    global _pipeline
    _compared.clear()
    if name not in ("auto", "zarr", "zarrs"):
        raise InputError(f"unknown codec pipeline {name!r}: use auto, zarr or zarrs")
    if name == "zarrs" and not _HAS_ZARRS:
        raise InputError("the zarrs codec pipeline is not installed: pip install 'astroml-plugin[fast]'")
    _pipeline = name


def create_group(url: str, metadata: Mapping[str, Any], folders: Sequence[str] = ()) -> None:
    """Create an empty group with our metadata and `folders` for tables.

    Raises:
        InputError: something is there already, or nothing can be written.
    """
    if storage.exists(storage.join(url, "zarr.json")):
        raise InputError(f"{storage.redact(url)} exists already: choose another output or open it")
    group = {"zarr_format": 3, "node_type": "group"}
    document = {**group, "attributes": {formats.ATTRIBUTE: {**metadata, "format": FORMAT}}}
    try:
        for folder in folders:  # a group too, so that zarr and xarray list the store without warnings
            storage.write_json(storage.join(url, folder, "zarr.json"), {**group, "attributes": {}})
        storage.write_json(storage.join(url, "zarr.json"), document)
    except OSError as error:
        raise InputError(f"{storage.redact(url)} cannot be written: {storage.redact(str(error))}") from error


def read_metadata(url: str) -> dict[str, Any]:
    """Our metadata of the group at `url`; InputError when there is none, or of a newer format."""
    shown = storage.redact(url)
    try:
        document = storage.read_json(storage.join(url, "zarr.json"))
        metadata = document["attributes"][formats.ATTRIBUTE]
        version = int(metadata["format"])
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{shown} is no survey and no stamps (no zarr.json there): make one with `ingest`") from None
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {storage.redact(str(error))}") from error
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{shown} is not a store of this package: make one with `ingest`") from None
    if version > FORMAT:
        raise InputError(f"{shown} has format {version}, this version reads up to {FORMAT}: upgrade astroml-plugin")
    return dict(metadata)


def open_array(url: str, name: str, *, read_only: bool = True) -> zarr.Array[Any]:
    """One array of a group, without consolidated metadata."""
    reads = storage.is_local(url) or (url.startswith("http") and storage.through_obstore(url))
    return _open(url, name, read_only, zarrs=_HAS_ZARRS and _pipeline != "zarr" and read_only and reads)


def _open(url: str, name: str, read_only: bool, *, zarrs: bool) -> zarr.Array[Any]:
    settings: dict[str, Any] = {"array.write_empty_chunks": True, "async.concurrency": 8}
    if zarrs:
        settings["codec_pipeline.path"] = "zarrs.ZarrsCodecPipeline"
    with _config_lock, FILTERS, zarr.config.set(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Successfully reconstructed a store")  # zarrs keeps connections of its own
        try:
            store = storage.zarr_store(storage.join(url, name), read_only=read_only)
            return zarr.open_array(store, mode="r" if read_only else "r+")
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptError(f"{storage.redact(url)} has no readable array {name!r}: {error}") from error


@dataclass(frozen=True)
class ArrayLayout:
    """How one array of a store lies on disk."""

    dimensions: tuple[str, ...]
    """Names of the axes; the first one counts rows."""
    shape: tuple[int, ...]
    """Lengths of the axes after the first."""
    unit: int
    """Rows of one unit: a shard holds them."""
    chunk: tuple[int, ...]
    """Lengths of an inner chunk along all axes."""
    dtype: str = "float32"
    """Kind of number."""
    fill: float = 0
    """Value where nothing was written."""
    coordinates: str = ""
    """Name of an array beside it that xarray takes as a coordinate."""
    codec: str = CODECS[0]
    """One of `CODECS`."""


def _compressors(codec: str) -> list[BytesBytesCodec]:
    """The steps that the bytes of a chunk go through, one after the other; the last keeps a checksum."""
    if codec == "lz4":
        return [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()]
    return [Crc32cCodec()] if codec == "none" else [ZstdCodec(level=ZSTD_LEVEL, checksum=True)]


def create_array(url: str, name: str, layout: ArrayLayout) -> None:
    """Create an empty array whose shards are units rounded up to whole chunks.

    An array without a value that a killed run has left there is made anew.

    Raises:
        InputError: an array with values is there.
    """
    _remove_leftover(storage.join(url, name))
    unit = (layout.unit, *layout.shape)
    zarr.create_array(
        storage.zarr_store(storage.join(url, name)),
        shape=(0, *layout.shape),
        chunks=layout.chunk,
        shards=tuple(-(-side // step) * step for side, step in zip(unit, layout.chunk, strict=True)),
        dtype=layout.dtype,
        fill_value=layout.fill,
        compressors=_compressors(layout.codec),
        dimension_names=layout.dimensions,
        attributes={"coordinates": layout.coordinates} if layout.coordinates else None,
        config={"write_empty_chunks": True},
    )


def write_coordinate(
    url: str, name: str, values: Sequence[float], dimension: str, attributes: Mapping[str, Any]
) -> None:
    """Write one number for each place along a dimension as a small array that xarray takes as a coordinate."""
    given = {key: value for key, value in attributes.items() if value not in (None, "")}
    store = storage.zarr_store(storage.join(url, name))
    array = zarr.create_array(
        store, shape=(len(values),), dtype="float64", dimension_names=(dimension,), attributes=given, overwrite=True
    )
    array[:] = np.asarray(values, np.float64)


def _remove_leftover(url: str) -> None:
    """Remove the metadata of an array that holds nothing: its store was killed while it was being created."""
    names = storage.list_files(url)
    if any(name != "zarr.json" for name in names):
        raise InputError(f"{storage.redact(url)} holds files of another array: choose another output")
    if names:
        storage.remove(storage.join(url, "zarr.json"))


def spatial_chunk(bands: int, side: int, itemsize: int = 4, largest: int = 512) -> int:
    """Side of an inner chunk of all bands: the largest power of two that stays within `CHUNK_BYTES`."""
    step = largest
    while step > 16 and bands * step * step * itemsize > CHUNK_BYTES:
        step //= 2
    return min(step, side)


def _shard(url: str, name: str, array: zarr.Array[Any], index: int) -> tuple[Any, str]:
    """File system and path of the shard at `index` along the first axis."""
    return storage.filesystem(
        storage.join(url, name, array.metadata.encode_chunk_key((index, *(0,) * (array.ndim - 1))))
    )


def shard_exists(url: str, name: str, array: zarr.Array[Any], index: int) -> bool:
    """Whether the shard at `index` along the first axis has been written (an empty file has not)."""
    filesystem, path = _shard(url, name, array, index)
    try:
        return bool(filesystem.size(path))
    except FileNotFoundError:
        return False


Region = tuple[slice, ...]
"""Slices of the axes after the first; () reads all."""


def read_unit(
    url: str, name: str, array: zarr.Array[Any], shard: int, start: int, stop: int, region: Region = ()
) -> np.ndarray:
    """Rows [start, stop) of one shard, or a region of them.

    Raises:
        CorruptError: the shard is missing or its bytes do not verify.
    """

    def where() -> str:
        return f"{storage.redact(url)}: {name}[{start}:{stop}]"

    if stop > array.shape[0]:
        raise CorruptError(f"{where()} is beyond the array's {array.shape[0]} rows: its shard was never written")
    try:
        rows = (slice(start, stop), *region)
        stored = _stored(url, name, array, shard, rows)
    except OSError as error:  # zarrs says so of damaged bytes too: nothing to wait for on a local disk
        if error.errno is None and storage.is_local(url):
            raise CorruptError(f"{where()} is damaged ({error}): ingest it again") from error
        raise CorruptError(f"{where()} cannot be read: {storage.redact(str(error))}") from error
    except Exception as error:  # a codec raises whatever it likes on altered bytes
        if storage.is_remote_failure(error):
            raise CorruptError(f"{where()} cannot be read: {storage.redact(str(error))}") from error
        raise CorruptError(f"{where()} is damaged ({type(error).__name__}: {error}): ingest it again") from error
    values = np.asarray(stored)
    if _is_fill(values, array.fill_value) and not shard_exists(url, name, array, shard):
        raise CorruptError(f"{where()} is missing its shard: ingest it again")
    return values


def _stored(url: str, name: str, array: zarr.Array[Any], shard: int, rows: Region) -> Any:
    """Rows of one shard, or a region of them; the fill value where there is no shard."""
    local = storage.is_local(url)
    plain = PlainShards.of(array) if local else None
    start = 0 if plain is None else shard * plain.shard[0]
    if plain is None or rows[0].start < start or rows[0].stop > start + plain.shard[0]:
        array = _trusted(url, name, array, rows[0].start)
        return array[rows] if local else storage.retrying(array.__getitem__, rows)
    first = slice(rows[0].start - start, rows[0].stop - start)
    sides = zip((*rows[1:], *[slice(None)] * (array.ndim - len(rows))), array.shape[1:], strict=True)
    box = [first, *(slice(*part.indices(side)) for part, side in sides)]
    try:
        return plain.read(_shard(url, name, array, shard)[1], box)
    except FileNotFoundError:
        return np.full([part.stop - part.start for part in box], array.fill_value, array.dtype)


def _trusted(url: str, name: str, array: zarr.Array[Any], start: int) -> zarr.Array[Any]:
    """The array; opened again with zarr-python, here and from now on, when zarrs gives another first chunk."""
    if not _through_zarrs(array):
        return array
    key = (url, name)
    if key not in _compared:
        first = (slice(start, start + array.chunks[0]), *(slice(0, side) for side in array.chunks[1:]))
        wanted = _digest(_open(url, name, True, zarrs=False)[first])
        try:
            _compared[key] = _digest(array[first]) == wanted
        except Exception:  # noqa: BLE001 - a server or codec that only zarr-python can do
            _compared[key] = False
        if not _compared[key]:
            warnings.warn(
                f"zarrs decodes {storage.redact(url)}: {name} otherwise than zarr-python, which is used from now on: "
                "please report the versions of both",
                RuntimeWarning,
                stacklevel=2,
            )
    return array if _compared[key] else _open(url, name, True, zarrs=False)


def _through_zarrs(array: zarr.Array[Any]) -> bool:
    return _HAS_ZARRS and type(array._async_array.codec_pipeline).__module__.startswith("zarrs")


def _digest(values: Any) -> str:
    return checksum({"": np.asarray(values)})


def _is_fill(values: np.ndarray, fill: Any) -> bool:
    """Whether all values are the fill value; looks at the middle first, so data answers at once."""
    nan = isinstance(fill, float | np.floating) and np.isnan(fill)
    flat = values.reshape(-1)
    middle = flat[flat.size // 2 : flat.size // 2 + 4096]
    return all(bool(np.isnan(part).all() if nan else (part == fill).all()) for part in (middle, flat))


def write_unit(array: zarr.Array[Any], start: int, values: np.ndarray) -> None:
    """Write whole rows from `start` on."""
    storage.retrying(array.__setitem__, slice(start, start + len(values)), values)


def checksum(arrays: Mapping[str, np.ndarray | None]) -> str:
    """Hex SHA-256 of the bytes of named arrays, in the given order."""
    hasher = hashlib.sha256()
    for name, values in arrays.items():
        if values is not None:
            hasher.update(f"{name}{values.dtype.str}{values.shape}".encode())
            hasher.update(np.ascontiguousarray(values).data)
    return hasher.hexdigest()
