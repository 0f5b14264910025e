"""Cut stamps as one .npz archive, which `ingest` and NumPy read: packed block by block, whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.merge import publishing
from astroml_plugin.core import storage
from astroml_plugin.sources.stamps import Stamps

Packed = Callable[[int, int], None]
"""Called with (blocks packed, blocks)."""


def pack(url: str, out: str, packed: Packed) -> None:
    """Write the stamps of a store as an archive: images, variance, mask_bits, psf, bands, pixel_scale, labels.

    Args:
        url: of the store.
        out: path or URL of the archive.
        packed: hears how far it is.
    """
    stamps = Stamps.open(url)
    blocks, arrays = stamps.units(), list(_arrays(stamps))
    with publishing(storage.absolute(out)) as path, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, (name, array, read) in enumerate(arrays):
            layout = {"shape": (stamps.count, *array.shape[1:]), "fortran_order": False}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_2_0(file, {**layout, "descr": np.dtype(array.dtype).str})
                for done, block in enumerate(blocks, 1):
                    file.write(np.ascontiguousarray(read(block.index)).tobytes())
                    packed(number * len(blocks) + done, len(arrays) * len(blocks))
        for name, values in _small(stamps).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def _arrays(stamps: Stamps) -> Iterator[tuple[str, Any, Callable[[int], Any]]]:
    """(key, zarr array, reader of a block) of every array of pixels."""
    yield "images", stamps.array("image"), stamps.read_images
    if stamps.has_variance:
        yield "variance", stamps.array("variance"), lambda index: stamps.read_block(index)[1]
    if stamps.has_psf:
        yield "psf", stamps.array("psf"), lambda index: stamps.read_block(index)[2]
    if stamps.has_mask:
        yield "mask_bits", stamps.array("mask"), stamps.read_mask


def _small(stamps: Stamps) -> dict[str, np.ndarray]:
    """Everything but pixels."""
    found: dict[str, np.ndarray] = {"bands": np.array(stamps.bands)}
    if stamps.pixel_scale is not None:
        found["pixel_scale"] = np.array(stamps.pixel_scale)
    if all(zero is not None for zero in stamps.zero_points):
        found["zero_point"] = np.array(stamps.zero_points, np.float64)
    table = stamps.labels()
    return found | {name: _plain(table[name].combine_chunks()) for name in table.column_names}


def _plain(column: pa.Array) -> np.ndarray:
    """A column as NumPy holds it without objects: no value is NaN of numbers, and the empty text."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, kind.list_size)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.cast(pa.float64()) if column.null_count else column
        return np.asarray(values.to_numpy(zero_copy_only=False))
    return np.array(["" if value is None else str(value) for value in column.to_pylist()], str)
