"""The part of a tile that a few objects need, and whether reading only that part is cheaper than reading all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.typing import I64
from astroml_plugin.sky.wcs import Box


@dataclass(frozen=True)
class ReadCost:
    """Rough cost of reading from a store: the choice matters only where one way is several times cheaper."""

    latency: float
    """Seconds of one read, the call included."""
    rate: float
    """Decoded bytes per second."""


LOCAL = ReadCost(latency=2e-3, rate=1e9)
"""A local disk: 2 ms are what a call of zarr takes."""

REMOTE = ReadCost(latency=60e-3, rate=1e8)
"""An object store: an index and a range of the shard, one after the other."""


def chunk_boxes(left: I64, top: I64, size: int, chunk: int, side: tuple[int, int]) -> list[Box]:
    """The chunks that stamps lie on, neighbours along x joined, so that each box is one read.

    Args:
        left, top: (n,) first pixels of the stamps in the tile.
        size: stamp side in pixels.
        chunk: side of a chunk.
        side: (height, width) of the tile.

    Returns:
        Disjoint boxes in the tile's pixels, made of whole chunks (cut off at the tile's end).
    """
    height, width = side
    needed = np.zeros((-(-height // chunk), -(-width // chunk)), bool)
    rows, columns = _span(top, size, chunk, height), _span(left, size, chunk, width)
    for row0, row1, column0, column1 in zip(*rows, *columns):
        needed[row0 : row1 + 1, column0 : column1 + 1] = True
    boxes = []
    for row, flags in enumerate(needed):
        edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2).tolist():
            boxes.append(Box(first * chunk, row * chunk, min(last * chunk, width), min((row + 1) * chunk, height)))
    return boxes


def _span(start: I64, size: int, chunk: int, side: int) -> tuple[list[int], list[int]]:
    """First and last chunk of each stamp along one axis."""
    first, last = np.clip(start, 0, side - 1), np.clip(start + size - 1, 0, side - 1)
    return (first // chunk).tolist(), (last // chunk).tolist()


def is_cheaper(boxes: list[Box], side: tuple[int, int], pixel_bytes: int, arrays: int, store: ReadCost) -> bool:
    """Whether reading `boxes` alone is estimated to be cheaper than reading the tile.

    Args:
        boxes: from `chunk_boxes`.
        side: (height, width) of the tile.
        pixel_bytes: bytes of one pixel position, all bands of all arrays.
        arrays: number of arrays that each box is read from.
        store: cost of a read there.
    """
    area = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in boxes)
    parts = arrays * len(boxes) * store.latency + area * pixel_bytes / store.rate
    return parts < arrays * store.latency + side[0] * side[1] * pixel_bytes / store.rate
