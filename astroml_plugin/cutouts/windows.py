"""Windows over a tile for networks that answer pixel by pixel, and the maps stitched from their centres.

Windows lie on one grid of the parent image, whatever its tiling: they begin at k * step - margin, so that strides keep
their phase and neighbouring tiles look through the very same windows. Only the centres are used, `step` wide: a pixel's
answer is the same in every tile that holds `margin` pixels around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.cutouts.pixels import DeviceTile
from astroml_plugin.cutouts.stamps import Cutouts, cut
from astroml_plugin.errors import InputError

Bounds = tuple[int, int, int, int]
"""Half-open pixels (x0, y0, x1, y1) of a parent image."""


@dataclass(frozen=True)
class Grid:
    """The windows whose centres cover a box of a parent image."""

    bounds: Bounds
    """The box."""
    size: int
    """Side of a window, pixels."""
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

    def cutouts(self, tile: DeviceTile, origin: tuple[int, int], batch: int) -> Iterator[Cutouts]:
        """Batches of windows, gathered on the device; what lies outside the tile is not valid and flagged EDGE.

        Args:
            tile: the tile on the device.
            origin: parent pixel (x0, y0) of the tile's first pixel.
            batch: windows at once, at most.
        """
        for start in range(0, len(self), batch):
            part = slice(start, start + batch)
            yield cut(tile, self.left[part] - origin[0], self.top[part] - origin[1], self.size)

    def empty_maps(self, channels: int, device: torch.device | str) -> Tensor:
        """(channels, height, width) float32 to `put` answers into."""
        return torch.empty((channels, *self.shape), device=device)

    def put(self, maps: Tensor, outputs: Tensor, first: int) -> None:
        """Stitch the centres of windows into the maps.

        Args:
            maps: of `empty_maps`.
            outputs: (n, channels, size, size), the answers for windows `first` … `first` + n - 1.
            first: number of the first window.
        """
        x0, y0, x1, y1 = self.bounds
        step = self.size - 2 * self.margin
        for number, answer in enumerate(outputs, first):
            left, top = int(self.left[number]), int(self.top[number])
            from_x, to_x = max(x0, left + self.margin), min(x1, left + self.margin + step)
            from_y, to_y = max(y0, top + self.margin), min(y1, top + self.margin + step)
            centre = answer[:, from_y - top : to_y - top, from_x - left : to_x - left]
            maps[:, from_y - y0 : to_y - y0, from_x - x0 : to_x - x0] = centre


def grid(bounds: Bounds, *, size: int, overlap: int, stride: int = 1) -> Grid:
    """The windows over a box, row by row.

    Args:
        bounds: half-open pixels (x0, y0, x1, y1) of the parent image.
        size: side of a window, a multiple of `stride`.
        overlap: pixels at each side of a window that are thrown away, at least the network's receptive radius; made a
            multiple of `stride`.
        stride: total stride of the network.

    Raises:
        InputError: no centre is left, or `size` is no multiple of `stride`.
    """
    margin = -(-overlap // stride) * stride
    step = size - 2 * margin
    if stride < 1 or size % stride or overlap < 0 or step < 1:
        raise InputError(
            f"windows of {size} px cannot have an overlap of {overlap} px at a stride of {stride}: "
            f"the window must be a multiple of the stride and larger than twice the overlap"
        )
    x0, y0, x1, y1 = bounds
    columns = np.arange(x0 // step, -(-x1 // step), dtype=np.int64) * step - margin
    rows = np.arange(y0 // step, -(-y1 // step), dtype=np.int64) * step - margin
    return Grid(bounds, size, margin, np.tile(columns, len(rows)), np.repeat(rows, len(columns)))
