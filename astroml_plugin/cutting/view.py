"""Stamps of a survey's labelled objects that lie nowhere: cut from its tiles whenever they are read, as `infer` does.

A view is a folder with the table of its objects, where each lies and which stamps make a block. Blocks are those that
`cutouts` would write, so that a training sees the same stamps in the same order.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.cutouts import RawStamps
from astroml_plugin.cutting.plan import CutSettings
from astroml_plugin.cutting.work import stamps_of, tile_around
from astroml_plugin.pixels import Tile
from astroml_plugin.sources.stamps import StampBlock, StampLayout, Stamps, block_name
from astroml_plugin.sources.store import VIEW
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo

TABLE, TILES = "table.parquet", "tiles.parquet"
"""Files in the folder `objects` of a view: its objects in order, and the tiles that they lie on."""

_KEPT = 3
"""Blocks whose stamps are kept for a second look."""


class SurveyStamps(Stamps):
    """Stamps of the labelled objects of a survey, read like any others; no pixel is stored."""

    kind = VIEW

    def __init__(self, url: str, metadata: dict[str, Any]) -> None:
        super().__init__(url, metadata)
        psf = metadata["psf_size"]
        self.layout = StampLayout(
            bands=self.bands,
            size=self.size,
            block=self.block,
            pixel_scale=self.pixel_scale,
            zero_points=self.zero_points,
            psf_size=None if psf is None else (psf[0], psf[1]),
            variance=self.has_variance,
            mask=True,
        )
        self.settings = CutSettings(
            metadata["survey"], "", url, "stamps", self.layout, metadata["every_image"], metadata["brought_to"]
        )
        self._bounds: list[tuple[int, int]] = [(start, stop) for start, stop in metadata["blocks"]]
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, bytes], RawStamps] = OrderedDict()
        self._tile: tuple[str, Tile] | None = None

    # --- objects --------------------------------------------------------------------------------------------------

    @cached_property
    def table(self) -> pa.Table:
        """All objects in stamp order: object_id, ra, dec, image, tile, x, y, jacobian, crowded, labels."""
        return storage.read_table(storage.join(self.url, self.tables, TABLE))

    def units(self) -> list[StampBlock]:
        """All blocks, in order."""
        return self._blocks

    @cached_property
    def _blocks(self) -> list[StampBlock]:
        content = table_digest(self.table)
        found = []
        for index, (start, stop) in enumerate(self._bounds):
            tiles = [self._checksums[name] for name in self.table["tile"][start:stop].unique().to_pylist()]
            checksum = storage.digest(content, tiles, index, self.id)[:32]
            found.append(StampBlock(index, block_name(index), start, stop, checksum))
        return found

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the label columns (all but object_id, ra, dec)."""
        return tuple(self.table.column_names[3:])

    def read_objects(self, index: int) -> pa.Table:
        """Objects of block `index`, as `labels`."""
        start, stop = self._bounds[index]
        return self.table.slice(start, stop - start)

    def labels(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The objects of all blocks in stamp order, or some of their columns."""
        if columns is None:
            return self.table
        if missing := [name for name in columns if name not in self.table.column_names]:
            raise InputError(f"{storage.redact(self.url)} has label columns {list(self.columns)}, not {missing}")
        return self.table.select(list(columns))

    # --- pixels ---------------------------------------------------------------------------------------------------

    def each(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and kind of number of an array's part for one stamp."""
        found = self.layout.arrays()[name]
        return tuple(found.shape), np.dtype(found.dtype)

    def _read_array(self, index: int, name: str) -> np.ndarray:
        start, stop = self._bounds[index]
        return self._array(name, index, np.arange(start, stop))

    def _rows(self, name: str, block: StampBlock, rows: np.ndarray) -> np.ndarray:
        return self._array(name, block.index, rows - block.index * self.block + block.start)

    def _array(self, name: str, index: int, rows: np.ndarray) -> np.ndarray:
        """One array of the stamps of some rows of a block, sorted; the last few answers are kept."""
        key = (index, rows.tobytes())
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = self._cut(rows)
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        values: np.ndarray = getattr(found, name)
        return values

    def _cut(self, rows: np.ndarray) -> RawStamps:
        """Stamps of sorted rows; each of their tiles is read once."""
        part = self.table.select(["tile", "x", "y"]).take(pa.array(rows))
        names = np.array(part["tile"].to_pylist(), object)
        x, y = (part[axis].to_numpy() for axis in "xy")
        starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
        found = []
        for start, stop in zip(starts, [*starts[1:], len(names)], strict=True):
            info, mine = self._info(names[start]), slice(start, stop)
            tile = self._pixels(info, x[mine], y[mine])
            found.append(stamps_of(self.settings, info, tile, x[mine], y[mine]))
        return RawStamps.concatenate(found)

    def _pixels(self, info: TileInfo, x: np.ndarray, y: np.ndarray) -> Tile:
        """A tile around some positions; the last one that many blocks lie on is read whole, and kept."""
        if self._crowd[info.name] <= self.block:
            return tile_around(self.settings, self.survey, info, x, y)
        with self._lock:
            held = self._tile
        if held is None or held[0] != info.name:
            held = info.name, self.survey.read_tile(info, self.bands)
        with self._lock:
            self._tile = held
        return held[1]

    @cached_property
    def _crowd(self) -> dict[str, int]:
        """Tile -> objects on it."""
        counts = self.table["tile"].value_counts().to_pylist()
        return {one["values"]: one["counts"] for one in counts}

    @cached_property
    def survey(self) -> Survey:
        """The survey whose tiles are cut."""
        return Survey.open(self.settings.survey)

    @cached_property
    def _checksums(self) -> dict[str, str]:
        table = storage.read_table(storage.join(self.url, self.tables, TILES))
        return dict(zip(table["name"].to_pylist(), table["checksum"].to_pylist(), strict=True))

    @cached_property
    def _infos(self) -> dict[str, TileInfo]:
        return {info.name: info for info in self.survey.iter_tiles() if info.name in self._checksums}

    def _info(self, name: str) -> TileInfo:
        """A tile, as it was when the view was made.

        Raises:
            CorruptError: its pixels are others now.
        """
        info = self._infos.get(name)
        if info is None or info.checksum != self._checksums[name]:
            raise CorruptError(
                f"tile {name} of {storage.redact(self.settings.survey)} has changed since its labelled objects were "
                f"placed: do that again"
            )
        return info


def table_digest(table: pa.Table) -> str:
    """Digest of the objects of a view: ids, places and labels."""
    return hashlib.sha256(storage.encode_table(table)).hexdigest()
