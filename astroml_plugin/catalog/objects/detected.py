"""Identity of detected objects: ids that do not depend on the tiling."""

from __future__ import annotations

import hashlib

import numpy as np

from astroml_plugin.core.typing import I64
from astroml_plugin.sky.wcs import Wcs, healpix29
from astroml_plugin.sources.tile_table import TileInfo

_PIXEL_IDS = 1 << 62
"""Ids from here on are those of pixels without a sky position: HEALPix indices of order 29 end at 12 * 4^29 < 2^62."""

_PIXEL_BITS = 40
"""Bits of such an id that number the pixels of an image; 22 bits tell images apart."""


def object_ids(info: TileInfo, wcs: Wcs | None, peak_x: I64, peak_y: I64) -> I64:
    """The ids of objects by the pixels of their peaks.

    The HEALPix index (order 29, nested: cells of 0.4 mas) of the pixel's centre on the sky; where there is none, a
    number above 2^62 made of the image's name and the pixel's index.

    Args:
        info: tile.
        wcs: of the tile's array.
        peak_x, peak_y: (n,) pixels of the parent image.
    """
    image = int.from_bytes(hashlib.sha256(info.image.encode()).digest()[:8], "big") >> 42
    plain = _PIXEL_IDS + (image << _PIXEL_BITS) + peak_y * info.image_shape[1] + peak_x
    if wcs is None or not len(peak_x):
        return np.asarray(plain, np.int64)
    cells = healpix29(*wcs.to_sky(peak_x - info.outer.x0, peak_y - info.outer.y0))
    return np.where(cells >= 0, cells, plain)
