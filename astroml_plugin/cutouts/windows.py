"""Windows over a tile for networks that answer pixel by pixel, and the maps stitched from their centres.

Windows begin at multiples of the network's stride in the parent image's pixels, so that strides keep their phase in any
tiling. Only their centres are used: a pixel's answer is the same in every tile that holds the receptive field around
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts.device_tile import DeviceTile
from astroml_plugin.cutouts.stamps import Cutouts, cut

Bounds = tuple[int, int, int, int]
"""Half-open pixels (x0, y0, x1, y1) of a parent image."""


@dataclass(frozen=True)
class Grid:
    """The windows whose centres cover a box of a parent image."""

    bounds: Bounds
    """The box."""
    step: tuple[int, int]
    """(height, width) of a centre."""
    margin: int
    """Pixels at each side of a window whose answers are thrown away."""
    left: np.ndarray
    """(n,) int64: first column of each window in the parent image."""
    top: np.ndarray
    """(n,) int64: first row."""

    def __len__(self) -> int:
        return len(self.left)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the box."""
        return self.bounds[3] - self.bounds[1], self.bounds[2] - self.bounds[0]

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of a window."""
        return self.step[0] + 2 * self.margin, self.step[1] + 2 * self.margin

    def cutouts(self, tile: DeviceTile, origin: tuple[int, int], batch: int) -> Iterator[Cutouts]:
        """Batches of windows, gathered on the device; what lies outside the tile is not valid and flagged EDGE.

        Args:
            tile: the tile on the device.
            origin: parent pixel (x0, y0) of the tile's first pixel.
            batch: windows at once, at most.
        """
        for start in range(0, len(self), batch):
            part = slice(start, start + batch)
            yield cut(tile, self.left[part] - origin[0], self.top[part] - origin[1], self.window)

    def empty_maps(self, channels: int, device: torch.device | str) -> Tensor:
        """(channels, height, width) float32 to `put` answers into."""
        return torch.empty((channels, *self.shape), device=device)

    def put(self, maps: Tensor, outputs: Tensor, first: int) -> None:
        """Stitch the centres of windows into the maps.

        Args:
            maps: of `empty_maps`.
            outputs: (n, channels, height, width), the answers for windows `first` … `first` + n - 1.
            first: number of the first window.
        """
        x0, y0, x1, y1 = self.bounds
        for number, answer in enumerate(outputs, first):
            left, top = int(self.left[number]), int(self.top[number])
            from_x, to_x = max(x0, left + self.margin), min(x1, left + self.margin + self.step[1])
            from_y, to_y = max(y0, top + self.margin), min(y1, top + self.margin + self.step[0])
            centre = answer[:, from_y - top : to_y - top, from_x - left : to_x - left]
            maps[:, from_y - y0 : to_y - y0, from_x - x0 : to_x - x0] = centre


def grid(bounds: Bounds, *, size: int, overlap: int, stride: int = 1) -> Grid:
    """The windows over a box, row by row: as few of at most `size` as will do, and no larger than they must be.

    Args:
        bounds: half-open pixels (x0, y0, x1, y1) of the parent image.
        size: largest side of a window, a multiple of `stride`.
        overlap: pixels at each side of a window that are thrown away, at least the network's receptive radius; made a
            multiple of `stride`.
        stride: total stride of the network.

    Raises:
        InputError: no centre is left, or `size` is no multiple of `stride`.
    """
    margin = -(-overlap // stride) * stride
    largest = size - 2 * margin
    if stride < 1 or size % stride or overlap < 0 or largest < 1:
        raise InputError(
            f"windows of {size} px cannot have an overlap of {overlap} px at a stride of {stride}: "
            f"the window must be a multiple of the stride and larger than twice the overlap"
        )
    columns, width = _along(bounds[0], bounds[2], largest, stride)
    rows, height = _along(bounds[1], bounds[3], largest, stride)
    left, top = np.tile(columns, len(rows)), np.repeat(rows, len(columns))
    return Grid(bounds, (height, width), margin, left - margin, top - margin)


def _along(start: int, stop: int, largest: int, stride: int) -> tuple[np.ndarray, int]:
    """First pixels and side of the centres that cover [start, stop)."""
    first = start // stride * stride
    length = stop - first
    side = -(-length // (-(-length // largest) * stride)) * stride
    return first + np.arange(-(-length // side), dtype=np.int64) * side, side
