"""Label maps of a catalog: which pixels of each tile belong to the objects that it owns.

One Zarr v3 group beside the parts, `labels.zarr`, with the tiles of the survey: an array `label` (tile, y, x) of uint32
over the outer boxes, 0 for background, else the object's `label_id`. A tile's map exists once its shard does.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import zarr

from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sources import arrays
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileTable

LABELS = "labels.zarr"
"""Folder within the catalog."""

_ARRAY = "label"
_SHARD = re.compile(r"^(\d+)/0/0$")


class LabelMaps(TileTable):
    """The label maps of one catalog."""

    kind = "labels"

    def __init__(self, catalog: str, metadata: dict[str, Any]) -> None:
        self.catalog = catalog
        self.url = storage.join(catalog, LABELS)
        self.bands: tuple[str, ...] = tuple(metadata["bands"])
        self.tile_size: int = metadata["tile_size"]
        self.halo: int = metadata["halo"]
        self._opened: dict[bool, zarr.Array[Any]] = {}

    @classmethod
    def create(cls, catalog: str, survey: Survey) -> LabelMaps:
        """Label maps for the tiles that a survey has now, or those that are there, extended to them (driver only)."""
        url = storage.join(storage.absolute(catalog), LABELS)
        if not storage.exists(storage.join(url, "zarr.json")):
            side = survey.tile_size
            chunk = arrays.spatial_chunk(1, side)
            if not storage.exists(storage.join(url, _ARRAY, "zarr.json")):  # else a killed run had begun
                layout = arrays.ArrayLayout(("tile", "y", "x"), (side, side), 1, (1, chunk, chunk), "uint32")
                arrays.create_array(url, _ARRAY, layout)
            metadata = {"kind": cls.kind, "bands": list(survey.bands), "tile_size": side, "halo": survey.halo}
            arrays.create_group(url, metadata, folders=["tiles"])
        made = cls.open(catalog)
        made._extend(survey)
        return made

    @classmethod
    def open(cls, catalog: str) -> LabelMaps:
        """The label maps of the catalog at a URL; InputError when it has none."""
        catalog = storage.absolute(catalog)
        url = storage.join(catalog, LABELS)
        if not storage.exists(storage.join(url, "zarr.json")):
            raise InputError(
                f"the catalog {storage.redact(catalog)} has no label maps: run infer with a bundle that finds objects, "
                f"without --no-labels"
            )
        return cls(catalog, arrays.read_metadata(url))

    def __reduce__(self) -> tuple[Any, ...]:
        return LabelMaps.open, (self.catalog,)

    def _extend(self, survey: Survey) -> None:
        """Take over the tiles that the survey has got meanwhile."""
        there = set(storage.list_files(storage.join(self.url, "tiles"), ".parquet"))
        for name in storage.list_files(storage.join(survey.url, "tiles"), ".parquet"):
            if name not in there:
                data = storage.read_bytes(storage.join(survey.url, "tiles", name))
                storage.write_atomic(storage.join(self.url, "tiles", name), data)
        array, count = self._array(writable=True), survey.array("image").shape[0]
        if array.shape[0] < count:
            array.resize((count, *array.shape[1:]))
            self._opened.clear()

    def _array(self, *, writable: bool = False) -> zarr.Array[Any]:
        if writable not in self._opened:
            self._opened[writable] = arrays.open_array(self.url, _ARRAY, read_only=not writable)
        return self._opened[writable]

    def write(self, index: int, labels: np.ndarray) -> None:
        """One tile's map (y, x) uint32, whole or not at all."""
        array = self._array(writable=True)
        if labels.shape != array.shape[1:]:
            raise ValueError(f"a label map has shape {labels.shape}, the tiles {array.shape[1:]}")
        arrays.write_unit(array, index, np.ascontiguousarray(labels, np.uint32)[None])

    def read(self, index: int) -> np.ndarray:
        """One tile's map (y, x) uint32.

        Raises:
            CorruptError: it was never written, or its bytes do not verify.
        """
        array = self._array()
        if index >= array.shape[0]:  # opened before the driver made room
            self._opened.clear()
            array = self._array()
        try:
            values: np.ndarray = arrays.read_unit(self.url, _ARRAY, array, index, index, index + 1)[0]
            return values
        except CorruptError as error:
            reason = str(error).replace(": ingest it again", "")
            raise CorruptError(f"{reason}: delete the file and run the same infer again") from error

    def remove(self, index: int) -> None:
        """Delete one tile's map; infer writes it again with the tile's objects."""
        storage.remove(storage.join(self.url, _ARRAY, "c", str(index), "0", "0"))

    def present(self) -> set[int]:
        """Indices of the tiles whose map exists, from one listing."""
        names = storage.list_files(storage.join(self.url, _ARRAY, "c"))
        return {int(match[1]) for name in names if (match := _SHARD.match(name))}
