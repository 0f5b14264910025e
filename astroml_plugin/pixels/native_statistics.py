"""Sums of `networks.stamp_statistics` by compiled code (see `pixels.native`)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np

from astroml_plugin.pixels.native import Array, Shape, address, call, planes

RINGS = ("light", "wide", "all", "odd")
"""Names of the tables: rings of the bands' light; of squares, products and steps; of the squares of all bands
together; and of their differences under half a turn."""

_KINDS, _LAGS, _BEYOND = 8, 3, 2


class _Rings(ctypes.Structure):
    _fields_ = [("rings", ctypes.c_int64), ("reach", ctypes.c_void_p), ("weights", ctypes.c_void_p)]


class _Tables(ctypes.Structure):
    _fields_ = [
        *((name, _Rings) for name in RINGS),
        *(("steps", ctypes.c_void_p), ("corner", ctypes.c_int64), ("block", ctypes.c_int64)),
    ]


class Tables:
    """Weights of pixels as `networks.stamp_statistics` has them, for stamps of one size.

    Args:
        rings: names of `RINGS` -> (h, w, rings) float32, alike at the same distances from pixel side // 2 along both
            axes.
        steps: (3, wide rings) float32, factors of the means of steps.
        corner: side of the corners, a multiple of 8.
        block: side of the blocks.

    Raises:
        ValueError: corners that do not fit.
    """

    def __init__(self, rings: Mapping[str, Array], steps: Array, corner: int, block: int) -> None:
        height, width = int(rings["light"].shape[0]), int(rings["light"].shape[1])
        self.size = height, width
        if corner % 8 or not 0 < corner + _BEYOND <= min(height, width) or len(steps) != _LAGS:
            raise ValueError(f"corners of {corner} pixels of stamps of {height} x {width}")
        self.rings = {name: int(rings[name].shape[2]) for name in RINGS}
        self.corner, self.block = corner, block
        self._kept: list[Array] = [np.ascontiguousarray(steps, np.float32)]
        given = [self._folded(rings[name]) for name in RINGS]
        self.given = _Tables(*given, address(self._kept[0]), corner, block)

    def _folded(self, weights: Array) -> _Rings:
        middle = self.size[0] // 2 + 1, self.size[1] // 2 + 1
        quarter = weights[: middle[0], : middle[1]][::-1, ::-1].transpose(2, 0, 1)  # all distances that there are
        flat = np.ascontiguousarray(quarter.reshape(len(quarter), -1), np.float32)
        reach = np.array([1 + max(np.flatnonzero(ring), default=-1) for ring in flat], np.int64)
        self._kept += [flat, reach]
        return _Rings(len(flat), address(reach), address(flat))

    def length(self, bands: int) -> int:
        """Numbers of a stamp."""
        light, wide, whole, odd = (self.rings[name] for name in RINGS)
        blocks = (self.size[0] // self.block) * (self.size[1] // self.block)
        return bands * (light + wide + _KINDS) + (bands - 1) * wide + whole + odd + _LAGS * wide + blocks


def sums(image: Array, tables: Tables) -> Array:
    """(n, numbers) of `networks.stamp_statistics.PixelSums`, of stamps (n, bands, h, w) float32.

    Raises:
        ValueError: stamps of another size than the tables are for.
    """
    if image.shape[2:] != tables.size:
        raise ValueError(f"stamps of {image.shape[2:]} pixels, and tables for {tables.size}")
    out = np.empty((len(image), tables.length(image.shape[1])), np.float32)
    pixels, own = planes(image, np.float32)
    call(
        "astroml_statistics",
        *(ctypes.byref(pixels), ctypes.byref(Shape(*image.shape)), ctypes.byref(tables.given), out),
    )
    del own
    return out
