"""Outlines of objects as the label maps of their catalog have them, pixel by pixel of their stamps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.sources.tile_table import TileInfo


@dataclass(frozen=True)
class TileLabels:
    """The label map of one tile."""

    labels: np.ndarray
    """(y, x) uint32 over the tile's outer box: 0 background, else `label_id`."""
    corner: tuple[int, int]
    """Parent pixel x, y of its first pixel."""

    def outlines(self, rows: pa.Table, at: Tensor, steps: F64, side: int) -> Bool:
        """(n, side, side) pixels of stamps that belong to their objects; none where an object has no label here.

        Args:
            rows: label_id, x and y of n objects; x, y in pixels of the parent image.
            at: (n, 2) int64, pixel x, y of each object in its stamp.
            steps: (n,) sides of the pixels of each stamp, in pixels of the parent image.
            side: of a stamp, pixels.
        """
        places = at.cpu().numpy()
        across, up = (
            nearest_pixels(np.asarray(rows[axis], np.float64), places[:, number], steps, side) - self.corner[number]
            for number, axis in enumerate("xy")
        )
        height, width = self.labels.shape
        inside = _within(up, height)[:, :, None] & _within(across, width)[:, None, :]
        found = self.labels[up.clip(0, height - 1)[:, :, None], across.clip(0, width - 1)[:, None, :]]
        wanted = pc.fill_null(rows["label_id"], 0).to_numpy()[:, None, None]
        mine: Bool = inside & (found == wanted) & (wanted > 0)
        return mine


def nearest_pixels(position: F64, place: I64, steps: F64, side: int) -> I64:
    """(n, side) pixel of the parent image that is nearest to each pixel of a stamp, along one axis.

    Args:
        position: (n,) of the objects in the parent image.
        place: (n,) pixel of each object in its stamp.
        steps: (n,) as of `TileLabels.outlines`.
        side: of a stamp.
    """
    first = np.floor((position + 0.5) / steps) - place
    centres = (first[:, None] + np.arange(side) + 0.5) * steps[:, None] - 0.5
    return np.floor(centres + 0.5).astype(np.int64)


def _within(pixels: I64, length: int) -> Bool:
    return np.asarray((pixels >= 0) & (pixels < length))


def labelled_tiles(catalog: Catalog) -> frozenset[int]:
    """Indices of the tiles of a catalog that have a label map; empty where there are none."""
    try:
        return frozenset(LabelMaps.open(catalog.url).present())
    except InputError:  # the objects were given, or maps were not wanted
        return frozenset()


def read_tile_labels(catalog: str, info: TileInfo) -> TileLabels:
    """The label map of a tile.

    Raises:
        CorruptError: its bytes do not verify.
    """
    return TileLabels(LabelMaps.open(catalog).read(info.index), (info.outer.x0, info.outer.y0))
