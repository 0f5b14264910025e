"""The PSF from stars in the cells of a tile."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import F32
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.star_psf.measuring import LARGEST, StarPsf

_CELL = 256
"""Side in pixels of a cell, about."""
_MOST = 12
"""Cells along each axis of a tile."""


def cells_shape(tile_size: int, largest: tuple[int, int]) -> tuple[int, int, int, int]:
    """Shape of the PSF cells of a new survey's tiles, (cell, cell, y, x).

    Args:
        tile_size: outer side of the tiles in pixels.
        largest: (height, width) of the largest PSF that a file brings; (0, 0) where none does.
    """
    count = int(np.clip(round(tile_size / _CELL), 1, _MOST))
    return count, count, max(LARGEST, largest[0]), max(LARGEST, largest[1])


def psf_cells(stars: StarPsf, outer: Box, shape: tuple[int, int], psf_shape: tuple[int, ...]) -> F32:
    """(cell, cell, y, x) PSF in the middle of each cell, of unit sum, its middle at pixel size // 2.

    Args:
        stars: the PSF of the image.
        outer: pixels of the tile in the image.
        shape: (height, width) of the image: cells beyond it have the PSF of its border.
        psf_shape: that of the survey.
    """
    rows, columns, height, width = psf_shape
    x = outer.x0 + (np.arange(columns) + 0.5) * outer.width / columns - 0.5
    y = outer.y0 + (np.arange(rows) + 0.5) * outer.height / rows - 0.5
    across, up = np.meshgrid(np.clip(x, 0, shape[1] - 1), np.clip(y, 0, shape[0] - 1))
    found = stars.at(across.ravel(), up.ravel())
    half = min(found.shape[-1] // 2, (height - 1) // 2, (width - 1) // 2)
    middle = found.shape[-1] // 2
    found = found[:, middle - half : middle + half + 1, middle - half : middle + half + 1]
    placed = np.zeros((len(found), height, width))
    placed[:, height // 2 - half : height // 2 + half + 1, width // 2 - half : width // 2 + half + 1] = found
    placed /= placed.sum((1, 2), keepdims=True)
    return placed.reshape(rows, columns, height, width).astype(np.float32)
