"""The pixels of a catalog's rows, read one window at a time: what a page of pictures needs, not what a run does."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astroml_plugin.catalog import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, CorruptError, InputError
from astroml_plugin.core.typing import Bool
from astroml_plugin.pixels import pixel_bits, stamp_origin
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo

_BLOCKS = 64
"""Object tables of blocks that are kept."""

Stamp = tuple[NDArray[np.generic], Bool]
"""Pixels (band, y, x) as stored, and which of them can be used (same shape)."""


def recorded_source(catalog: Catalog) -> str | None:
    """URL of the source that the last `infer` run of a catalog read, without credentials; None where unknown."""
    urls = [record.get("source") for record in catalog.runs() if record.get("source")]
    return str(urls[-1]) if urls else None


class PixelReader:
    """Stamps around the rows of a catalog. Safe in threads.

    Args:
        source: URL of the Survey or Stamps that the catalog was made from.
        catalog: it.

    Raises:
        InputError: there is no source, or it is another one.
    """

    def __init__(self, source: str, catalog: Catalog) -> None:
        self.source = open_source(source)
        expected = catalog.identity.get("source")
        if expected is not None and expected != self.source.id:
            raise InputError(
                f"{storage.redact(source)} is not what the catalog was made from (its id is {self.source.id[:8]}…, the "
                f"catalog's source {str(expected)[:8]}…): the pictures would show other objects"
            )
        self.bands = self.source.bands
        self._numbers: dict[str, int] = {}
        self._infos: dict[str, TileInfo] = {}
        self._blocks: OrderedDict[str, tuple[int, dict[int, int]]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def side(self) -> int:
        """A good side in pixels: that of stored stamps, else 64."""
        return min(self.source.size) if isinstance(self.source, Stamps) else 64

    def stamp(self, row: Mapping[str, Any], side: int) -> Stamp:
        """The stamp of `side` pixels around one row; what lies outside the data cannot be used.

        Args:
            row: object_id, tile, x and y of a row of the catalog.
            side: pixels.

        Raises:
            InputError: the source has no such tile or object.
            CorruptError: its pixels cannot be read.
        """
        try:
            if isinstance(self.source, Stamps):
                return _centred(*self._stored(self.source, row), side)
            return self._cut(self.source, row, side)
        except AstromlError:
            raise
        except Exception as error:  # a codec or a store raises whatever it likes
            raise CorruptError(f"the pixels of object {row['object_id']} cannot be read: {error}") from error

    def tile(self, name: str) -> TileInfo:
        """Boxes, WCS and zero points of a tile of the survey.

        Raises:
            InputError: it has no such tile.
        """
        assert isinstance(self.source, Survey)
        return self._info(self.source, name)

    def numbers(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Numbers of the stored stamps of rows of one block.

        Raises:
            InputError: it has no such object.
        """
        assert isinstance(self.source, Stamps)
        start, places = self._places(self.source, rows[0]["tile"])
        missing = [row["object_id"] for row in rows if int(row["object_id"]) not in places]
        if missing:
            raise InputError(f"{rows[0]['tile']} of the source has no object {missing[0]}")
        return [start + places[int(row["object_id"])] for row in rows]

    # Stamps

    def _stored(self, stamps: Stamps, row: Mapping[str, Any]) -> Stamp:
        start, places = self._places(stamps, row["tile"])
        place = places.get(int(row["object_id"]))
        if place is None:
            raise InputError(f"{row['tile']} of the source has no object {row['object_id']}")
        image, variance, _ = stamps.read_rows([start + place])
        bits = pixel_bits(image, variance, stamps.read_masks([start + place]))
        return image[0], bits[0] == 0

    def _places(self, stamps: Stamps, unit: str) -> tuple[int, dict[int, int]]:
        """(number of the first stamp, object_id -> place) of a block."""
        with self._lock:
            if unit in self._blocks:
                self._blocks.move_to_end(unit)
                return self._blocks[unit]
        block = next((block for block in stamps.units() if block.name == unit), None)
        if block is None:
            raise InputError(f"the source has no {unit}: it was replaced since the catalog was made")
        ids = stamps.read_objects(block.index)["object_id"].to_pylist()
        found = block.start, {identity: place for place, identity in reversed(list(enumerate(ids)))}
        with self._lock:
            self._blocks[unit] = found
            while len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        return found

    # Surveys

    def _cut(self, survey: Survey, row: Mapping[str, Any], side: int) -> Stamp:
        info = self._info(survey, row["tile"])
        left = int(stamp_origin(np.array([row["x"]]), side)[0]) - info.outer.x0
        top = int(stamp_origin(np.array([row["y"]]), side)[0]) - info.outer.y0
        image = self._window(survey, "image", info, left, top, side, np.nan)
        mask = self._window(survey, "mask", info, left, top, side, 1) if info.has_mask else None
        bits = pixel_bits(image, None, None if mask is None else mask.astype(np.uint32))
        return image, bits == 0

    def _window(
        self, survey: Survey, name: str, info: TileInfo, left: int, top: int, side: int, outside: float
    ) -> NDArray[np.generic]:
        """(band, side, side) of a tile's array, `outside` where the tile ends: only the chunks it touches are read."""
        with self._lock:  # arrays are opened once
            array = survey.array(name)
        height, width = array.shape[-2:]
        window = np.full((array.shape[1], side, side), outside, array.dtype)
        y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
        if y1 > y0 and x1 > x0:
            inside = (slice(None), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
            window[inside] = array[info.index, :, y0:y1, x0:x1]
        return window

    def _info(self, survey: Survey, unit: str) -> TileInfo:
        with self._lock:
            if unit in self._infos:
                return self._infos[unit]
            if not self._numbers:
                table = survey.index_table()
                self._numbers = dict(zip(table["name"].to_pylist(), table["index"].to_pylist(), strict=True))
            if unit not in self._numbers:
                raise InputError(f"the source has no tile {unit}: it was replaced since the catalog was made")
            self._infos[unit] = survey.tile(self._numbers[unit])
            return self._infos[unit]


def _centred(image: NDArray[np.generic], usable: Bool, side: int) -> Stamp:
    """`side` pixels about the centre pixel, size // 2; what lies outside cannot be used."""
    if image.shape[-2:] == (side, side):
        return image, usable
    wide = np.zeros((len(image), side, side), image.dtype)
    good = np.zeros(wide.shape, bool)
    spans = [_span(length, side) for length in image.shape[-2:]]
    into, taken = ((slice(None), *(span[part] for span in spans)) for part in (0, 1))
    wide[into], good[into] = image[taken], usable[taken]
    return wide, good


def _span(length: int, side: int) -> tuple[slice, slice]:
    """(into the new axis, out of the old one)."""
    start = length // 2 - side // 2
    first, last = max(start, 0), min(start + side, length)
    return slice(first - start, last - start), slice(first, last)
